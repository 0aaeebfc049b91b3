//! The task that owns this node's etcd, and the handle to it.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::binary::Version;
use super::client::CredentialsError;
use super::credentials::{self, Paths};
use super::home::{AdmitError, Home, HomeError, Presence};
use super::probe::{OnDisk, Probe, Sight};
use super::spec::{Generation, Spec};
use super::words::last_words;
use crate::logs::Place;
use crate::supervisor::{self, Exit, Guard, Policy, Refusal, supervise};
use muster_files::WriteError;

/// Probe interval while etcd starts.
const EAGER: Duration = Duration::from_millis(50);
/// Probe interval while it does not serve.
const ANXIOUS: Duration = Duration::from_millis(500);
/// Probe interval while it serves.
const CALM: Duration = Duration::from_secs(2);

/// Number of probes after a start at the short interval: about ten seconds.
const EAGER_LOOKS: u32 = 200;

/// Published status of this node's etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Desired generation; `None` when no etcd is desired.
    pub generation: Option<Generation>,
    pub version: Option<Version>,
    pub phase: Phase,
    pub data: Data,
    pub health: Health,
    pub pid: Option<u32>,
    /// Number of starts after the first one.
    pub restarts: u64,
    pub last_exit: Option<Exit>,
    /// Last error that the most recently exited process logged.
    pub last_words: Option<String>,
    /// Reason why it does not run although it should.
    pub problem: Option<String>,
}

/// State of the desired generation's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// Not written yet.
    Absent,
    /// On disk.
    Present,
    /// Was on disk, now missing.
    Lost,
}

/// Phase of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Stopped,
    Starting,
    Running,
    BackingOff,
    Stopping,
    /// The member's data is lost: it stays down until another generation is desired.
    Lost,
    /// It must not start; `problem` holds the reason.
    Refused,
}

/// Health according to the last probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Not probed since its start, or not running.
    Unknown,
    /// Answers linearizable reads.
    Serving,
    /// Follows as a learner.
    Learner,
    /// Running but not serving; holds etcd's reason.
    Waiting(String),
    /// Does not answer; holds the error.
    Silent(String),
}

impl Health {
    /// Reports whether a voter serves or a learner follows.
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Serving | Self::Learner)
    }
}

impl From<Sight> for Health {
    fn from(sight: Sight) -> Self {
        match sight {
            Sight::Serving => Self::Serving,
            Sight::Learner => Self::Learner,
            Sight::Waiting(why) => Self::Waiting(why),
            Sight::Silent(why) => Self::Silent(why),
        }
    }
}

/// Reason why a spec was not applied; the previous one stays in effect.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    #[error("cannot use etcd's credentials")]
    Credentials(#[from] CredentialsError),
    #[error("cannot use etcd's directory")]
    Home(#[from] HomeError),
    #[error("cannot write etcd's files")]
    Write(#[from] WriteError),
    #[error("the etcd unit has stopped")]
    Gone,
}

/// Handle to the etcd unit: submits the desired member and reads the status.
#[derive(Debug, Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<Status>,
}

impl Handle {
    /// Sets the desired member. Idempotent: call it as often as needed. Renewed credentials are
    /// installed without a restart, and first-start parameters are ignored once the member has
    /// data. Any other change restarts etcd. Returns once the files are on disk.
    pub async fn set(&self, spec: Spec) -> Result<(), SetError> {
        self.ask(|done| Request::Set(Box::new(spec), done)).await
    }

    /// Stops etcd; returns once it has exited.
    pub async fn stop(&self) -> Result<(), SetError> {
        self.ask(Request::Stop).await
    }

    /// Subscribes to the status.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    async fn ask(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<(), SetError>>) -> Request,
    ) -> Result<(), SetError> {
        let (done, answer) = oneshot::channel();
        self.requests.send(request(done)).await.map_err(|_| SetError::Gone)?;
        answer.await.map_err(|_| SetError::Gone)?
    }
}

type Done = oneshot::Sender<Result<(), SetError>>;

#[derive(Debug)]
enum Request {
    Set(Box<Spec>, Done),
    Stop(Done),
}

/// Supervisor timing for etcd.
///
/// On SIGTERM a leader first transfers its leadership, which takes tenths of a second. If the
/// others are stopping too, it waits 7 s in vain. 3 s allow the transfer and cut that wait short.
/// Everything that etcd acknowledged is on disk, so SIGKILL loses nothing.
pub fn policy() -> Policy {
    Policy { stop_within: Duration::from_secs(3), ..Policy::default() }
}

