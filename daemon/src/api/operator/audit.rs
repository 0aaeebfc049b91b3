//! Operator calls about the audit log, and its entries for actions that are no command of the
//! group.

use std::time::Duration;

use muster_messages::operator as wire;
use tonic::Status;

use super::OperatorContext;
use super::context::{CallContext, not_begun, refusal_status};
use crate::api::status::unavailable;
use crate::raft::GroupError;
use muster_state::command::RecordAudit;
use muster_state::{Command, view};

/// Time limit for an audit entry to be committed: longer than an election, shorter than an operator
/// waits.
const AUDIT_TIMEOUT: Duration = Duration::from_millis(2_500);

impl OperatorContext {
    pub(super) async fn list_audit(
        &self,
        _: &CallContext,
        request: wire::ListAuditRequest,
    ) -> Result<wire::ListAuditReply, Status> {
        Ok(view::audit(&*self.current().await?, request.limit))
    }

    /// Records an operator's action that is no command of the group in the audit log, before it takes
    /// place. Without the entry the action must not take place, and nothing may be given out: the
    /// caller returns the error. The outcome is "begun": an entry that was not committed in time may
    /// be committed later, although the action was refused.
    pub(super) async fn record_audit(
        &self,
        caller: &CallContext,
        action: &str,
        subject: &str,
    ) -> Result<(), Status> {
        let state = self.group.state();
        let operator = state.operator(&caller.key).map_or("?", |operator| &operator.name);
        let record = RecordAudit {
            by: self.group.me(),
            action: format!("{action}, for operator {operator}"),
            subject: subject.to_owned(),
            outcome: "begun".to_owned(),
        };
        let recorded = self.propose_audit(Command::RecordAudit(record)).await;
        recorded.map_err(|error| not_begun(not_recorded(&error)))
    }

    /// Proposes an entry. Fails at once if this node has had no leader for longer than an election.
    async fn propose_audit(&self, record: Command) -> Result<(), Status> {
        let waited = self.group.leaderless_for();
        if waited > AUDIT_TIMEOUT {
            return Err(unavailable(&GroupError::NoLeader { waited }));
        }
        let outcome = self.group.propose_within(record, AUDIT_TIMEOUT).await;
        let outcome = outcome.map_err(|error| unavailable(&error))?;
        outcome.into_result().map(drop).map_err(refusal_status)
    }
}

fn not_recorded(error: &Status) -> Status {
    let why = error.message();
    let text = format!("nothing was done, because the audit log cannot record it: {why}");
    Status::new(error.code(), text)
}
