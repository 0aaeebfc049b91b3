//! Generates clients and servers of the three services; their messages are those of
//! `muster-messages`. Also generates a macro with every call of the operator API.

use std::fmt::Write as _;
use std::path::Path;

use protox::prost_reflect::ServiceDescriptor;
use protox::prost_reflect::prost_types::FileDescriptorSet;

const OPERATOR: &str = "muster.operator.v1.Operator";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../messages/proto");
    let files = [
        "muster/hello/v1/hello.proto",
        "muster/node/v1/node.proto",
        "muster/operator/v1/operator.proto",
    ];
    let mut compiler = protox::Compiler::new(["../messages/proto"])?;
    compiler.include_imports(true).open_files(files)?;
    let operator = compiler.descriptor_pool().get_service_by_name(OPERATOR).ok_or("no service")?;
    let calls = Path::new(&std::env::var("OUT_DIR")?).join("operator_calls.rs");
    std::fs::write(calls, operator_calls(&operator)?)?;
    let mut contract = compiler.file_descriptor_set();
    // Only the options use it.
    contract.file.retain(|file| file.package() != "google.protobuf");
    let (operator, members): (Vec<_>, Vec<_>) =
        contract.file.into_iter().partition(|file| OPERATOR.starts_with(file.package()));
    let builder = || {
        tonic_prost_build::configure()
            .build_transport(false)
            .extern_path(".muster.hello.v1", "::muster_messages::hello")
            .extern_path(".muster.node.v1", "::muster_messages::node")
            .extern_path(".muster.operator.v1", "::muster_messages::operator")
    };
    let members = FileDescriptorSet { file: members };
    builder().include_file("member_services.rs").compile_fds(members)?;
    // A scripted operator API in a test implements only the calls that it needs.
    let operator = FileDescriptorSet { file: operator };
    let builder = builder().generate_default_stubs(true);
    builder.include_file("operator_service.rs").compile_fds(operator)?;
    Ok(())
}

/// Returns the macro `for_each_operator_call`. It passes each call to another macro: its name, its
/// method, the type of its request and the type of its reply.
fn operator_calls(service: &ServiceDescriptor) -> Result<String, std::fmt::Error> {
    let mut text = String::from(
        "/// Passes every call of the operator API to the macro `$callback`: call, method, request, reply.\n\
         #[macro_export]\n\
         macro_rules! for_each_operator_call {\n    ($callback:ident) => {\n        $callback! {\n",
    );
    for method in service.methods() {
        let (input, output) = (method.input(), method.output());
        let message = |name: &str| format!("::muster_messages::operator::{name}");
        let reply = message(output.name());
        let reply = if method.is_server_streaming() {
            format!("$crate::BoxStream<{reply}>")
        } else {
            reply
        };
        let (name, request) = (method.name(), message(input.name()));
        writeln!(text, "            {name} {} {request}, {reply};", snake_case(name))?;
    }
    text.push_str("        }\n    };\n}\n");
    Ok(text)
}

fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}