/// Creates the unit's handle and task: the caller spawns [`Owner::run`].
pub fn unit(home: Home, policy: Policy) -> (Handle, Owner) {
    let (requests, inbox) = mpsc::channel(4);
    let (publish, status) = watch::channel(Status {
        generation: None,
        version: None,
        phase: Phase::Stopped,
        data: Data::Absent,
        health: Health::Unknown,
        pid: None,
        restarts: 0,
        last_exit: None,
        last_words: None,
        problem: None,
    });
    let log = Place::new(home.log().join("etcd.log"));
    let (supervisor, process) = supervise("etcd", policy, log);
    let owner = Owner {
        process_status: supervisor.status(),
        home,
        supervisor,
        process: Some(process),
        spec: None,
        probe: None,
        looking: None,
        looks: 0,
        served: false,
        cleaning: JoinSet::new(),
        inbox,
        publish,
    };
    (Handle { requests, status }, owner)
}

type Look = (Sight, Result<OnDisk, HomeError>);

/// Task that owns etcd. Dropping it, or the future of [`Owner::run`], kills etcd at once.
pub struct Owner {
    home: Home,
    supervisor: supervisor::Handle,
    process: Option<supervisor::Owner>,
    process_status: watch::Receiver<supervisor::Status>,
    /// The spec applied last, and its probe.
    spec: Option<Spec>,
    probe: Option<Probe>,
    /// The next probe, including its delay; only while the process runs.
    looking: Option<BoxFuture<'static, Look>>,
    looks: u32,
    /// It has served since its last start.
    served: bool,
    cleaning: JoinSet<()>,
    inbox: mpsc::Receiver<Request>,
    publish: watch::Sender<Status>,
}

impl std::fmt::Debug for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owner").field("home", &self.home).finish_non_exhaustive()
    }
}

enum Input {
    End,
    Request(Request),
    Process,
    Looked(Look),
}

impl Owner {
    /// Runs until `stop` or until every handle is dropped; returns once etcd has exited.
    pub async fn run(mut self, stop: CancellationToken) {
        let end = stop.child_token();
        let mut tasks = JoinSet::new();
        tasks.spawn(self.process.take().expect("run consumes the task").run(end.clone()));
        loop {
            match self.next(&stop).await {
                Input::End => break,
                Input::Request(request) => self.serve(request).await,
                Input::Process => self.follow(),
                Input::Looked(look) => self.looked(look).await,
            }
        }
        end.cancel();
        while tasks.join_next().await.is_some() {}
        self.follow();
    }

