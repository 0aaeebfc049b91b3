//! Encoded samples of a context. See `muster_compat`. The key, the token and the authorities have
//! theirs in `muster_pki`.

use std::fs;

use super::*;

#[test]
fn a_context_is_read_as_it_was_written() {
    let description = Description {
        format: FORMAT,
        cluster_name: "demo".to_owned(),
        operator: "admin".to_owned(),
        endpoints: vec!["cp-1.example".to_owned(), "192.0.2.1:50001".to_owned()],
        learned: vec!["192.0.2.2:50000".to_owned()],
        cluster_id: Some(ClusterId::from_bytes([7; 32])),
        local: Some(PathBuf::from("/var/lib/demo")),
        unknown: BTreeMap::new(),
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    let sample = compose(&path, &description).unwrap();
    let sample = muster_compat::check("ctl/context.yaml", sample.as_bytes());
    let text = String::from_utf8(sample).unwrap();
    let load = |text: &str| {
        fs::write(&path, text).unwrap();
        Context::load(directory.path(), "demo")
    };
    let extended = format!("{text}addedByANewerVersion: {{a: 1}}\n");
    assert_eq!(load(&text).unwrap().description, description);
    let read = load(&extended).unwrap().description;
    // What a newer musterctl wrote is not lost when this one writes the file.
    assert!(compose(&path, &read).unwrap().contains("addedByANewerVersion"));
    assert_eq!(Description { unknown: BTreeMap::new(), ..read }, description);
    // A context that a person wrote may lack everything that has a default.
    let short = load("clusterName: demo\noperator: admin\n").unwrap().description;
    assert_eq!(short.cluster_name, "demo");
    assert!(short.endpoints.is_empty() && short.cluster_id.is_none());
    // The rest of it may be anything, and a person may write the number last.
    let error = load("clusterName: [x]\nformat: 2\n").unwrap_err();
    assert!(matches!(error, ContextError::Newer { .. }), "{error}");
}
