//! What a node is for, and what an operator may do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not one of {known}")]
pub struct RoleError {
    found: String,
    known: &'static str,
}

macro_rules! spelled {
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

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Votes in the Raft group, runs etcd, holds the authorities.
    ControlPlane,
    /// Runs workloads; holds no secret of the cluster.
    Worker,
}

spelled!(Role: ControlPlane = "control-plane", Worker = "worker"; "control-plane, worker");

/// What an operator may do. `admin` may do everything; the others are listed call by call in
/// `muster/operator/v1/operator.proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperatorRole {
    Admin,
    Operator,
    Reader,
    Backup,
}

spelled!(OperatorRole: Admin = "admin", Operator = "operator", Reader = "reader", Backup = "backup";
    "admin, operator, reader, backup");
