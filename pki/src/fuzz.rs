//! Fuzz targets of this crate's parsers (see `muster_fuzz`).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_fuzz::{Verdict, refused, target};
use muster_types::{ClusterId, NodeId, Role};
use rustls::pki_types::{CertificateDer, UnixTime};

use crate::authority::{Authority, AuthorityKind, ServiceAccountKey};
use crate::bundle::{MAX_AUTHORITIES, TrustBundle};
use crate::identity::{Identity, MAX_CERTIFICATE, public_key_of};
use crate::inspect::describe;
use crate::key::{Algorithm, PrivateKey, ed25519_pkcs8};
use crate::leaf::{Leaf, Profile, issue, public_key_of_request};
use crate::tls::{Credentials, PeerSide, TrustSource, authenticate};
use crate::token::{Token, TokenId, Verifier};

/// Deterministic identity: the same in every run.
fn identity(number: u8) -> Identity {
    Identity::from_pkcs8(&ed25519_pkcs8(&[number; 32])).expect("any seed is a key")
}

/// Token of 32 distinct characters with a valid checksum.
const TOKEN: &str = "abcdefghij.abcdefghijklmnopqrstuvwxyz234567d7zwmh";

/// Time at which all certificates here are valid.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_hours(500_000)
}

fn authority(kind: AuthorityKind) -> Authority {
    Authority::create(kind, "demo", &ClusterId::from_bytes([3; 32]), now())
}

#[test]
fn token() {
    target("token").longest(128).seed(TOKEN).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return refused("not text") };
        match text.parse::<Token>() {
            Ok(token) => {
                assert_eq!(*token.expose(), text, "two spellings of one value");
                assert_eq!(
                    Verifier::from_bytes(&token.verifier().to_bytes()),
                    Ok(token.verifier())
                );
                assert_eq!(token.id().as_str().parse(), Ok(token.id().clone()));
                Verdict::Accepted
            }
            Err(error) => {
                let shown = format!("{error} {error:?}");
                let secret = text.split_once('.').map_or(text, |(_, secret)| secret);
                // A short part of a secret may occur in the message by chance; twelve characters do
                // not.
                let parts =
                    secret.as_bytes().windows(12).filter_map(|w| std::str::from_utf8(w).ok());
                let id = text.split('.').next().unwrap_or_default();
                for part in parts.filter(|part| !id.contains(part)) {
                    assert!(!shown.contains(part), "{shown}");
                }
                refused(error)
            }
        }
    });
}

#[test]
fn token_id() {
    target("token_id").longest(64).seed("abcdefgh27").run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return refused("not text") };
        match text.parse::<TokenId>() {
            Ok(id) => {
                assert_eq!((id.as_str(), text.len()), (text, 10));
                Verdict::Accepted
            }
            Err(error) => refused(error),
        }
    });
}

/// Key files: DER of a node, PEM of an operator.
#[test]
fn private_key() {
    let (der, pem) = (identity(1).to_pkcs8().to_vec(), identity(1).to_pem());
    target("private_key").longest(1024).seed(der).seed(pem.as_bytes()).run(|bytes| {
        let from_der = Identity::from_pkcs8(bytes);
        if let Ok(key) = &from_der {
            assert_eq!(key.to_pkcs8().as_slice(), bytes, "two spellings of one value");
        }
        if let Ok(key) = PrivateKey::from_pkcs8(Algorithm::P256, bytes) {
            assert_eq!(key.pkcs8(), bytes);
            return Verdict::Accepted;
        }
        let from_pem = std::str::from_utf8(bytes).ok().map(Identity::from_pem);
        if let Some(Ok(key)) = &from_pem {
            let again = Identity::from_pem(&key.to_pem()).expect("it was just encoded");
            assert_eq!(again.public_key(), key.public_key());
        }
        match (from_der, from_pem) {
            (Ok(_), _) | (_, Some(Ok(_))) => Verdict::Accepted,
            (Err(error), _) => refused(error),
        }
    });
}

#[test]
fn certificate_request() {
    let authority = authority(AuthorityKind::Etcd);
    target("certificate_request").run(move |bytes| match public_key_of_request(bytes) {
        Ok(key) => {
            assert!(bytes.len() <= 4 << 10, "larger than the limit");
            // An accepted key can be certified.
            let lifetime = Duration::from_hours(1);
            let profile = Profile::EtcdClient { common_name: "muster:a".to_owned(), lifetime };
            issue(&authority, &profile, &key, now()).expect("an accepted key can be certified");
            Verdict::Accepted
        }
        Err(error) => refused(error),
    });
}

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

/// `authorities.pem` of a context.
#[test]
fn authorities_pem() {
    let bundle = TrustBundle::new(vec![authority(AuthorityKind::Machine).certificate().clone()]);
    let pem = bundle.expect("an authority").to_pem();
    target("authorities_pem").seed(pem.repeat(2)).seed(pem).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return refused("not text") };
        match TrustBundle::from_pem(text) {
            Ok(bundle) => {
                assert!((1..=MAX_AUTHORITIES).contains(&bundle.certificates().len()));
                assert_eq!(TrustBundle::from_pem(&bundle.to_pem()), Ok(bundle));
                Verdict::Accepted
            }
            Err(error) => refused(error),
        }
    });
}

/// Types of this crate that the Raft log stores, as MessagePack.
#[test]
fn stored() {
    let pack = |value: &Authority| rmp_serde::to_vec_named(value).expect("it serializes");
    let seeds = AuthorityKind::ALL.map(|kind| pack(&authority(kind)));
    // For a declared length serde reserves up to 1 MiB, once per level.
    target("stored").seeds(seeds).memory(4 << 20, 64).run(|bytes| {
        macro_rules! reads_back {
            ($($kind:ty),*) => {
                $(if let Ok(value) = rmp_serde::from_slice::<$kind>(bytes) {
                    let again = rmp_serde::to_vec_named(&value).expect("it was read");
                    assert!(rmp_serde::from_slice::<$kind>(&again).expect("just serialized") == value);
                    return Verdict::Accepted;
                })*
            };
        }
        reads_back!(Authority, ServiceAccountKey, Verifier, TrustBundle, TokenId);
        match rmp_serde::from_slice::<Authority>(bytes) {
            Ok(_) => Verdict::Accepted,
            Err(error) => refused(error),
        }
    });
}
