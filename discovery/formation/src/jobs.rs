//! Network jobs of formation: one future per greeting, message or join request. Each ends within a
//! bounded time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use muster_messages::hello::{BirthMessage, GreetReply, GreetRequest, JoinReply, JoinRequest};
use muster_pki::identity;
use muster_types::{NodeId, PublicKey};
use tokio::time::{sleep, timeout};

use super::network::{Network, Session, Unreachable};
use crate::birth::Message;
use crate::birth::wire::to_wire;

/// Timeout for dialling and proving the token.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout for a greeting over a session that is already open.
const GREET_TIMEOUT: Duration = Duration::from_millis(1500);

/// Timeout for one reply, which may take a few writes to the peer's disk.
const REPLY_TIMEOUT: Duration = Duration::from_secs(3);

/// Timeout for an admission, which the peer's leader commits.
const JOIN_TIMEOUT: Duration = Duration::from_secs(15);

/// Number of attempts to deliver a birth message, and the delay between them. After that the
/// protocol itself retries.
const ATTEMPTS: u32 = 3;
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Result of a job.
pub(super) struct JobResult<S> {
    /// The session that was used, for reuse.
    pub(super) session: Option<Arc<S>>,
    /// The peer whose session failed.
    pub(super) failed_peer: Option<NodeId>,
    pub(super) answer: JobOutcome,
}

pub(super) enum JobOutcome {
    Greeted {
        address: SocketAddr,
        reply: Result<(PublicKey, GreetReply), Unreachable>,
    },
    Replied {
        from: PublicKey,
        message: Message,
        replies: Vec<BirthMessage>,
    },
    /// A birth message could not be delivered.
    Undelivered,
    Join(Result<JoinReply, String>),
}

/// Route to one peer: an open session or addresses to dial.
pub(super) struct Route<S> {
    pub(super) to: NodeId,
    pub(super) session: Option<Arc<S>>,
    pub(super) addresses: Vec<SocketAddr>,
}

impl<S> Clone for Route<S> {
    fn clone(&self) -> Self {
        let Self { to, session, addresses } = self;
        Self { to: *to, session: session.clone(), addresses: addresses.clone() }
    }
}

fn timed_out(what: &str, limit: Duration) -> Unreachable {
    Unreachable(format!("{what} did not answer within {} s", limit.as_secs()))
}

async fn open<N: Network>(
    network: &N,
    address: SocketAddr,
) -> Result<Arc<N::Session>, Unreachable> {
    match timeout(OPEN_TIMEOUT, network.open(address)).await {
        Ok(opened) => opened.map(Arc::new),
        Err(_) => Err(timed_out(&address.to_string(), OPEN_TIMEOUT)),
    }
}

/// Greets the node at the address, over the given session if there is one.
pub(super) async fn greet<N: Network>(
    network: Arc<N>,
    address: SocketAddr,
    session: Option<Arc<N::Session>>,
    request: GreetRequest,
) -> JobResult<N::Session> {
    let known = session.as_ref().map(|session| identity::node_id(&session.peer()));
    let outcome = async {
        if let Some(session) = session {
            // A peer that restarted no longer knows this session.
            if let Ok(Ok(reply)) = timeout(GREET_TIMEOUT, session.greet(request.clone())).await {
                return Ok((session, reply));
            }
        }
        let session = open(&*network, address).await?;
        let answer = timeout(REPLY_TIMEOUT, session.greet(request)).await;
        let reply =
            answer.unwrap_or_else(|_| Err(timed_out(&address.to_string(), REPLY_TIMEOUT)))?;
        Ok((session, reply))
    };
    match outcome.await {
        Ok((session, reply)) => {
            let reply = Ok((session.peer(), reply));
            let answer = JobOutcome::Greeted { address, reply };
            JobResult { session: Some(session), failed_peer: None, answer }
        }
        Err(why) => JobResult {
            session: None,
            failed_peer: known,
            answer: JobOutcome::Greeted { address, reply: Err(why) },
        },
    }
}

impl<S: Session> Route<S> {
    /// Returns the open session, or dials the addresses until this peer answers at one.
    async fn session<N: Network<Session = S>>(&self, network: &N) -> Result<Arc<S>, Unreachable> {
        if let Some(session) = self.session.as_ref().filter(|session| !session.is_closed()) {
            return Ok(Arc::clone(session));
        }
        let mut failure = Unreachable(format!("no address of {} is known", self.to.short()));
        for address in &self.addresses {
            match open(network, *address).await {
                Ok(session) if identity::node_id(&session.peer()) == self.to => return Ok(session),
                Ok(_) => failure = Unreachable(format!("another node answers at {address}")),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

/// Delivers one birth message to a founder and returns the replies.
pub(super) async fn deliver<N: Network>(
    network: Arc<N>,
    mut route: Route<N::Session>,
    message: Message,
) -> JobResult<N::Session> {
    let wire = to_wire(&message);
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            sleep(RETRY_DELAY).await;
        }
        if let Ok(session) = route.session(&*network).await {
            if let Ok(Ok(replies)) = timeout(REPLY_TIMEOUT, session.birth(wire.clone())).await {
                let from = session.peer();
                let answer = JobOutcome::Replied { from, message, replies };
                return JobResult { session: Some(session), failed_peer: None, answer };
            }
            route.session = None;
        }
    }
    JobResult { session: None, failed_peer: Some(route.to), answer: JobOutcome::Undelivered }
}

/// Requests admission from a member.
pub(super) async fn join<N: Network>(
    network: Arc<N>,
    route: Route<N::Session>,
    request: JoinRequest,
) -> JobResult<N::Session> {
    let outcome = async {
        let session = route.session(&*network).await?;
        let answer = timeout(JOIN_TIMEOUT, session.join(request)).await;
        let reply = answer.unwrap_or_else(|_| Err(timed_out("the member", JOIN_TIMEOUT)))?;
        Ok::<_, Unreachable>((session, reply))
    };
    match outcome.await {
        Ok((session, reply)) => JobResult {
            session: Some(session),
            failed_peer: None,
            answer: JobOutcome::Join(Ok(reply)),
        },
        Err(why) => JobResult {
            session: None,
            failed_peer: Some(route.to),
            answer: JobOutcome::Join(Err(why.to_string())),
        },
    }
}
