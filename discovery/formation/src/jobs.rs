//! What formation sends others out to do: one future per greeting, message or request, each ending
//! within a bounded time.

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

/// Dialling and proving.
const OPEN: Duration = Duration::from_secs(5);

/// A greeting over a session that was open already.
const GREETING: Duration = Duration::from_millis(1500);

/// One answer, which may take a few writes to the peer's disk.
const ANSWER: Duration = Duration::from_secs(3);

/// An admission, which the peer's leader commits.
const ADMISSION: Duration = Duration::from_secs(15);

/// How often a message of the birth is tried, and the pause in between. Beyond that the protocol
/// itself asks again.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// What came of it.
pub(super) struct Done<S> {
    /// The session that was used, to be used again.
    pub(super) session: Option<Arc<S>>,
    /// Whose session turned out to be of no use.
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
    /// A message of the birth found no way.
    Undelivered,
    Join(Result<JoinReply, String>),
}

/// How to reach one peer.
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

/// Greets whoever answers at the address, over the session given if there is one.
pub(super) async fn greet<N: Network>(
    network: Arc<N>,
    address: SocketAddr,
    session: Option<Arc<N::Session>>,
    request: GreetRequest,
) -> Done<N::Session> {
    let known = session.as_ref().map(|session| identity::node_id(&session.peer()));
    let outcome = async {
        if let Some(session) = session {
            // A peer that restarted does not know this session any more.
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
    /// The session, or a new one at the first address where this very peer answers.
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

/// Brings one message of the birth to a founder, and its replies back.
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

/// Asks a member for admission.
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
