//! Encoded samples of keys, tokens, proofs and authorities. See `muster_compat`. The random ones were
//! written once.

use muster_compat::{BLESS, check, sample, with_new_fields_msgpack, write_once};
use muster_types::PublicKey;

use crate::authority::{Authority, AuthorityKind, ServiceAccountKey};
use crate::bundle::TrustBundle;
use crate::identity::Identity;
use crate::proof::Transcript;
use crate::testing::{authority, identity};
use crate::token::{Side, Token, Verifier};

fn pack<T: serde::Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).unwrap()
}

fn is_blessed() -> bool {
    std::env::var_os(BLESS).is_some()
}

fn text(name: &str) -> String {
    String::from_utf8(sample(name)).unwrap()
}

/// A released token stays valid: its text, its verifier and the proofs of both sides.
#[test]
fn a_token_and_its_proofs_are_as_they_were() {
    if is_blessed() {
        write_once("pki/token.txt", Token::generate().expose().as_bytes());
    }
    let token: Token = text("pki/token.txt").parse().unwrap();
    assert_eq!(token.expose().as_bytes(), sample("pki/token.txt"));
    let verifier = token.verifier();
    let stored = check("pki/verifier.hex", &pack(&verifier));
    assert_eq!(rmp_serde::from_slice::<Verifier>(&stored).unwrap(), verifier);
    let transcript = Transcript {
        exporter: [7; 32],
        dialer: PublicKey::from_bytes([1; 32]),
        listener: PublicKey::from_bytes([2; 32]),
        token: token.id().clone(),
    };
    for (name, side) in [("dialer", Side::Dialer), ("listener", Side::Listener)] {
        check(&format!("pki/proof-{name}.hex"), &verifier.prove(side, &transcript));
    }
}

#[test]
fn an_identity_is_read_as_it_was_written() {
    let identity = identity(1);
    let pem = check("pki/identity.pem", identity.to_pem().as_bytes());
    let read = Identity::from_pem(std::str::from_utf8(&pem).unwrap()).unwrap();
    assert_eq!(read.public_key(), identity.public_key());
    check("pki/node-id.hex", identity.node_id().as_bytes());
    check("pki/signature.hex", &identity.sign(b"message"));
}

#[test]
fn authorities_are_read_as_they_were_written() {
    for kind in AuthorityKind::ALL {
        let name = format!("pki/authority-{kind}.hex");
        if is_blessed() {
            write_once(&name, &pack(&authority(kind)));
        }
        let stored = sample(&name);
        let read: Authority = rmp_serde::from_slice(&stored).unwrap();
        assert_eq!(read.kind(), kind);
        assert_eq!(pack(&read), stored, "this build writes another encoding");
        let extended = with_new_fields_msgpack(&stored, &[]);
        assert_eq!(rmp_serde::from_slice::<Authority>(&extended).unwrap(), read);
        let bundle = TrustBundle::new(vec![read.certificate().clone()]).unwrap();
        let pem = check(&format!("pki/bundle-{kind}.pem"), bundle.to_pem().as_bytes());
        assert_eq!(TrustBundle::from_pem(std::str::from_utf8(&pem).unwrap()).unwrap(), bundle);
    }
}

#[test]
fn a_service_account_key_is_read_as_it_was_written() {
    let name = "pki/service-account-key.hex";
    if is_blessed() {
        write_once(name, &pack(&ServiceAccountKey::create()));
    }
    let read: ServiceAccountKey = rmp_serde::from_slice(&sample(name)).unwrap();
    assert_eq!(pack(&read), sample(name), "this build writes another encoding");
}
