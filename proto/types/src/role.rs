//! Roles of nodes and of operators.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Error of parsing a [`Role`] or an [`OperatorRole`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not one of {known}")]
pub struct RoleError {
    found: String,
    known: &'static str,
}

macro_rules! string_enum {
    ($name:ident: $($variant:ident = $text:literal),+; $known:literal) => {
        impl $name {
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = RoleError;

            fn from_str(text: &str) -> Result<Self, RoleError> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(RoleError {
                        found: text.chars().take(40).collect(),
                        known: $known,
                    }),
                }
            }
        }
    };
}

/// Role of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Votes in the Raft group, runs etcd, stores the authorities' keys.
    ControlPlane,
    /// Runs workloads; has no secret of the cluster.
    Worker,
}

string_enum!(Role: ControlPlane = "control-plane", Worker = "worker"; "control-plane, worker");

/// Role of an operator. The option `access` of each call in `muster/operator/v1/operator.proto`
/// lists the roles that may make it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperatorRole {
    Admin,
    Operator,
    Reader,
    Backup,
}

string_enum!(OperatorRole: Admin = "admin", Operator = "operator", Reader = "reader", Backup = "backup";
    "admin, operator, reader, backup");
