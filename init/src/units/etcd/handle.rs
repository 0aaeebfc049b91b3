//! The handle to the etcd unit. It owns nothing: requests go to `task`.

use tokio::sync::{mpsc, oneshot, watch};

use super::client::CredentialsError;
use super::dir::EtcdDirError;
use super::spec::EtcdSpec;
use super::status::EtcdStatus;
use muster_files::WriteError;

/// Reason why a spec was not applied; the previous one stays in effect.
#[derive(Debug, thiserror::Error)]
pub enum EtcdUnitError {
    #[error("cannot use etcd's credentials")]
    Credentials(#[from] CredentialsError),
    #[error("cannot use etcd's directory")]
    EtcdDir(#[from] EtcdDirError),
    #[error("cannot write etcd's files")]
    Write(#[from] WriteError),
    #[error("the etcd unit has stopped")]
    Stopped,
}

/// Handle to the etcd unit: submits the desired member and reads the status.
#[derive(Debug, Clone)]
pub struct EtcdUnit {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) status: watch::Receiver<EtcdStatus>,
}

impl EtcdUnit {
    /// Sets the desired member. Idempotent: call it as often as needed. Renewed credentials are
    /// installed without a restart, and first-start parameters are ignored once the member has
    /// data. Any other change restarts etcd. Returns once the files are on disk.
    pub async fn set(&self, spec: EtcdSpec) -> Result<(), EtcdUnitError> {
        self.send(|done| Request::Set(Box::new(spec), done)).await
    }

    /// Stops etcd; returns once it has exited.
    pub async fn stop(&self) -> Result<(), EtcdUnitError> {
        self.send(Request::Stop).await
    }

    /// Subscribes to the status.
    pub fn status(&self) -> watch::Receiver<EtcdStatus> {
        self.status.clone()
    }

    async fn send(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<(), EtcdUnitError>>) -> Request,
    ) -> Result<(), EtcdUnitError> {
        let (done, answer) = oneshot::channel();
        self.requests.send(request(done)).await.map_err(|_| EtcdUnitError::Stopped)?;
        answer.await.map_err(|_| EtcdUnitError::Stopped)?
    }
}

/// Receives the result of a request.
pub(super) type Done = oneshot::Sender<Result<(), EtcdUnitError>>;

#[derive(Debug)]
pub(super) enum Request {
    Set(Box<EtcdSpec>, Done),
    Stop(Done),
}
