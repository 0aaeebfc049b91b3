//! A real DNS server on a host of the lab.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use hickory_proto::rr::rdata::{A, SRV};
use hickory_proto::rr::{LowerName, Name, RData, Record};
use hickory_server::Server;
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};
use tokio::runtime::Runtime;

use crate::lab::{Host, inside};

/// Serves one zone until dropped.
pub struct Dns {
    address: SocketAddr,
    _runtime: Runtime,
}

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dns").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Dns {
    /// Serves `zone` on `host`: one A record per node, and one SRV record each under
    /// `_muster._udp`.
    pub fn serve(host: &Host, zone: &str, nodes: &BTreeMap<String, Ipv4Addr>) -> Result<Self> {
        let address = SocketAddr::new(IpAddr::V4(host.address()), 53);
        let socket = inside(host, async || Ok(std::net::UdpSocket::bind(address)?))?;
        socket.set_nonblocking(true)?;
        let catalog = catalog(zone, nodes)?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.spawn(async move {
            let mut server = Server::new(catalog);
            let socket = tokio::net::UdpSocket::from_std(socket).expect("a runtime is running");
            server.register_socket(socket);
            server.block_until_done().await.ok();
        });
        Ok(Self { address, _runtime: runtime })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn catalog(zone: &str, nodes: &BTreeMap<String, Ipv4Addr>) -> Result<Catalog> {
    let origin = Name::from_ascii(format!("{zone}."))?;
    let mut handler: InMemoryZoneHandler =
        InMemoryZoneHandler::empty(origin.clone(), ZoneType::Primary, AxfrPolicy::Deny);
    let service = Name::from_ascii(format!("_muster._udp.{zone}."))?;
    for (name, address) in nodes {
        let host = Name::from_ascii(format!("{name}.{zone}."))?;
        let srv = SRV::new(0, 0, muster_types::DEFAULT_PORT, host.clone());
        handler.upsert_mut(Record::from_rdata(service.clone(), 5, RData::SRV(srv)), 0);
        handler.upsert_mut(Record::from_rdata(host, 5, RData::A(A(*address))), 0);
    }
    let mut catalog = Catalog::new();
    catalog.upsert(LowerName::from(origin), vec![Arc::new(handler)]);
    Ok(catalog)
}
