//! Kinds of values: a parser together with the form that the JSON Schema and the guide show.
//!
//! A kind knows nothing of paths. Fields of the same kind (two port numbers) share it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::SecretText;
use super::leaf::Leaf;
use super::limits::MAX_FOUNDERS;
use super::pattern::Pattern;
use super::value::{self, Peer, Subnet};
use muster_types::{ETCD_CLIENT_PORT, ETCD_PEER_PORT, NodeName, OperatorRole, PublicKey, Role};

/// The kind of a value with the Rust type `T`.
pub(super) struct Kind<T> {
    /// Singular and plural, as the guide shows them.
    names: [&'static str; 2],
    form: Form,
    parse: fn(&str) -> Result<T, String>,
}

/// Outer form of a value. The parser may be stricter, never more lenient.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// Text that matches a regular expression (ECMA-262, as in JSON Schema).
    Text {
        pattern: &'static str,
    },
    /// Text that no message may repeat. Also checked by the function given to `Document::parse`.
    Secret,
    /// One of a few words.
    Word(&'static [&'static str]),
    /// A whole number.
    Integer {
        min: u64,
        max: u64,
        /// Numbers in between that the parser rejects.
        except: &'static [u64],
    },
    Boolean,
}

impl<T> Kind<T> {
    const fn text(
        names: [&'static str; 2],
        pattern: &'static str,
        parse: fn(&str) -> Result<T, String>,
    ) -> Self {
        Self { names, form: Form::Text { pattern }, parse }
    }

    const fn word(words: &'static [&'static str], parse: fn(&str) -> Result<T, String>) -> Self {
        Self { names: ["word", "words"], form: Form::Word(words), parse }
    }

    const fn integer(
        name: &'static str,
        (min, max): (u64, u64),
        except: &'static [u64],
        parse: fn(&str) -> Result<T, String>,
    ) -> Self {
        Self { names: [name, name], form: Form::Integer { min, max, except }, parse }
    }
}

/// A [`Kind`] of any type.
pub(super) trait AnyKind: fmt::Debug + Sync {
    fn names(&self) -> [&'static str; 2];
    fn form(&self) -> Form;
    /// Parses a text that has the kind's form. The error says what is wrong with it.
    fn parse(&self, text: &str) -> Result<Leaf, String>;
}

impl<T: Send + Sync + 'static> AnyKind for Kind<T> {
    fn names(&self) -> [&'static str; 2] {
        self.names
    }

    fn form(&self) -> Form {
        self.form
    }

    fn parse(&self, text: &str) -> Result<Leaf, String> {
        (self.parse)(text).map(Leaf::new)
    }
}

impl<T> fmt::Debug for Kind<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kind").field(&self.names[0]).field(&self.form).finish()
    }
}

/// Pattern of names of nodes and clusters: a DNS label in lower case (RFC 1123).
const LABEL: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";

pub(super) static BOOLEAN: Kind<bool> = Kind {
    names: ["true, false", "true, false"],
    form: Form::Boolean,
    parse: |text| Ok(text.eq_ignore_ascii_case("true")),
};

pub(super) static SECRET: Kind<SecretText> = Kind {
    names: ["text", "texts"],
    form: Form::Secret,
    parse: |text| Ok(SecretText::new(text.to_owned())),
};

pub(super) static ROLE: Kind<Role> = Kind::word(value::ROLES, value::role);

pub(super) static OPERATOR_ROLE: Kind<OperatorRole> =
    Kind::word(value::OPERATOR_ROLES, value::operator_role);

pub(super) static NODE_NAME: Kind<NodeName> =
    Kind::text(["name", "names"], LABEL, value::node_name);

pub(super) static CLUSTER_NAME: Kind<String> =
    Kind::text(["name", "names"], LABEL, value::cluster_name);

pub(super) static OPERATOR_NAME: Kind<String> = Kind::text(
    ["operator name", "operator names"],
    "^[A-Za-z0-9._@-]{1,63}$",
    value::operator_name,
);

pub(super) static PUBLIC_KEY: Kind<PublicKey> =
    Kind::text(["public key", "public keys"], "^ed25519:[A-Za-z0-9+/]{43}=$", value::public_key);

pub(super) static NAME_PATTERN: Kind<Pattern> =
    Kind::text(["pattern", "patterns"], "^[a-z0-9*?-]{1,63}$", Pattern::parse);

pub(super) static ADDRESS: Kind<IpAddr> =
    Kind::text(["IP address", "IP addresses"], "^[0-9A-Fa-f:.]+$", value::address);

pub(super) static SUBNET: Kind<Subnet> =
    Kind::text(["subnet", "subnets (CIDR)"], "^[0-9A-Fa-f:.]+/[0-9]+$", str::parse);

pub(super) static DOMAIN: Kind<String> =
    Kind::text(["DNS name", "DNS names"], "^[A-Za-z0-9_.-]{1,254}$", value::domain);

pub(super) static DNS_SERVER: Kind<SocketAddr> =
    Kind::text(["`IP[:PORT]`", "`IP[:PORT]`"], r"^[0-9A-Fa-f:.%\[\]]+$", value::dns_server);

pub(super) static PEER: Kind<Peer> =
    Kind::text(["`HOST[:PORT]`", "`HOST[:PORT]`"], r"^[A-Za-z0-9_.:\[\]-]+$", value::peer);

pub(super) static PATH: Kind<PathBuf> =
    Kind::text(["absolute path", "absolute paths"], "^/", value::path);

/// A port that etcd does not use.
pub(super) static PORT: Kind<u16> = Kind::integer(
    "port",
    (1, 65_535),
    &[ETCD_CLIENT_PORT as u64, ETCD_PEER_PORT as u64],
    value::port,
);

/// Number of founders.
pub(super) static EXPECT: Kind<u8> =
    Kind::integer("1, 3, 5 or 7", (1, MAX_FOUNDERS as u64), &[2, 4, 6], value::expect);
