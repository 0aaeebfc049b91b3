//! `init`: writes the files of a new cluster.

use std::path::{Path, PathBuf};

use clap::Args;
use muster_config::{ConfigError, Document, Operator, SecretText, Template};
use muster_pki::identity::Identity;
use muster_pki::token::Token;
use muster_types::{NodeName, OperatorRole};
use serde::Serialize;
use zeroize::Zeroizing;

use super::context::report_context_switch;
use super::failure::{CommandError, ExitCode, Failure};
use super::parse;
use crate::context::{ContextError, ContextStore, Description, new_files};
use crate::files::{self, FileError};
use crate::output::{Output, Render};

/// Write the configuration of a new cluster and its first operator's key
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    musterctl init prod --static 10.0.0.11 --static 10.0.0.12 --static 10.0.0.13\n  \
    musterctl init lab --control-planes 1       nodes find each other by multicast DNS")]
pub(crate) struct Init {
    /// Cluster name: lower-case letters, digits and '-'
    #[arg(value_name = "NAME", value_parser = parse::cluster_name)]
    name: NodeName,
    /// Number of control-plane nodes that found the cluster: 1, 3, 5 or 7
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = parse::founders,
        allow_negative_numbers = true)]
    control_planes: u8,
    /// Output directory [default: a new directory NAME]
    #[arg(long, value_name = "DIR", value_parser = parse::path)]
    out: Option<PathBuf>,
    /// Name of the operator whose key is created
    #[arg(long, value_name = "NAME", default_value = "admin", value_parser = parse::operator)]
    operator: String,
    /// Fixed address of a node, for discovery and as an endpoint of the context; may be repeated
    #[arg(long = "static", value_name = "HOST[:PORT]", value_parser = crate::client::parse_endpoint)]
    fixed: Vec<String>,
    /// Do not discover nodes by multicast DNS
    #[arg(long)]
    no_mdns: bool,
    /// Do not add the cluster to this user's contexts
    #[arg(long)]
    no_context: bool,
}

/// Error of `init`. None of the cluster's files exists in that case.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Context(#[from] ContextError),
    #[error("the given options do not make a valid configuration")]
    Config(#[from] ConfigError),
}

impl CommandError for InitError {
    fn exit_code(&self) -> ExitCode {
        ExitCode::Failed
    }
}

/// New secrets and the configuration template of a cluster that does not exist yet.
pub(crate) struct NewCluster {
    pub(crate) template: Template,
    identity: Identity,
    token: Token,
    operator: String,
}

impl NewCluster {
    /// Generates the secrets.
    pub(crate) fn new(cluster_name: &str, expect: u8, operator: &str) -> Self {
        let (identity, token) = (Identity::generate(), Token::generate());
        let first = Operator {
            name: operator.to_owned(),
            key: identity.public_key(),
            role: OperatorRole::Admin,
        };
        let template = Template {
            cluster_name: cluster_name.to_owned(),
            expect,
            token: SecretText::new(token.expose().to_string()),
            operators: vec![first],
            mdns: true,
            static_peers: Vec::new(),
            etcd_binary: None,
        };
        Self { template, identity, token, operator: operator.to_owned() }
    }

    /// Renders `node.yaml` and checks it with the parser that nodes use.
    pub(crate) fn document(&self) -> Result<Zeroizing<String>, ConfigError> {
        let text = self.template.render();
        let check = |text: &str| text.parse::<Token>().map(drop).map_err(|e| e.to_string());
        Document::parse(&text, &check).map(|_| text)
    }

    /// Returns the files of a context in `directory`.
    pub(crate) fn context(
        &self,
        directory: &Path,
        endpoints: &[String],
        local: Option<PathBuf>,
    ) -> Result<Vec<(PathBuf, Zeroizing<String>)>, ContextError> {
        let description = Description {
            format: crate::context::FORMAT,
            cluster_name: self.template.cluster_name.clone(),
            operator: self.operator.clone(),
            endpoints: endpoints.to_vec(),
            learned: Vec::new(),
            cluster_id: None,
            local,
            unknown: std::collections::BTreeMap::new(),
        };
        new_files(directory, &description, &self.identity, &self.token)
    }
}

impl Init {
    pub(crate) fn run(
        self,
        store: &ContextStore,
        endpoints: &[String],
        out: &mut Output<'_>,
    ) -> Result<(), Failure> {
        let view = self.write(store, endpoints)?;
        out.show(&view)?;
        if let Some(name) = &view.context {
            report_context_switch(name, view.previous.as_deref());
        }
        Ok(())
    }

