//! Encoded samples of every stored or sent format, and inputs as a newer version would write them.
//!
//! A sample is a file in `tests/compat/samples`: text as it is, bytes as lines of hexadecimal. A
//! released sample is never changed or deleted. When an encoding gains a field, the new encoding
//! is a further sample, and the old one must still decode.

use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use rmpv::Value;

/// Environment variable that makes [`check`] write the samples that do not exist yet.
pub const BLESS: &str = "MUSTER_BLESS";

/// Name of the field that the functions below add, of a kind that no version has had.
pub const NEW_FIELD: &str = "addedByANewerVersion";

/// Field number of the same, for protobuf: the largest one.
const NEW_FIELD_NUMBER: u64 = (1 << 29) - 1;

/// Bytes in a line of a sample.
const LINE: usize = 40;

fn is_hex(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "hex")
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("samples").join(name)
}

/// Reads the sample with this name. The extension `hex` means bytes as hexadecimal; any other file
/// is returned as it is.
///
/// # Panics
/// If the file is missing or is not hexadecimal.
pub fn sample(name: &str) -> Vec<u8> {
    let path = path(name);
    let bytes = fs::read(&path).unwrap_or_else(|error| {
        panic!("read {}: {error}; write it with {BLESS}=1", path.display())
    });
    if !is_hex(name) {
        return bytes;
    }
    let digits: Vec<u8> = bytes.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
    HEXLOWER.decode(&digits).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Writes the sample unless it exists.
///
/// # Panics
/// If it cannot be written.
pub fn write_once(name: &str, encoded: &[u8]) {
    let path = path(name);
    if !path.exists() {
        let directory = path.parent().expect("a file in a directory");
        fs::create_dir_all(directory).expect("create the directory of samples");
        fs::write(&path, shown(name, encoded)).expect("write the sample");
    }
}

/// Returns the sample after comparing it with the encoding that this build writes.
///
/// # Panics
/// If they differ: this build writes another encoding than the one that the sample guards.
pub fn check(name: &str, encoded: &[u8]) -> Vec<u8> {
    let path = path(name);
    if std::env::var_os(BLESS).is_some() {
        write_once(name, encoded);
    }
    let sample = sample(name);
    assert!(
        sample == encoded,
        "this build does not write {} any more, but\n{}\nIf that is intended, keep the sample, test \
         that it is still read, and give the new encoding a name of its own.",
        path.display(),
        String::from_utf8_lossy(&shown(name, encoded)),
    );
    sample
}

fn shown(name: &str, encoded: &[u8]) -> Vec<u8> {
    if !is_hex(name) {
        return encoded.to_vec();
    }
    let lines = encoded.chunks(LINE).map(|line| HEXLOWER.encode(line) + "\n");
    lines.collect::<String>().into_bytes()
}

/// Adds a field to each struct in MessagePack with named fields. A map with one key in upper camel
/// case is an enum variant, not a struct. `maps` names the fields that hold a map with data as keys.
///
/// # Panics
/// If the bytes are not one MessagePack value.
pub fn with_new_fields_msgpack(bytes: &[u8], maps: &[&str]) -> Vec<u8> {
    let mut input = bytes;
    let mut value = rmpv::decode::read_value(&mut input).expect("MessagePack");
    assert!(input.is_empty(), "{} bytes after the value", input.len());
    extend_msgpack(&mut value, maps, false);
    let mut out = Vec::new();
    rmpv::encode::write_value(&mut out, &value).expect("a vector takes everything");
    out
}

fn extend_msgpack(value: &mut Value, maps: &[&str], is_data: bool) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| extend_msgpack(item, maps, false)),
        Value::Map(entries) => {
            let is_variant = entries.len() == 1
                && entries[0].0.as_str().is_some_and(|key| key.starts_with(char::is_uppercase));
            let is_struct = !is_data && !is_variant && entries.iter().all(|(key, _)| key.is_str());
            for (key, value) in entries.iter_mut() {
                let is_data = key.as_str().is_some_and(|key| maps.contains(&key));
                extend_msgpack(value, maps, is_data);
            }
            if is_struct {
                let added = Value::Map(vec![(Value::from("a"), Value::Binary(vec![1, 2]))]);
                // In front: a reader that stops at what it knows would pass otherwise.
                entries.insert(0, (Value::from(NEW_FIELD), added));
            }
        }
        _ => {}
    }
}

/// Adds a field to each object in JSON. `maps` names the fields that hold an object with data as
/// keys.
///
/// # Panics
/// If the text is not JSON.
pub fn with_new_fields_json(text: &[u8], maps: &[&str]) -> Vec<u8> {
    let mut value = serde_json::from_slice(text).expect("JSON");
    extend_json(&mut value, maps, false);
    serde_json::to_vec(&value).expect("a value has text keys")
}

fn extend_json(value: &mut serde_json::Value, maps: &[&str], is_data: bool) {
    match value {
        serde_json::Value::Array(items) => {
            for item in items {
                extend_json(item, maps, false);
            }
        }
        serde_json::Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                extend_json(value, maps, maps.contains(&name.as_str()));
            }
            if !is_data {
                fields.insert(NEW_FIELD.to_owned(), serde_json::json!({"a": [1, null]}));
            }
        }
        _ => {}
    }
}

/// Adds a field to a protobuf message: at its end, which is anywhere in protobuf
/// (<https://protobuf.dev/programming-guides/encoding/>).
pub fn with_new_field_protobuf(message: &[u8]) -> Vec<u8> {
    const LENGTH_DELIMITED: u64 = 2;
    let mut out = message.to_vec();
    let mut tag = NEW_FIELD_NUMBER << 3 | LENGTH_DELIMITED;
    while tag > 0x7f {
        out.push(0x80 | u8::try_from(tag & 0x7f).expect("seven bits"));
        tag >>= 7;
    }
    out.push(u8::try_from(tag).expect("seven bits"));
    out.extend_from_slice(&[3, b'n', b'e', b'w']);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_struct_gains_a_field_and_maps_and_variants_do_not() {
        let text = |text: &str| Value::from(text);
        let member = Value::Map(vec![(text("name"), text("n1"))]);
        let value = Value::Map(vec![
            (text("members"), Value::Map(vec![(text("id"), member)])),
            (text("command"), Value::Map(vec![(text("Admit"), Value::Map(vec![]))])),
        ]);
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &value).unwrap();
        let extended = with_new_fields_msgpack(&bytes, &["members"]);
        let extended = rmpv::decode::read_value(&mut extended.as_slice()).unwrap();
        assert_eq!(extended[NEW_FIELD]["a"], Value::Binary(vec![1, 2]));
        assert_eq!(extended["members"].as_map().unwrap().len(), 1);
        assert!(!extended["members"]["id"][NEW_FIELD].is_nil());
        assert_eq!(extended["command"].as_map().unwrap().len(), 1);
        assert!(!extended["command"]["Admit"][NEW_FIELD].is_nil());
        let json = with_new_fields_json(br#"{"peers":{"x":{"y":[{}]}}}"#, &["peers"]);
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert!(json[NEW_FIELD].is_object() && json["peers"][NEW_FIELD].is_null());
        assert!(json["peers"]["x"]["y"][0][NEW_FIELD].is_object());
    }

    #[test]
    #[should_panic(expected = "does not write")]
    fn another_encoding_than_the_sample_fails() {
        check("contract-of-the-helper.txt", b"another");
    }
}
