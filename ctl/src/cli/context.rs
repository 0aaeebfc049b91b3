//! `context`: the clusters known to this user.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use super::confirm::confirm;
use super::failure::Failure;
use super::parse;
use crate::client::parse_endpoint;
use crate::context::{Context, ContextStore};
use crate::output::{Output, Render, or_dash, print_notice, table};

/// Manage the clusters known to this user
#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// List the contexts
    List,
    /// Make a context the current one
    Use {
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Show a context: the current one, or the one of --context
    Show,
    /// Import a context that `musterctl init` wrote; -e adds endpoints
    #[command(after_help = "Examples:\n  \
        musterctl context add ./prod -e 10.0.0.11       with an address of a node\n  \
        musterctl context add ./prod --name production")]
    Add {
        /// The directory, or the context.yaml in it
        #[arg(value_name = "DIR", value_parser = parse::path)]
        from: PathBuf,
        /// Name of the imported context [default: the cluster's name]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// Set the endpoints of the current context, or of the one of --context
    Endpoints {
        #[arg(value_name = "ADDRESS[:PORT]", required = true, value_parser = parse_endpoint)]
        endpoints: Vec<String>,
    },
    /// Delete a context and its operator key
    Remove {
        #[arg(value_name = "NAME")]
        name: String,
        /// Delete it without a question
        #[arg(long)]
        yes: bool,
    },
}

impl ContextCommand {
    pub(crate) fn run(
        self,
        store: &ContextStore,
        selected: Option<&str>,
        endpoints: &[String],
        out: &mut Output<'_>,
    ) -> Result<(), Failure> {
        match self {
            Self::List => return Ok(out.show(&list(store)?)?),
            Self::Use { name } => {
                store.set_current(&name)?;
                out.note(&format!("The current context is {name}."));
            }
            Self::Show => {
                let context = store.open(selected)?;
                return Ok(out.show(&Shown::of(&context)?)?);
            }
            Self::Add { from, name } => {
                let given = from.to_string_lossy().into_owned();
                let context = Context::load(&from, &given)?;
                let name = name.unwrap_or_else(|| context.description.cluster_name.clone());
                store.add(&context, &name, endpoints)?;
                let previous = store.set_current(&name)?;
                out.note(&format!("Added the context {name}, now the current one."));
                report_context_switch(&name, previous.as_deref());
            }
            Self::Endpoints { endpoints } => {
                let mut context = store.open(selected)?;
                context.set_endpoints(endpoints)?;
                out.note(&format!("Set the endpoints of {}.", context.name));
            }
            Self::Remove { name, yes } => {
                let directory = store.existing_directory(&name)?;
                let reason = format!("the context {name} holds an operator key");
                let question = format!(
                    "{reason}. Delete {}? Without a copy of the key, or another operator's, the \
                     cluster cannot be operated.",
                    directory.display()
                );
                confirm(yes, &reason, &question)?;
                store.remove(&name)?;
                out.note(&format!("Removed the context {name}."));
            }
        }
        Ok(())
    }
}

/// Reports on standard error that the current context changed, and how to switch back.
pub(super) fn report_context_switch(now: &str, previous: Option<&str>) {
    if let Some(previous) = previous {
        print_notice(&format!(
            "the current context is now {now} (was {previous}); `musterctl context use {previous}` goes \
             back"
        ));
    }
}

fn list(store: &ContextStore) -> Result<Contexts, Failure> {
    let current = store.open(None).ok().map(|context| context.name);
    let contexts: Result<Vec<Listed>, Failure> = store
        .names()?
        .into_iter()
        .map(|name| {
            let Context { name, description, .. } = store.open(Some(&name))?;
            Ok(Listed {
                current: current.as_ref() == Some(&name),
                name,
                cluster_name: description.cluster_name,
                operator: description.operator,
                endpoints: description.endpoints,
                pinned: description.cluster_id.is_some(),
            })
        })
        .collect();
    Ok(Contexts { contexts: contexts? })
}

#[derive(Debug, Serialize)]
struct Contexts {
    contexts: Vec<Listed>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    name: String,
    current: bool,
    cluster_name: String,
    operator: String,
    endpoints: Vec<String>,
    pinned: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    name: String,
    cluster_name: String,
    cluster_id: Option<String>,
    operator: String,
    public_key: String,
    endpoints: Vec<String>,
    learned: Vec<String>,
    pinned: bool,
    local: Option<PathBuf>,
}

impl Shown {
    fn of(context: &Context) -> Result<Self, Failure> {
        let public_key = context.identity()?.public_key().to_string();
        let description = context.description.clone();
        Ok(Self {
            name: context.name.clone(),
            cluster_name: description.cluster_name,
            cluster_id: description.cluster_id.map(|id| id.to_string()),
            operator: description.operator,
            public_key,
            endpoints: description.endpoints,
            learned: description.learned,
            pinned: description.cluster_id.is_some(),
            local: description.local,
        })
    }
}

impl Render for Contexts {
    fn text(&self) -> String {
        if self.contexts.is_empty() {
            return String::new();
        }
        let rows = self.contexts.iter().map(|c| {
            [
                if c.current { "*" } else { "" }.to_owned(),
                c.name.clone(),
                c.cluster_name.clone(),
                c.operator.clone(),
                or_dash(c.endpoints.join(" ")),
                if c.pinned { "pinned" } else { "not pinned yet" }.to_owned(),
            ]
        });
        table(["", "NAME", "CLUSTER", "OPERATOR", "ENDPOINTS", "TRUST"], rows)
    }

    fn prose(&self) -> String {
        if self.contexts.is_empty() {
            return "There is no context yet: `musterctl init` or `musterctl context add` creates one."
                .to_owned();
        }
        String::new()
    }
}

impl Render for Shown {
    fn text(&self) -> String {
        let trust = self.cluster_id.clone().unwrap_or_else(|| "not pinned yet".to_owned());
        let rows = [
            ["context", self.name.as_str()],
            ["cluster", &self.cluster_name],
            ["cluster id", &trust],
            ["operator", &self.operator],
            ["public key", &self.public_key],
            ["endpoints", &or_dash(self.endpoints.join(" "))],
            ["learned", &or_dash(self.learned.join(" "))],
        ]
        .map(|[name, value]| format!("{name:<10}  {value}"));
        rows.join("\n")
    }
}
