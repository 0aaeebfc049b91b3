//! The contract in the `.proto` files as lines of text: one for each message, field, enum value and
//! call, and one for each of our options of a call. A later contract is compatible if it still has every line of a released one. Limits and
//! meanings that only comments state are not part of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto,
};
use protox::prost_reflect::DescriptorPool;

/// A contract, one statement a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contract(BTreeSet<String>);

impl Contract {
    /// Compiles every `.proto` file below `folder`.
    pub fn compile(folder: &Path) -> Result<Self> {
        let files = proto_files(folder)?;
        let compiled = protox::Compiler::new([folder]).and_then(|mut compiler| {
            compiler.include_imports(true).open_files(&files)?;
            Ok((compiler.file_descriptor_set(), compiler.descriptor_pool()))
        });
        let (files, pool) = compiled.map_err(|error| {
            anyhow::anyhow!("compile the .proto files in {}: {error:?}", folder.display())
        })?;
        let mut contract = Self::of(&files);
        add_call_options(&mut contract.0, &pool);
        Ok(contract)
    }

    /// Reads what [`Contract::to_text`] wrote.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(str::to_owned).collect())
    }

    /// The statements in order, for a file that a person reviews.
    pub fn to_text(&self) -> String {
        self.0.iter().fold(String::new(), |text, line| text + line + "\n")
    }

    /// Statements of `released` that do not hold any more.
    pub fn broken(&self, released: &Self) -> Vec<String> {
        released.0.difference(&self.0).cloned().collect()
    }

    /// Number of statements.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns true if there are no statements.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn of(compiled: &FileDescriptorSet) -> Self {
        let mut lines = BTreeSet::new();
        for file in &compiled.file {
            let package = file.package();
            if !package.starts_with("muster.") {
                continue;
            }
            file.message_type.iter().for_each(|one| add_message(&mut lines, package, one));
            file.enum_type.iter().for_each(|one| add_enum(&mut lines, package, one));
            file.service.iter().for_each(|one| add_service(&mut lines, package, one));
        }
        Self(lines)
    }
}

fn proto_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        let entries = std::fs::read_dir(&folder);
        for entry in entries.with_context(|| format!("read {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "proto") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn add_message(lines: &mut BTreeSet<String>, parent: &str, message: &DescriptorProto) {
    let name = format!("{parent}.{}", message.name());
    lines.insert(format!("message {name}"));
    for field in &message.field {
        lines.insert(format!("{name} {}", self::field(field, message)));
    }
    message.nested_type.iter().for_each(|one| add_message(lines, &name, one));
    message.enum_type.iter().for_each(|one| add_enum(lines, &name, one));
}

/// Number, name and type of a field, and the oneof that it is in.
fn field(field: &FieldDescriptorProto, message: &DescriptorProto) -> String {
    let label = match field.label() {
        Label::Repeated => "repeated ",
        Label::Required => "required ",
        Label::Optional if field.proto3_optional() => "optional ",
        Label::Optional => "",
    };
    let kind = match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
        other => other.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    let oneof = field.oneof_index.filter(|_| !field.proto3_optional());
    let oneof = oneof.and_then(|index| message.oneof_decl.get(usize::try_from(index).ok()?));
    let group = oneof.map(|oneof| format!(", in oneof {}", oneof.name())).unwrap_or_default();
    format!("{} {}: {label}{kind}{group}", field.number(), field.name())
}

fn add_enum(lines: &mut BTreeSet<String>, parent: &str, one: &EnumDescriptorProto) {
    for value in &one.value {
        lines.insert(format!("enum {parent}.{} {} {}", one.name(), value.number(), value.name()));
    }
}

fn add_service(lines: &mut BTreeSet<String>, package: &str, service: &ServiceDescriptorProto) {
    for call in &service.method {
        let side = |is_streamed: bool, name: &str| {
            let stream = if is_streamed { "stream " } else { "" };
            format!("{stream}{}", name.trim_start_matches('.'))
        };
        let request = side(call.client_streaming(), call.input_type());
        let reply = side(call.server_streaming(), call.output_type());
        lines.insert(format!(
            "call {package}.{}/{} {request} -> {reply}",
            service.name(),
            call.name()
        ));
    }
}

/// The options that our files define, such as the roles that may make a call.
fn add_call_options(lines: &mut BTreeSet<String>, pool: &DescriptorPool) {
    for service in pool.services().filter(|service| service.full_name().starts_with("muster.")) {
        for call in service.methods() {
            for (option, value) in call.options().extensions() {
                let (service, call) = (service.full_name(), call.name());
                lines.insert(format!("option {service}/{call} {}: {value}", option.full_name()));
            }
        }
    }
}
