//! The table of fields and their shapes. The document, its patches and the "did you mean" of an
//! unknown field all use it.

use super::{MAX_OPERATORS, pattern, value};

/// Shape of a field's value.
#[derive(Debug)]
pub(super) enum Shape {
    /// Text of a certain form; the function returns the problem, if any.
    Text(fn(&str) -> Result<(), String>),
    /// Secret text that no message may repeat. Checked by the function given to `Document::parse`.
    Token,
    Integer {
        min: u64,
        max: u64,
    },
    Boolean,
    Map(&'static [Field]),
    List {
        of: &'static Shape,
        max: usize,
    },
    /// A list, or a single item written without one.
    OneOrList {
        of: &'static Shape,
        max: usize,
    },
}

/// A field of a mapping.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
}

macro_rules! text {
    ($parse:expr) => {
        Shape::Text(|text| $parse(text).map(drop))
    };
}

const fn field(name: &'static str, shape: Shape) -> Field {
    Field { name, shape }
}

const PORT: Shape = Shape::Integer { min: 1, max: 65_535 };

const DNS: &[Field] = &[
    field("domain", text!(value::domain)),
    field("servers", Shape::List { of: &text!(value::dns_server), max: 8 }),
];

const DISCOVERY: &[Field] = &[
    field("mdns", Shape::Boolean),
    field("dns", Shape::Map(DNS)),
    field("static", Shape::List { of: &text!(value::peer), max: 64 }),
];

const PATCHED_NETWORK: &[Field] = &[
    field("addresses", Shape::List { of: &text!(value::address), max: 16 }),
    field("subnets", Shape::List { of: &text!(str::parse::<value::Subnet>), max: 16 }),
    field("port", PORT),
];

const NETWORK: &[Field] = &[
    field("hostname", text!(value::node_name)),
    field("addresses", Shape::List { of: &text!(value::address), max: 16 }),
    field("subnets", Shape::List { of: &text!(str::parse::<value::Subnet>), max: 16 }),
    field("port", PORT),
];

const ETCD: &[Field] = &[field("binary", text!(value::path))];

const MACHINE: &[Field] = &[
    field("type", text!(value::role)),
    field("token", Shape::Token),
    field("network", Shape::Map(NETWORK)),
    field("discovery", Shape::Map(DISCOVERY)),
    field("etcd", Shape::Map(ETCD)),
    field("stateDir", text!(value::path)),
];

const PATCHED_MACHINE: &[Field] = &[
    field("type", text!(value::role)),
    field("token", Shape::Token),
    field("network", Shape::Map(PATCHED_NETWORK)),
    field("discovery", Shape::Map(DISCOVERY)),
    field("etcd", Shape::Map(ETCD)),
    field("stateDir", text!(value::path)),
];

const OPERATOR: &[Field] = &[
    field("name", text!(value::operator_name)),
    field("publicKey", text!(value::public_key)),
    field("role", text!(value::operator_role)),
];

const CLUSTER: &[Field] = &[
    field("clusterName", text!(value::cluster_name)),
    field("expect", Shape::Integer { min: 1, max: 7 }),
    field("founders", Shape::List { of: &text!(value::node_name), max: 7 }),
    field("operators", Shape::List { of: &Shape::Map(OPERATOR), max: MAX_OPERATORS }),
];

const MATCH: &[Field] = &[
    field("name", Shape::OneOrList { of: &text!(pattern::Pattern::parse), max: 256 }),
    field("role", text!(value::role)),
];

const PATCH: &[Field] = &[
    field("match", Shape::Map(MATCH)),
    // The cluster's own settings are the same for every node, and a node is selected by its name,
    // so neither `cluster` nor the host name can be patched.
    field("patch", Shape::Map(&[field("machine", Shape::Map(PATCHED_MACHINE))])),
];

/// The whole document.
pub(super) const DOCUMENT: &[Field] = &[
    field("machine", Shape::Map(MACHINE)),
    field("cluster", Shape::Map(CLUSTER)),
    field("patches", Shape::List { of: &Shape::Map(PATCH), max: 256 }),
];

/// Every path of the document outside lists, for the hint that a field belongs elsewhere.
pub(super) fn paths() -> Vec<String> {
    fn walk(fields: &[Field], above: &str, found: &mut Vec<String>) {
        for field in fields {
            let path = child_path(above, field.name);
            if let Shape::Map(below) = &field.shape {
                walk(below, &path, found);
            }
            found.push(path);
        }
    }
    let mut found = Vec::new();
    walk(DOCUMENT, "", &mut found);
    found
}

/// The dotted path of a child.
pub(super) fn child_path(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") }
}
