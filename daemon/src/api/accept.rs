//! The accept loop of a TCP port, with limits on concurrent connections. Does not read a byte.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use muster_transport::limits::{ConcurrencyLimiter, Source};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Delay before the next accept if the machine is out of file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(200);

/// Accepts connections until `stop`, and serves each with the future of `serve`. A connection counts
/// against the limits until that future has ended. One over the limits is closed at once.
pub(super) async fn accept<F>(
    listener: TcpListener,
    limiter: ConcurrencyLimiter<Source>,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
    stop: CancellationToken,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut served = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(ended) = served.join_next() => {
                if let Err(panic) = ended {
                    std::panic::resume_unwind(panic.into_panic());
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "cannot accept a connection");
                sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            }
        };
        let Some(permit) = limiter.try_acquire(Source::from(remote)) else {
            continue; // dropping the stream closes it
        };
        let serving = serve(stream, remote);
        served.spawn(async move {
            serving.await;
            drop(permit);
        });
    }
}
