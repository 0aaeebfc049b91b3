//! Permissions of operator roles on the calls of `muster.operator.v1.Operator`.
//!
//! Roles: `admin` may do everything. `reader` may read. `operator` may also make changes that
//! affect no membership. `backup` may take etcd snapshots and read what it needs for that.

use muster_types::OperatorRole;

/// The full gRPC name of the service.
pub const SERVICE: &str = "muster.operator.v1.Operator";

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

// Admin is not listed: it may make every call. The last two are not methods: `EtcdDisarm` is needed
// in addition to `EtcdAlarms` to disarm alarms, and today labels are set by commands only.
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
    SetLabels: Admin;
}

impl Call {
    /// The call that a gRPC path such as `/muster.operator.v1.Operator/Members` names.
    pub fn of_path(path: &str) -> Option<Self> {
        let method = path.strip_prefix('/')?.strip_prefix(SERVICE)?.strip_prefix('/')?;
        let call = Self::ALL.iter().copied().find(|call| call.as_str() == method)?;
        (!matches!(call, Self::EtcdDisarm | Self::SetLabels)).then_some(call)
    }
}

/// Returns whether an operator of this role may make this call.
pub fn allowed(role: OperatorRole, call: Call) -> bool {
    role == OperatorRole::Admin || call.roles().contains(&role)
}

/// Returns whether an operator of this role may call this gRPC path; false for an unknown path.
pub fn path_allowed(role: OperatorRole, path: &str) -> bool {
    Call::of_path(path).is_some_and(|call| allowed(role, call))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Copied by hand from operator.proto, in its order: admin, operator, reader, backup.
    const TABLE: [(&str, [bool; 4]); 20] = [
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
        ("SetLabels", [true, false, false, false]),
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
    fn every_method_of_the_service_is_in_the_table_and_nothing_else_is_a_path() {
        let proto = include_str!("../../../proto/messages/proto/muster/operator/v1/operator.proto");
        let methods: Vec<_> = proto
            .lines()
            .filter_map(|line| line.trim().strip_prefix("rpc "))
            .filter_map(|line| line.split('(').next())
            .collect();
        assert_eq!(methods.len(), 18);
        for method in &methods {
            assert!(Call::of_path(&format!("/{SERVICE}/{method}")).is_some(), "{method}");
        }
        assert_eq!(methods.len() + 2, Call::ALL.len());
    }

    #[test]
    fn an_unknown_method_is_refused_to_every_role() {
        for path in [
            "",
            "Members",
            "/muster.operator.v1.Operator/members",
            "/muster.operator.v1.Operator/Members/",
            "/muster.operator.v1.OperatorX/Members",
            "/muster.operator.v1.Operator/EtcdDisarm",
            "/muster.operator.v1.Operator/SetLabels",
            "/muster.node.v1.Node/Propose",
        ] {
            for role in ROLES {
                assert!(!path_allowed(role, path), "{role} {path}");
            }
        }
    }
}
