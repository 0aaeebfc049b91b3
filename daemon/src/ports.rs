//! The two ports of a node, UDP and TCP. A port may be busy for a moment, because it can lie in the
//! range of outgoing connections: waits for it, and reports that. Checks nothing at `--check`; see
//! [`crate::prepare`].

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use muster_transport::endpoint::{Bind, BindError, Endpoint, EndpointTask};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::fatal::Fatal;
use crate::status::StatusWriter;

/// Interval of the attempts to bind a busy port. An attempt costs two system calls.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// Interval after which a busy port is logged again. It doubles each time.
const FIRST_LOG_INTERVAL: Duration = Duration::from_secs(5);
const MAX_LOG_INTERVAL: Duration = Duration::from_mins(10);

/// Opens the QUIC endpoint. Waits while its port is busy. Cancel-safe.
pub async fn open_endpoint(
    bind: impl Fn() -> Bind + Send,
) -> Result<(Endpoint, EndpointTask), Fatal> {
    let mut busy = BusyPort::new("UDP", bind().address);
    loop {
        match Endpoint::bind(bind()) {
            Ok(opened) => {
                busy.on_bound();
                return Ok(opened);
            }
            Err(error @ BindError::InUse(_)) => busy.on_busy(&error),
            Err(error) => return Err(Fatal::start("open the QUIC endpoint", error)),
        }
        sleep(RETRY_INTERVAL).await;
    }
}

/// The TCP port for operators. The node does not depend on it: other nodes reach it over QUIC.
#[derive(Debug)]
pub struct OperatorPort {
    address: SocketAddr,
    listener: OnceCell<TcpListener>,
    /// Shows that the port is busy.
    status: StatusWriter,
}

impl OperatorPort {
    /// Binds the port. A busy one is no error: [`Self::listener`] waits for it.
    pub async fn open(address: SocketAddr, status: StatusWriter) -> Result<Self, Fatal> {
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => OnceCell::new_with(Some(listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => OnceCell::new(),
            Err(error) => return Err(Fatal::start("listen for operators", error)),
        };
        Ok(Self { address, listener, status })
    }

    /// Returns the listener. Waits while the port is busy, and shows that in the status.
    pub async fn listener(&self) -> &TcpListener {
        self.listener.get_or_init(|| self.bind()).await
    }

    /// Like [`Self::listener`], for the one that serves it.
    pub async fn into_listener(self) -> TcpListener {
        self.listener().await;
        self.listener.into_inner().expect("the listener was just bound")
    }

    /// Retries after any error: what the first attempt found was a busy port.
    async fn bind(&self) -> TcpListener {
        let mut busy = BusyPort::new("TCP", self.address);
        loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => {
                    self.status.set_port_problem(None);
                    busy.on_bound();
                    return listener;
                }
                Err(error) => {
                    busy.on_busy(&error);
                    self.status.set_port_problem(Some(format!(
                        "TCP {}: {error}; {} shows the program that uses it",
                        self.address,
                        show_command(self.address)
                    )));
                }
            }
            sleep(RETRY_INTERVAL).await;
        }
    }
}

/// Returns the command that shows the program behind a port.
pub fn show_command(address: SocketAddr) -> String {
    format!("`ss -apn 'sport = {}'`", address.port())
}

/// Log of one busy port: at once, then at growing intervals.
struct BusyPort {
    protocol: &'static str,
    address: SocketAddr,
    intervals: LogIntervals,
}

/// Intervals at which a condition that lasts is logged.
#[derive(Debug, Default)]
pub struct LogIntervals {
    /// Time of the next line and the interval after it. `None` before the first line.
    next: Option<(Instant, Duration)>,
}

impl LogIntervals {
    /// Returns true if a line is due now. The next one is due after a longer interval.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let (at, interval) = self.next.unwrap_or((now, FIRST_LOG_INTERVAL));
        let is_due = now >= at;
        if is_due {
            self.next = Some((now + interval, (interval * 2).min(MAX_LOG_INTERVAL)));
        }
        is_due
    }
}

impl BusyPort {
    fn new(protocol: &'static str, address: SocketAddr) -> Self {
        Self { protocol, address, intervals: LogIntervals::default() }
    }

    fn on_busy(&mut self, error: &dyn std::error::Error) {
        if self.intervals.is_due(Instant::now()) {
            let (Self { protocol, address, .. }, show) = (&*self, show_command(self.address));
            warn!(%protocol, %address, %error, %show, "port in use; waiting until it is free");
        }
    }

    fn on_bound(&self) {
        if self.intervals.next.is_some() {
            info!(protocol = %self.protocol, address = %self.address, "port is free again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::sync::Arc;

    use muster_pki::identity::Identity;
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// An outgoing connection held port 50000 for a moment, and musterd exited with 78.
    #[tokio::test]
    async fn a_busy_tcp_port_is_shown_and_taken_once_it_is_free() {
        let holder = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = holder.local_addr().unwrap();
        let status = StatusWriter::new(None, Vec::new());
        let mut reader = status.reader();
        let port = OperatorPort::open(address, status).await.unwrap();
        let listener = port.into_listener();
        tokio::pin!(listener);
        let shown = async {
            loop {
                reader.changed().await.unwrap();
                if let Some(problem) = reader.get_and_update(|node| node.port_problem.clone()) {
                    return problem;
                }
            }
        };
        let problem = tokio::select! {
            problem = timeout(SOON, shown) => problem.unwrap(),
            _ = &mut listener => panic!("it was bound twice"),
        };
        assert!(problem.contains(&format!("TCP {address}")), "{problem}");
        drop(holder);
        let listener = timeout(SOON, listener).await.unwrap();
        assert_eq!(listener.local_addr().unwrap(), address);
        assert_eq!(reader.get(|node| node.port_problem.clone()), None);
    }

    #[tokio::test]
    async fn a_busy_udp_port_is_taken_once_it_is_free() {
        let holder = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = holder.local_addr().unwrap();
        let identity = Arc::new(Identity::generate());
        let (_sender, trust) = tokio::sync::watch::channel(Arc::default());
        let bind = || Bind { address, identity: Arc::clone(&identity), trust: trust.clone() };
        let opened = open_endpoint(bind);
        tokio::pin!(opened);
        assert!(timeout(RETRY_INTERVAL * 2, &mut opened).await.is_err(), "it was bound twice");
        drop(holder);
        let (endpoint, _task) = timeout(SOON, opened).await.unwrap().unwrap();
        assert_eq!(endpoint.local_address().unwrap(), address);
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_not_waited_for() {
        let status = StatusWriter::new(None, Vec::new());
        let opened = OperatorPort::open("192.0.2.1:50000".parse().unwrap(), status).await;
        assert!(matches!(opened, Err(Fatal::Start { .. })), "{opened:?}");
    }

    #[test]
    fn a_port_that_stays_busy_is_logged_less_and_less_often() {
        let mut intervals = LogIntervals::default();
        let start = Instant::now();
        let hour = (0..3600).map(|second| start + Duration::from_secs(second));
        let logged = hour.filter(|now| intervals.is_due(*now)).count();
        assert!((10..=14).contains(&logged), "{logged}");
    }
}
