//! Decides from the disk and the spec whether a member may start. Never starts one.

use std::path::PathBuf;
use std::sync::Arc;

use super::dir::{EtcdDir, EtcdDirError, GenerationState};
use super::spec::EtcdSpec;
use super::start_record::StartRecord;
use crate::supervisor::{StartCheck, StartRefusal};

/// Reason why a member must not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "the data of this etcd member is lost ({} is gone or incomplete); it must not start empty: \
         replace the member", path.display()
    )]
    DataLost { path: PathBuf },
    #[error(
        "{} holds etcd data without a start record: move it away or restore the record",
        path.display()
    )]
    Unmanaged { path: PathBuf },
    #[error("{} was not completely restored from its snapshot: restore it first", path.display())]
    RestoreIncomplete { path: PathBuf },
    #[error("{} belongs to cluster {found}, not {wanted}", path.display())]
    OtherCluster { path: PathBuf, found: String, wanted: String },
    #[error(transparent)]
    EtcdDir(#[from] EtcdDirError),
}

impl From<StartError> for StartRefusal {
    fn from(error: StartError) -> Self {
        match error {
            StartError::DataLost { .. } => Self::DataLost(error.to_string()),
            StartError::Unmanaged { .. }
            | StartError::RestoreIncomplete { .. }
            | StartError::OtherCluster { .. }
            | StartError::EtcdDir(_) => Self::Forbidden(error.to_string()),
        }
    }
}

impl EtcdDir {
    /// Checks that this member may start, and writes its start record. Runs before every start.
    pub fn check_start(&self, spec: &EtcdSpec) -> Result<(), StartError> {
        let EtcdSpec { generation, name, initial, known_to_cluster, .. } = spec;
        let path = self.data(*generation);
        match self.generation_state(*generation)? {
            GenerationState::Unmanaged => Err(StartError::Unmanaged { path }),
            GenerationState::Lost(_) => Err(StartError::DataLost { path }),
            GenerationState::Absent | GenerationState::Started(_) if *known_to_cluster => {
                Err(StartError::DataLost { path })
            }
            GenerationState::Started(record) if record.restored_from.is_some() => {
                Err(StartError::RestoreIncomplete { path })
            }
            GenerationState::Absent | GenerationState::Started(_) => {
                self.write(*generation, &StartRecord::new(name.clone(), initial.clone()))?;
                Ok(())
            }
            GenerationState::Intact(record) if record.initial.token != initial.token => {
                let found = record.initial.token;
                Err(StartError::OtherCluster { path, found, wanted: initial.token.clone() })
            }
            GenerationState::Intact(_) => {
                self.record_data(*generation)?;
                Ok(())
            }
        }
    }
}

/// The check that the supervisor runs before every start.
pub(super) fn start_check(dir: EtcdDir, spec: EtcdSpec) -> StartCheck {
    Arc::new(move || {
        if matches!(dir.generation_state(spec.generation), Ok(GenerationState::Absent)) {
            // Runs on the child's thread, so it blocks nothing else.
            std::thread::sleep(spec.first_start_delay());
        }
        dir.check_start(&spec).map_err(StartRefusal::from)
    })
}

#[cfg(test)]
pub(super) mod tests;
