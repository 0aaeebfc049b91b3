//! Requests of foca during one call, and the timer queue.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use foca::{Notification, Runtime, Timer};

use super::identity::MemberIdentity;
use super::roster::Slot;

/// Membership change in foca's view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemberEvent {
    Up(Slot),
    Down(Slot),
}

/// Collects foca's requests; emptied by the engine after every call.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) packets: Vec<(Slot, Vec<u8>)>,
    pub(super) timers: Vec<(Duration, Timer<MemberIdentity>)>,
    pub(super) events: Vec<MemberEvent>,
}

impl Runtime<MemberIdentity> for Outbox {
    fn notify(&mut self, notification: Notification<'_, MemberIdentity>) {
        match notification {
            Notification::MemberUp(id) => self.events.push(MemberEvent::Up(id.slot)),
            Notification::MemberDown(id) => self.events.push(MemberEvent::Down(id.slot)),
            Notification::Rename(..)
            | Notification::Active
            | Notification::Idle
            | Notification::Defunct
            | Notification::Rejoin(_) => {}
        }
    }

    fn send_to(&mut self, to: MemberIdentity, data: &[u8]) {
        self.packets.push((to.slot, data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<MemberIdentity>, after: Duration) {
        self.timers.push((after, event));
    }
}

/// Scheduled task.
#[derive(Debug)]
pub(super) enum Task {
    Foca(Timer<MemberIdentity>),
    Reconnect,
    Renotify,
    RecheckSuspects,
    DecayHealth,
    SendMeta,
}

#[derive(Debug)]
struct QueuedTimer {
    at: Instant,
    number: u64,
    task: Task,
}

impl PartialEq for QueuedTimer {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for QueuedTimer {}

impl PartialOrd for QueuedTimer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for QueuedTimer {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Timers ordered by time; timers of the same time run in insertion order.
#[derive(Debug, Default)]
pub(super) struct TimerQueue {
    waiting: BinaryHeap<Reverse<QueuedTimer>>,
    number: u64,
}

impl TimerQueue {
    pub(super) fn add(&mut self, at: Instant, task: Task) {
        self.number += 1;
        self.waiting.push(Reverse(QueuedTimer { at, number: self.number, task }));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse(first)| first.at)
    }

    pub(super) fn due(&mut self, now: Instant) -> Option<Task> {
        if self.next()? > now {
            return None;
        }
        self.waiting.pop().map(|Reverse(first)| first.task)
    }

    /// Removes the scheduled [`Task::Reconnect`], if any.
    pub(super) fn remove_reconnect(&mut self) {
        self.waiting.retain(|Reverse(waiting)| !matches!(waiting.task, Task::Reconnect));
    }

    /// Moves every timer by `lost`, as if that time had not passed.
    pub(super) fn postpone(&mut self, lost: Duration) {
        let all = std::mem::take(&mut self.waiting);
        self.waiting = all
            .into_iter()
            .map(|Reverse(w)| Reverse(QueuedTimer { at: w.at + lost, ..w }))
            .collect();
    }
}
