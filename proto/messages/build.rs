//! Compiles the messages without a `protoc`: protox parses, prost generates. Also generates the table
//! of operator calls from the option `access` of each method, and a table of all messages for tests.

use std::fmt::Write as _;
use std::path::Path;

use protox::prost_reflect::{DescriptorPool, ExtensionDescriptor, MethodDescriptor, Value};

const SERVICE: &str = "muster.operator.v1.Operator";
const ACCESS: &str = "muster.operator.v1.access";

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=proto");
    let files = [
        "muster/gossip/v1/gossip.proto",
        "muster/hello/v1/hello.proto",
        "muster/node/v1/node.proto",
        "muster/operator/v1/operator.proto",
    ];
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).open_files(files)?;
    let pool = compiler.descriptor_pool();
    let mut contract = compiler.file_descriptor_set();
    // Only the options use it.
    contract.file.retain(|file| file.package() != "google.protobuf");
    prost_build::Config::new().include_file("messages.rs").compile_fds(contract)?;
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(Path::new(&out).join("calls.rs"), call_table(&pool)?)?;
    Ok(std::fs::write(Path::new(&out).join("reencode.rs"), reencode_table(&pool)?)?)
}

/// Returns a function that decodes and encodes a message of any type, for the tests.
fn reencode_table(pool: &DescriptorPool) -> Result<String> {
    let mut table = String::from("fn reencode(name: &str, bytes: &[u8]) -> Vec<u8> {\n");
    table.push_str("    match name {\n");
    for message in pool.all_messages().filter(|message| !message.is_map_entry()) {
        let package = message.package_name();
        if package.starts_with("muster.") && message.parent_message().is_none() {
            let (path, name) = (package.replace('.', "::"), message.name());
            let full = message.full_name();
            writeln!(table, "        {full:?} => again::<crate::{path}::{name}>(bytes),")?;
        }
    }
    table.push_str("        _ => panic!(\"no message {name}\"),\n    }\n}\n");
    Ok(table)
}

/// Returns the arguments of the macro `calls!`: for each call its doc comment, name, path and roles.
fn call_table(pool: &DescriptorPool) -> Result<String> {
    let service = pool.get_service_by_name(SERVICE).ok_or("no service")?;
    let access = pool.get_extension_by_name(ACCESS).ok_or("no option `access`")?;
    let mut table = String::from("calls! {\n");
    for method in service.methods() {
        let roles = roles(&method, &access)?.join(" ");
        let name = method.name();
        writeln!(table, "    {name} \"/{SERVICE}/{name}\": {roles};")?;
    }
    table.push_str("}\n");
    Ok(table)
}

/// Returns the names of the roles that may make a call, in CamelCase. `admin` is one of them.
fn roles(method: &MethodDescriptor, access: &ExtensionDescriptor) -> Result<Vec<String>> {
    let options = method.options();
    let access = options.get_extension(access);
    let roles = access.as_message().and_then(|access| access.get_field_by_name("roles"));
    let roles = roles.as_deref().and_then(Value::as_list).unwrap_or_default().to_vec();
    let role_enum = method.parent_pool().get_enum_by_name("muster.operator.v1.Access.Role");
    let role_enum = role_enum.ok_or("no enum of roles")?;
    let mut names = Vec::new();
    for role in roles {
        let value = role.as_enum_number().and_then(|number| role_enum.get_value(number));
        let value = value.filter(|value| value.number() != 0).ok_or("unknown role")?;
        let name = value.name().trim_start_matches("ROLE_").to_lowercase();
        names.push(name[..1].to_uppercase() + &name[1..]);
    }
    if names.iter().any(|name| name == "Admin") {
        Ok(names)
    } else {
        let name = method.full_name();
        Err(format!("{name}: the option `access` must list ROLE_ADMIN and the other roles").into())
    }
}
