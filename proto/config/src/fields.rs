//! The table of fields of `node.yaml`, one entry per field.
//!
//! The reader, the effective config, the rules for patches, the JSON Schema, the template and the
//! table in `docs/guide/config.md` all follow from it. It has no rules that concern several fields:
//! these are in `rules`.
//!
//! Names are those of Talos where Talos has the setting.

pub(super) mod cluster;
pub(super) mod machine;
pub(super) mod patches;

use super::field::Entry;

/// Declares the fields of a section, and lists their entries as `ALL` in this order.
macro_rules! table {
    ($($name:ident: $type:ty = $field:expr;)+) => {
        $(pub(in super::super) static $name: Field<$type> = $field.declared();)+

        pub(super) static ALL: &[&Entry] = &[$($name.entry()),+];
    };
}
use table;

/// Returns every field of `node.yaml`, in the order of the guide.
pub fn fields() -> impl Iterator<Item = &'static Entry> {
    [machine::ALL, cluster::ALL, patches::ALL].into_iter().flatten().copied()
}
