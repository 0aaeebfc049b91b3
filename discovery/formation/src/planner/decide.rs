//! Decisions from the known peers: wait, join or propose.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use muster_types::{NodeId, NodeName, Role};

use super::{
    ADDRESS_GRACE, Action, BOUND_PEER_GRACE, DISCOVERY_DELAY, DISCOVERY_DELAY_ALONE,
    FormationPlanner, LocalNode, PEER_TTL, Peer, RANK_DELAY, STABLE_TIME,
};
use crate::birth::{BirthRecord, Founder};
use crate::candidate::{Candidate, CandidateState};

impl FormationPlanner {
    /// Decides on the next step while nothing is promised.
    pub fn decide(&mut self, record: &BirthRecord, now: Instant) -> Action {
        let decision = self.decide_inner(record, now);
        self.next_decision_at = match &decision {
            Action::Wait { until, .. } => *until,
            Action::Propose(_) | Action::Join(_) => None,
        };
        decision
    }

    /// Time at which [`FormationPlanner::decide`] may return another decision without further events.
    pub fn next_decision(&self, now: Instant) -> Option<Instant> {
        self.next_decision_at.filter(|at| *at > now)
    }

    fn decide_inner(&mut self, record: &BirthRecord, now: Instant) -> Action {
        if let Some(duplicate) = self.duplicate_identity(now) {
            return wait(duplicate, None);
        }
        let members = self.members(record, now);
        if !members.is_empty() {
            return Action::Join(members);
        }
        if let Some(cluster) = record.cluster_id() {
            let reason =
                format!("a member of cluster {} to admit this node again", cluster.short());
            return wait(reason, None);
        }
        if self.own.candidate.role == Role::Worker {
            return wait(format!("a cluster to join{}", self.unreachable_addresses()), None);
        }
        if let Some(reason) = self.config_difference(now).or_else(|| self.name_conflict(now)) {
            return wait(reason, None);
        }
        self.select_founders(now)
    }

    /// Members of a cluster that this node may join. Control-plane nodes come first, since workers
    /// verify no tokens; then the most recently seen.
    fn members(&self, record: &BirthRecord, now: Instant) -> Vec<NodeId> {
        let own = record.cluster_id();
        let joinable = |peer: &Peer| match peer.candidate.state {
            CandidateState::Member(cluster) => own.is_none_or(|own| own == cluster),
            CandidateState::Fresh | CandidateState::Bound => false,
        };
        let mut members: Vec<_> = self.present(now).filter(|(_, peer)| joinable(peer)).collect();
        members.sort_by_key(|(_, peer)| (peer.candidate.role, Reverse(peer.last_seen)));
        members.into_iter().map(|(id, _)| *id).collect()
    }

    /// Differing settings that prevent a birth, with both values.
    fn config_difference(&self, now: Instant) -> Option<String> {
        let own = &self.own.candidate;
        let differing = |(_, peer): (&NodeId, &Peer)| {
            let other = &peer.candidate;
            let paths: BTreeSet<_> =
                own.birth_fields.keys().chain(other.birth_fields.keys()).collect();
            // Fields required of founders only (an initial snapshot) are not required of a worker.
            let is_asked = |path: &str| {
                other.role == Role::ControlPlane || other.birth_fields.contains_key(path)
            };
            let differ = |path: &&String| {
                let (here, there) = (own.birth_fields.get(*path), other.birth_fields.get(*path));
                here != there && is_asked(path)
            };
            let value = |fields: &BTreeMap<String, String>, path: &str| {
                fields.get(path).map_or_else(|| "unset".to_owned(), |value| format!("{value:?}"))
            };
            let described: Vec<_> = paths
                .into_iter()
                .filter(differ)
                .map(|path| {
                    let here = value(&own.birth_fields, path);
                    let there = value(&other.birth_fields, path);
                    format!("{path} is {here} on {} and {there} on {}", own.name, other.name)
                })
                .collect();
            (!described.is_empty()).then(|| described.join("; "))
        };
        let described: Vec<_> = self.present(now).filter_map(differing).take(4).collect();
        (!described.is_empty()).then(|| {
            format!(
                "the same config on every node, required before a birth: {}",
                described.join("; ")
            )
        })
    }

