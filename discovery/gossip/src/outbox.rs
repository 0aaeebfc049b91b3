//! Requests of foca during one call, and the timer queue.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use foca::{Notification, Runtime, Timer};

use super::identity::Identity;
use super::roster::Slot;

/// Membership change in foca's view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    Up(Slot),
    Down(Slot),
}

/// Collects foca's requests; emptied by the engine after every call.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) packets: Vec<(Slot, Vec<u8>)>,
    pub(super) later: Vec<(Duration, Timer<Identity>)>,
    pub(super) news: Vec<News>,
}

impl Runtime<Identity> for Outbox {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        match notification {
            Notification::MemberUp(id) => self.news.push(News::Up(id.slot)),
            Notification::MemberDown(id) => self.news.push(News::Down(id.slot)),
            Notification::Rename(..)
            | Notification::Active
            | Notification::Idle
            | Notification::Defunct
            | Notification::Rejoin(_) => {}
        }
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.packets.push((to.slot, data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        self.later.push((after, event));
    }
}

/// Scheduled task.
#[derive(Debug)]
pub(super) enum Task {
    Foca(Timer<Identity>),
    Seek,
    Nag,
    Tidy,
    Calm,
    Cards,
}

#[derive(Debug)]
struct Waiting {
    at: Instant,
    number: u64,
    task: Task,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Timers ordered by time; timers of the same time run in insertion order.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    waiting: BinaryHeap<Reverse<Waiting>>,
    number: u64,
}

impl Agenda {
    pub(super) fn add(&mut self, at: Instant, task: Task) {
        self.number += 1;
        self.waiting.push(Reverse(Waiting { at, number: self.number, task }));
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

    /// Removes the scheduled [`Task::Seek`], if any.
    pub(super) fn remove_seek(&mut self) {
        self.waiting.retain(|Reverse(waiting)| !matches!(waiting.task, Task::Seek));
    }

    /// Moves every timer by `lost`, as if that time had not passed.
    pub(super) fn postpone(&mut self, lost: Duration) {
        let all = std::mem::take(&mut self.waiting);
        self.waiting =
            all.into_iter().map(|Reverse(w)| Reverse(Waiting { at: w.at + lost, ..w })).collect();
    }
}
