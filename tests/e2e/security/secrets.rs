//! A whole life of a cluster, and then a search for every secret of it in everything that somebody
//! else could see; and that no crash writes one to disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use muster_pki::identity::Identity;
use muster_state::Command as Change;
use muster_storage::{self, SLED, StoreIdentity};
use muster_tests::cluster::HEALTHY;
use muster_tests::ctl::{Said, binary, said};
use muster_tests::lab::Lab;
use muster_tests::loopback::Bench;
use muster_tests::secrets::{
    Capture, Found, Search, Secret, Watch, commands, elsewhere, files, is_open, there,
};
use muster_tests::{Cluster, Discovery, Plan, scenario, until};
use musterd::membership::Membership;
use musterd::raft::types::RaftStorage;
use openraft::{EntryPayload, RaftLogReader as _};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const FORMATS: [&str; 3] = ["table", "json", "yaml"];

/// Every command, with what it may end with: a command of `musterctl` that has no row fails the
/// test. `TOKEN` is a token's id, `DESK` the operator's directory, `FORM` the form of the answer.
const COMMANDS: &[(&str, &[i32])] = &[
    ("init made-FORM --out DESK/made-FORM", &[0]),
    ("cluster create --control-planes 1 --workers 0 --name local-FORM --dir DESK/local-FORM", &[0]),
    ("cluster list", &[0]),
    ("cluster show local-FORM", &[0]),
    (DESTROY, &[0]),
    ("context add DESK/made-FORM --name added-FORM", &[0]),
    ("context endpoints 10.0.0.1 --context added-FORM", &[0]),
    // What was made or added last is the current one.
    ("context use lab", &[0]),
    ("context list", &[0]),
    ("context show", &[0]),
    ("context remove added-FORM", &[0]),
    ("completion bash", &[0]),
    ("version", &[0]),
    ("members", &[0]),
    ("status", &[0]),
    ("status -n cp-2", &[0]),
    ("health", &[0]),
    ("token list", &[0]),
    ("pki show", &[0]),
    ("audit", &[0]),
    ("etcd members", &[0]),
    ("etcd status", &[0]),
    ("etcd alarms", &[0]),
    ("etcd alarms --disarm", &[0]),
    ("etcd defrag -n cp-1", &[0]),
    ("etcd forfeit-leadership", &[0]),
    ("etcd snapshot DESK/snapshot-FORM", &[0]),
    ("etcd client-config --out DESK/client-FORM", &[0]),
    ("token revoke TOKEN", &[0, 1]),
    ("node remove nobody", &[1]),
];

const DESTROY: &str = "cluster destroy local-FORM";

/// Whose answer is the secret: [`Story::token`] takes it out, in every form.
const SHOWS_A_SECRET: &str = "token create";

/// Fails when `musterctl` has learnt a command that this test does not know.
fn every_command_has_a_row() -> Result<()> {
    let rows = || COMMANDS.iter().map(|(line, _)| *line).chain([SHOWS_A_SECRET]);
    let is_of = |line: &str, command: &str| format!("{line} ").starts_with(&format!("{command} "));
    let new = commands()?.into_iter().find(|command| !rows().any(|line| is_of(line, command)));
    ensure!(new.is_none(), "`musterctl {}` has no row in COMMANDS", new.unwrap_or_default());
    Ok(())
}

/// Whose token is pasted where only its id is wanted.
const PASTED: &str = "a revoked (pasted)";

/// What of the run may be seen by others, by where it was seen, and all its secrets.
struct Story {
    cluster: Cluster,
    seen: Vec<(String, Vec<u8>)>,
    secrets: Vec<Secret>,
}

impl Story {
    fn note(&mut self, place: impl Into<String>, said: &Said) {
        self.seen.push((place.into(), format!("{}{}", said.out, said.err).into_bytes()));
    }

