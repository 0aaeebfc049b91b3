//! Fields of `machine`: settings of one node. Patches can change most of them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::super::field::Patchable::{Always, ByName, Never};
use super::super::field::Unit::{Etcd, Musterd};
use super::super::field::{Disturbs, Entry, Field};
use super::super::limits::{MAX_ADDRESSES, MAX_DNS_SERVERS, MAX_STATIC_PEERS, MAX_SUBNETS};
use super::super::value::{Peer, Subnet};
use super::super::{DEFAULT_STATE_DIR, SecretText, kind};
use super::table;
use muster_types::{NodeName, Role};

table! {
    ROLE: Role = Field::required("machine.type", &kind::ROLE)
        .patchable(ByName("a patch for a role cannot change the role: select by name"))
        .disturbs(Disturbs::BirthOnly)
        .doc("Role of the node: `control-plane` or `worker`.");

    TOKEN: SecretText = Field::required("machine.token", &kind::SECRET)
        .if_missing("is missing; make one with `musterctl token create`")
        .patchable(Always)
        .disturbs(Disturbs::Restart(Musterd))
        .birth_field()
        .doc("Shared bootstrap secret, `id.secret`. Never sent, never logged.")
        .note("`musterctl init` or `musterctl token create` makes one. A node proves it to others. A \
               member starts without it.");

    HOSTNAME: Option<NodeName> =
        Field::optional("machine.network.hostname", &kind::NODE_NAME, "any")
        .patchable(Never("patches are selected by the host name and cannot change it"))
        .disturbs(Disturbs::BirthOnly)
        .doc("Name that the node must have, in a file for one node.")
        .note("Without it the node is named by `--name`, or else by the system's host name.");

    ADDRESSES: Vec<IpAddr> =
        Field::list("machine.network.addresses", &kind::ADDRESS, MAX_ADDRESSES, "detected")
        .patchable(Always)
        .disturbs(Disturbs::Restart(Musterd))
        .doc("Addresses at which other nodes reach this one.");

    SUBNETS: Vec<Subnet> =
        Field::list("machine.network.subnets", &kind::SUBNET, MAX_SUBNETS, "all")
        .patchable(Always)
        .disturbs(Disturbs::Restart(Musterd))
        .doc("Restricts the machine's addresses that other nodes use.")
        .example("[10.0.0.0/24]");

    PORT: u16 = Field::with_default("machine.network.port", &kind::PORT, "50000")
        .patchable(Always)
        .disturbs(Disturbs::Restart(Musterd))
        .doc("UDP (QUIC) and TCP (operator API) port.")
        .note("etcd uses 2379 and 2380 on every control-plane node.")
        .example("50000");

    MDNS: bool = Field::with_default("machine.discovery.mdns", &kind::BOOLEAN, "true")
        .patchable(Always)
        .disturbs(Disturbs::Restart(Musterd))
        .doc("Finds nodes on the local network by multicast DNS.");

    DNS_DOMAIN: Option<String> =
        Field::required_in_section("machine.discovery.dns.domain", &kind::DOMAIN)
        .patchable(Always)
        .disturbs(Disturbs::Restart(Musterd))
        .doc("Queried for SRV `_muster._udp.DOMAIN`, A and AAAA.")
        .example("nodes.example.com");

    DNS_SERVERS: Vec<SocketAddr> = Field::list(
            "machine.discovery.dns.servers", &kind::DNS_SERVER, MAX_DNS_SERVERS, "the system's")
        .patchable(Always)
        .disturbs(Disturbs::Restart(Musterd))
        .doc("DNS servers to query.");

    STATIC_PEERS: Vec<Peer> =
        Field::list("machine.discovery.static", &kind::PEER, MAX_STATIC_PEERS, "")
        .patchable(Always)
        .disturbs(Disturbs::Restart(Musterd))
        .doc("Nodes at fixed addresses.")
        .note("The default port is the node's own. An IPv6 address with a port is in brackets.")
        .example("[10.0.0.11, 10.0.0.12]");

    ETCD_BINARY: Option<PathBuf> =
        Field::optional("machine.etcd.binary", &kind::PATH, "`etcd` on PATH")
        .patchable(Always)
        .disturbs(Disturbs::Restart(Etcd))
        .doc("etcd 3.4 or newer, for control-plane nodes.")
        .example("/usr/bin/etcd");

    STATE_DIR: PathBuf =
        Field::with_default("machine.stateDir", &kind::PATH, DEFAULT_STATE_DIR)
        .patchable(Always)
        .disturbs(Disturbs::Restart(Musterd))
        .doc("Directory for everything that must survive a restart.")
        .note("`--state-dir` overrides it. Move the directory before you change the field.");
}
