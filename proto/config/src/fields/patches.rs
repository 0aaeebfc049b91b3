//! Fields of `patches`: changes for some nodes only. The patchable fields themselves are those of
//! the other sections.

use super::super::field::Patchable::Never;
use super::super::field::{Disturbs, Entry, Field, MappingList, PatchMapping, Patchable};
use super::super::kind;
use super::super::limits::MAX_PATCHES;
use super::super::pattern::Pattern;
use super::table;
use muster_types::Role;

const NO_PATCH_IN_PATCH: Patchable = Never("a patch cannot contain patches");

table! {
    PATCHES: MappingList = Field::items("patches", MAX_PATCHES)
        .patchable(NO_PATCH_IN_PATCH)
        .disturbs(Disturbs::Nothing)
        .doc("Changes for some nodes only, in this order (JSON merge patch: null removes a field).");

    MATCH_NAME: Vec<Pattern> =
        Field::list("patches[].match.name", &kind::NAME_PATTERN, MAX_PATCHES, "every name")
        .or_one()
        .reject_empty("is empty and selects no node: list names, or remove it to select by role only")
        .patchable(NO_PATCH_IN_PATCH)
        .disturbs(Disturbs::Nothing)
        .doc("Node names: `*` stands for any characters, `?` for one.");

    MATCH_ROLE: Option<Role> =
        Field::optional("patches[].match.role", &kind::ROLE, "every role")
        .patchable(NO_PATCH_IN_PATCH)
        .disturbs(Disturbs::Nothing)
        .doc("Role of the nodes.");

    PATCH: PatchMapping = Field::changes("patches[].patch")
        .patchable(NO_PATCH_IN_PATCH)
        .disturbs(Disturbs::Nothing)
        .doc("New values of fields.")
        .note("A JSON merge patch (RFC 7396). A change disturbs what the patched fields disturb.");
}
