//! Template for a new `node.yaml`, with comments.

use std::fmt::Write as _;
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::{Operator, SecretText};

/// Contents of a new document. [`render`](Self::render) returns text that `Document::parse`
/// accepts if each part is valid.
#[derive(Debug, Clone)]
pub struct Template {
    pub cluster_name: String,
    /// 1, 3, 5 or 7.
    pub expect: u8,
    pub token: SecretText,
    pub operators: Vec<Operator>,
    pub mdns: bool,
    /// Static peers as `host:port`; if empty, an example is written as a comment.
    pub static_peers: Vec<String>,
    pub etcd_binary: Option<PathBuf>,
}

impl Template {
    /// Returns the document. It contains the token: write it to a file of mode 0600.
    ///
    /// # Panics
    /// Never: writing to memory does not fail.
    pub fn render(&self) -> Zeroizing<String> {
        // Large enough never to grow: a reallocation would leave a copy of the token in memory.
        let mut text = Zeroizing::new(String::with_capacity(16 << 10));
        self.write(&mut text).expect("writing to memory does not fail");
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let Self { cluster_name, expect, token, operators, mdns, static_peers, etcd_binary } = self;
        writeln!(
            out,
            "# The configuration of every node of the cluster {cluster_name}: the same file on each.\n\
             # It holds the shared token, so keep it readable by root alone (mode 0600).\n\
             \n\
             machine:\n\
             \x20 # control-plane or worker. The patches below turn nodes into workers by their name.\n\
             \x20 type: control-plane\n\
             \x20 # Proves to the other nodes that this one belongs to them. Never sent, never logged.\n\
             \x20 token: \"{}\"",
            token.expose()
        )?;
        writeln!(
            out,
            "  # network:\n\
             \x20 #   port: 50000                # UDP and TCP\n\
             \x20 #   subnets: [10.0.0.0/24]     # which of its addresses a node announces\n\
             \x20 discovery:\n\
             \x20   # Ask the local network by multicast DNS.\n\
             \x20   mdns: {mdns}\n\
             \x20   # dns:                       # SRV _muster._udp.DOMAIN, A and AAAA of DOMAIN\n\
             \x20   #   domain: nodes.example.com"
        )?;
        if static_peers.is_empty() {
            writeln!(out, "    # static: [10.0.0.11, 10.0.0.12]   # HOST or HOST:PORT")?;
        } else {
            writeln!(out, "    static:")?;
            for peer in static_peers {
                writeln!(out, "      - \"{peer}\"")?;
            }
        }
        match etcd_binary {
            Some(path) => writeln!(out, "  etcd:\n    binary: \"{}\"", escaped(path))?,
            None => {
                writeln!(out, "  # etcd:\n  #   binary: /usr/bin/etcd      # else found on PATH")?;
            }
        }
        writeln!(
            out,
            "\n\
             cluster:\n\
             \x20 clusterName: \"{cluster_name}\"\n\
             \x20 # How many control-plane nodes found the cluster together: 1, 3, 5 or 7. More can join later.\n\
             \x20 expect: {expect}\n\
             \x20 # founders: [cp-1, cp-2, cp-3]   # only if particular nodes must be the ones\n\
             \x20 # Who may use musterctl: public keys, as in SSH.\n\
             \x20 operators:"
        )?;
        for Operator { name, key, role } in operators {
            writeln!(
                out,
                "    - name: \"{name}\"\n      publicKey: \"{key}\"\n      role: {role}"
            )?;
        }
        writeln!(
            out,
            "\n\
             # Changes for some nodes only, in this order (JSON merge patch, null removes a field).\n\
             patches:\n\
             \x20 - match:\n\
             \x20     name: worker-*\n\
             \x20   patch:\n\
             \x20     machine:\n\
             \x20       type: worker"
        )
    }
}

/// Escapes a path for a double-quoted YAML scalar.
fn escaped(path: &std::path::Path) -> String {
    path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"")
}
