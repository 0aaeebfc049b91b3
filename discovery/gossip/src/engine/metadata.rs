//! Metadata that members publish about themselves, learned only from the member itself. It is sent
//! to all when it changes, and requested when a datagram names a newer version than is known.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::Engine;
use crate::identity::Generation;
use crate::outbox::Task;
use crate::roster::Slot;
use crate::wire::{self, NodeMeta, Note, Preamble};

/// Minimum time between two requests for the same metadata.
const REQUEST_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Known {
    version: (Generation, u32),
    meta: Option<NodeMeta>,
    requested: Option<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct MetadataStore {
    own: Option<NodeMeta>,
    own_version: u32,
    known: HashMap<Slot, Known>,
    to_send: VecDeque<Slot>,
    is_scheduled: bool,
}

impl MetadataStore {
    /// Returns the version of this node's metadata; 0 while it has none.
    pub(super) fn version(&self) -> u32 {
        self.own_version
    }

    pub(super) fn of(&self, slot: Slot, me: Slot) -> Option<NodeMeta> {
        if slot == me {
            return self.own.clone();
        }
        self.known.get(&slot).and_then(|known| known.meta.clone())
    }

    /// Stores the metadata. Returns true if it is new.
    pub(super) fn store(&mut self, slot: Slot, preamble: &Preamble, meta: NodeMeta) -> bool {
        let known = self.known.entry(slot).or_default();
        let version = (preamble.generation, preamble.meta_version);
        let newer = version > known.version;
        if newer {
            *known = Known { version, meta: Some(meta), requested: None };
        }
        newer
    }

    pub(super) fn forget(&mut self, slot: Slot) {
        self.known.remove(&slot);
        self.to_send.retain(|to| *to != slot);
    }
}

impl Engine {
    /// Replaces this node's metadata.
    pub fn set_meta(&mut self, now: Instant, meta: &NodeMeta) {
        let meta = wire::truncated(meta);
        let old = self.metadata.own.as_ref();
        if old == Some(&meta) {
            return;
        }
        let addresses_changed = old.is_none_or(|old| old.addresses != meta.addresses);
        self.metadata.own = Some(meta);
        self.metadata.own_version = self.metadata.own_version.saturating_add(1);
        self.changed = true;
        // A new address must reach every member: they may have no other way to us. In a large group
        // the rest is requested by the members that next hear from us.
        if addresses_changed || self.roster.len() <= self.settings.meta_push_max_members {
            self.metadata.to_send = self.foca.iter_members().map(|m| m.id().slot).collect();
            self.schedule_meta(now);
        }
    }

    fn schedule_meta(&mut self, now: Instant) {
        if !self.metadata.is_scheduled && !self.metadata.to_send.is_empty() {
            self.metadata.is_scheduled = true;
            self.timers.add(now + self.settings.meta_interval, Task::SendMeta);
        }
    }

    pub(super) fn send_queued_meta(&mut self, now: Instant) {
        self.metadata.is_scheduled = false;
        for _ in 0..self.settings.meta_fanout {
            let Some(slot) = self.metadata.to_send.pop_front() else { break };
            self.send_meta(slot);
        }
        self.schedule_meta(now);
    }

    pub(super) fn send_meta(&mut self, slot: Slot) {
        if let Some(meta) = self.metadata.own.clone() {
            self.send_note(slot, &Note::Meta(meta));
        }
    }

    /// Requests the sender's metadata if the datagram names a newer version.
    pub(super) fn request_meta_if_newer(&mut self, now: Instant, slot: Slot, preamble: &Preamble) {
        let known = self.metadata.known.entry(slot).or_default();
        let newer = preamble.meta_version > 0
            && (preamble.generation, preamble.meta_version) > known.version;
        let requested =
            known.requested.is_some_and(|at| now.saturating_duration_since(at) < REQUEST_INTERVAL);
        if newer && !requested {
            known.requested = Some(now);
            self.send_note(slot, &Note::RequestMeta);
        }
    }
}
