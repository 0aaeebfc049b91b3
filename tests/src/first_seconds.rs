//! Files of a node in its first seconds, as the victim of power cuts writes them and the test
//! expects them. The contents show in which epoch they were written.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use muster_formation::birth::{
    Ballot, BirthRecord, Certificate, Commitment, Decision, Draft, Founder, Promise, Proposal,
    Signer as _, Vote,
};
use muster_init::units::etcd::client::snapshot::SnapshotDigest;
use muster_init::units::etcd::{
    Authorities, Binary, Credential, Credentials, EtcdSpec, InitialCluster, Tuning, Version,
};
use muster_messages::hello::{Admitted, Credentials as Issued};
use muster_pki::identity::Identity;
use muster_sources::RememberedPeer;
use muster_types::etcd::{EtcdGeneration, EtcdPeer, InitialClusterState, url};
use muster_types::{ClusterId, NodeId, Role};
use musterd::membership::Membership;
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

/// Id of the cluster that the node enters.
pub const CLUSTER: [u8; 32] = [3; 32];

/// Returns the content of an epoch's file: several sectors, so that it can be torn.
fn sectors(epoch: u64) -> Vec<u8> {
    epoch.to_be_bytes().repeat(200)
}

/// Returns the node's commitment in this epoch: every fourth time none, otherwise one of each kind
/// in turn. A real node has only one such sequence; the file is under test here.
pub fn record(epoch: u64, node: &Identity) -> Result<BirthRecord> {
    let commitment = match epoch % 4 {
        0 => Commitment::None,
        1 => {
            let certificate = certificate(epoch, node)?;
            let ballot = Ballot { round: u32::try_from(epoch)?, by: node.node_id() };
            let proposal = Arc::clone(certificate.proposal());
            Commitment::Promised(Promise {
                proposal,
                ballot,
                vote: Some(Vote { ballot, decision: Decision::Born(certificate) }),
            })
        }
        2 => Commitment::Born(certificate(epoch, node)?),
        _ => Commitment::Joined(ClusterId::from_bytes([u8::try_from(epoch % 256)?; 32])),
    };
    Ok(BirthRecord { epoch, commitment })
}

/// Returns the last epoch in which the node was uncommitted and could receive a snapshot to
/// restore.
pub fn last_uncommitted(epoch: u64) -> u64 {
    epoch - epoch % 4
}

/// Returns the certificate of a birth by this node and two others with fixed keys.
fn certificate(epoch: u64, node: &Identity) -> Result<Arc<Certificate>> {
    let others = [seeded(1)?, seeded(2)?];
    let mut founders: Vec<&Identity> = others.iter().chain([node]).collect();
    founders.sort_by_key(|founder| founder.node_id());
    let describe = |(number, founder): (usize, &&Identity)| {
        Ok(Founder {
            public_key: founder.public_key(),
            name: format!("cp-{number}").parse()?,
            addresses: vec![([192, 0, 2, 1], 50000).into()],
            epoch,
        })
    };
    let proposal = Arc::new(Proposal::new(Draft {
        token_id: "abcdef".to_owned(),
        founders: founders.iter().enumerate().map(describe).collect::<Result<_>>()?,
        nonce: [u8::try_from(epoch % 256)?; 32],
        config_digest: [8; 32],
        proposer: node.node_id(),
    })?);
    let id = proposal.id();
    let signatures = founders.iter().map(|founder| (founder.node_id(), founder.sign_promise(&id)));
    Ok(Arc::new(Certificate::new(Arc::clone(&proposal), signatures.collect())))
}

/// Returns the Ed25519 key of a seed (RFC 8410).
fn seeded(seed: u8) -> Result<Identity> {
    let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    Ok(Identity::from_pkcs8(&[&head[..], &[seed; 32]].concat())?)
}

pub fn membership(epoch: u64) -> Result<Membership> {
    let certificate = sectors(epoch);
    let answer = Admitted {
        cluster_id: CLUSTER.to_vec(),
        cluster_name: format!("epoch-{epoch}"),
        credentials: Some(Issued {
            certificate_chain: vec![certificate.clone()],
            machine_authorities: vec![certificate],
        }),
        peers: Vec::new(),
    };
    Ok(Membership::from_admission(&answer, Role::ControlPlane)?)
}

/// Returns as many peers as the epoch's number.
pub fn peers(epoch: u64) -> Vec<RememberedPeer> {
    let peer = |number: u64| RememberedPeer {
        id: NodeId::from_bytes([u8::try_from(number % 256).unwrap_or(0); 32]),
        name: format!("peer-{number}").parse().expect("a label"),
        role: Role::Worker,
        addresses: vec![([10, 0, 0, 1], 50000).into()],
    };
    (0..epoch).map(peer).collect()
}

/// Returns the snapshot to restore in an epoch in which the node is uncommitted, if there is one:
/// two different ones, then none, so that the restore marker is also removed.
pub fn snapshot(epoch: u64) -> Option<(SnapshotDigest, Vec<u8>)> {
    if epoch.is_multiple_of(12) {
        return None;
    }
    let database = vec![u8::try_from(epoch % 256).unwrap_or(0); 512];
    let hash = digest(&SHA256, &database);
    let digest = SnapshotDigest(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"));
    Some((digest, [&database, hash.as_ref()].concat()))
}

/// Returns the node's etcd member in this epoch, a different one each time.
pub fn member(epoch: u64) -> Result<EtcdSpec> {
    let address = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
    let name: muster_types::NodeName = "cp-1".parse()?;
    Ok(EtcdSpec {
        binary: Binary {
            path: "/nowhere/etcd".into(),
            version: Version { major: 3, minor: 5, patch: 0 },
        },
        generation: EtcdGeneration(u32::try_from(epoch)?),
        initial: InitialCluster {
            state: InitialClusterState::New,
            token: format!("epoch-{epoch}"),
            // More than a sector, so that the record can be torn.
            members: (0..24)
                .map(|number| {
                    let name = format!("cp-{number}").parse()?;
                    Ok(EtcdPeer { name, url: url(address(2380 + number)) })
                })
                .collect::<Result<_>>()?,
        },
        name,
        known_to_cluster: false,
        peer: address(2380),
        client: address(2379),
        tuning: Tuning::default(),
        credentials: credentials(epoch)?,
    })
}

/// Returns etcd's certificates and keys of this epoch.
pub fn credentials(epoch: u64) -> Result<Credentials> {
    let certificate = || CertificateDer::from(sectors(epoch));
    let credential = || Credential::new(vec![certificate()], Zeroizing::new(sectors(epoch)));
    let authorities = Authorities::new(vec![certificate()]);
    Ok(Credentials {
        authorities: anyhow::Context::context(authorities, "one")?,
        server: credential(),
        peer: credential(),
        client: credential(),
    })
}