    fn saw(&mut self, shown: Vec<(PathBuf, Vec<u8>)>) {
        self.seen.extend(shown.into_iter().map(|(path, text)| (path.display().to_string(), text)));
    }

    /// Makes a token. It is shown to whoever made it, once, and nothing else of it.
    fn token(&mut self, whose: &str, more: &[&str], format: &str) -> Result<String> {
        let args = [&["token", "create", "-o", format], more].concat();
        let told = self.cluster.ctl(&args)?;
        let all = format!("{}{}", told.out, told.err);
        ensure!(told.code == Some(0), "{all}");
        let is_token = |word: &&str| word.parse::<muster_pki::token::Token>().is_ok();
        let words = all.split(|c: char| c.is_whitespace() || "\"',".contains(c));
        let token = words.filter(|word| !word.is_empty()).find(is_token);
        let token = token.with_context(|| format!("no token in {all}"))?.to_owned();
        ensure!(all.matches(&token).count() == 1, "it is shown more than once: {all}");
        self.seen.push((format!("token create -o {format}"), all.replace(&token, "").into_bytes()));
        self.secrets.extend(Secret::token(whose, &token)?);
        Ok(token)
    }

    /// A configuration with another token.
    fn config(&self, name: &str, token: &str) -> Result<PathBuf> {
        let mut document = self.cluster.document()?;
        document["machine"]["token"] = Value::from(token);
        // By mDNS only nodes with the same token find each other.
        let founder = self.cluster.node("cp-1").host.address();
        document["machine"]["discovery"]["static"] = json!([founder.to_string()]);
        let path = self.cluster.desk.dir().join(name);
        self.cluster.write_config(&path, &document)?;
        Ok(path)
    }