    fn write(self, store: &ContextStore, endpoints: &[String]) -> Result<Initialised, InitError> {
        let Self { name, control_planes, out, operator, fixed, no_mdns, no_context } = self;
        let name = name.as_str();
        // They are addresses of nodes, so operators find the cluster there too.
        let mut endpoints = endpoints.to_vec();
        endpoints.extend(
            fixed
                .iter()
                .filter(|address| !endpoints.contains(address))
                .cloned()
                .collect::<Vec<_>>(),
        );
        let endpoints = endpoints.as_slice();
        let directory = out.unwrap_or_else(|| PathBuf::from(name));
        let mut plan = NewCluster::new(name, control_planes, &operator);
        plan.template.mdns = !no_mdns;
        plan.template.static_peers = fixed;
        let config = directory.join("node.yaml");
        let mut all = vec![(config.clone(), plan.document()?)];
        all.extend(plan.context(&directory, endpoints, None)?);
        let mut added = None;
        if !no_context {
            let context = store.unused_directory(name)?;
            all.extend(plan.context(&context, endpoints, None)?);
            added = Some(context);
        }
        // An existing file is reported before anything is created.
        if let Some((taken, _)) = all.iter().find(|(path, _)| path.symlink_metadata().is_ok()) {
            return Err(FileError::Exists(taken.clone()).into());
        }
        if added.is_some() {
            store.pin_current()?;
        }
        files::create_private_directory(&directory)?;
        added.iter().try_for_each(|context| files::create_private_directory(context))?;
        let borrowed: Vec<_> =
            all.iter().map(|(path, text)| (path.clone(), text.as_bytes())).collect();
        files::create_all(&borrowed)?;
        let previous = if added.is_some() { store.set_current(name)? } else { None };
        Ok(Initialised {
            cluster_name: name.to_owned(),
            control_planes,
            config,
            context: added.as_ref().map(|_| name.to_owned()),
            files: all.into_iter().map(|(path, _)| path).collect(),
            needs_endpoint: endpoints.is_empty(),
            previous,
            directory,
        })
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Initialised {
    cluster_name: String,
    control_planes: u8,
    directory: PathBuf,
    config: PathBuf,
    /// Name of the context. None if it was not added to the user's contexts.
    context: Option<String>,
    files: Vec<PathBuf>,
    #[serde(skip)]
    needs_endpoint: bool,
    /// Previous current context. None if it did not change.
    #[serde(skip)]
    previous: Option<String>,
}

impl Render for Initialised {
    fn prose(&self) -> String {
        let config = self.config.display();
        let directory = self.directory.display();
        let nodes = match self.control_planes {
            1 => "1 control plane".to_owned(),
            n => format!("{n} control planes"),
        };
        let reach = match (&self.context, self.needs_endpoint) {
            (Some(_), false) => String::new(),
            (Some(_), true) => "\n  3. musterctl context endpoints ADDRESS…   \
                                where the nodes are"
                .to_owned(),
            (None, _) => format!(
                "\n  3. musterctl context add {directory} -e ADDRESS   use the key written here"
            ),
        };
        format!(
            "Wrote the cluster {} to {directory}: node.yaml holds the token, keep operator.key \
             private.\n\nNext:\n  1. copy {config}, unchanged, to every machine ({nodes}, and \
             workers,\n     whose names begin with worker-) as /etc/muster/node.yaml (mode 0600)\n  2. start musterd on each, in any order{reach}\n  \
             {}. musterctl health --wait",
            self.cluster_name,
            if reach.is_empty() { 3 } else { 4 },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn init(name: &str, out: PathBuf) -> Init {
        Init {
            name: name.parse().unwrap(),
            control_planes: 3,
            out: Some(out),
            operator: "admin".to_owned(),
            fixed: Vec::new(),
            no_mdns: false,
            no_context: false,
        }
    }

    fn entries(path: &Path) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_files_agree_with_each_other_and_the_context_is_chosen() {
        let dir = tempfile::tempdir().unwrap();
        let store = ContextStore::at(&dir.path().join("config"));
        let out = dir.path().join("demo");
        init("demo", out.clone()).write(&store, &[]).unwrap();
        assert_eq!(entries(&out), ["context.yaml", "node.yaml", "operator.key", "token"]);
        let context = store.open(None).unwrap();
        let config =
            Document::parse(&std::fs::read_to_string(out.join("node.yaml")).unwrap(), &|_| Ok(()))
                .unwrap()
                .effective(&"cp-1".parse().unwrap())
                .unwrap();
        assert_eq!(config.cluster.operators[0].key, context.identity().unwrap().public_key());
        assert_eq!(config.token.expose(), *context.token().unwrap().unwrap().expose());
    }

    #[test]
    fn an_existing_file_stops_it_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = ContextStore::at(&dir.path().join("config"));
        let out = dir.path().join("demo");
        init("demo", out.clone()).write(&store, &[]).unwrap();

        let elsewhere = dir.path().join("elsewhere");
        let error = init("demo", elsewhere.clone()).write(&store, &[]).unwrap_err();
        assert!(matches!(error, InitError::Context(ContextError::AlreadyExists(_))), "{error}");
        assert!(!elsewhere.exists());

        let before = std::fs::read(out.join("node.yaml")).unwrap();
        let error = init("other", out.clone()).write(&store, &[]).unwrap_err();
        assert!(matches!(error, InitError::File(FileError::Exists(_))), "{error}");
        assert_eq!(std::fs::read(out.join("node.yaml")).unwrap(), before);
        assert_eq!(store.names().unwrap(), ["demo"]);
    }
}
