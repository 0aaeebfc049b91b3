//! Checks that a stock OpenSSL accepts this crate's output. Fails without `openssl`.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use muster_pki::authority::{Authority, AuthorityKind, ServiceAccountKey};
use muster_pki::identity::Identity;
use muster_pki::inspect::describe;
use muster_pki::leaf::{self, KeyPair, Leaf, Profile, SubjectKey};
use muster_types::{ClusterId, Role};
use tempfile::TempDir;

#[expect(clippy::disallowed_methods, reason = "OpenSSL uses the real clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

fn openssl(arguments: &[&str]) -> Output {
    Command::new("openssl").args(arguments).output().expect("openssl is installed")
}

/// Runs `openssl`, which must succeed, and returns its output.
fn accepted(arguments: &[&str]) -> String {
    let output = openssl(arguments);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "openssl {arguments:?}: {stdout}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    stdout
}

fn text_of(certificate: &Path) -> String {
    accepted(&["x509", "-in", certificate.to_str().unwrap(), "-noout", "-text"])
}

fn verify<'a>(purpose: &'a str, authority: &'a Path, certificate: &'a Path) -> Vec<&'a str> {
    vec![
        "verify",
        "-x509_strict",
        "-check_ss_sig",
        "-purpose",
        purpose,
        "-CAfile",
        authority.to_str().unwrap(),
        certificate.to_str().unwrap(),
    ]
}

fn authority(kind: AuthorityKind) -> Authority {
    Authority::create(kind, "demo", &ClusterId::from_bytes([3; 32]), now())
}

fn addresses() -> Vec<IpAddr> {
    vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()]
}

/// Every profile with a matching key.
fn profiles() -> Vec<(Profile, SubjectKey)> {
    let node = |role| {
        let identity = Identity::generate();
        let id = identity.node_id();
        (Profile::Node { id, role }, SubjectKey::from(identity.public_key()))
    };
    let name = || "cp1".parse().unwrap();
    let key = || KeyPair::generate().public();
    vec![
        node(Role::ControlPlane),
        node(Role::Worker),
        (Profile::EtcdServer { name: name(), addresses: addresses() }, key()),
        (Profile::EtcdPeer { name: name(), addresses: addresses() }, key()),
        (
            Profile::EtcdClient {
                common_name: "root".to_owned(),
                lifetime: Duration::from_hours(1),
            },
            key(),
        ),
    ]
}

fn issue(authority: &Authority, profile: &Profile, key: &SubjectKey) -> Leaf {
    leaf::issue(authority, profile, key, now()).unwrap()
}

#[test]
fn openssl_accepts_every_authority() {
    let files = Files::new();
    for kind in AuthorityKind::ALL {
        let authority = authority(kind);
        let path = files.write(kind.as_str(), &authority.certificate_pem());
        accepted(&verify("any", &path, &path));
        let text = text_of(&path);
        for wanted in [
            match kind {
                AuthorityKind::Machine => "CN = machine authority".to_owned(),
                _ => format!("CN = demo {kind} authority"),
            },
            "CA:TRUE, pathlen:0".to_owned(),
            "Certificate Sign, CRL Sign".to_owned(),
            "X509v3 Subject Key Identifier".to_owned(),
        ] {
            assert!(text.contains(&wanted), "{wanted} in {text}");
        }
    }
}

#[test]
fn openssl_accepts_every_leaf_for_its_purpose() {
    let files = Files::new();
    for (profile, key) in profiles() {
        let authority = authority(profile.authority());
        let anchor = files.write("authority.pem", &authority.certificate_pem());
        let leaf = issue(&authority, &profile, &key);
        let path = files.write("leaf.pem", &leaf.to_pem());
        let is_server = !matches!(profile, Profile::EtcdClient { .. });
        accepted(&verify("sslclient", &anchor, &path));
        let as_server = openssl(&verify("sslserver", &anchor, &path));
        assert_eq!(as_server.status.success(), is_server, "{}", profile.as_str());
        let text = text_of(&path);
        assert!(text.contains("CA:FALSE") && text.contains("Digital Signature"), "{text}");
        assert!(text.contains("X509v3 Authority Key Identifier"), "{text}");
    }
}

#[test]
fn openssl_finds_the_names_and_addresses_of_a_leaf() {
    let files = Files::new();
    for (profile, key) in profiles() {
        let authority = authority(profile.authority());
        let path = files.write("leaf.pem", &issue(&authority, &profile, &key).to_pem());
        let text = text_of(&path);
        let wanted: &[&str] = match profile {
            Profile::Node { role: Role::ControlPlane, .. } => {
                &[".nodes.muster.internal", "DNS:control-plane.muster.internal"]
            }
            Profile::Node { role: Role::Worker, .. } => &[".nodes.muster.internal"],
            Profile::EtcdServer { .. } | Profile::EtcdPeer { .. } => {
                &["DNS:cp1, DNS:localhost", "IP Address:192.0.2.7", "IP Address:127.0.0.1"]
            }
            Profile::EtcdClient { .. } => &["CN = root"],
        };
        for wanted in wanted {
            assert!(text.contains(wanted), "{wanted} in {text}");
        }
    }
}

