//! Who may do what, and what nobody ever gets to see.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use muster_tests::ctl::{Said, binary, said};
use muster_tests::loopback::{Bench, Running};
use muster_tests::secrets::{files, there};
use serde_json::{Value, json};

/// The roles, in the order of the table's columns.
const ROLES: [&str; 4] = ["admin", "operator", "reader", "backup"];

/// Exit code of a refusal.
const REFUSED: i32 = 5;

/// Every command that asks the cluster, and the exit code by role. Codes other than 0 and 5 are a
/// permitted call that finds nothing to do: there is no node `nobody`, and in a cluster of one
/// nobody to hand etcd's leadership to.
const TABLE: &[(&str, [i32; 4])] = &[
    ("version", [0, 0, 0, 0]),
    ("members", [0, 0, 0, 5]),
    ("status", [0, 0, 0, 5]),
    ("status -n cp-1", [0, 0, 0, 5]),
    ("health", [0, 0, 0, 5]),
    ("node remove nobody", [1, 5, 5, 5]),
    ("token create --role worker", [0, 5, 5, 5]),
    ("token list", [0, 0, 0, 5]),
    ("token revoke TOKEN", [0, 5, 5, 5]),
    ("pki show", [0, 0, 0, 5]),
    ("audit", [0, 0, 0, 5]),
    ("etcd members", [0, 0, 0, 0]),
    ("etcd status", [0, 0, 0, 0]),
    ("etcd snapshot OUT/snapshot", [0, 0, 5, 0]),
    ("etcd alarms", [0, 0, 0, 0]),
    ("etcd alarms --disarm", [0, 0, 5, 5]),
    ("etcd defrag", [0, 0, 5, 5]),
    ("etcd forfeit-leadership", [1, 1, 5, 5]),
    ("etcd client-config --out OUT/client", [0, 5, 5, 5]),
];

/// Private files of this size and above are not searched: etcd writes its log into 64 MB of zeros.
const LARGE: u64 = 8 << 20;

/// A cluster of one, and a context for every role.
struct Desk {
    bench: Bench,
    outputs: PathBuf,
}

impl Desk {
    /// Nothing runs yet.
    fn new() -> Result<Self> {
        let bench = Bench::new()?;
        let outputs = bench.path("outputs");
        fs::create_dir(&outputs)?;
        let desk = Self { bench, outputs };
        let mut keys = Vec::new();
        for role in ROLES.into_iter().chain(["stranger"]) {
            keys.push((role, desk.key(role)?));
        }
        let token = desk.token()?;
        for (role, _) in &keys {
            let file = desk.context(role).join("token");
            fs::write(&file, &token)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        }
        desk.bench.change(|document| {
            let known = keys.iter().filter(|(role, _)| *role != "stranger");
            let operators = known.map(
                |(role, key)| json!({"name": format!("a-{role}"), "role": role, "publicKey": key}),
            );
            document["cluster"]["operators"] = operators.collect();
        })?;
        Ok(desk)
    }

    /// The bench's token.
    fn token(&self) -> Result<String> {
        let document: Value = serde_saphyr::from_str(&self.bench.text()?)?;
        Ok(document["machine"]["token"].as_str().context("no token")?.to_owned())
    }

    fn context(&self, role: &str) -> PathBuf {
        self.bench.path(&format!("context-{role}"))
    }

    /// Makes a key and a context for it, and gives the public half.
    fn key(&self, role: &str) -> Result<String> {
        let mut init = Command::new(binary("musterctl")?);
        init.args(["init", "bench", "--no-context", "--operator", &format!("a-{role}")]);
        init.arg("--endpoint").arg(self.bench.address().to_string());
        said(init.arg("--out").arg(self.context(role)))?.success()?;
        let text = fs::read_to_string(self.context(role).join("node.yaml"))?;
        let document: Value = serde_saphyr::from_str(&text)?;
        let key = document["cluster"]["operators"][0]["publicKey"].as_str();
        Ok(key.context("no key")?.to_owned())
    }

    /// What `musterctl` says to this operator.
    fn ctl(&self, role: &str, args: &[&str]) -> Result<Said> {
        let mut command = Command::new(binary("musterctl")?);
        command.args(args).arg("--context").arg(self.context(role)).args(["-o", "json"]);
        said(command.env("MUSTER_CONFIG", self.bench.path("no-contexts")))
    }

    /// A line of the table, said by this operator.
    fn line(&self, role: &str, line: &str) -> Result<Said> {
        let out = self.bench.path(&format!("out-{role}"));
        fs::create_dir_all(&out)?;
        let out = out.display().to_string();
        let token = if line.contains("TOKEN") { self.fresh_token()? } else { String::new() };
        let id = token.split('.').next().unwrap_or_default();
        let line = line.replace("OUT", &out).replace("TOKEN", id);
        self.ctl(role, &line.split(' ').collect::<Vec<_>>())
    }

    fn fresh_token(&self) -> Result<String> {
        let made = self.ctl("admin", &["token", "create", "--role", "worker"])?.json()?;
        Ok(made["token"].as_str().context("no token")?.to_owned())
    }
}

