//! Requests that several commands make, and the node that a command is about. Shows nothing.

use muster_messages::operator::{
    HealthReply, HealthRequest, MembersReply, MembersRequest, VersionReply, VersionRequest,
};

use super::api::Api;
use super::error::{CallError, CallKind};

impl Api {
    /// Asks any node for its list of members.
    pub(crate) async fn list_members(&mut self) -> Result<MembersReply, CallError> {
        self.list_members_for("list the members").await
    }

    /// Lists the members as a part of another action. `what` completes "could not …".
    async fn list_members_for(&mut self, what: &'static str) -> Result<MembersReply, CallError> {
        self.call(CallKind::Idempotent, what, MembersRequest {}, async |client, request| {
            client.members(request).await
        })
        .await
    }

    /// Returns the version and the name of the node that answers. `what` completes "could not …".
    pub(crate) async fn fetch_version(
        &mut self,
        what: &'static str,
    ) -> Result<VersionReply, CallError> {
        self.call(CallKind::Idempotent, what, VersionRequest {}, async |client, request| {
            client.version(request).await
        })
        .await
    }

    /// Asks any node to run the health checks.
    pub(crate) async fn check_health(&mut self) -> Result<HealthReply, CallError> {
        let what = "check the health";
        self.call(CallKind::Idempotent, what, HealthRequest {}, async |client, request| {
            client.health(request).await
        })
        .await
    }

    /// Returns true if `--node` names a node.
    pub(crate) fn has_target_node(&self) -> bool {
        self.node.is_some()
    }

    /// Keeps only the node that `--node` names; without `--node`, all of them.
    pub(crate) async fn keep_target_node<T>(
        &mut self,
        nodes: Vec<T>,
        name_of: impl Fn(&T) -> &str,
    ) -> Result<Vec<T>, CallError> {
        let Some(wanted) = self.target_node_name("list the members").await? else {
            return Ok(nodes);
        };
        Ok(nodes.into_iter().filter(|node| name_of(node) == wanted).collect())
    }

    /// Resolves `--node`, a name or an id, to the member's name.
    async fn target_node_name(&mut self, what: &'static str) -> Result<Option<String>, CallError> {
        let wanted = self.node.as_ref().and_then(|node| node.to_str().ok()).map(str::to_owned);
        let Some(wanted) = wanted else { return Ok(None) };
        let members = self.list_members_for(what).await?.members;
        match members.into_iter().find(|m| m.name == wanted || m.id == wanted) {
            Some(member) => Ok(Some(member.name)),
            None => Err(CallError::NoSuchNode { node: wanted }),
        }
    }

    /// Returns the target node of the next calls: what `--node` gives, otherwise the node that answers
    /// now, which they name from then on. Unlike [`Self::fix_target_node`] it does not need the list
    /// of members, which the role `backup` may not read.
    pub(crate) async fn target_or_answering_node(
        &mut self,
        what: &'static str,
    ) -> Result<String, CallError> {
        if let Some(given) = self.node.as_ref().and_then(|node| node.to_str().ok()) {
            return Ok(given.to_owned());
        }
        self.fix_target_node(what).await
    }

    /// Fixes the target node of the next calls: the one that `--node` names, otherwise the one that
    /// answers now. Later calls name it, even if another node takes them. Returns its name. `what`
    /// completes "could not …".
    pub(crate) async fn fix_target_node(
        &mut self,
        what: &'static str,
    ) -> Result<String, CallError> {
        let name = match self.target_node_name(what).await? {
            Some(name) => name,
            None => self.fetch_version(what).await?.node,
        };
        let parsed = name.parse();
        let node = parsed.map_err(|_| self.invalid_reply(&format!("its name is {name:?}")))?;
        self.node = Some(node);
        Ok(name)
    }
}
