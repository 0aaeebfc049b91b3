//! The name of this node: decided once, when it becomes a member. Pure.

use muster_types::NodeName;

use crate::fatal::Fatal;

/// Host names of a machine that has no name of its own yet: empty, the kernel's default, and the one
/// of images and of machines that wait for DHCP.
const UNSET: [&str; 3] = ["", "(none)", "localhost"];

/// Sources of a node's name.
#[derive(Debug, Clone)]
pub(super) struct NameSources {
    /// `--name`, or `machine.network.hostname`.
    pub(super) given: Option<NodeName>,
    /// The system's host name, up to its first dot.
    pub(super) host: String,
}

/// Decision about the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NameChoice {
    Use(NodeName),
    /// A member keeps the name under which the cluster knows it. Holds that name and the other one.
    Keep(NodeName, String),
    /// The machine has no name yet. Holds the condition.
    Wait(String),
}

impl NameSources {
    /// Returns the name to read the configuration of a node with that is no member.
    pub(super) fn provisional(&self) -> Option<NodeName> {
        self.given.clone().or_else(|| self.host.parse().ok())
    }

    /// Chooses the name. `registered` is the name of a member in its cluster.
    pub(super) fn choose(&self, registered: Option<NodeName>) -> Result<NameChoice, Fatal> {
        if let Some(registered) = registered {
            let other = self.given.as_ref().map_or(self.host.as_str(), NodeName::as_str);
            return Ok(if other == registered.as_str() {
                NameChoice::Use(registered)
            } else {
                NameChoice::Keep(registered, other.to_owned())
            });
        }
        if let Some(given) = &self.given {
            return Ok(NameChoice::Use(given.clone()));
        }
        if UNSET.contains(&self.host.as_str()) {
            return Ok(NameChoice::Wait(format!(
                "a host name: it is {:?}, which would name this node for good; set it with \
                 `hostnamectl set-hostname NAME`, or give --name",
                self.host
            )));
        }
        self.host.parse().map(NameChoice::Use).map_err(|error| {
            Fatal::Machine(format!("cannot use the host name as node name: {error}; give --name"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    fn choose(given: &str, host: &str, registered: &str) -> Result<NameChoice, Fatal> {
        let parse = |text: &str| text.parse().ok();
        NameSources { given: parse(given), host: host.to_owned() }.choose(parse(registered))
    }

    #[test]
    fn a_new_machine_has_the_given_name_or_the_host_name() {
        assert_eq!(choose("cp-1", "box", "").unwrap(), NameChoice::Use(name("cp-1")));
        assert_eq!(choose("", "box", "").unwrap(), NameChoice::Use(name("box")));
        assert_eq!(choose("localhost", "box", "").unwrap(), NameChoice::Use(name("localhost")));
        assert!(choose("", "my_box", "").unwrap_err().to_string().contains("--name"));
    }

    /// A new machine with the name "localhost" joined and voted.
    #[test]
    fn a_new_machine_without_a_name_waits_for_one() {
        for host in UNSET {
            let choice = choose("", host, "").unwrap();
            assert!(matches!(&choice, NameChoice::Wait(why) if why.contains("--name")), "{host}");
        }
    }

    /// A worker whose host name changed was a control-plane node in its own view, and the message
    /// advised an empty state directory.
    #[test]
    fn a_member_keeps_its_registered_name() {
        let kept = |other: &str| NameChoice::Keep(name("worker-1"), other.to_owned());
        assert_eq!(choose("", "worker-1", "worker-1").unwrap(), NameChoice::Use(name("worker-1")));
        for host in ["localhost", "(none)", "box", "My_Box"] {
            assert_eq!(choose("", host, "worker-1").unwrap(), kept(host));
        }
        assert_eq!(choose("other", "worker-1", "worker-1").unwrap(), kept("other"));
    }
}
