//! Judges who said to which cluster it belongs: one token, one cluster.

use super::history::{Sighting, Violation};

/// A pair of nodes, or a node at two times, that named different clusters.
pub fn check(sightings: &[Sighting]) -> Vec<Violation> {
    let Some(one) = sightings.first() else { return Vec::new() };
    let other = sightings.iter().find(|sighting| sighting.cluster != one.cluster);
    other
        .map(|other| Violation::TwoClusters { one: one.clone(), other: other.clone() })
        .into_iter()
        .collect()
}
