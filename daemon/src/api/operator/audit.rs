//! Operator calls about the audit log, and its entries for actions that are no command of the
//! group.

use muster_messages::operator as wire;
use tonic::Status;

use super::OperatorContext;
use super::context::Caller;
use muster_state::command::RecordAudit;
use muster_state::{Command, view};

impl OperatorContext {
    pub(super) async fn list_audit(
        &self,
        _: &Caller,
        request: wire::ListAuditRequest,
    ) -> Result<wire::ListAuditReply, Status> {
        Ok(view::audit(&*self.current().await?, request.limit))
    }

    /// Records an operator's action that is no command of the group in the audit log.
    pub(super) async fn record_audit(&self, caller: &Caller, action: &str, subject: &str) {
        let state = self.group.state();
        let operator = state.operator(&caller.key).map_or("?", |operator| &operator.name);
        let record = RecordAudit {
            by: self.group.me(),
            action: format!("{action}, for operator {operator}"),
            subject: subject.to_owned(),
            outcome: "ok".to_owned(),
        };
        if let Err(error) = self.group.propose(Command::RecordAudit(record)).await {
            tracing::warn!(%error, action, subject, "cannot record an operator's action");
        }
    }
}
