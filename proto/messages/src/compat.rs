//! Encoded samples of every message, with a value in each of its fields. See `muster_compat`.
//!
//! The samples come from the descriptors, not from the types: a number or a kind of a field that the
//! types read otherwise is found.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use data_encoding::HEXLOWER;
use muster_compat::{BLESS, sample, with_new_field_protobuf, write_once};
use prost::Message;
use protox::prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};

include!(concat!(env!("OUT_DIR"), "/reencode.rs"));

/// Messages within messages, at most; a message may contain its own kind.
const DEPTH: u32 = 3;

/// Decodes a message and encodes it again.
fn again<T: Message + Default + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Vec<u8> {
    let message = T::decode(bytes).expect("a sample");
    let extended = T::decode(&*with_new_field_protobuf(bytes)).expect("a sample with a new field");
    assert_eq!(extended, message);
    message.encode_to_vec()
}

fn pool() -> DescriptorPool {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let mut compiler = protox::Compiler::new([root]).unwrap();
    for entry in fs::read_dir(Path::new(root).join("muster")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        compiler.open_file(format!("muster/{name}/v1/{name}.proto")).unwrap();
    }
    compiler.descriptor_pool()
}

fn single(field: &FieldDescriptor, depth: u32) -> Option<Value> {
    let number = field.number();
    Some(match field.kind() {
        Kind::Double => Value::F64(f64::from(number) + 0.5),
        Kind::Float => Value::F32(0.5),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(-300),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(-1_700_000_000_000),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(300 + number),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(1_700_000_000_000 + u64::from(number)),
        Kind::Bool => Value::Bool(true),
        Kind::String => Value::String(field.name().to_owned()),
        Kind::Bytes => Value::Bytes(vec![u8::try_from(number).unwrap(); 4].into()),
        Kind::Enum(kind) => Value::EnumNumber(kind.values().last()?.number()),
        Kind::Message(message) => Value::Message(filled(&message, depth.checked_sub(1)?, None)),
    })
}

/// A message with a value in each field. Of each group of alternatives (`oneof`) it has the first,
/// or the `chosen` one.
fn filled(
    message: &MessageDescriptor,
    depth: u32,
    chosen: Option<&FieldDescriptor>,
) -> DynamicMessage {
    let mut filled = DynamicMessage::new(message.clone());
    let oneof = chosen.and_then(FieldDescriptor::containing_oneof);
    for field in message.fields() {
        let group = field.containing_oneof();
        let is_taken = group.as_ref().is_some_and(|group| match &oneof {
            Some(oneof) if oneof == group => chosen != Some(&field),
            _ => group.fields().any(|other| filled.has_field(&other)),
        });
        if is_taken {
            continue;
        }
        let value = if field.is_map() {
            let Kind::Message(entry) = field.kind() else { continue };
            single(&entry.map_entry_value_field(), depth)
                .map(|value| Value::Map([(MapKey::String("key".to_owned()), value)].into()))
        } else if field.is_list() {
            single(&field, depth).map(|value| Value::List(vec![value.clone(), value]))
        } else {
            single(&field, depth)
        };
        if let Some(value) = value {
            filled.set_field(&field, value);
        }
    }
    filled
}

/// The samples of each message by a name: one, and one more for each further alternative.
fn samples(message: &MessageDescriptor) -> Vec<(String, DynamicMessage)> {
    let mut samples = vec![(message.full_name().to_owned(), filled(message, DEPTH, None))];
    for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
        for field in oneof.fields().skip(1) {
            let name = format!("{}/{}", message.full_name(), field.name());
            samples.push((name, filled(message, DEPTH, Some(&field))));
        }
    }
    samples
}

/// Every sample in the folder is read; the last one of each message is what this version writes. A
/// message that gains a field gains a line.
#[test]
fn messages_are_read_as_they_were_written() {
    let mut files: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for message in pool().all_messages() {
        let package = message.package_name().to_owned();
        if !package.starts_with("muster.") || message.parent_message().is_some() {
            continue;
        }
        for (name, sample) in samples(&message) {
            let bytes = sample.encode_to_vec();
            let read = reencode(message.full_name(), &bytes);
            let read = DynamicMessage::decode(message.clone(), &*read).unwrap();
            assert_eq!(read, sample, "{name}");
            files.entry(package.clone()).or_default().insert(name, HEXLOWER.encode(&bytes));
        }
    }
    assert_eq!(files.len(), 4, "packages");
    for (package, written) in files {
        let file = format!("messages/{package}.txt");
        let lines = |(name, bytes): (&String, &String)| format!("{name} {bytes}\n");
        let all: String = written.iter().map(lines).collect();
        if std::env::var_os(BLESS).is_some() {
            write_once(&file, all.as_bytes());
        }
        let samples = String::from_utf8(sample(&file)).unwrap();
        let mut newest = BTreeMap::new();
        for line in samples.lines() {
            let (name, hex) = line.split_once(' ').unwrap();
            let bytes = HEXLOWER.decode(hex.as_bytes()).unwrap();
            let message = name.rsplit_once('/').map_or(name, |(message, _)| message);
            reencode(message, &bytes);
            newest.insert(name.to_owned(), hex.to_owned());
        }
        for (name, hex) in &written {
            let line = format!("{name} {hex}");
            assert_eq!(newest.get(name), Some(hex), "append to samples/{file}:\n{line}\n");
        }
    }
}
