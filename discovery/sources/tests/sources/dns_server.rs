//! A real DNS server on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use hickory_proto::rr::rdata::{A, SRV};
use hickory_proto::rr::{LowerName, Name, RData, Record};
use hickory_server::Server;
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};
use tokio::net::UdpSocket;

/// Starts a DNS server for `muster.test` with these records.
pub(crate) async fn serve(records: &[(&str, RData)]) -> (Server<Catalog>, SocketAddr) {
    let origin = Name::from_str("muster.test.").unwrap();
    let zone: InMemoryZoneHandler =
        InMemoryZoneHandler::empty(origin.clone(), ZoneType::Primary, AxfrPolicy::Deny);
    for (name, data) in records {
        let record = Record::from_rdata(Name::from_str(name).unwrap(), 5, data.clone());
        assert!(zone.upsert(record, 1).await);
    }
    let mut catalog = Catalog::new();
    catalog.upsert(LowerName::new(&origin), vec![Arc::new(zone)]);
    let mut server = Server::new(catalog);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    server.register_socket(socket);
    (server, address)
}

pub(crate) fn a(last: u8) -> RData {
    RData::A(A(Ipv4Addr::new(192, 0, 2, last)))
}

pub(crate) fn srv(port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(0, 0, port, Name::from_str(target).unwrap()))
}
