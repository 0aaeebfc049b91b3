//! The check that an operator's role allows a call ([`ClusterState::authorize`]).
//!
//! The roles of each call are the option `access` in
//! proto/messages/proto/muster/operator/v1/operator.proto. The check runs before each call
//! (daemon/src/api/operator/mod.rs), again on a node that answers a forwarded call
//! (daemon/src/api/node/mod.rs), and once more when an operator's command is applied.

use muster_messages::OperatorMethod;
use muster_types::{OperatorRole, PublicKey};

use super::{Actor, ClusterState, Refusal, RefusalKind};

/// Returns true if an operator of this role may make this call.
pub fn allowed(role: OperatorRole, call: OperatorMethod) -> bool {
    call.roles().contains(&role.into())
}

/// A call that the caller may not make.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorizationError {
    #[error("{key} is not an operator of this cluster; operators come from node.yaml")]
    UnknownOperator { key: PublicKey },
    #[error("operator {name} has the role {role}, which may not call {}; ask an admin", .call.as_str())]
    RoleForbids { name: String, role: OperatorRole, call: OperatorMethod },
}

impl From<AuthorizationError> for Refusal {
    fn from(error: AuthorizationError) -> Self {
        Self::new(RefusalKind::NotAllowed, error.to_string())
    }
}

impl ClusterState {
    /// Checks that the key is an operator's whose role allows the call.
    pub fn authorize(
        &self,
        key: &PublicKey,
        call: OperatorMethod,
    ) -> Result<(), AuthorizationError> {
        let operator =
            self.operator(key).ok_or(AuthorizationError::UnknownOperator { key: *key })?;
        if allowed(operator.role, call) {
            return Ok(());
        }
        let (name, role) = (operator.name.clone(), operator.role);
        Err(AuthorizationError::RoleForbids { name, role, call })
    }

    /// Checks the author of a command. Members and the cluster's controllers need no role.
    pub(super) fn authorize_actor(&self, by: &Actor, call: OperatorMethod) -> Result<(), Refusal> {
        match by {
            Actor::Operator(key) => Ok(self.authorize(key, call)?),
            Actor::Node(_) | Actor::Cluster => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_messages::operator::access;

    use super::*;

    const ROLES: [OperatorRole; 4] =
        [OperatorRole::Admin, OperatorRole::Operator, OperatorRole::Reader, OperatorRole::Backup];

    #[test]
    fn every_role_may_make_exactly_the_calls_that_the_contract_allows() {
        let roles = [
            access::Role::Admin,
            access::Role::Operator,
            access::Role::Reader,
            access::Role::Backup,
        ];
        for call in OperatorMethod::ALL {
            for (role, of_contract) in ROLES.into_iter().zip(roles) {
                let expected = call.roles().contains(&of_contract);
                assert_eq!(allowed(role, *call), expected, "{role} {}", call.as_str());
            }
        }
    }

    #[test]
    fn the_roles_differ_as_the_guide_says() {
        for call in OperatorMethod::ALL {
            assert!(allowed(OperatorRole::Admin, *call), "admin {}", call.as_str());
            let [reader, operator] =
                [OperatorRole::Reader, OperatorRole::Operator].map(|role| allowed(role, *call));
            assert!(operator || !reader, "reader, but not operator: {}", call.as_str());
        }
        for call in [
            OperatorMethod::RemoveNode,
            OperatorMethod::CreateToken,
            OperatorMethod::RevokeToken,
            OperatorMethod::EtcdClientConfig,
        ] {
            for role in &ROLES[1..] {
                assert!(!allowed(*role, call), "{role} {}", call.as_str());
            }
        }
    }

    const GUIDE: &str = "../../docs/guide/cli.md";
    const REGENERATE: &str = "MUSTER_BLESS=1 cargo test --workspace --lib permissions";

    /// The table of calls and roles in the guide.
    fn table() -> String {
        let mut text =
            "| call | admin | operator | reader | backup |\n|---|---|---|---|---|\n".to_owned();
        for call in OperatorMethod::ALL {
            let marks = ROLES.map(|role| if allowed(role, *call) { "yes" } else { "" });
            let row = format!("| `{}` | {} |\n", call.as_str(), marks.join(" | "));
            text.push_str(&row);
        }
        text
    }

    #[test]
    fn the_guide_has_the_roles_of_every_call() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(GUIDE);
        let found = std::fs::read_to_string(&path).unwrap();
        let (begin, end) = ("<!-- begin calls: generated -->\n", "<!-- end calls -->");
        let (before, rest) = found.split_once(begin).expect("the table of calls");
        let (_, after) = rest.split_once(end).expect("the end of the table");
        let expected = format!("{before}{begin}\n{}\n{end}{after}", table());
        if found != expected && std::env::var_os("MUSTER_BLESS").is_some() {
            std::fs::write(&path, &expected).unwrap();
            return;
        }
        assert!(found == expected, "{GUIDE} differs from operator.proto; run `{REGENERATE}`");
    }
}
