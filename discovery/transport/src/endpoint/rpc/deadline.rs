//! Deadline of a call, enforced on the caller's side: tonic only writes it into the request.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use muster_types::number::parse_digits;
use tonic::Status;

/// Time that the caller waits for the beginning of the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline(Option<Duration>);

impl Deadline {
    pub(crate) fn of(headers: &http::HeaderMap) -> Self {
        Self(timeout_of(headers))
    }

    /// Waits for the reply. Returns `DEADLINE_EXCEEDED` when it does not come in time.
    pub(crate) async fn enforce<T>(
        self,
        target: impl fmt::Display,
        answer: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let Some(timeout) = self.0 else { return answer.await };
        tokio::time::timeout(timeout, answer).await.unwrap_or_else(|_| {
            let waited = timeout.as_millis();
            Err(Status::deadline_exceeded(format!(
                "cannot call {target}: no answer in {waited} ms"
            )))
        })
    }
}

/// Reads the caller's deadline in tonic's wire format (gRPC over HTTP/2, "Timeout").
fn timeout_of(headers: &http::HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount: u64 = parse_digits(digits).filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_that_tonic_writes_is_read() {
        let mut request = tonic::Request::new(());
        request.set_timeout(Duration::from_millis(250));
        let header = request.metadata().get("grpc-timeout").unwrap().to_str().unwrap();
        let mut headers = http::HeaderMap::new();
        headers.insert("grpc-timeout", header.parse().unwrap());
        assert_eq!(timeout_of(&headers), Some(Duration::from_millis(250)));
        for wrong in ["", "m", "5", "5x", "123456789m", "-1m", "+1m"] {
            headers.insert("grpc-timeout", wrong.parse().unwrap());
            assert_eq!(timeout_of(&headers), None, "{wrong}");
        }
    }
}
