//! A cluster's lifetime, then a search for each of its secrets in everything that others could see.
//! (Crashes: `core_dump`.)

mod commands;
mod core_dump;
mod search;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use muster_pki::identity::Identity;
use muster_state::Command as Change;
use muster_storage::{self, SLED, StoreIdentity};
use muster_tests::cluster::HEALTHY;
use muster_tests::ctl::{CommandOutput, binary, output_of};
use muster_tests::secrets::{Capture, ProcessWatch, Secret, changed_since, files};
use muster_tests::{Cluster, Discovery, Plan, scenario, until};
use musterd::membership::Membership;
use musterd::raft::types::RaftStorage;
use openraft::{EntryPayload, RaftLogReader as _};
use serde_json::{Value, json};

use self::commands::{DESTROY, FORMATS, commands, every_command_has_a_row};
use self::search::search_everything;

/// Name of the token that is pasted whole in place of its id.
const PASTED_TOKEN: &str = "a revoked (pasted)";

/// Everything of a run that others may see, by place, and all its secrets.
struct Run {
    cluster: Cluster,
    seen: Vec<(String, Vec<u8>)>,
    secrets: Vec<Secret>,
}

impl Run {
    fn record(&mut self, place: impl Into<String>, output: &CommandOutput) {
        self.seen.push((place.into(), format!("{}{}", output.out, output.err).into_bytes()));
    }

    fn record_files(&mut self, shown: Vec<(PathBuf, Vec<u8>)>) {
        self.seen.extend(shown.into_iter().map(|(path, text)| (path.display().to_string(), text)));
    }

    /// Makes a token. It must be shown to its creator once, and nothing else of it.
    fn token(&mut self, whose: &str, more: &[&str], format: &str) -> Result<String> {
        let args = [&["token", "create", "-o", format], more].concat();
        let output = self.cluster.ctl(&args)?;
        let all = format!("{}{}", output.out, output.err);
        ensure!(output.code == Some(0), "{all}");
        let is_token = |word: &&str| word.parse::<muster_pki::token::Token>().is_ok();
        let words = all.split(|c: char| c.is_whitespace() || "\"',".contains(c));
        let token = words.filter(|word| !word.is_empty()).find(is_token);
        let token = token.with_context(|| format!("no token in {all}"))?.to_owned();
        ensure!(all.matches(&token).count() == 1, "it is shown more than once: {all}");
        self.seen.push((format!("token create -o {format}"), all.replace(&token, "").into_bytes()));
        self.secrets.extend(Secret::token(whose, &token)?);
        Ok(token)
    }

    /// Writes a configuration with another token.
    fn config(&self, name: &str, token: &str) -> Result<PathBuf> {
        let mut document = self.cluster.document()?;
        document["machine"]["token"] = Value::from(token);
        // By mDNS only nodes with the same token find each other.
        let founder = self.cluster.node("cp-1").host.address();
        document["machine"]["discovery"]["static"] = json!([founder.to_string()]);
        let path = self.cluster.operator.dir().join(name);
        self.cluster.write_config(&path, &document)?;
        Ok(path)
    }

