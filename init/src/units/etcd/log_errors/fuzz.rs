//! Fuzz target of etcd's printed output. `muster_fuzz` defines a target.

use muster_fuzz::{Verdict, refused, target};
use muster_types::etcd::EtcdMemberId;

use super::last_error;
use crate::facts::BootId;
use crate::logs::LastLines;
use crate::units::etcd::Version;

/// etcd's printed output: version, log, last error.
#[test]
fn etcd_output() {
    let log = r#"{"level":"fatal","ts":"t","caller":"c","msg":"discovery failed","error":"bind"}"#;
    let seeds = ["3.5.9", "3.4.0-rc.1+git", log, "panic: x\n\ngoroutine 1 [running]:\n"];
    target("etcd_output").seeds(seeds.map(Vec::from)).run(|bytes| {
        let mut lines = LastLines::new(20);
        for piece in bytes.chunks(7) {
            lines.feed(piece);
        }
        let kept = lines.finish();
        assert!(kept.len() <= 20 && kept.iter().all(|line| line.len() <= 3 * 2048));
        let plain = |line: &String| !line.contains(|c: char| c.is_control() && c != '\t');
        assert!(kept.iter().all(plain));
        let said = last_error(&kept);
        let Ok(text) = std::str::from_utf8(bytes) else { return refused("not text") };
        if let Ok(id) = text.parse::<EtcdMemberId>() {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        if let Ok(id) = text.parse::<BootId>() {
            assert_eq!(id.as_str(), text);
        }
        if let Ok(version) = text.parse::<Version>() {
            assert_eq!(version.to_string().parse(), Ok(version));
            return Verdict::Accepted;
        }
        if said.is_some() { Verdict::Accepted } else { refused("no version and no complaint") }
    });
}
