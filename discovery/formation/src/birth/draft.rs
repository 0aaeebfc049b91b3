//! The parts of a proposal, and their encoding as `muster.hello.v1.Proposal`.

use std::net::SocketAddr;

use muster_messages::hello;
use muster_pki::identity;
use muster_types::limits::{MAX_ADDRESSES, MAX_FOUNDERS, MAX_PROPOSAL, MAX_TOKEN_ID};
use muster_types::{NodeId, NodeName, PublicKey};
use prost::{DecodeError, Message as _};

/// One of the machines that a proposal names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founder {
    pub public_key: PublicKey,
    pub name: NodeName,
    /// Addresses of the founder, in order of preference.
    pub addresses: Vec<SocketAddr>,
    /// The founder's epoch when the proposal was drafted: it signs one proposal per epoch.
    pub epoch: u64,
}

impl Founder {
    pub fn id(&self) -> NodeId {
        identity::node_id(&self.public_key)
    }
}

/// The parts of a proposal, unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub token_id: String,
    pub founders: Vec<Founder>,
    /// 32 random bytes, chosen by the proposer.
    pub nonce: [u8; 32],
    /// Digest of the birth fields, see [`config_digest`](super::config_digest).
    pub config_digest: [u8; 32],
    pub proposer: NodeId,
}

/// Reasons why a draft, or the bytes that encode it, is not a valid proposal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposalError {
    #[error("a proposal has at most {MAX_PROPOSAL} bytes, not {0}")]
    TooLong(usize),
    #[error(transparent)]
    Encoding(#[from] DecodeError),
    #[error("{what} has {found} bytes, expected {expected}")]
    Length { what: &'static str, expected: usize, found: usize },
    #[error("{0} is malformed")]
    Malformed(&'static str),
    #[error("a birth takes 1 to {MAX_FOUNDERS} founders, not {0}")]
    Founders(usize),
    #[error("founders are not sorted by node id, or one is named twice")]
    Order,
    #[error("two founders have the name {0}")]
    Name(NodeName),
    #[error("founder {name} has {found} addresses; at most {MAX_ADDRESSES} are allowed")]
    Addresses { name: NodeName, found: usize },
    #[error("the proposer {} is not one of the founders", .0.short())]
    Proposer(NodeId),
    #[error("a token id has 1 to {MAX_TOKEN_ID} bytes, not {0}")]
    TokenId(usize),
}

impl Draft {
    pub(super) fn encode(&self) -> Vec<u8> {
        let founder = |founder: &Founder| hello::Founder {
            public_key: founder.public_key.to_vec(),
            name: founder.name.to_string(),
            addresses: founder.addresses.iter().map(ToString::to_string).collect(),
            epoch: founder.epoch,
        };
        let proposal = hello::Proposal {
            token_id: self.token_id.clone(),
            founders: self.founders.iter().map(founder).collect(),
            nonce: self.nonce.to_vec(),
            config_digest: self.config_digest.to_vec(),
            proposer: self.proposer.to_vec(),
        };
        proposal.encode_to_vec()
    }

    /// Decodes the fields that this version knows.
    ///
    /// # Errors
    /// When a field is missing, malformed or has the wrong length, or there are too many founders or
    /// addresses.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, ProposalError> {
        let proposal = hello::Proposal::decode(bytes)?;
        let found = proposal.founders.len();
        if found > MAX_FOUNDERS {
            return Err(ProposalError::Founders(found));
        }
        Ok(Self {
            token_id: proposal.token_id,
            founders: proposal.founders.into_iter().map(founder_in).collect::<Result<_, _>>()?,
            nonce: exact("the nonce", &proposal.nonce)?,
            config_digest: exact("the config digest", &proposal.config_digest)?,
            proposer: NodeId::from_bytes(exact("the proposer", &proposal.proposer)?),
        })
    }
}

fn founder_in(founder: hello::Founder) -> Result<Founder, ProposalError> {
    let name: NodeName =
        founder.name.parse().map_err(|_| ProposalError::Malformed("a node name"))?;
    let found = founder.addresses.len();
    if found > MAX_ADDRESSES {
        return Err(ProposalError::Addresses { name, found });
    }
    let address = |text: String| text.parse().map_err(|_| ProposalError::Malformed("an address"));
    Ok(Founder {
        public_key: PublicKey::from_bytes(exact("a public key", &founder.public_key)?),
        name,
        addresses: founder.addresses.into_iter().map(address).collect::<Result<_, _>>()?,
        epoch: founder.epoch,
    })
}

fn exact<const N: usize>(what: &'static str, bytes: &[u8]) -> Result<[u8; N], ProposalError> {
    bytes.try_into().map_err(|_| ProposalError::Length { what, expected: N, found: bytes.len() })
}
