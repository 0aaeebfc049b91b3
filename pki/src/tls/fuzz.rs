//! Fuzz target of the certificates that a peer presents (see `muster_fuzz`).

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use muster_fuzz::{Verdict, refused, target};
use muster_types::{NodeId, Role};
use rustls::pki_types::{CertificateDer, UnixTime};

use super::{Credentials, PeerSide, TrustSource, authenticate};
use crate::authority::AuthorityKind;
use crate::bundle::TrustBundle;
use crate::identity::{MAX_CERTIFICATE, public_key_of};
use crate::inspect::describe;
use crate::leaf::{Leaf, Profile, issue};
use crate::testing::{authority, identity, now};

/// One member, with certificates under one authority.
struct Registry {
    member: NodeId,
    credentials: Arc<Credentials>,
}

impl TrustSource for Registry {
    fn is_member(&self, node: &NodeId) -> bool {
        *node == self.member
    }

    fn credentials(&self) -> Option<Arc<Credentials>> {
        Some(Arc::clone(&self.credentials))
    }
}

/// Certificates as a peer presents them in a handshake, and as trust bundles.
#[test]
fn certificate() {
    let (authority, member) = (authority(AuthorityKind::Machine), identity(1));
    let profile = Profile::Node { id: member.node_id(), role: Role::ControlPlane };
    let leaf = issue(&authority, &profile, &member.public_key().into(), now()).expect("issued");
    let own = leaf.chain[0].to_vec();
    let bundle = TrustBundle::new(vec![authority.certificate().clone()]).expect("an authority");
    let credentials = Credentials::new(&member, leaf.chain, bundle).expect("they match");
    let registry = Registry { member: member.node_id(), credentials: Arc::new(credentials) };
    let at = UnixTime::since_unix_epoch(now().duration_since(UNIX_EPOCH).expect("after 1970"));
    let self_signed_certificate = identity(2).self_signed(now()).cert[0].to_vec();
    let seeds = [own.clone(), self_signed_certificate, authority.certificate().to_vec()];
    target("certificate").seeds(seeds).memory(512 << 10, 256).run(move |bytes| {
        let der = CertificateDer::from(bytes.to_vec());
        let key = public_key_of(&der);
        if key.is_ok() {
            assert!(bytes.len() <= MAX_CERTIFICATE, "larger than the limit");
        }
        if let Ok(info) = describe(&der) {
            assert_eq!(info.fingerprint.len(), 64);
        }
        let bundle = TrustBundle::from_der(vec![bytes.to_vec()]);
        if let Ok(bundle) = &bundle {
            assert_eq!(TrustBundle::from_pem(&bundle.to_pem()).as_ref(), Ok(bundle));
            bundle.roots();
        }
        if let Ok(leaf) = Leaf::from_chain(vec![der.clone()]) {
            leaf.renew_at();
        }
        for side in [PeerSide::Client, PeerSide::Server] {
            // Alone and below an authority of its own choice: only the issued one is accepted.
            for chain in [vec![der.clone()], vec![der.clone(), der.clone()]] {
                if authenticate(&chain, side, &registry, at).is_ok() {
                    assert_eq!(bytes, own, "accepted a certificate that was not issued");
                }
            }
        }
        match key {
            Ok(_) => Verdict::Accepted,
            Err(error) => refused(error),
        }
    });
}
