//! Reading and checking the whole document.

use std::collections::BTreeSet;
use std::fmt;

use super::check::{self, CheckToken};
use super::effective::Config;
use super::fields::cluster::FOUNDERS;
use super::fields::machine::{HOSTNAME, ROLE, TOKEN};
use super::fields::patches::{PATCH, PATCHES};
use super::limits::MAX_BYTES;
use super::patches::Patches;
use super::problem::{ConfigError, Problems};
use super::rules;
use super::tree::{self, YamlNode};
use muster_types::{NodeName, Role};

/// A valid document: known fields, correct types and consistent values, also for each founder and
/// each node that a patch names.
#[derive(Clone)]
pub struct Document {
    /// The document before any patch is applied.
    base: YamlNode,
    patches: Patches,
}

impl Document {
    /// Reads a document and reports every problem in it.
    ///
    /// `check_token` checks that a text is a token (parse it as `muster_pki::token::Token`). Its
    /// error text goes into a message, so it must not repeat the secret.
    pub fn parse(
        text: &str,
        check_token: &dyn Fn(&str) -> Result<(), String>,
    ) -> Result<Self, ConfigError> {
        let mut problems = Problems::default();
        let document = Self::read(text, |_| {}, check_token, &mut problems);
        problems.finish(document)
    }

    /// Like [`Self::parse`], for a member, which needs no token. Whatever stands in its place is
    /// ignored, and the token of the configuration is empty.
    pub fn parse_without_token(text: &str) -> Result<Self, ConfigError> {
        let mut problems = Problems::default();
        let document = Self::read(text, remove_tokens, &|_| Ok(()), &mut problems);
        problems.finish(document)
    }

    fn read(
        text: &str,
        prepare: impl FnOnce(&mut YamlNode),
        check_token: CheckToken<'_>,
        problems: &mut Problems,
    ) -> Option<Self> {
        if text.len() > MAX_BYTES {
            let message = format!("has {} bytes, at most {MAX_BYTES} are allowed", text.len());
            problems.add(1, "", message);
            return None;
        }
        let mut root = tree::load(text, problems)?;
        prepare(&mut root);
        check::document(&mut root, check_token, problems);
        if !root.is_map() {
            return None;
        }
        let patches = Patches::read(&root, problems);
        rules::check(&root, problems);
        root.remove(PATCHES.path());
        let document = Self { base: root, patches };
        // A patched node can only be checked once every single field is valid.
        if problems.is_empty() {
            document.check_named_nodes(problems);
        }
        Some(document)
    }

    /// Returns the configuration of the node with that name.
    ///
    /// # Errors
    /// When the patches that select this name remove a required field or contradict each other.
    pub fn effective(&self, name: &NodeName) -> Result<Config, ConfigError> {
        let mut problems = Problems::default();
        let patched = self.patched(name);
        rules::hostname(&patched, name, &mut problems);
        let checked = rules::check(&patched, &mut problems);
        problems.finish(checked.map(|document| Config::read(document, name.clone())))
    }

    /// Names the part of the document that decides the role of the node with that name.
    pub fn role_origin(&self, name: &NodeName) -> String {
        let base = ROLE.find(&self.base);
        let path = ROLE.path();
        if let Some(patch) =
            self.patches.of_name(name).filter(|p| p.change.at(path).is_some()).last()
        {
            let line = patch.change.line_of(path);
            return format!("a patch sets {path} for the name {name} (line {line})");
        }
        let others = self.patches.with(path);
        let others = if others.is_empty() {
            format!("no patch sets {path}")
        } else {
            let others = others.join(", ");
            format!("no patch with {path} matches the name {name} (patched names: {others})")
        };
        let is = base.map(|role| format!(" is {role}")).unwrap_or_default();
        format!("{path}{is}, and {others}")
    }

    /// `machine.network.hostname`, for a document meant for one node. Without it the name comes
    /// from `--name` or from the system.
    pub fn hostname(&self) -> Option<NodeName> {
        HOSTNAME.find(&self.base).flatten()
    }

    /// The base with every patch that selects the name, in file order. Patches that select by role
    /// see the role set by the base and the name-only patches.
    fn patched(&self, name: &NodeName) -> YamlNode {
        let mut by_name = self.base.clone();
        for patch in self.patches.of_name(name).filter(|patch| patch.role.is_none()) {
            by_name.merge(&patch.change);
        }
        let role = ROLE.find(&by_name);
        let mut tree = self.base.clone();
        for patch in self.patches.of_name(name) {
            if patch.role.is_none() || patch.role == role {
                tree.merge(&patch.change);
            }
        }
        tree
    }

    /// Checks the configuration of every node that the document names.
    fn check_named_nodes(&self, problems: &mut Problems) {
        let founders = FOUNDERS.find_with_lines(&self.base);
        let mut names: BTreeSet<NodeName> = self.patches.names().cloned().collect();
        names.extend(self.hostname());
        names.extend(founders.iter().map(|(name, _)| name.clone()));
        for name in &names {
            if let Err(error) = self.effective(name) {
                problems.extend(error);
            }
        }
        for (name, line) in founders {
            if ROLE.find(&self.patched(&name)) == Some(Role::Worker) {
                let message = format!("{name} is a worker: founders must be control-plane nodes");
                problems.add(line, "cluster.founders", message);
            }
        }
    }
}

impl ConfigError {
    /// Returns true if every problem is about a token, of the document or of a patch. A member needs
    /// none.
    pub fn concerns_only_tokens(&self) -> bool {
        self.problems.iter().all(|problem| {
            let above = problem.path.strip_suffix(TOKEN.path());
            above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
        })
    }
}

/// Removes the token of the document and of every patch. Adds an empty one.
fn remove_tokens(root: &mut YamlNode) {
    let in_patch = format!("{}.{}", PATCH.entry().local_path(), TOKEN.path());
    for patch in root.items_mut(PATCHES.path()) {
        patch.remove_at(&in_patch);
    }
    root.remove_at(TOKEN.path());
    root.add_text(TOKEN.path(), "");
}

/// Omits the values: the token is among them.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("patches", &self.patches.len()).finish_non_exhaustive()
    }
}