    fn until_log(&self, node: &str, words: &str) -> Result<()> {
        let log = self.cluster.node(node).host.dir().join("musterd.log");
        until(&format!("{node} to log {words:?}"), HEALTHY, || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if text.contains(words) { Ok(()) } else { Err(text.lines().last().map(str::to_owned)) }
        })
    }

    /// Forms the cluster; one node logs at `trace`.
    fn birth(&mut self) -> Result<()> {
        for name in ["cp-1", "cp-2"] {
            self.cluster.start(name)?;
        }
        let config = self.cluster.config.clone();
        let node = self.cluster.node_mut("cp-3");
        let mut command = node.host.command(binary("musterd")?);
        command.arg("--config").arg(config).arg("--state-dir").arg(node.host.dir().join("state"));
        command.env("MUSTER_LOG", "trace");
        node.process = Some(node.host.spawn(command, "musterd")?);
        self.cluster.until_healthy()
    }

    /// Joins nodes with a worker's token and a control-plane node's. One join is rejected.
    fn joins(&mut self) -> Result<()> {
        let worker = self.token("the worker's", &["--role", "worker"], "json")?;
        let config = self.config("worker.yaml", &worker)?;
        self.cluster.start_with("worker-1", &config, &[])?;
        let more = ["--role", "control-plane", "--uses", "1"];
        let token = self.token("the control-plane node's", &more, "table")?;
        let config = self.config("cp-4.yaml", &token)?;
        self.cluster.start_with("cp-4", &config, &[])?;

        let unknown = muster_pki::token::Token::generate().expose().to_string();
        self.secrets.extend(Secret::token("an unknown", &unknown)?);
        let config = self.config("unknown.yaml", &unknown)?;
        self.cluster.start_with("worker-2", &config, &[])?;
        self.cluster.until_members("five members", |members| {
            members["members"].as_array().is_some_and(|list| list.len() == 5)
        })?;
        self.until_log("worker-2", "refused the token")?;
        self.cluster.until_healthy()
    }

    /// Runs every command in every format.
    fn commands(&mut self) -> Result<()> {
        every_command_has_a_row()?;
        let token = self.token("a revoked", &["--role", "worker"], "yaml")?;
        let id = token.split('.').next().context("a token")?.to_owned();
        let operator = self.cluster.operator.dir().display().to_string();
        for format in FORMATS {
            fs::create_dir_all(self.cluster.operator.dir().join(format!("out-{format}")))?;
        }
        for (row, codes) in commands() {
            for format in FORMATS {
                let line = row.replace("TOKEN", &id).replace("OUT", "DIR/out-FORM");
                let line = line.replace("DIR", &operator).replace("FORM", format);
                if row == DESTROY {
                    self.save_secrets_before_destroy(&format!("local-{format}"))?;
                }
                let words: Vec<&str> = line.split(' ').chain(["-o", format]).collect();
                let output = match words[0] {
                    // Local commands: no node is called.
                    "context" => self.local_ctl(&words)?,
                    _ => self.cluster.ctl(&words)?,
                };
                let code = output.code.context("it was killed")?;
                ensure!(codes.contains(&code), "{line} -o {format}: {output:?}");
                self.record(format!("{line} -o {format}"), &output);
            }
        }
        self.cluster.etcdctl(&["put", "some", "thing"])?.success()?;
        let output = self.cluster.etcdctl(&["get", "some", "--write-out", "json"])?;
        self.record("etcdctl get", &output);
        self.restore()
    }

    fn local_ctl(&self, words: &[&str]) -> Result<CommandOutput> {
        let operator = &self.cluster.operator;
        let mut command = operator.command(binary("musterctl")?);
        output_of(command.args(words).env("MUSTER_CONFIG", operator.dir().join("contexts")))
    }

    /// Saves the secrets and logs of a local cluster, whose files will be gone.
    fn save_secrets_before_destroy(&mut self, name: &str) -> Result<()> {
        let operator = self.cluster.operator.dir().to_owned();
        let whose = format!("a destroyed {name}'s");
        let context = operator.join("contexts/contexts").join(name);
        let before = self.secrets.len();
        for file in files(&operator.join(name))?.into_iter().chain(files(&context)?) {
            let bytes = fs::read(&file)?;
            let text = String::from_utf8_lossy(&bytes);
            if file.ends_with("node.yaml") {
                let document: Value = serde_saphyr::from_str(&text)?;
                let token = document["machine"]["token"].as_str().context("no token")?;
                self.secrets.extend(Secret::token(&whose, token)?);
            } else if file.ends_with("identity.key") {
                self.secrets.push(Secret::key_der(format!("{whose} identity"), &bytes)?);
            } else if text.contains("PRIVATE KEY") {
                let which = file.file_name().unwrap_or_default().display().to_string();
                self.secrets.push(Secret::key(format!("{whose} {which}"), &text)?);
            } else if file.extension().is_some_and(|extension| extension == "log") {
                self.seen.push((file.display().to_string(), bytes));
            }
        }
        // A token and its verifier, the keys of the node and the operator, two of etcd's.
        let made = self.secrets.len() - before;
        ensure!(made == 6, "{made} secrets of {name}");
        Ok(())
    }

    /// Starts a cluster of one with a snapshot, for which musterd runs an etcd program.
    fn restore(&mut self) -> Result<()> {
        let operator = self.cluster.operator.clone();
        let alone = operator.dir().join("alone");
        let mut init = operator.command(binary("musterctl")?);
        init.args(["init", "alone", "--control-planes", "1", "--no-mdns", "--no-context"]);
        self.record("init", &output_of(init.arg("--out").arg(&alone))?);
        let mut document: Value =
            serde_saphyr::from_str(&fs::read_to_string(alone.join("node.yaml"))?)?;
        document["machine"]["etcd"] = json!({ "binary": slow_etcd(operator.dir())? });
        self.cluster.write_config(&alone.join("node.yaml"), &document)?;
        let mut musterd = operator.command(binary("musterd")?);
        musterd.arg("--config").arg(alone.join("node.yaml")).args(["--name", "cp-1"]);
        musterd.arg("--state-dir").arg(alone.join("state"));
        musterd.arg("--restore-etcd").arg(operator.dir().join("out-json/snapshot"));
        let mut process = operator.spawn(musterd, "alone")?;
        until("etcd to start with the snapshot", HEALTHY, || {
            let text = fs::read_to_string(process.log()).unwrap_or_default();
            let start = text.contains("etcd restored from the given snapshot");
            if start { Ok(()) } else { Err(text.lines().last().map(str::to_owned)) }
        })?;
        process.stop(HEALTHY)?;
        let identity = fs::read(alone.join("state/identity.key"))?;
        self.secrets.push(Secret::key_der("the identity of operator/alone", &identity)?);
        Ok(())
    }

    /// Invalid secrets are refused without being repeated.
    fn wrong_tokens(&mut self) -> Result<()> {
        let token =
            self.cluster.document()?["machine"]["token"].as_str().context("token")?.to_owned();
        let (id, secret) = token.split_once('.').context("a token")?;
        let last = if secret.ends_with('a') { "b" } else { "a" };
        let wrong = [
            ("typo", format!("{id}.{}{last}", &secret[..secret.len() - 1])),
            ("short", token[..token.len() - 1].to_owned()),
            ("bare", secret.to_owned()),
            ("upper", token.to_uppercase()),
        ];
        for (name, wrong) in wrong {
            let config = self.config(&format!("{name}.yaml"), &wrong)?;
            let operator = self.cluster.operator.dir().to_owned();
            let mut musterd = Command::new(binary("musterd")?);
            musterd.arg("--config").arg(config).arg("--state-dir").arg(operator.join("none"));
            let output = output_of(musterd.arg("--check"))?;
            ensure!(output.code == Some(78), "{name}: {output:?}");
            self.record(format!("musterd with a token that is {name}"), &output);
        }
        // The whole token is pasted in place of its id.
        let pasted = self.token(PASTED_TOKEN, &["--role", "worker"], "json")?;
        let output = self.cluster.ctl(&["token", "revoke", &pasted])?;
        ensure!(output.code == Some(0), "{output:?}");
        self.record("token revoke with a whole token", &output);
        self.unknown_operators(&token)
    }

    /// Calls as operators that the cluster does not know, with the right token and with a wrong
    /// one.
    fn unknown_operators(&mut self, right: &str) -> Result<()> {
        let endpoint = self.cluster.node("cp-1").host.address().to_string();
        for (name, token) in [("right", Some(right)), ("wrong", None)] {
            let context = self.cluster.operator.dir().join(format!("stranger-{name}"));
            let mut init = self.cluster.operator.command(binary("musterctl")?);
            init.args(["init", "elsewhere", "--no-context", "--endpoint", &endpoint, "--out"]);
            let output = output_of(init.arg(&context))?;
            self.record("init without a context", &output);
            output.success()?;
            let file = context.join("token");
            self.secrets.extend(Secret::token("a stranger's", &fs::read_to_string(&file)?)?);
            if let Some(token) = token {
                fs::write(&file, token)?;
            }
            let mut members = self.cluster.operator.command(binary("musterctl")?);
            members.args(["members", "--context"]).arg(&context);
            let output = output_of(&mut members)?;
            ensure!(output.code == Some(5), "{output:?}");
            self.record(format!("a stranger with the {name} token"), &output);
        }
        Ok(())
    }

    /// Checks the core limits of all processes.
    fn check_core_limits(&self) -> Result<()> {
        let mut running = BTreeMap::new();
        for (name, node) in &self.cluster.nodes {
            for pid in node.host.pids()? {
                let program = fs::read_to_string(format!("/proc/{pid}/comm"))?;
                let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
                let cores = limits.lines().find(|line| line.starts_with("Max core file size"));
                let words: Vec<_> = cores.context("no limit")?.split_whitespace().collect();
                ensure!(words[4..6] == ["0", "0"], "{program} of {name} may dump core: {words:?}");
                *running.entry(program.trim().to_owned()).or_insert(0) += 1;
            }
        }
        ensure!(running.get("musterd") == Some(&6), "{running:?}");
        ensure!(running.get("etcd") == Some(&4), "{running:?}");
        Ok(())
    }

    /// Removes a node, kills another and restarts it.
    fn removal_and_restart(&mut self) -> Result<()> {
        let output = self.cluster.ctl(&["node", "remove", "worker-1", "-o", "yaml", "--yes"])?;
        ensure!(output.code == Some(0), "{output:?}");
        self.record("node remove", &output);
        self.until_log("worker-1", "was removed from the cluster")?;
        self.cluster.kill("cp-2")?;
        self.cluster.start("cp-2")?;
        self.cluster.until_healthy()
    }

    fn dir(&self, node: &str) -> PathBuf {
        self.cluster.node(node).host.dir().join("state")
    }

    /// Collects the keys on the machines, each with its owner.
    fn keys_on_disk(&mut self) -> Result<()> {
        for name in self.cluster.names() {
            let identity = fs::read(self.dir(&name).join("identity.key"))?;
            self.secrets.push(Secret::key_der(format!("the identity of {name}"), &identity)?);
            for file in files(&self.dir(&name).join("etcd/tls"))? {
                let text = fs::read_to_string(&file)?;
                if text.contains("PRIVATE KEY") {
                    let which = file.file_name().unwrap_or_default().display().to_string();
                    self.secrets.push(Secret::key(format!("etcd's {which} on {name}"), &text)?);
                }
            }
        }
        let operator = self.cluster.operator.dir();
        let mut operators = 0;
        for file in files(operator)? {
            let text = String::from_utf8_lossy(&fs::read(&file)?).into_owned();
            let path = file.strip_prefix(operator)?.display().to_string();
            if file.ends_with("token") {
                self.secrets.extend(Secret::token(&format!("{path}: the"), &text)?);
            }
            if text.contains("PRIVATE KEY") {
                operators += usize::from(file.ends_with("operator.key"));
                self.secrets.push(Secret::key(format!("{path} of the operator"), &text)?);
            }
        }
        ensure!(operators >= 3, "{operators} operators' keys");
        let token = self.cluster.document()?["machine"]["token"].as_str().map(str::to_owned);
        self.secrets.extend(Secret::token("the founding", &token.context("no token")?)?);
        Ok(())
    }

    /// Collects the authorities' keys and the service-account key from a stopped node's Raft log.
    fn authorities(&mut self) -> Result<()> {
        // A copy, because opening a store writes to it.
        let copy = tempfile::tempdir()?;
        output_of(Command::new("cp").arg("-a").arg(self.dir("cp-1")).arg(copy.path()))?
            .success()?;
        let dir = copy.path().join("state");
        let membership = Membership::load(&dir.join("membership.json"))?.context("a member")?;
        let node = Identity::from_pkcs8(&fs::read(dir.join("identity.key"))?)?.node_id();
        let owner = StoreIdentity { node, cluster: membership.cluster_id };
        let RaftStorage { mut log, .. } = muster_storage::open(&dir.join("raft"), &owner, SLED)?;
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let entries = runtime.block_on(log.try_get_log_entries(..))?;
        let before = self.secrets.len();
        for entry in entries {
            let EntryPayload::Normal(stamped) = entry.payload else { continue };
            let Change::InstallAuthorities(made) = stamped.command else { continue };
            for authority in made.authorities.all() {
                let name = format!("the {} authority's key", authority.kind());
                self.secrets.push(Secret::key(name, &authority.key_pem())?);
            }
            let key = made.authorities.service_account.private_pem();
            self.secrets.push(Secret::key("the service-account key", &key)?);
        }
        ensure!(self.secrets.len() == before + 5, "not exactly one founding in the log");
        Ok(())
    }
}