    fn name_conflict(&self, now: Instant) -> Option<String> {
        let mut names = BTreeMap::from([(&self.own.candidate.name, self.own.candidate.id())]);
        self.present(now).find_map(|(id, peer)| {
            let name = &peer.candidate.name;
            let other = names.insert(name, *id)?;
            let (a, b) = (other.short(), id.short());
            Some(format!("distinct node names: {a} and {b} are both called {name}"))
        })
    }

    /// Selects the founders to propose, or returns what is missing.
    fn select_founders(&mut self, now: Instant) -> Action {
        let LocalNode { candidate: own, expect, founders } = &self.own;
        let is_meant = |name: &NodeName| founders.is_empty() || founders.contains(name);
        if !is_meant(&own.name) {
            return wait(format!("the founders {} to found the cluster", list(founders)), None);
        }
        let reached = |peer: &Peer| peer.last_reached.is_some_and(|at| now < at + PEER_TTL);
        let mut candidates = vec![own];
        for (_, peer) in self.present(now) {
            let candidate = &peer.candidate;
            let fits = candidate.role == Role::ControlPlane && is_meant(&candidate.name);
            if fits && candidate.state == CandidateState::Fresh && reached(peer) {
                candidates.push(candidate);
            }
        }
        if candidates.len() < *expect {
            let here: Vec<_> = candidates.iter().map(|candidate| &candidate.name).collect();
            let absent: Vec<_> = founders.iter().filter(|name| !here.contains(name)).collect();
            let missing =
                if absent.is_empty() { String::new() } else { format!(": {}", list(absent)) };
            let reason = format!(
                "{} more of {expect} founders{missing}; reached so far: {}{}",
                expect - candidates.len(),
                list(here),
                self.unreachable_addresses()
            );
            return wait(reason, None);
        }
        candidates.sort_by_key(|candidate| candidate.id());
        candidates.truncate(*expect);
        let founders: Vec<_> = candidates.into_iter().map(Candidate::founder).collect();
        self.propose_when_stable(founders, now)
    }

    /// Decides if these founders are to be proposed now or later.
    fn propose_when_stable(&mut self, founders: Vec<Founder>, now: Instant) -> Action {
        let selection: Vec<_> = founders.iter().map(|f| (f.id(), f.epoch)).collect();
        if self.selection.0 != selection {
            self.selection = (selection, now);
        }
        let me = self.own.candidate.id();
        let names = list(founders.iter().map(|founder| &founder.name));
        let Some(rank) = founders.iter().position(|founder| founder.id() == me) else {
            return wait(format!("the cluster that {names} are founding"), None);
        };
        let is_named = !self.own.founders.is_empty();
        let discovery_delay =
            if self.own.expect == 1 && !is_named { DISCOVERY_DELAY_ALONE } else { DISCOVERY_DELAY };
        let rank = u32::try_from(rank).unwrap_or(u32::MAX);
        let mut until = (self.started + discovery_delay)
            .max(self.selection.1 + STABLE_TIME)
            .max(self.not_before);
        let as_founders = if founders.len() == 1 { "the founder" } else { "founders" };
        let mut reason = format!("{} to propose {names} as {as_founders}", founders[0].name);
        if !is_named {
            let unknown = self.addresses.iter().filter(|(_, entry)| entry.node.is_none());
            if let Some((address, entry)) = unknown.max_by_key(|(_, entry)| entry.since)
                && until < entry.since + ADDRESS_GRACE
                && now < entry.since + ADDRESS_GRACE
            {
                until = entry.since + ADDRESS_GRACE;
                reason = format!("{address} to answer: it may belong to a cluster already");
            }
            let bound = self.present(now).filter_map(|(_, peer)| Some((peer, peer.bound_since?)));
            if let Some((peer, since)) = bound.max_by_key(|(_, since)| *since)
                && until < since + BOUND_PEER_GRACE
            {
                until = since + BOUND_PEER_GRACE;
                reason = format!("the birth that {} takes part in", peer.candidate.name);
            }
        }
        until += RANK_DELAY * rank;
        if now < until { wait(reason, Some(until)) } else { Action::Propose(founders) }
    }
}

fn wait(reason: String, until: Option<Instant>) -> Action {
    Action::Wait { reason, until }
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}