#[test]
fn every_role_may_do_what_the_table_says_and_no_secret_is_seen_anywhere() -> Result<()> {
    let desk = Desk::new()?;
    let founding = desk.token()?;
    let node = Running::start(&desk.bench, || {
        let said = desk.ctl("admin", &["health"])?;
        ensure!(said.code == Some(0), "{}{}", said.out, said.err);
        Ok(())
    })?;

    let mut wrong = Vec::new();
    for (line, codes) in TABLE {
        for (role, code) in ROLES.into_iter().zip(codes) {
            let told = desk.line(role, line)?;
            let explained = *code != REFUSED || told.err.contains(role);
            if told.code != Some(*code) || !explained {
                wrong.push(format!("{role}: {line}: {:?}, not {code}: {}", told.code, told.err));
            }
            // What shows a new token shows it once, to whoever made it.
            if *line != "token create --role worker" {
                let file = format!("{role} {line}").replace(['/', ' '], "_");
                fs::write(desk.outputs.join(file), format!("{}{}", told.out, told.err))?;
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (line, _) in TABLE {
        let told = desk.line("stranger", line)?;
        ensure!(told.code == Some(REFUSED), "a stranger's {line}: {told:?}");
        ensure!(told.out.is_empty() || *line == "version", "a stranger's {line}: {told:?}");
    }
    let audit = desk.ctl("admin", &["audit"])?.success()?;
    ensure!(audit.contains("a-operator") || audit.contains("defrag"), "{audit}");

    let created = desk.fresh_token()?;
    secrets_stay_hidden(&desk, node.pid(), &[&founding, &created])
}

/// What must not be seen, in every form in which it could be written.
fn secrets(desk: &Desk, tokens: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let mut secrets = Vec::new();
    for token in tokens {
        let (id, secret) = token.split_once('.').context("not a token")?;
        secrets.push((format!("the secret of the token {id}"), secret.into()));
    }
    for role in ROLES {
        let pem = fs::read_to_string(desk.context(role).join("operator.key"))?;
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        // Of PKCS#8 for Ed25519 (RFC 8410) bytes 18 to 44: nothing but the private half.
        let seed = body.get(24..60).context("no key")?;
        secrets.push((format!("the key of the operator {role}"), seed.into()));
    }
    // How a P-256 key begins in PKCS#8, raw and in base64: that is what every authority has.
    let begin = b"\x30\x81\x87\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01";
    secrets.push(("a private key (DER)".to_owned(), begin.to_vec()));
    secrets.push(("a private key (base64)".to_owned(), b"MIGHAgEAMBMGByqGSM49AgEG".to_vec()));
    secrets.push(("a private key (PEM)".to_owned(), b"PRIVATE KEY-----".to_vec()));
    Ok(secrets)
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// The first look, for a cluster of one and every role; `secrets.rs` searches a whole life.
fn secrets_stay_hidden(desk: &Desk, musterd: u32, tokens: &[&str]) -> Result<()> {
    let secrets = secrets(desk, tokens)?;
    let mut places: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    let mut private = BTreeSet::new();
    for file in files(&desk.bench.path(""))? {
        // The node runs: a file that it replaces meanwhile is looked at under its new name or not.
        let (Some(text), Some(meta)) = (there(fs::read(&file))?, there(fs::metadata(&file))?)
        else {
            continue;
        };
        let is_log = file.extension().is_some_and(|extension| extension == "log");
        let is_output = file.starts_with(&desk.outputs);
        let open = meta.permissions().mode() & 0o077 != 0;
        ensure!(!(open && file.starts_with(desk.bench.state())), "{} is open", file.display());
        if is_log || is_output || open {
            places.push((file, text));
        } else if meta.len() < LARGE {
            private.extend(
                secrets.iter().filter(|(_, word)| contains(&text, word)).map(|(what, _)| what),
            );
        }
    }
    let mut etcd = 0;
    for process in fs::read_dir("/proc")?.flatten().map(|entry| entry.path()) {
        let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
        let ours = process.ends_with(musterd.to_string())
            || contains(&arguments, desk.bench.state().as_os_str().as_encoded_bytes());
        if ours {
            etcd += usize::from(contains(&arguments, b"etcd"));
            places.push((process.join("environ"), fs::read(process.join("environ"))?));
        }
        places.push((process.join("cmdline"), arguments));
    }
    ensure!(etcd == 1, "etcd's arguments were not looked at");
    for name in ["musterd.log", "etcd.log"] {
        ensure!(places.iter().any(|(path, _)| path.ends_with(name)), "no {name} was looked at");
    }
    for (path, text) in &places {
        for (what, word) in &secrets {
            ensure!(!contains(text, word), "{} shows {what}", path.display());
        }
    }
    // The search finds what is there: all of it is in some private file, but for two forms in which
    // nothing is ever written, and the token that only the answer showed.
    for what in ["a private key (DER)", "a private key (PEM)"] {
        ensure!(private.iter().any(|found| *found == what), "{what} is in no private file");
    }
    ensure!(private.iter().filter(|what| what.contains("operator")).count() == 4, "{private:?}");
    ensure!(private.iter().any(|what| what.contains("token")), "{private:?}");
    Ok(())
}

#[test]
fn a_key_of_another_cluster_and_a_wrong_token_are_refused() -> Result<()> {
    let desk = Desk::new()?;
    let node = Running::start(&desk.bench, || {
        let said = desk.ctl("admin", &["health"])?;
        ensure!(said.code == Some(0), "{}{}", said.out, said.err);
        Ok(())
    })?;
    // Never met the cluster, and holds the token of another one.
    let other = Bench::new()?;
    let document: Value = serde_saphyr::from_str(&other.text()?)?;
    let token = document["machine"]["token"].as_str().context("no token")?;
    fs::write(desk.context("reader").join("token"), token)?;
    let told = desk.ctl("reader", &["members"])?;
    ensure!(told.code == Some(REFUSED) && told.out.is_empty(), "{told:?}");
    ensure!(!desk.context("reader").join("authorities.pem").exists(), "it has pinned something");
    drop(node);

    let mut bare = Command::new(binary("musterctl")?);
    bare.args(["members", "--context"]).arg(desk.context("admin")).stdin(Stdio::null());
    let told = said(&mut bare)?;
    ensure!(told.code == Some(4), "nobody is there to answer: {told:?}");
    Ok(())
}