#[test]
fn no_secret_of_a_whole_lifetime_is_seen_where_it_does_not_belong() {
    scenario("secrets", |lab| {
        // By the clock of the file system.
        let start = fs::metadata(lab.dir())?.modified()?;
        let watch = ProcessWatch::start();
        let plan = Plan::of(4).expect(3).workers(2).discovery(Discovery::Mdns);
        let cluster = Cluster::plan(lab, &plan)?;
        let capture = Capture::start(lab, &lab.dir().join("frames"))?;
        let mut run = Run { cluster, seen: Vec::new(), secrets: Vec::new() };
        run.birth()?;
        run.joins()?;
        run.commands()?;
        run.wrong_tokens()?;
        run.check_core_limits()?;
        run.removal_and_restart()?;
        let frames = capture_with_mark(&run.cluster, capture)?;
        // Includes files that are gone once the nodes have stopped.
        run.record_files(changed_since(start, lab.dir())?);
        for name in run.cluster.names() {
            let node = run.cluster.node_mut(&name);
            if let Some(mut process) = node.process.take() {
                process.stop(HEALTHY)?;
            }
        }
        run.keys_on_disk()?;
        run.authorities()?;
        run.seen.push(("the network".to_owned(), frames));
        run.record_files(changed_since(start, lab.dir())?);
        run.record_files(processes_seen(watch)?);
        search_everything(lab, &run)
    });
}

