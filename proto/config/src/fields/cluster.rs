//! Fields of `cluster`: settings that are the same for every node. They count at the birth; later
//! the cluster's replicated state holds them.

use super::super::field::Patchable::Never;
use super::super::field::{Disturbs, Entry, Field, MappingList, Patchable};
use super::super::kind;
use super::super::limits::{MAX_FOUNDERS, MAX_OPERATORS};
use super::table;
use muster_types::{NodeName, OperatorRole, PublicKey};

const SAME_FOR_ALL: Patchable =
    Never("the cluster's settings are the same for every node and cannot be patched");

table! {
    CLUSTER_NAME: String = Field::required("cluster.clusterName", &kind::CLUSTER_NAME)
        .patchable(SAME_FOR_ALL)
        .disturbs(Disturbs::BirthOnly)
        .birth_field()
        .doc("Name of the cluster.");

    EXPECT: u8 = Field::required("cluster.expect", &kind::EXPECT)
        .patchable(SAME_FOR_ALL)
        .disturbs(Disturbs::BirthOnly)
        .birth_field()
        .doc("Number of control-plane nodes that found the cluster: 1, 3, 5 or 7.")
        .note("Others can join later. An even number is rejected: it survives no more failures than one less.");

    FOUNDERS: Vec<NodeName> =
        Field::list("cluster.founders", &kind::NODE_NAME, MAX_FOUNDERS, "any")
        .set()
        .patchable(SAME_FOR_ALL)
        .disturbs(Disturbs::BirthOnly)
        .birth_field()
        .doc("Names of the founders, exactly `expect` control-plane nodes.")
        .example("[cp-1, cp-2, cp-3]");

    OPERATORS: MappingList = Field::items("cluster.operators", MAX_OPERATORS)
        .not_empty("is empty: no operator could use the cluster; create a key with `musterctl init`")
        .patchable(SAME_FOR_ALL)
        .disturbs(Disturbs::BirthOnly)
        .birth_field()
        .doc("Users of `musterctl`: public keys, as in SSH. At least one is an admin.");

    OPERATOR_NAME: String = Field::required("cluster.operators[].name", &kind::OPERATOR_NAME)
        .patchable(SAME_FOR_ALL)
        .disturbs(Disturbs::BirthOnly)
        .doc("Name in the audit log; no two operators have the same.");

    OPERATOR_KEY: PublicKey = Field::required("cluster.operators[].publicKey", &kind::PUBLIC_KEY)
        .patchable(SAME_FOR_ALL)
        .disturbs(Disturbs::BirthOnly)
        .doc("Public key: `ed25519:` and 44 characters of base64.");

    OPERATOR_ROLE: OperatorRole =
        Field::required("cluster.operators[].role", &kind::OPERATOR_ROLE)
        .patchable(SAME_FOR_ALL)
        .disturbs(Disturbs::BirthOnly)
        .doc("Calls that the operator may make.");
}
