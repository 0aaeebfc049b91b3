//! Enums of the messages: their words, which operators read, and the roles of nodes and operators. Does
//! not know the types of other crates.

use muster_types::{OperatorRole, Role};

use super::hello::NodeRole;
use super::operator::{AuthorityKind, access, member, token, unit};

/// Adds the words of each enum.
macro_rules! words {
    ($($kind:ty),+) => {
        $(
            impl $kind {
                /// The word for this value, such as "backing-off" for `STATE_BACKING_OFF`. Empty for
                /// the unspecified value.
                pub fn word(self) -> String {
                    word(self.as_str_name(), Self::default().as_str_name())
                }

                /// The word for the value of a field, or its number if a later version has added it.
                pub fn word_of(number: i32) -> String {
                    Self::try_from(number).map_or_else(|_| number.to_string(), Self::word)
                }
            }
        )+
    };
}

words!(
    AuthorityKind,
    NodeRole,
    access::Role,
    member::EtcdMemberPhase,
    member::RaftRole,
    member::State,
    token::State,
    unit::Phase
);

/// Removes the common prefix of an enum's values.
fn word(name: &str, unspecified: &str) -> String {
    let prefix = unspecified.trim_end_matches("UNSPECIFIED");
    match name.strip_prefix(prefix).unwrap_or(name) {
        "UNSPECIFIED" => String::new(),
        word => word.to_lowercase().replace('_', "-"),
    }
}

impl From<Role> for NodeRole {
    fn from(role: Role) -> Self {
        match role {
            Role::ControlPlane => Self::ControlPlane,
            Role::Worker => Self::Worker,
        }
    }
}

impl NodeRole {
    /// The role in the value of a field; `None` if it is unspecified or unknown.
    pub fn role_of(number: i32) -> Option<Role> {
        match Self::try_from(number).ok()? {
            Self::Unspecified => None,
            Self::ControlPlane => Some(Role::ControlPlane),
            Self::Worker => Some(Role::Worker),
        }
    }
}

impl From<OperatorRole> for access::Role {
    fn from(role: OperatorRole) -> Self {
        match role {
            OperatorRole::Admin => Self::Admin,
            OperatorRole::Operator => Self::Operator,
            OperatorRole::Reader => Self::Reader,
            OperatorRole::Backup => Self::Backup,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_the_name_without_the_prefix() {
        assert_eq!(unit::Phase::BackingOff.word(), "backing-off");
        assert_eq!(member::RaftRole::Unspecified.word(), "");
        assert_eq!(AuthorityKind::word_of(4), "front-proxy");
        assert_eq!(AuthorityKind::word_of(99), "99");
    }

    #[test]
    fn every_role_has_a_value_with_its_word() {
        for role in [Role::ControlPlane, Role::Worker] {
            assert_eq!(NodeRole::from(role).word(), role.as_str());
            assert_eq!(NodeRole::role_of(NodeRole::from(role).into()), Some(role));
        }
        assert_eq!(NodeRole::role_of(0), None);
        assert_eq!(NodeRole::role_of(9), None);
        for role in [
            OperatorRole::Admin,
            OperatorRole::Operator,
            OperatorRole::Reader,
            OperatorRole::Backup,
        ] {
            assert_eq!(access::Role::from(role).word(), role.as_str());
        }
    }
}
