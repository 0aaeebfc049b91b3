//! Waits with a deadline. Each names its condition when it fails; no test sleeps for a fixed time.

use std::future::Future;
use std::time::Duration;

use tonic::Request;

/// Timeout of every wait in the tests.
pub const TIMEOUT: Duration = Duration::from_secs(40);

/// Polls a condition every 10 ms until it holds, and returns its value.
///
/// # Panics
/// With the name of the condition after [`TIMEOUT`].
pub async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let search = async {
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    bounded(what, search).await
}

/// Awaits a future.
///
/// # Panics
/// With the name of the step after [`TIMEOUT`].
pub async fn bounded<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIMEOUT, work).await.unwrap_or_else(|_| panic!("never came: {what}"))
}

/// Returns a request with this timeout.
pub fn within<T>(timeout: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}
