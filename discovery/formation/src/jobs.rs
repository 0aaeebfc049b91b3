//! Network jobs of formation: one future per greeting, message or join request. Each ends within a
//! bounded time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use muster_messages::hello::{BirthMessage, GreetReply, GreetRequest, JoinReply, JoinRequest};
use muster_pki::identity;
use muster_types::{NodeId, PublicKey};
use tokio::time::{sleep, timeout};

use super::network::{Network, Session, Unreached};
use crate::birth::Message;
use crate::birth::wire::to_wire;

/// Timeout for dialling and proving the token.
const OPEN: Duration = Duration::from_secs(5);

/// Timeout for a greeting over a session that is already open.
const GREETING: Duration = Duration::from_millis(1500);

/// Timeout for one reply, which may take a few writes to the peer's disk.
const ANSWER: Duration = Duration::from_secs(3);

/// Timeout for an admission, which the peer's leader commits.
const ADMISSION: Duration = Duration::from_secs(15);

/// Number of attempts to deliver a birth message, and the delay between them. After that the
/// protocol itself retries.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// Result of a job.
pub(super) struct Done<S> {
    /// The session that was used, for reuse.
    pub(super) session: Option<Arc<S>>,
    /// The peer whose session failed.
    pub(super) lost: Option<NodeId>,
    pub(super) answer: Answer,
}

pub(super) enum Answer {
    Greeted {
        address: SocketAddr,
        reply: Result<(PublicKey, GreetReply), Unreached>,
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

fn late(what: &str, limit: Duration) -> Unreached {
    Unreached(format!("{what} did not answer within {} s", limit.as_secs()))
}

async fn open<N: Network>(network: &N, address: SocketAddr) -> Result<Arc<N::Session>, Unreached> {
    match timeout(OPEN, network.open(address)).await {
        Ok(opened) => opened.map(Arc::new),
        Err(_) => Err(late(&address.to_string(), OPEN)),
    }
}

/// Greets the node at the address, over the given session if there is one.
pub(super) async fn greet<N: Network>(
    network: Arc<N>,
    address: SocketAddr,
    session: Option<Arc<N::Session>>,
    request: GreetRequest,
) -> Done<N::Session> {
    let known = session.as_ref().map(|session| identity::node_id(&session.peer()));
    let outcome = async {
        if let Some(session) = session {
            // A peer that restarted no longer knows this session.
            if let Ok(Ok(reply)) = timeout(GREETING, session.greet(request.clone())).await {
                return Ok((session, reply));
            }
        }
        let session = open(&*network, address).await?;
        let answer = timeout(ANSWER, session.greet(request)).await;
        let reply = answer.unwrap_or_else(|_| Err(late(&address.to_string(), ANSWER)))?;
        Ok((session, reply))
    };
    match outcome.await {
        Ok((session, reply)) => {
            let reply = Ok((session.peer(), reply));
            let answer = Answer::Greeted { address, reply };
            Done { session: Some(session), lost: None, answer }
        }
        Err(why) => Done {
            session: None,
            lost: known,
            answer: Answer::Greeted { address, reply: Err(why) },
        },
    }
}

impl<S: Session> Route<S> {
    /// Returns the open session, or dials the addresses until this peer answers at one.
    async fn session<N: Network<Session = S>>(&self, network: &N) -> Result<Arc<S>, Unreached> {
        if let Some(session) = self.session.as_ref().filter(|session| !session.is_closed()) {
            return Ok(Arc::clone(session));
        }
        let mut failure = Unreached(format!("no address of {} is known", self.to.short()));
        for address in &self.addresses {
            match open(network, *address).await {
                Ok(session) if identity::node_id(&session.peer()) == self.to => return Ok(session),
                Ok(_) => failure = Unreached(format!("another node answers at {address}")),
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
) -> Done<N::Session> {
    let wire = to_wire(&message);
    for attempt in 0..TRIES {
        if attempt > 0 {
            sleep(PAUSE).await;
        }
        if let Ok(session) = route.session(&*network).await {
            if let Ok(Ok(replies)) = timeout(ANSWER, session.birth(wire.clone())).await {
                let from = session.peer();
                let answer = Answer::Replied { from, message, replies };
                return Done { session: Some(session), lost: None, answer };
            }
            route.session = None;
        }
    }
    Done { session: None, lost: Some(route.to), answer: Answer::Undelivered }
}

/// Requests admission from a member.
pub(super) async fn join<N: Network>(
    network: Arc<N>,
    route: Route<N::Session>,
    request: JoinRequest,
) -> Done<N::Session> {
    let outcome = async {
        let session = route.session(&*network).await?;
        let answer = timeout(ADMISSION, session.join(request)).await;
        let reply = answer.unwrap_or_else(|_| Err(late("the member", ADMISSION)))?;
        Ok::<_, Unreached>((session, reply))
    };
    match outcome.await {
        Ok((session, reply)) => {
            Done { session: Some(session), lost: None, answer: Answer::Join(Ok(reply)) }
        }
        Err(why) => {
            Done { session: None, lost: Some(route.to), answer: Answer::Join(Err(why.to_string())) }
        }
    }
}