    fn log_says(&self, node: &str, words: &str) -> Result<()> {
        let log = self.cluster.node(node).host.dir().join("musterd.log");
        until(&format!("{node} to say {words:?}"), HEALTHY, || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if text.contains(words) { Ok(()) } else { Err(text.lines().last().map(str::to_owned)) }
        })
    }

    /// Birth, with one node that logs everything there is to log.
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

    /// Joins, by a worker's token and a control-plane node's; and one that is refused.
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
        self.log_says("worker-2", "refused the token")?;
        self.cluster.until_healthy()
    }

    /// Every command in every form.
    fn commands(&mut self) -> Result<()> {
        every_command_has_a_row()?;
        let token = self.token("a revoked", &["--role", "worker"], "yaml")?;
        let id = token.split('.').next().context("a token")?.to_owned();
        let desk = self.cluster.desk.dir().display().to_string();
        for (row, codes) in COMMANDS {
            for format in FORMATS {
                let line = row.replace("TOKEN", &id).replace("DESK", &desk).replace("FORM", format);
                if *row == DESTROY {
                    self.before_it_is_destroyed(&format!("local-{format}"))?;
                }
                let words: Vec<&str> = line.split(' ').chain(["-o", format]).collect();
                let told = match words[0] {
                    // Of this machine alone: no node is asked.
                    "context" => self.on_the_desk(&words)?,
                    _ => self.cluster.ctl(&words)?,
                };
                let code = told.code.context("it was killed")?;
                ensure!(codes.contains(&code), "{line} -o {format}: {told:?}");
                self.note(format!("{line} -o {format}"), &told);
            }
        }
        self.cluster.etcdctl(&["put", "some", "thing"])?.success()?;
        let told = self.cluster.etcdctl(&["get", "some", "--write-out", "json"])?;
        self.note("etcdctl get", &told);
        self.restore()
    }

    fn on_the_desk(&self, words: &[&str]) -> Result<Said> {
        let desk = &self.cluster.desk;
        let mut command = desk.command(binary("musterctl")?);
        said(command.args(words).env("MUSTER_CONFIG", desk.dir().join("contexts")))
    }

    /// The secrets and the logs of a local cluster, which will be gone with all of its files.
    fn before_it_is_destroyed(&mut self, name: &str) -> Result<()> {
        let desk = self.cluster.desk.dir().to_owned();
        let whose = format!("a destroyed {name}'s");
        let context = desk.join("contexts/contexts").join(name);
        let before = self.secrets.len();
        for file in files(&desk.join(name))?.into_iter().chain(files(&context)?) {
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
        // A token and its verifier, the node's and the operator's key, two of etcd's.
        let made = self.secrets.len() - before;
        ensure!(made == 6, "{made} secrets of {name}");
        Ok(())
    }

    /// A cluster of one that begins with a snapshot, for which musterd runs a program of etcd's.
    fn restore(&mut self) -> Result<()> {
        let desk = self.cluster.desk.clone();
        let alone = desk.dir().join("alone");
        let mut init = desk.command(binary("musterctl")?);
        init.args(["init", "alone", "--control-planes", "1", "--no-mdns", "--no-context"]);
        self.note("init", &said(init.arg("--out").arg(&alone))?);
        let mut document: Value =
            serde_saphyr::from_str(&fs::read_to_string(alone.join("node.yaml"))?)?;
        document["machine"]["etcd"] = json!({ "binary": slow_etcd(desk.dir())? });
        self.cluster.write_config(&alone.join("node.yaml"), &document)?;
        let mut musterd = desk.command(binary("musterd")?);
        musterd.arg("--config").arg(alone.join("node.yaml")).args(["--name", "cp-1"]);
        musterd.arg("--state-dir").arg(alone.join("state"));
        musterd.arg("--restore-etcd").arg(desk.dir().join("snapshot-json"));
        let mut process = desk.spawn(musterd, "alone")?;
        until("etcd to begin with the snapshot", HEALTHY, || {
            let text = fs::read_to_string(process.log()).unwrap_or_default();
            let begun = text.contains("etcd restored from the given snapshot");
            if begun { Ok(()) } else { Err(text.lines().last().map(str::to_owned)) }
        })?;
        process.stop(HEALTHY)?;
        let identity = fs::read(alone.join("state/identity.key"))?;
        self.secrets.push(Secret::key_der("the identity of desk/alone", &identity)?);
        Ok(())
    }

    /// What is done wrong with a secret is refused without repeating it.
    fn failures(&mut self) -> Result<()> {
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
            let desk = self.cluster.desk.dir().to_owned();
            let mut musterd = Command::new(binary("musterd")?);
            musterd.arg("--config").arg(config).arg("--state-dir").arg(desk.join("none"));
            let told = said(musterd.arg("--check"))?;
            ensure!(told.code == Some(78), "{name}: {told:?}");
            self.note(format!("musterd with a token that is {name}"), &told);
        }
        // Somebody pastes the whole token where its id is wanted.
        let pasted = self.token(PASTED, &["--role", "worker"], "json")?;
        let told = self.cluster.ctl(&["token", "revoke", &pasted])?;
        ensure!(told.code == Some(0), "{told:?}");
        self.note("token revoke with a whole token", &told);
        self.strangers(&token)
    }

    /// Operators whom the cluster does not know, with the right token and with a wrong one.
    fn strangers(&mut self, right: &str) -> Result<()> {
        let endpoint = self.cluster.node("cp-1").host.address().to_string();
        for (name, token) in [("right", Some(right)), ("wrong", None)] {
            let context = self.cluster.desk.dir().join(format!("stranger-{name}"));
            let mut init = self.cluster.desk.command(binary("musterctl")?);
            init.args(["init", "elsewhere", "--no-context", "--endpoint", &endpoint, "--out"]);
            let told = said(init.arg(&context))?;
            self.note("init without a context", &told);
            told.success()?;
            let file = context.join("token");
            self.secrets.extend(Secret::token("a stranger's", &fs::read_to_string(&file)?)?);
            if let Some(token) = token {
                fs::write(&file, token)?;
            }
            let mut members = self.cluster.desk.command(binary("musterctl")?);
            members.args(["members", "--context"]).arg(&context);
            let told = said(&mut members)?;
            ensure!(told.code == Some(5), "{told:?}");
            self.note(format!("a stranger with the {name} token"), &told);
        }
        Ok(())
    }

    /// Limits of everything that runs.
    fn look_at_limits(&self) -> Result<()> {
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

    /// A removal, a power cut and a restart.
    fn removal_and_restart(&mut self) -> Result<()> {
        let told = self.cluster.ctl(&["node", "remove", "worker-1", "-o", "yaml"])?;
        ensure!(told.code == Some(0), "{told:?}");
        self.note("node remove", &told);
        self.log_says("worker-1", "was removed from the cluster")?;
        self.cluster.kill("cp-2")?;
        self.cluster.start("cp-2")?;
        self.cluster.until_healthy()
    }

    fn dir(&self, node: &str) -> PathBuf {
        self.cluster.node(node).host.dir().join("state")
    }

    /// The keys that lie on the machines, each by whose it is.
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
        let desk = self.cluster.desk.dir();
        let mut operators = 0;
        for file in files(desk)? {
            let text = String::from_utf8_lossy(&fs::read(&file)?).into_owned();
            let path = file.strip_prefix(desk)?.display().to_string();
            if file.ends_with("token") {
                self.secrets.extend(Secret::token(&format!("{path}: the"), &text)?);
            }
            if text.contains("PRIVATE KEY") {
                operators += usize::from(file.ends_with("operator.key"));
                self.secrets.push(Secret::key(format!("{path} of the desk"), &text)?);
            }
        }
        ensure!(operators >= 3, "{operators} operators' keys");
        let token = self.cluster.document()?["machine"]["token"].as_str().map(str::to_owned);
        self.secrets.extend(Secret::token("the founding", &token.context("no token")?)?);
        Ok(())
    }

    /// The authorities' keys and the service-account key, out of a stopped node's Raft log.
    fn authorities(&mut self) -> Result<()> {
        // A copy, since opening a store writes to it.
        let copy = tempfile::tempdir()?;
        said(Command::new("cp").arg("-a").arg(self.dir("cp-1")).arg(copy.path()))?.success()?;
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
fn no_secret_of_a_whole_life_is_seen_where_it_does_not_belong() {
    scenario("secrets", |lab| {
        // By the clock of the files.
        let begun = fs::metadata(lab.dir())?.modified()?;
        let watch = Watch::start();
        let plan = Plan::of(4).expect(3).workers(2).found_by(Discovery::Mdns);
        let cluster = Cluster::plan(lab, &plan)?;
        let capture = Capture::start(lab, &lab.dir().join("frames"))?;
        let mut story = Story { cluster, seen: Vec::new(), secrets: Vec::new() };
        story.birth()?;
        story.joins()?;
        story.commands()?;
        story.failures()?;
        story.look_at_limits()?;
        story.removal_and_restart()?;
        let frames = capture_with_mark(&story.cluster, capture)?;
        // Also what is gone once the nodes have ended.
        story.saw(elsewhere(begun, lab.dir())?);
        for name in story.cluster.names() {
            let node = story.cluster.node_mut(&name);
            if let Some(mut process) = node.process.take() {
                process.stop(HEALTHY)?;
            }
        }
        story.keys_on_disk()?;
        story.authorities()?;
        story.seen.push(("the network".to_owned(), frames));
        story.saw(elsewhere(begun, lab.dir())?);
        story.saw(everything_that_ran(watch)?);
        judge(lab, &story)
    });
}

/// An etcd whose other program takes so long that it is surely looked at while it runs.
fn slow_etcd(dir: &Path) -> Result<PathBuf> {
    let programs = dir.join("programs");
    fs::create_dir(&programs)?;
    let script = "#!/bin/sh\nsleep 0.5\nexec etcdctl \"$@\"\n";
    fs::write(programs.join("etcdutl"), script)?;
    fs::set_permissions(programs.join("etcdutl"), fs::Permissions::from_mode(0o755))?;
    let etcd = programs.join("etcd");
    let found = said(Command::new("sh").args(["-c", "command -v etcd"]))?.success()?;
    std::os::unix::fs::symlink(found.trim(), &etcd)?;
    Ok(etcd)
}

/// Ends the watch, which must have seen also what ran for a moment only.
fn everything_that_ran(watch: Watch) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let seen = watch.seen()?;
    for program in ["musterd\0", "musterctl\0", "etcd\0", "etcdctl\0", "\0snapshot\0restore\0"] {
        let shows =
            |text: &[u8]| text.windows(program.len()).any(|found| found == program.as_bytes());
        ensure!(seen.iter().any(|(_, text)| shows(text)), "{program:?} was not seen to run");
    }
    Ok(seen)
}