/// Makes an etcd whose second program runs long enough to be observed.
fn slow_etcd(dir: &Path) -> Result<PathBuf> {
    let programs = dir.join("programs");
    fs::create_dir(&programs)?;
    let script = "#!/bin/sh\nsleep 0.5\nexec etcdctl \"$@\"\n";
    fs::write(programs.join("etcdutl"), script)?;
    fs::set_permissions(programs.join("etcdutl"), fs::Permissions::from_mode(0o755))?;
    let etcd = programs.join("etcd");
    let found = output_of(Command::new("sh").args(["-c", "command -v etcd"]))?.success()?;
    std::os::unix::fs::symlink(found.trim(), &etcd)?;
    Ok(etcd)
}

/// Stops the watch and checks that it saw short-lived processes too.
fn processes_seen(watch: ProcessWatch) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let seen = watch.seen()?;
    for program in ["musterd\0", "musterctl\0", "etcd\0", "etcdctl\0", "\0snapshot\0restore\0"] {
        let shows =
            |text: &[u8]| text.windows(program.len()).any(|found| found == program.as_bytes());
        ensure!(seen.iter().any(|(_, text)| shows(text)), "{program:?} was not seen to run");
    }
    Ok(seen)
}

/// Stops the capture and checks that it saw the traffic.
fn capture_with_mark(cluster: &Cluster, capture: Capture) -> Result<Vec<u8>> {
    let to = cluster.node("cp-1").host.address();
    let send = format!("printf a-mark-in-the-clear > /dev/udp/{to}/9");
    output_of(cluster.operator.command("bash").args(["-c", &send]))?.success()?;
    std::thread::sleep(Duration::from_millis(300)); // until the frame is in the file
    let frames = capture.seen()?;
    let has = |word: &[u8]| frames.windows(word.len()).any(|window| window == word);
    ensure!(has(b"a-mark-in-the-clear"), "the capture missed a datagram in the clear");
    ensure!(has(b"_muster"), "no mDNS was seen");
    ensure!(frames.len() > 1 << 20, "only {} bytes were seen", frames.len());
    Ok(frames)
}