#[test]
fn openssl_describes_a_certificate_as_we_do() {
    let files = Files::new();
    for (profile, key) in profiles() {
        let leaf = issue(&authority(profile.authority()), &profile, &key);
        let ours = describe(&leaf.chain[0]).unwrap();
        let path = files.write("leaf.pem", &leaf.to_pem());
        let field = |name: &str| {
            let path = path.to_str().unwrap();
            let stdout = accepted(&["x509", "-in", path, "-noout", "-sha256", name]);
            let (_, value) = stdout.trim().split_once('=').unwrap();
            value.replace(':', "").to_lowercase()
        };
        assert_eq!(field("-fingerprint"), ours.fingerprint);
        assert_eq!(field("-serial"), ours.serial);
        assert_eq!((ours.not_before, ours.not_after), (leaf.not_before, leaf.not_after));
        let seconds = (leaf.not_after.duration_since(now()).unwrap().as_secs() + 60).to_string();
        let path = path.to_str().unwrap();
        assert!(openssl(&["x509", "-in", path, "-noout", "-checkend", "0"]).status.success());
        let later = openssl(&["x509", "-in", path, "-noout", "-checkend", &seconds]);
        assert!(!later.status.success());
    }
}

#[test]
fn openssl_refuses_a_leaf_of_another_clusters_authority() {
    let files = Files::new();
    for (profile, key) in profiles() {
        let (ours, theirs) = (authority(profile.authority()), authority(profile.authority()));
        let anchor = files.write("authority.pem", &ours.certificate_pem());
        let path = files.write("leaf.pem", &issue(&theirs, &profile, &key).to_pem());
        assert!(!openssl(&verify("any", &anchor, &path)).status.success(), "{}", profile.as_str());
    }
}

#[test]
fn openssl_reads_every_private_key() {
    let files = Files::new();
    let pair = KeyPair::generate();
    let identity = Identity::generate();
    let account = ServiceAccountKey::create();
    let keys = [
        (identity.to_pem(), "ED25519 Private-Key"),
        (pair.to_pem(), "NIST CURVE: P-256"),
        (account.private_pem(), "NIST CURVE: P-256"),
        (authority(AuthorityKind::Machine).key_pem(), "ED25519 Private-Key"),
        (authority(AuthorityKind::Kubernetes).key_pem(), "NIST CURVE: P-256"),
    ];
    for (pem, wanted) in keys {
        let path = files.write("key.pem", &pem);
        let text = accepted(&["pkey", "-in", path.to_str().unwrap(), "-noout", "-text"]);
        assert!(text.contains(wanted), "{text}");
        let is_p256 = wanted.contains("P-256");
        let check = openssl(&["pkey", "-in", path.to_str().unwrap(), "-noout", "-check"]);
        // OpenSSL 3.0 has no consistency check for Ed25519.
        assert!(!is_p256 || check.status.success(), "{check:?}");
    }
    let private = files.write("private.pem", &account.private_pem());
    let public = accepted(&["pkey", "-in", private.to_str().unwrap(), "-pubout"]);
    assert_eq!(public, account.public_pem());
}

#[test]
fn openssl_accepts_a_certificate_request_and_makes_ones_that_are_taken() {
    let files = Files::new();
    let pair = KeyPair::generate();
    let ours = files.0.path().join("ours.der");
    fs::write(&ours, pair.request()).unwrap();
    let ours = ours.to_str().unwrap();
    accepted(&["req", "-inform", "DER", "-in", ours, "-noout", "-verify"]);

    let key = files.write("key.pem", &pair.to_pem());
    let request = files.0.path().join("theirs.der");
    let (key, path) = (key.to_str().unwrap(), request.to_str().unwrap());
    let mut arguments = vec!["req", "-new", "-key", key, "-outform", "DER", "-out", path];
    arguments.extend(["-subj", "/CN=root/O=system:masters"]);
    arguments.extend(["-addext", "subjectAltName=DNS:control-plane.muster.internal"]);
    accepted(&arguments);
    let taken = leaf::public_key_of_request(&fs::read(&request).unwrap()).unwrap();
    assert_eq!(taken, pair.public());

    let profile =
        Profile::EtcdClient { common_name: "reader".to_owned(), lifetime: Duration::from_hours(1) };
    let leaf = issue(&authority(AuthorityKind::Etcd), &profile, &taken);
    let text = text_of(&files.write("leaf.pem", &leaf.to_pem()));
    assert!(text.contains("Subject: CN = reader"), "{text}");
    assert!(!text.contains("control-plane") && !text.contains("masters"), "{text}");
}
