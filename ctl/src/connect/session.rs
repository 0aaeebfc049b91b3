//! One connection to the operator API of one node.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use muster_pki::identity::Identity;
use muster_pki::leaf::CONTROL_PLANE_NAME;
use muster_pki::tls::operator_client;
use muster_proto::wire::MAX_MESSAGE;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Channel;
use tower::service_fn;

use super::endpoint::resolve;
use super::{Attempt, Client};
use crate::clock;
use crate::context::Anchor;
use crate::failure::chain;

/// How long one address may take to accept a connection: the next one waits for it.
const CONNECT: Duration = Duration::from_secs(2);

/// A connection that has been made; when it breaks it is replaced, not repaired.
pub(super) struct Session {
    pub(super) client: Client,
    endpoint: String,
}

impl Session {
    /// Where it leads to, as it was asked for.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(super) async fn open(
        endpoint: &str,
        identity: &Identity,
        anchor: &Anchor,
        deadline: Instant,
    ) -> Result<Self, Attempt> {
        let failed = |why| Attempt { endpoint: endpoint.to_owned(), why, refused: false };
        let addresses = resolve(endpoint).await.map_err(failed)?;
        let mut why = "has no address".to_owned();
        for address in addresses {
            match connect(address, identity, anchor, deadline).await {
                Ok(stream) => {
                    let client = Client::new(channel(stream).await.map_err(failed)?)
                        .max_decoding_message_size(MAX_MESSAGE);
                    return Ok(Self { client, endpoint: endpoint.to_owned() });
                }
                Err(error) => why = error,
            }
        }
        Err(failed(why))
    }
}

async fn connect(
    address: SocketAddr,
    identity: &Identity,
    anchor: &Anchor,
    deadline: Instant,
) -> Result<TlsStream<TcpStream>, String> {
    let deadline = deadline.min(Instant::now() + CONNECT);
    let late = |step: &str| format!("{step} TCP {address}: no answer in time");
    let stream = timeout_at(deadline, TcpStream::connect(address))
        .await
        .map_err(|_| late("connect to"))?
        .map_err(|error| format!("connect to TCP {address}: {error}"))?;
    stream.set_nodelay(true).map_err(|error| format!("set up {address}: {error}"))?;
    let config = operator_client(identity.self_signed(clock::now()), &anchor.authorities);
    let name = ServerName::try_from(CONTROL_PLANE_NAME).expect("it is a DNS name");
    timeout_at(deadline, TlsConnector::from(Arc::new(config)).connect(name, stream))
        .await
        .map_err(|_| late("speak TLS to"))?
        .map_err(|error| distrust(address, &error))
}

/// A handshake that failed: most often the node belongs to another cluster than the pinned one.
fn distrust(address: SocketAddr, error: &io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(_)) => format!(
            "{address} is not a control-plane node of the cluster that this context trusts: {error}"
        ),
        _ => format!("speak TLS to {address}: {error}"),
    }
}

/// gRPC over this one stream.
async fn channel(stream: TlsStream<TcpStream>) -> Result<Channel, String> {
    let stream = Mutex::new(Some(TokioIo::new(stream)));
    let connector = service_fn(move |_| {
        let taken = stream.lock().ok().and_then(|mut stream| stream.take());
        async move { taken.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    tonic::transport::Endpoint::from_static("http://control-plane.muster.internal")
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .connect_with_connector(connector)
        .await
        .map_err(|error| chain(&error))
}
