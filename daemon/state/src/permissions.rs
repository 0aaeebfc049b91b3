//! Permissions of operator roles on the calls of `muster.operator.v1.Operator`.
//!
//! Roles: `admin` may do everything. `reader` may read. `operator` may also make changes that
//! affect no membership. `backup` may take etcd snapshots and read what it needs for that.

use muster_types::{OperatorRole, PublicKey};

use super::{Actor, ClusterState, Refusal, RefusalKind};

macro_rules! calls {
    ($($name:ident: $($role:ident)+;)+) => {
        /// One call of the operator API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Call {
            $($name,)+
        }

        impl Call {
            /// Every call.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The name of the gRPC method.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            const fn roles(self) -> &'static [OperatorRole] {
                match self {
                    $(Self::$name => &[$(OperatorRole::$role,)+],)+
                }
            }
        }
    };
}

// Admin is not listed: it may make every call. The last one is not a method: `EtcdDisarm` is needed
// in addition to `EtcdAlarms` to disarm alarms.
calls! {
    Version: Operator Reader Backup;
    Members: Operator Reader;
    Status: Operator Reader;
    NodeStatus: Operator Reader;
    Health: Operator Reader;
    RemoveNode: Admin;
    CreateToken: Admin;
    ListTokens: Operator Reader;
    RevokeToken: Admin;
    ShowPki: Operator Reader;
    ListAudit: Operator Reader;
    EtcdMembers: Operator Reader Backup;
    EtcdStatus: Operator Reader Backup;
    EtcdSnapshot: Operator Backup;
    EtcdAlarms: Operator Reader Backup;
    EtcdDefrag: Operator;
    EtcdForfeitLeadership: Operator;
    EtcdClientConfig: Admin;
    EtcdDisarm: Operator;
}

/// Returns whether an operator of this role may make this call.
pub fn allowed(role: OperatorRole, call: Call) -> bool {
    role == OperatorRole::Admin || call.roles().contains(&role)
}

/// A call that the caller may not make.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorizationError {
    #[error("{key} is not an operator of this cluster; operators come from node.yaml")]
    UnknownOperator { key: PublicKey },
    #[error("operator {name} has the role {role}, which may not call {}; ask an admin", .call.as_str())]
    RoleForbids { name: String, role: OperatorRole, call: Call },
}

impl From<AuthorizationError> for Refusal {
    fn from(error: AuthorizationError) -> Self {
        Self::new(RefusalKind::NotAllowed, error.to_string())
    }
}

impl ClusterState {
    /// Checks that the key is an operator's whose role allows the call.
    pub fn authorize(&self, key: &PublicKey, call: Call) -> Result<(), AuthorizationError> {
        let operator =
            self.operator(key).ok_or(AuthorizationError::UnknownOperator { key: *key })?;
        if allowed(operator.role, call) {
            return Ok(());
        }
        let (name, role) = (operator.name.clone(), operator.role);
        Err(AuthorizationError::RoleForbids { name, role, call })
    }

    /// Checks the author of a command. Members and the cluster's controllers need no role.
    pub(super) fn authorize_actor(&self, by: &Actor, call: Call) -> Result<(), Refusal> {
        match by {
            Actor::Operator(key) => Ok(self.authorize(key, call)?),
            Actor::Node(_) | Actor::Cluster => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Copied by hand from operator.proto, in its order: admin, operator, reader, backup.
    const TABLE: [(&str, [bool; 4]); 19] = [
        ("Version", [true, true, true, true]),
        ("Members", [true, true, true, false]),
        ("Status", [true, true, true, false]),
        ("NodeStatus", [true, true, true, false]),
        ("Health", [true, true, true, false]),
        ("RemoveNode", [true, false, false, false]),
        ("CreateToken", [true, false, false, false]),
        ("ListTokens", [true, true, true, false]),
        ("RevokeToken", [true, false, false, false]),
        ("ShowPki", [true, true, true, false]),
        ("ListAudit", [true, true, true, false]),
        ("EtcdMembers", [true, true, true, true]),
        ("EtcdStatus", [true, true, true, true]),
        ("EtcdSnapshot", [true, true, false, true]),
        ("EtcdAlarms", [true, true, true, true]),
        ("EtcdDefrag", [true, true, false, false]),
        ("EtcdForfeitLeadership", [true, true, false, false]),
        ("EtcdClientConfig", [true, false, false, false]),
        ("EtcdDisarm", [true, true, false, false]),
    ];
    const ROLES: [OperatorRole; 4] =
        [OperatorRole::Admin, OperatorRole::Operator, OperatorRole::Reader, OperatorRole::Backup];

    #[test]
    fn every_role_may_make_exactly_the_calls_of_the_table() {
        assert_eq!(Call::ALL.len(), TABLE.len());
        for (call, (name, expected)) in Call::ALL.iter().zip(TABLE) {
            assert_eq!(call.as_str(), name);
            for (role, expected) in ROLES.into_iter().zip(expected) {
                assert_eq!(allowed(role, *call), expected, "{role} {name}");
            }
        }
    }

    #[test]
    fn every_method_of_the_service_is_in_the_table_and_nothing_else() {
        let proto = include_str!("../../../proto/messages/proto/muster/operator/v1/operator.proto");
        let methods: Vec<_> = proto
            .lines()
            .filter_map(|line| line.trim().strip_prefix("rpc "))
            .filter_map(|line| line.split('(').next())
            .chain(["EtcdDisarm"])
            .collect();
        let calls: Vec<_> = Call::ALL.iter().map(|call| call.as_str()).collect();
        assert_eq!(methods.len(), 19);
        for method in &methods {
            assert!(calls.contains(method), "{method}");
        }
        assert_eq!(methods.len(), calls.len());
    }
}
