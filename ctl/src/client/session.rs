//! Connection to the operator API of one node.

use std::io::{self, Cursor};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use muster_pki::identity::Identity;
use muster_pki::leaf::CONTROL_PLANE_NAME;
use muster_pki::tls::operator_client_config;
use muster_services::operator::operator_client::OperatorClient;
use muster_types::error::chain;
use muster_types::wire::MAX_MESSAGE;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Channel;
use tower::service_fn;

use super::endpoint::resolve;
use super::error::{Attempt, FailureKind};
use crate::clock;
use crate::context::TrustAnchor;

/// Timeout of the connection to one address. The next address is tried only after it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Time to wait for the server's first bytes before ours are sent.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(1);

/// Reason for a connection that the node closed before its first byte.
const CLOSED: &str = "closed the connection; perhaps it has no room for another one, or stops";

/// Generated gRPC client over one connection.
pub(crate) type Client = OperatorClient<Channel>;

/// An established connection. When it breaks it is replaced, not repaired.
pub(super) struct Session {
    pub(super) client: Client,
    endpoint: String,
}

/// Failure to open a session at one address.
enum SessionError {
    /// The node does not know this operator's key.
    UnknownKey,
    /// The peer answers, but does not prove that it belongs to the pinned cluster.
    Untrusted(String),
    Failed(String),
}

impl Session {
    /// Endpoint of this session, as it was given.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(super) async fn open(
        endpoint: &str,
        identity: &Identity,
        anchor: &TrustAnchor,
        deadline: Instant,
    ) -> Result<Self, Attempt> {
        let silent =
            |why| Attempt { endpoint: endpoint.to_owned(), why, failure: FailureKind::NoAnswer };
        let addresses = resolve(endpoint).await.map_err(silent)?;
        Self::open_one_of(&addresses, endpoint, identity, anchor, deadline).await
    }

    /// Opens a session at the first of an endpoint's addresses that works. If none does, returns
    /// the most informative failure.
    async fn open_one_of(
        addresses: &[SocketAddr],
        endpoint: &str,
        identity: &Identity,
        anchor: &TrustAnchor,
        deadline: Instant,
    ) -> Result<Self, Attempt> {
        let attempt = |failure, why| Attempt { endpoint: endpoint.to_owned(), why, failure };
        let mut attempts = Vec::new();
        for &address in addresses {
            let channel = match connect(address, identity, anchor, deadline).await {
                Ok(stream) => channel(stream).await,
                Err(error) => Err(error),
            };
            match channel {
                Ok(channel) => {
                    let client = Client::new(channel).max_decoding_message_size(MAX_MESSAGE);
                    return Ok(Self { client, endpoint: endpoint.to_owned() });
                }
                Err(SessionError::Failed(why)) => {
                    attempts.push(attempt(FailureKind::NoAnswer, why));
                }
                Err(SessionError::Untrusted(why)) => {
                    attempts.push(attempt(FailureKind::Untrusted, why));
                }
                Err(SessionError::UnknownKey) => {
                    let why = "it does not know this operator's key; compare `cluster.operators` \
                               with `musterctl context show`";
                    attempts.push(attempt(FailureKind::Rejected, why.to_owned()));
                }
            }
        }
        let best = attempts.into_iter().max_by_key(|attempt| attempt.failure);
        Err(best.unwrap_or_else(|| attempt(FailureKind::NoAnswer, "has no address".to_owned())))
    }
}

async fn connect(
    address: SocketAddr,
    identity: &Identity,
    anchor: &TrustAnchor,
    deadline: Instant,
) -> Result<TlsStream<TcpStream>, SessionError> {
    let deadline = deadline.min(Instant::now() + CONNECT_TIMEOUT);
    let failed = |step: &str, error: io::Error| {
        SessionError::Failed(format!("{step} TCP {address}: {error}"))
    };
    let stream = timeout_at(deadline, TcpStream::connect(address))
        .await
        .map_err(|_| SessionError::Failed(format!("connect to TCP {address}: no answer in time")))?
        .map_err(|error| failed("connect to", error))?;
    stream.set_nodelay(true).map_err(|error| failed("set up", error))?;
    let config = operator_client_config(identity.self_signed(clock::now()), &anchor.authorities);
    let name = ServerName::try_from(CONTROL_PLANE_NAME).expect("a constant DNS name");
    timeout_at(deadline, TlsConnector::from(Arc::new(config)).connect(name, stream))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| classify_handshake_error(address, &error))
}

/// Returns true if the peer closed the connection. rustls reports that in its own words.
fn is_end(error: &io::Error) -> bool {
    [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset].contains(&error.kind())
}

/// Returns the rustls error inside an I/O error, if there is one.
fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// Classifies a failed handshake. The server checks our certificate only after the handshake, so
/// the server's part failed: its certificate is not of the pinned cluster, is missing, or came too
/// late. A machine that is not a member yet has no certificate and closes the connection. So does a
/// worker that reaches no control-plane node.
fn classify_handshake_error(address: SocketAddr, error: &io::Error) -> SessionError {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    match rustls_error(error) {
        // rustls checks the time before the issuer.
        Some(rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
        )) => SessionError::Failed(format!(
            "{address} shows a certificate that is not valid at this time ({error}); compare the \
             clocks of both machines, or it is another cluster's"
        )),
        Some(rustls::Error::InvalidCertificate(_)) => SessionError::Untrusted(format!(
            "{address} shows a certificate that is not from a control-plane node of this context's \
             cluster ({error})"
        )),
        None if error.kind() == io::ErrorKind::TimedOut => SessionError::Failed(format!(
            "{address} accepts the connection but gives no answer in time"
        )),
        _ => SessionError::Untrusted(format!(
            "{address} accepts the connection but shows no certificate ({error})"
        )),
    }
}

