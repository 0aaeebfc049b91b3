//! Permissions of operator roles, and secrets that no operator sees.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use muster_messages::operator::access::Role;
use muster_tests::ctl::{CommandOutput, binary, output_of};
use muster_tests::loopback::{LoopbackMachine, RunningNode};
use muster_tests::secrets::{files, if_exists};
use serde_json::{Value, json};

use crate::calls::{CALLS, CREATE_TOKEN, Row, every_call_has_a_row};

/// The roles of operators.
const ROLES: [(&str, Role); 4] = [
    ("admin", Role::Admin),
    ("operator", Role::Operator),
    ("reader", Role::Reader),
    ("backup", Role::Backup),
];

/// Exit code of a refusal.
const REFUSED: i32 = 5;

/// Private files from this size on are not searched: etcd preallocates its log with 64 MB of zeros.
const LARGE: u64 = 8 << 20;

/// Cluster of one, and a context per role.
struct RoleContexts {
    machine: LoopbackMachine,
    outputs: PathBuf,
}

impl RoleContexts {
    /// Makes contexts and configuration. Starts nothing.
    fn new() -> Result<Self> {
        let machine = LoopbackMachine::new()?;
        let outputs = machine.path("outputs");
        fs::create_dir(&outputs)?;
        let operator = Self { machine, outputs };
        let mut keys = Vec::new();
        for role in ROLES.map(|(role, _)| role).into_iter().chain(["stranger"]) {
            keys.push((role, operator.key(role)?));
        }
        let token = operator.token()?;
        for (role, _) in &keys {
            let file = operator.context(role).join("token");
            fs::write(&file, &token)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        }
        operator.machine.change(|document| {
            let known = keys.iter().filter(|(role, _)| *role != "stranger");
            let operators = known.map(
                |(role, key)| json!({"name": format!("a-{role}"), "role": role, "publicKey": key}),
            );
            document["cluster"]["operators"] = operators.collect();
        })?;
        Ok(operator)
    }

    /// Returns the founding token.
    fn token(&self) -> Result<String> {
        let document: Value = serde_saphyr::from_str(&self.machine.text()?)?;
        Ok(document["machine"]["token"].as_str().context("no token")?.to_owned())
    }

    fn context(&self, role: &str) -> PathBuf {
        self.machine.path(&format!("context-{role}"))
    }

    /// Makes a key and its context, and returns the public key.
    fn key(&self, role: &str) -> Result<String> {
        let mut init = Command::new(binary("musterctl")?);
        init.args(["init", "loopback", "--no-context", "--operator", &format!("a-{role}")]);
        init.arg("--endpoint").arg(self.machine.address().to_string());
        output_of(init.arg("--out").arg(self.context(role)))?.success()?;
        let text = fs::read_to_string(self.context(role).join("node.yaml"))?;
        let document: Value = serde_saphyr::from_str(&text)?;
        let key = document["cluster"]["operators"][0]["publicKey"].as_str();
        Ok(key.context("no key")?.to_owned())
    }

    /// Runs `musterctl` as this operator.
    fn ctl(&self, role: &str, args: &[&str]) -> Result<CommandOutput> {
        let mut command = Command::new(binary("musterctl")?);
        command.args(args).arg("--context").arg(self.context(role)).args(["-o", "json"]);
        output_of(command.env("MUSTER_CONFIG", self.machine.path("no-contexts")))
    }

    /// Runs a line of the table as this operator.
    fn run_line(&self, role: &str, run_line: &str) -> Result<CommandOutput> {
        let out = self.machine.path(&format!("out-{role}"));
        fs::create_dir_all(&out)?;
        let out = out.display().to_string();
        let token = if run_line.contains("TOKEN") { self.fresh_token()? } else { String::new() };
        let id = token.split('.').next().unwrap_or_default();
        let run_line = run_line.replace("OUT", &out).replace("TOKEN", id);
        self.ctl(role, &run_line.split(' ').collect::<Vec<_>>())
    }

    fn fresh_token(&self) -> Result<String> {
        let made = self.ctl("admin", &["token", "create", "--role", "worker"])?.json()?;
        Ok(made["token"].as_str().context("no token")?.to_owned())
    }
}

