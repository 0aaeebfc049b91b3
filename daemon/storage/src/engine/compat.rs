//! Encoded samples of a store's own files. See `muster_compat`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use muster_compat::{check, with_new_fields_json};
use muster_types::{ClusterId, NodeId};

use super::directory::{DirectoryError, OpenError, StoreIdentity, create};
use super::envelope;
use super::high_water_mark::HighWaterMark;
use super::sled::SLED;
use super::store::Table;

fn identity() -> StoreIdentity {
    StoreIdentity { node: NodeId::from_bytes([1; 32]), cluster: ClusterId::from_bytes([2; 32]) }
}

fn opened(directory: &Path) -> Result<(), OpenError> {
    create(directory, &identity(), SLED).map(drop)
}

#[test]
fn a_header_is_read_as_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    opened(directory.path()).unwrap();
    let header = directory.path().join("store.json");
    let sample = check("storage/store.json", &fs::read(&header).unwrap());
    fs::write(&header, &sample).unwrap();
    opened(directory.path()).unwrap();
    fs::write(&header, with_new_fields_json(&sample, &[])).unwrap();
    opened(directory.path()).unwrap();
    fs::write(&header, br#"{"format": 2, "everything else": "differs"}"#).unwrap();
    let error = opened(directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::Directory(DirectoryError::Newer { .. })), "{error}");
}

/// The checksum covers the table's number too.
#[test]
fn an_envelope_is_read_as_it_was_written() {
    for (name, table) in [("log", Table::Log), ("meta", Table::Meta)] {
        let name = format!("storage/envelope-{name}.hex");
        let sample = check(&name, &envelope::seal(table, b"a key", b"a value"));
        assert_eq!(envelope::unseal(table, b"a key", &sample), Ok(&b"a value"[..]));
    }
}

/// Each slot has 512 bytes, of which this version uses 12: a later one may use more.
#[test]
fn a_mark_is_read_as_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mark");
    HighWaterMark::create(&path).unwrap();
    HighWaterMark::open(path.clone()).unwrap().0.set(7).unwrap();
    let mut sample = check("storage/mark.hex", &fs::read(&path).unwrap());
    for slot in sample.chunks_mut(512) {
        slot[12..].fill(0xff);
    }
    fs::write(&path, sample).unwrap();
    assert_eq!(HighWaterMark::open(path).unwrap().1, 7);
}
