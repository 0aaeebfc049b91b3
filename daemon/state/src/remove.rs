//! Removal: the permanent end of a membership.

use muster_types::NodeName;

use super::command::Remove;
use super::permissions::Call;
use super::{ApplyContext, ClusterState, Member, Outcome, Refusal, RefusalKind};

impl ClusterState {
    /// Checks whether `remove` would succeed and returns the node's name. Removing a removed node
    /// again succeeds and changes nothing.
    pub fn check_removal(&self, remove: &Remove) -> Result<NodeName, Refusal> {
        self.authorize_actor(&remove.by, Call::RemoveNode)?;
        if let Some(tombstone) = self.members.tombstone(&remove.node) {
            return Ok(tombstone.name.clone());
        }
        let Some(member) = self.members.get(&remove.node) else {
            return Err(Refusal::new(
                RefusalKind::NotAMember,
                format!(
                    "no member has the node id {}; see `musterctl members`",
                    remove.node.short()
                ),
            ));
        };
        if member.is_control_plane() {
            self.check_control_plane_remains(member, remove.force)?;
        }
        Ok(member.name.clone())
    }

    pub(super) fn remove(&mut self, at: ApplyContext, remove: &Remove) -> Result<Outcome, Refusal> {
        let (node, name) = (remove.node, self.check_removal(remove)?);
        if self.members.get(&node).is_some() {
            self.etcd.remove_node(&node);
            self.members.remove(&node, at.index, at.now_ms);
        }
        Ok(Outcome::Removed { node, name })
    }

    fn check_control_plane_remains(&self, member: &Member, force: bool) -> Result<(), Refusal> {
        if self.members().filter(|m| m.is_control_plane()).count() < 2 {
            return Err(Refusal::new(
                RefusalKind::LastControlPlane,
                format!(
                    "{} is the last control-plane node and the cluster needs one; join another \
                     one first",
                    member.name
                ),
            ));
        }
        if !force && self.etcd.would_lose_quorum_without(&member.id) {
            return Err(Refusal::new(
                RefusalKind::QuorumAtRisk,
                format!(
                    "without {} the remaining etcd members would have no quorum; wait until \
                     `musterctl etcd members` shows the others as voters, or use --force",
                    member.name
                ),
            ));
        }
        Ok(())
    }
}