#[test]
fn every_role_may_do_what_the_table_says_and_no_secret_is_seen_anywhere() -> Result<()> {
    let operator = RoleContexts::new()?;
    let founding = operator.token()?;
    let node = RunningNode::start(&operator.machine, || {
        let output = operator.ctl("admin", &["health"])?;
        ensure!(output.code == Some(0), "{}{}", output.out, output.err);
        Ok(())
    })?;

    every_call_has_a_row()?;
    let mut wrong = Vec::new();
    for Row { call, line: run_line, alone, .. } in CALLS {
        for (role, of_contract) in ROLES {
            let code = if call.roles().contains(&of_contract) { *alone } else { REFUSED };
            let output = operator.run_line(role, run_line)?;
            let explained = code != REFUSED || output.err.contains(role);
            if output.code != Some(code) || !explained {
                wrong.push(format!(
                    "{role}: {run_line}: {:?}, not {code}: {}",
                    output.code, output.err
                ));
            }
            // A new token is shown once, to its creator.
            if *run_line != CREATE_TOKEN {
                let file = format!("{role} {run_line}").replace(['/', ' '], "_");
                fs::write(operator.outputs.join(file), format!("{}{}", output.out, output.err))?;
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    for Row { line: run_line, .. } in CALLS {
        let output = operator.run_line("stranger", run_line)?;
        ensure!(output.code == Some(REFUSED), "a stranger's {run_line}: {output:?}");
        ensure!(
            output.out.is_empty() || *run_line == "version",
            "a stranger's {run_line}: {output:?}"
        );
    }
    let audit = operator.ctl("admin", &["audit"])?.success()?;
    ensure!(audit.contains("a-operator") || audit.contains("defrag"), "{audit}");

    let created = operator.fresh_token()?;
    secrets_stay_hidden(&operator, node.pid(), &[&founding, &created])
}

/// Returns the secrets to search for, in every encoding.
fn secrets(operator: &RoleContexts, tokens: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let mut secrets = Vec::new();
    for token in tokens {
        let (id, secret) = token.split_once('.').context("not a token")?;
        secrets.push((format!("the secret of the token {id}"), secret.into()));
    }
    for (role, _) in ROLES {
        let pem = fs::read_to_string(operator.context(role).join("operator.key"))?;
        let body: String = pem.lines().filter(|run_line| !run_line.starts_with("-----")).collect();
        // Bytes 18 to 44 of PKCS#8 for Ed25519 (RFC 8410): only the private half.
        let seed = body.get(24..60).context("no key")?;
        secrets.push((format!("the key of the operator {role}"), seed.into()));
    }
    // Prefix of a P-256 key in PKCS#8, raw and in base64: every authority has one.
    let begin = b"\x30\x81\x87\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01";
    secrets.push(("a private key (DER)".to_owned(), begin.to_vec()));
    secrets.push(("a private key (base64)".to_owned(), b"MIGHAgEAMBMGByqGSM49AgEG".to_vec()));
    secrets.push(("a private key (PEM)".to_owned(), b"PRIVATE KEY-----".to_vec()));
    Ok(secrets)
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// Searches a cluster of one after every role's calls. The tests in
/// tests/e2e/security/secrets search a whole lifetime.
fn secrets_stay_hidden(operator: &RoleContexts, musterd: u32, tokens: &[&str]) -> Result<()> {
    let secrets = secrets(operator, tokens)?;
    let mut places: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    let mut private = BTreeSet::new();
    for file in files(&operator.machine.path(""))? {
        // The node runs: a file that it replaces meanwhile is read under its new name or not at
        // all.
        let (Some(text), Some(meta)) =
            (if_exists(fs::read(&file))?, if_exists(fs::metadata(&file))?)
        else {
            continue;
        };
        let is_log = file.extension().is_some_and(|extension| extension == "log");
        let is_output = file.starts_with(&operator.outputs);
        let open = meta.permissions().mode() & 0o077 != 0;
        ensure!(
            !(open && file.starts_with(operator.machine.state())),
            "others can read {}",
            file.display()
        );
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
            || contains(&arguments, operator.machine.state().as_os_str().as_encoded_bytes());
        if ours {
            etcd += usize::from(contains(&arguments, b"etcd"));
            places.push((process.join("environ"), fs::read(process.join("environ"))?));
        }
        places.push((process.join("cmdline"), arguments));
    }
    ensure!(etcd == 1, "etcd's arguments were not read");
    for name in ["musterd.log", "etcd.log"] {
        ensure!(places.iter().any(|(path, _)| path.ends_with(name)), "no {name} was read");
    }
    for (path, text) in &places {
        for (what, word) in &secrets {
            ensure!(!contains(text, word), "{} shows {what}", path.display());
        }
    }
    // The search must find what is there: all of it is in some private file, except two encodings
    // that are never written, and the token that only the reply showed.
    for what in ["a private key (DER)", "a private key (PEM)"] {
        ensure!(private.iter().any(|found| *found == what), "{what} is in no private file");
    }
    ensure!(private.iter().filter(|what| what.contains("operator")).count() == 4, "{private:?}");
    ensure!(private.iter().any(|what| what.contains("token")), "{private:?}");
    Ok(())
}

#[test]
fn a_key_of_another_cluster_and_a_wrong_token_are_refused() -> Result<()> {
    let operator = RoleContexts::new()?;
    let node = RunningNode::start(&operator.machine, || {
        let output = operator.ctl("admin", &["health"])?;
        ensure!(output.code == Some(0), "{}{}", output.out, output.err);
        Ok(())
    })?;
    // This context has no contact with the cluster yet, and holds another cluster's token.
    let other = LoopbackMachine::new()?;
    let document: Value = serde_saphyr::from_str(&other.text()?)?;
    let token = document["machine"]["token"].as_str().context("no token")?;
    fs::write(operator.context("reader").join("token"), token)?;
    let output = operator.ctl("reader", &["members"])?;
    ensure!(output.code == Some(REFUSED) && output.out.is_empty(), "{output:?}");
    ensure!(
        !operator.context("reader").join("authorities.pem").exists(),
        "it has pinned something"
    );
    drop(node);

    let mut bare = Command::new(binary("musterctl")?);
    bare.args(["members", "--context"]).arg(operator.context("admin")).stdin(Stdio::null());
    let output = output_of(&mut bare)?;
    ensure!(output.code == Some(4), "no node is running: {output:?}");
    Ok(())
}