/// Opens gRPC over this one stream, once the server has accepted the operator's certificate.
///
/// In TLS 1.3 the server checks the client's certificate after the client has finished its
/// handshake. If we had sent data by then, a reset might arrive before the server's alert. So we
/// first wait for the server's first bytes: the HTTP/2 settings, or the alert.
async fn channel(mut stream: TlsStream<TcpStream>) -> Result<Channel, SessionError> {
    let mut first_bytes = vec![0; 1024];
    let length = match timeout(FIRST_BYTES_TIMEOUT, stream.read(&mut first_bytes)).await {
        Ok(Ok(0)) => return Err(SessionError::Failed(CLOSED.to_owned())),
        Ok(Ok(length)) => length,
        Ok(Err(error)) => {
            return Err(match rustls_error(&error) {
                Some(rustls::Error::AlertReceived(_)) => SessionError::UnknownKey,
                _ if is_end(&error) => SessionError::Failed(CLOSED.to_owned()),
                _ => SessionError::Failed(error.to_string()),
            });
        }
        // HTTP/2 allows a server to wait for the client's first bytes.
        Err(_) => 0,
    };
    first_bytes.truncate(length);
    let (read, write) = tokio::io::split(stream);
    channel_over(tokio::io::join(Cursor::new(first_bytes).chain(read), write)).await
}

async fn channel_over<S>(stream: S) -> Result<Channel, SessionError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
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
        .map_err(|error| SessionError::Failed(chain(&error)))
}

#[cfg(test)]
mod tests {
    use muster_messages::operator::{EtcdDefragRequest, VersionRequest};
    use muster_pki::authority::{Authority, AuthorityKind};
    use muster_pki::bundle::TrustBundle;
    use muster_types::ClusterId;
    use tokio::net::TcpListener;
    use tonic::Request;

    use super::super::classify::{NextStep, classify};
    use super::super::error::CallKind;
    use super::*;

    /// Regression: a call on a connection that an earlier call had found broken was reported as
    /// possibly done.
    #[tokio::test]
    async fn a_call_on_a_connection_that_is_gone_was_never_sent() {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let Ok(channel) = channel_over(ours).await else { panic!("a connection takes both sides") };
        let mut client = Client::new(channel);
        drop(theirs);
        client.version(Request::new(VersionRequest {})).await.unwrap_err();
        let status = client.etcd_defrag(Request::new(EtcdDefragRequest {})).await.unwrap_err();
        assert!(
            matches!(
                classify(&status, CallKind::NonIdempotent, "do it", "cp-1"),
                NextStep::TryNext(_)
            ),
            "{status}"
        );
    }

    #[test]
    fn a_certificate_out_of_its_time_is_no_foreign_one() {
        let address = "127.0.0.1:7".parse().unwrap();
        let shown = |error: rustls::CertificateError| {
            classify_handshake_error(address, &io::Error::other(rustls::Error::from(error)))
        };
        let expired = shown(rustls::CertificateError::Expired);
        assert!(matches!(expired, SessionError::Failed(why) if why.contains("compare the clocks")));
        let unknown = shown(rustls::CertificateError::UnknownIssuer);
        assert!(
            matches!(unknown, SessionError::Untrusted(why) if why.contains("is not from a control-plane"))
        );
        let mute = classify_handshake_error(address, &io::ErrorKind::UnexpectedEof.into());
        assert!(
            matches!(mute, SessionError::Untrusted(why) if why.contains("shows no certificate"))
        );
        let frozen = classify_handshake_error(address, &io::ErrorKind::TimedOut.into());
        assert!(matches!(frozen, SessionError::Failed(why) if why.contains("no answer in time")));
    }

    /// Regression: the text was that of the TLS library, with a link to its documentation.
    #[test]
    fn a_node_that_closes_the_connection_is_reported_in_plain_words() {
        let end = io::Error::new(io::ErrorKind::UnexpectedEof, "without sending TLS close_notify");
        assert!(is_end(&end) && is_end(&io::ErrorKind::ConnectionReset.into()));
        assert!(!is_end(&io::ErrorKind::TimedOut.into()));
    }

    /// Regression: the last address was reported, though it did not answer and another one did.
    #[tokio::test]
    async fn the_most_informative_failure_of_an_endpoint_is_reported() {
        let cluster_id = ClusterId::from_bytes([1; 32]);
        let authority =
            Authority::create(AuthorityKind::Machine, "demo", &cluster_id, clock::now());
        let authorities = TrustBundle::new(vec![authority.certificate().clone()]).unwrap();
        let anchor = TrustAnchor { cluster_id, authorities };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mute = listener.local_addr().unwrap();
        let closing = async {
            while let Ok((stream, _)) = listener.accept().await {
                drop(stream);
            }
        };
        let unused = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        let identity = Identity::generate();
        let open = async |addresses: &[SocketAddr]| {
            let opening = Session::open_one_of(addresses, "cp-1", &identity, &anchor, deadline);
            opening.await.err().map(|attempt| attempt.failure)
        };
        tokio::select! {
            () = closing => unreachable!("it listens on"),
            () = async {
                assert_eq!(open(&[mute, unused]).await, Some(FailureKind::Untrusted));
                assert_eq!(open(&[unused, mute]).await, Some(FailureKind::Untrusted));
                assert_eq!(open(&[unused]).await, Some(FailureKind::NoAnswer));
            } => {}
        }
    }
}