/// Ends the capture, which must have seen what was there to be seen.
fn capture_with_mark(cluster: &Cluster, capture: Capture) -> Result<Vec<u8>> {
    let to = cluster.node("cp-1").host.address();
    let send = format!("printf a-mark-in-the-clear > /dev/udp/{to}/9");
    said(cluster.desk.command("bash").args(["-c", &send]))?.success()?;
    std::thread::sleep(Duration::from_millis(300)); // the frame is on its way to the file
    let frames = capture.seen()?;
    let has = |word: &[u8]| frames.windows(word.len()).any(|window| window == word);
    ensure!(has(b"a-mark-in-the-clear"), "the capture missed a datagram in the clear");
    ensure!(has(b"_muster"), "no mDNS was seen");
    ensure!(frames.len() > 1 << 20, "only {} bytes were seen", frames.len());
    Ok(frames)
}

/// Searches everything.
fn judge(lab: &Lab, story: &Story) -> Result<()> {
    let search = Search::new(&story.secrets)?;
    let mut wrong = BTreeSet::new();
    for (place, text) in &story.seen {
        // The one that somebody typed as an argument is seen there.
        let typed = |found: &Found| place.starts_with("/proc/") && found.name.contains(PASTED);
        for found in search.look(text).into_iter().filter(|found| !typed(found)) {
            wrong.insert(format!("{place} shows {} ({})", found.name, found.form));
        }
    }
    let mut kept: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut logs = BTreeSet::new();
    for file in files(lab.dir())?.iter().filter(|file| !file.ends_with("frames")) {
        let Some(text) = there(fs::read(file))? else { continue };
        let path = file.strip_prefix(lab.dir())?.display().to_string();
        let is_log = file.extension().is_some_and(|extension| extension == "log");
        logs.extend(is_log.then(|| path.clone()));
        let open = is_open(file)?;
        ensure!(!(open && path.contains("/state/")), "{path} can be read by others");
        for found in search.look(&text) {
            if is_log || open || !belongs(&found.name, &path) {
                wrong.insert(format!("{path} holds {} ({})", found.name, found.form));
            }
            kept.entry(found.name).or_default().insert(path.clone());
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.into_iter().collect::<Vec<_>>().join("\n"));
    for log in ["cp-1/musterd.log", "cp-3/musterd.log", "worker-2/musterd.log"] {
        ensure!(logs.contains(log), "{log} was not looked at: {logs:?}");
    }
    ensure!(logs.iter().any(|log| log.ends_with("etcd.log")), "no log of etcd: {logs:?}");
    let trace = fs::read_to_string(lab.dir().join("cp-3/musterd.log"))?;
    ensure!(trace.contains("TRACE"), "cp-3 did not log everything");
    // The search finds what is there: every secret that something keeps, it has found.
    for secret in &story.secrets {
        let missed =
            !kept.contains_key(&secret.name) && !secret.name.starts_with("the verifier of");
        let shown_only = ["a revoked", "a stranger's", "a destroyed"];
        let shown_only = shown_only.iter().any(|whose| secret.name.contains(whose));
        ensure!(!missed || shown_only, "{} was found nowhere", secret.name);
    }
    Ok(())
}

/// Where each secret is allowed to lie; everything else is a leak, also in a private file.
fn belongs(secret: &str, path: &str) -> bool {
    let is_voter = path.starts_with("cp-") || path.starts_with("desk/alone/");
    let raft = is_voter && path.contains("/state/raft/");
    if secret.starts_with("the secret of") {
        // What was given to a machine, and the context of an operator before its first contact.
        let given = Path::new(path);
        return path.starts_with("desk/")
            && (given.extension().is_some_and(|kind| kind == "yaml") || given.ends_with("token"));
    }
    if secret.starts_with("the verifier of") || secret.ends_with("authority's key") {
        return raft;
    }
    if secret == "the service-account key" {
        return raft;
    }
    let owner = secret.strip_prefix("the identity of ");
    let etcd = secret.strip_prefix("etcd's ").and_then(|rest| rest.split_once(" on "));
    let desk = secret.strip_suffix(" of the desk");
    owner.is_some_and(|name| path == format!("{name}/state/identity.key"))
        || etcd.is_some_and(|(file, name)| path == format!("{name}/state/etcd/tls/{file}"))
        || desk.is_some_and(|file| {
            // `init` writes the key into the directory and into the context of that name.
            path.starts_with("desk/") && Path::new(path).file_name() == Path::new(file).file_name()
        })
}

/// As a program without the right to look at others, run by the same user.
fn without_ptrace(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"]).arg(program.as_ref());
    command
}

fn end(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process id")?;
    Ok(kill_process(pid, signal)?)
}

#[test]
fn a_crash_of_musterd_writes_no_core_and_nobody_reads_its_memory() -> Result<()> {
    let bench = Bench::new()?;
    bench.change(|document| document["cluster"]["expect"] = Value::from(3))?;
    let log = fs::File::create(bench.path("musterd.log"))?;
    let mut command = without_ptrace(binary("musterd")?);
    command.args(bench.arguments()).current_dir(bench.path(""));
    let mut musterd = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    let mut sleep = without_ptrace("sleep").arg("600").spawn()?;

    let readable = |pid: u32| -> Result<bool> {
        // As for its memory, the kernel asks whether the one who looks may trace it (proc(5)).
        let mut readlink = without_ptrace("readlink");
        Ok(said(readlink.arg(format!("/proc/{pid}/exe")))?.code == Some(0))
    };
    // Once the lock is there, `main` is past its first lines.
    let lock = bench.state().join("lock");
    let looked =
        until("musterd to start", HEALTHY, || lock.exists().then_some(()).ok_or("no lock"))
            .and_then(|()| Ok((readable(musterd.id())?, readable(sleep.id())?)));
    let limits = fs::read_to_string(format!("/proc/{}/limits", musterd.id()));
    // Not SEGV, which Rust's own handler takes once for a stack overflow that is none.
    end(musterd.id(), Signal::ABORT)?;
    let status = musterd.wait()?;
    sleep.kill()?;
    sleep.wait()?;

    let (musterd, other) = looked?;
    ensure!(other, "an ordinary process of the same user could not be looked at: nothing is shown");
    ensure!(!musterd, "another process of the same user can read what musterd has in memory");
    let limits = limits?;
    let cores = limits.lines().find(|line| line.starts_with("Max core file size"));
    let words: Vec<_> = cores.context("no limit")?.split_whitespace().collect();
    ensure!(words[4..6] == ["0", "0"], "children may dump core: {words:?}");
    ensure!(status.signal() == Some(6) && !status.core_dumped(), "{status}");
    Ok(())
}
