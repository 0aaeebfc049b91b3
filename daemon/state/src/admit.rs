//! Admission: a node that proved a token becomes a member.

use muster_types::{ConfigVersion, NodeId, UnixMillis};

use super::command::Admit;
use super::members::{check_addresses, check_version};
use super::{ApplyContext, ClusterState, Member, Outcome, Refusal, RefusalKind, limits};

impl ClusterState {
    /// Checks whether this admission would succeed at `now`. Called before anything is written,
    /// so that unknown nodes cannot fill the log.
    pub fn check_admit(&self, admit: &Admit, now: UnixMillis) -> Result<(), Refusal> {
        if self.birth.is_none() {
            return Err(super::not_founded());
        }
        self.check_admission(admit, now.max(self.now)).map(|_| ())
    }

    pub(super) fn admit(&mut self, at: ApplyContext, admit: &Admit) -> Result<Outcome, Refusal> {
        let (node, already_member) = self.check_admission(admit, at.now)?;
        if already_member {
            if let Some(member) = self.members.get_mut(&node) {
                member.addresses.clone_from(&admit.addresses);
                member.version.clone_from(&admit.version);
            }
            return Ok(Outcome::Admitted { node, already_member });
        }
        self.tokens.count_use(&admit.token);
        let member = Member {
            id: node,
            public_key: admit.public_key,
            name: admit.name.clone(),
            role: admit.role,
            addresses: admit.addresses.clone(),
            version: admit.version.clone(),
            config_version: ConfigVersion::NONE,
            token: admit.token.clone(),
            verified_by: Some(admit.verified_by),
            admitted_index: at.index,
            admitted_at: at.now,
            etcd: None,
        };
        if member.is_control_plane() {
            self.etcd.add_node(at, &member);
        }
        self.members.insert(member);
        Ok(Outcome::Admitted { node, already_member })
    }

    /// Returns the node's id, and whether it is a member already.
    fn check_admission(&self, admit: &Admit, now: UnixMillis) -> Result<(NodeId, bool), Refusal> {
        let node = super::node_id(&admit.public_key);
        if let Some(tombstone) = self.members.tombstone(&node) {
            return Err(Refusal::new(
                RefusalKind::Removed,
                format!(
                    "this machine's identity {} was removed from the cluster (as {}) and cannot \
                     return; wipe its state directory to join as a new node",
                    node.short(),
                    tombstone.name
                ),
            ));
        }
        check_addresses(&admit.addresses)?;
        check_version(&admit.version)?;
        self.require_control_plane(&admit.verified_by)?;
        if let Some(member) = self.members.get(&node) {
            return same_node(member, admit).map(|()| (node, true));
        }
        if let Some(holder) = self.members.by_name(&admit.name) {
            return Err(name_taken(holder));
        }
        self.check_token(admit, now)?;
        if !self.members.has_capacity() {
            return Err(Refusal::new(
                RefusalKind::Full,
                format!(
                    "the cluster is full ({} members, {} identities ever); remove members that \
                     are gone with `musterctl node remove`",
                    limits::MAX_MEMBERS,
                    limits::MAX_IDENTITIES
                ),
            ));
        }
        Ok((node, false))
    }
}

/// Refuses a member that joins again under another name or role.
fn same_node(member: &Member, admit: &Admit) -> Result<(), Refusal> {
    if member.name == admit.name && member.role == admit.role {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalKind::Invalid,
        format!(
            "this machine is a member as {} {} and cannot become {} {}; start it with `--name {}` \
             and the machine.type of that name",
            member.role, member.name, admit.role, admit.name, member.name
        ),
    ))
}

fn name_taken(holder: &Member) -> Refusal {
    Refusal::new(
        RefusalKind::NameTaken,
        format!(
            "the name {0} is taken by node {1}; give this machine another name, or, if that one is \
             gone or was wiped, run `musterctl node remove {0}`",
            holder.name,
            holder.id.short()
        ),
    )
}