    async fn next(&mut self, stop: &CancellationToken) -> Input {
        let looking = async {
            match &mut self.looking {
                Some(looking) => looking.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Input::End,
            request = self.inbox.recv() => request.map_or(Input::End, Input::Request),
            changed = self.process_status.changed() => {
                changed.map_or(Input::End, |()| Input::Process)
            }
            look = looking => Input::Looked(look),
        }
    }

    async fn serve(&mut self, request: Request) {
        // A caller that gave up does not need the reply.
        match request {
            Request::Set(spec, done) => {
                done.send(self.set(*spec).await).ok();
            }
            Request::Stop(done) => {
                let stopped = self.supervisor.stop().await.map_err(|_| SetError::Gone);
                self.publish(|status| status.generation = None);
                self.follow();
                done.send(stopped).ok();
            }
        }
    }

    async fn set(&mut self, spec: Spec) -> Result<(), SetError> {
        let is_new = self.spec.as_ref() != Some(&spec);
        let probe = is_new.then(|| Probe::new(&spec, &self.home)).transpose()?;
        let (home, prepared) = (self.home.clone(), spec.clone());
        let prepared = tokio::task::spawn_blocking(move || prepare(&home, prepared)).await;
        let (prepared, data) = prepared.map_err(|_| SetError::Gone)??;
        let command = prepared.command(&self.home);
        self.publish(|status| {
            status.generation = Some(spec.generation);
            status.version = Some(spec.binary.version);
            status.data = data;
        });
        let guard = guard(self.home.clone(), spec.clone());
        let wish = supervisor::Spec { command, guard: Some(guard) };
        self.supervisor.set_spec(wish).await.map_err(|_| SetError::Gone)?;
        // Only now: until here the old etcd keeps running and must be probed at its own address.
        if let Some(probe) = probe {
            (self.spec, self.probe) = (Some(spec), Some(probe));
        }
        Ok(())
    }

    /// Applies the supervisor's status.
    fn follow(&mut self) {
        let process = self.process_status.borrow_and_update().clone();
        let phase = match (process.phase, &process.refusal) {
            (supervisor::Phase::Refused, Some(Refusal::Lost(_))) => Phase::Lost,
            (supervisor::Phase::Refused, _) => Phase::Refused,
            (supervisor::Phase::Stopped, _) => Phase::Stopped,
            (supervisor::Phase::Starting, _) => Phase::Starting,
            (supervisor::Phase::Running, _) => Phase::Running,
            (supervisor::Phase::BackingOff, _) => Phase::BackingOff,
            (supervisor::Phase::Stopping, _) => Phase::Stopping,
        };
        let another = self.publish.borrow().pid != process.pid;
        if phase != Phase::Running {
            self.looking = None;
        } else if another || self.looking.is_none() {
            (self.looks, self.served) = (0, false);
            self.looking = self.next_look(Duration::ZERO);
        }
        self.publish(|status| {
            if another || phase != Phase::Running {
                status.health = Health::Unknown;
            }
            status.phase = phase;
            if phase == Phase::Lost {
                status.data = Data::Lost;
            }
            status.pid = process.pid;
            status.restarts = process.restarts;
            status.last_exit = process.last_exit;
            status.last_words = last_words(&process.last_lines);
            status.problem = process.refusal.map(|why| why.to_string()).or(process.problem);
        });
    }

    /// Publishes only on change: every notification makes the controller re-evaluate and submit its
    /// spec again.
    fn publish(&self, change: impl FnOnce(&mut Status)) {
        self.publish.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            *status != before
        });
    }

    fn next_look(&self, pause: Duration) -> Option<BoxFuture<'static, Look>> {
        let probe = self.probe.clone()?;
        let look = async move {
            tokio::time::sleep(pause).await;
            probe.look().await
        };
        Some(look.boxed())
    }

    async fn looked(&mut self, (sight, on_disk): Look) {
        let answered = !matches!(sight, Sight::Silent(_));
        let good = matches!(sight, Sight::Serving | Sight::Learner);
        if good && !self.served {
            self.served = true;
            info!(looks = self.looks, "etcd serves");
            self.forget_older_generations();
        }
        self.looks = self.looks.saturating_add(1);
        let pause = match (good, self.served, self.looks) {
            (true, ..) => CALM,
            (false, false, ..EAGER_LOOKS) => EAGER,
            (false, ..) => ANXIOUS,
        };
        self.looking = self.next_look(pause);
        let data = match on_disk {
            Ok(OnDisk::NotYet) => Some(Data::Absent),
            Ok(OnDisk::There) => Some(Data::Present),
            Ok(OnDisk::Gone) => Some(Data::Lost),
            Err(_) => None,
        };
        self.publish(|status| {
            status.health = Health::from(sight);
            status.data = data.unwrap_or(status.data);
        });
        // The supervisor ends only when this task is about to end as well.
        self.supervisor.asked(answered).await.ok();
        match on_disk {
            Ok(OnDisk::NotYet | OnDisk::There) => {}
            Ok(OnDisk::Gone) => {
                warn!("etcd's data was deleted: stopping it before it acknowledges more");
                // The start check then refuses to start it again.
                self.supervisor.restart().await.ok();
            }
            Err(error) => warn!(error = %error, "cannot read etcd's directory"),
        }
    }

    fn forget_older_generations(&mut self) {
        while self.cleaning.try_join_next().is_some() {}
        let Some(generation) = self.publish.borrow().generation else { return };
        let home = self.home.clone();
        self.cleaning.spawn_blocking(move || {
            if let Err(error) = home.forget_before(generation) {
                warn!(error = %error, "cannot remove data of a former etcd member");
            }
        });
    }
}

/// Creates directories and credential files. Returns the spec to run, with the recorded first-start
/// parameters if there is data, and the state of the data.
fn prepare(home: &Home, mut spec: Spec) -> Result<(Spec, Data), SetError> {
    muster_files::create_private_directory(home.root())?;
    muster_files::create_private_directory(&home.log())?;
    credentials::write(&Paths::in_home(home.root()), &spec.credentials)?;
    let data = match home.presence(spec.generation)? {
        Presence::Whole(record) => {
            spec.initial = record.initial;
            Data::Present
        }
        Presence::Lost(_) => Data::Lost,
        Presence::Absent | Presence::Begun(_) if spec.heard_of => Data::Lost,
        Presence::Absent | Presence::Begun(_) | Presence::Strange => Data::Absent,
    };
    Ok((spec, data))
}

fn guard(home: Home, spec: Spec) -> Guard {
    Arc::new(move || {
        if matches!(home.presence(spec.generation), Ok(Presence::Absent)) {
            // Runs on the child's thread, so it blocks nothing else.
            std::thread::sleep(spec.first_start_delay());
        }
        home.admit(&spec).map_err(|error| match error {
            AdmitError::Lost { .. } => Refusal::Lost(error.to_string()),
            AdmitError::Strange { .. }
            | AdmitError::HalfRestored { .. }
            | AdmitError::OtherCluster { .. }
            | AdmitError::Home(_) => Refusal::Forbidden(error.to_string()),
        })
    })
}

#[cfg(test)]
#[path = "run_test.rs"]
mod tests;
