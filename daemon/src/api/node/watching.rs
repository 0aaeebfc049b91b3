//! The views that members watch. A view grows with the members, and a member that comes is a new one for
//! everybody: so it is made once for all who watch here, and not sent too often.

use std::sync::{Arc, Mutex, PoisonError};

use muster_messages::node::View;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::controllers::pace;
use muster_state::{ClusterState, view};

/// The newest view, for whoever asks.
#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<Newest>);

#[derive(Debug, Default)]
struct Newest {
    /// Without an index, so that only a change makes another.
    view: Arc<View>,
    /// Of the state that it was looked for in last.
    index: u64,
    /// How many had been removed in that state.
    removed: usize,
    /// When it is made anew at the earliest.
    again: Option<Instant>,
}

/// What one who watches is to do with the newest view.
struct Look {
    view: Arc<View>,
    /// Of the newest state that is known to have this view.
    index: u64,
    /// When to look again; none if the view is that of the state.
    again: Option<Instant>,
}

impl Shared {
    /// The view of a state, or an older one if it is not time for another; the very same while nothing
    /// in it has changed. One who begins to watch (`is_first`) is shown the
    /// newest, since it may have come just now, and a removal is shown at once.
    fn look(&self, state: &ClusterState, is_first: bool) -> Look {
        let now = Instant::now();
        let removed = state.removed().len();
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = state.index() > newest.index;
        let is_urgent = is_first || removed != newest.removed;
        let again = newest.again.filter(|again| is_old && !is_urgent && now < *again);
        if is_old && again.is_none() {
            let view = View { index: 0, ..view::view(state) };
            newest.again = Some(now + pace::pause(view.members.len()));
            (newest.index, newest.removed) = (state.index(), removed);
            if view != *newest.view {
                newest.view = Arc::new(view);
            }
        }
        Look { view: Arc::clone(&newest.view), index: newest.index, again }
    }
}

/// One who watches.
#[derive(Debug)]
pub(super) struct Watcher {
    states: watch::Receiver<Arc<ClusterState>>,
    shared: Arc<Shared>,
    last: Option<Arc<View>>,
}

impl Watcher {
    pub(super) fn new(states: watch::Receiver<Arc<ClusterState>>, shared: Arc<Shared>) -> Self {
        Self { states, shared, last: None }
    }

    /// The first view of a founded cluster, then each that differs from the one before. What comes
    /// after a quiet while comes at once; see [`pace`]. None when the state has ended.
    pub(super) async fn next(&mut self) -> Option<View> {
        loop {
            let state = Arc::clone(&self.states.borrow_and_update());
            let Look { view, index, again } = self.shared.look(&state, self.last.is_none());
            let is_known = self.last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &view));
            if !is_known && !view.cluster_id.is_empty() {
                self.last = Some(Arc::clone(&view));
                return Some(View { index, ..View::clone(&view) });
            }
            match again {
                None => self.states.changed().await.ok()?,
                Some(again) => tokio::select! {
                    biased;
                    changed = self.states.changed() => changed.ok()?,
                    () = sleep_until(again) => {}
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;
    use muster_types::Role;

    use super::*;
    use muster_state::Command;
    use muster_state::command::{RecordAudit, Remove};
    use muster_state::sample::{ADMIN, Replica, admit, by, id};

    fn audit() -> Command {
        Command::RecordAudit(RecordAudit {
            by: id(1),
            action: "look".to_owned(),
            subject: "it".to_owned(),
            outcome: "ok".to_owned(),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_that_comes_at_once_is_told_in_few_views_and_one_member_at_once() {
        let mut replica = Replica::founded(3);
        let (states, seen) = watch::channel(Arc::new(replica.state.clone()));
        let shared = Arc::new(Shared::default());
        let mut watcher = Watcher::new(seen.clone(), Arc::clone(&shared));
        assert_eq!(watcher.next().await.unwrap().members.len(), 3);
        let mut views = 0;
        for number in 4..104 {
            replica.done(Command::Admit(admit(number, Role::Worker)));
            states.send_replace(Arc::new(replica.state.clone()));
            if watcher.next().now_or_never().is_some() {
                views += 1;
            }
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!((2..20).contains(&views), "{views}");
        tokio::time::advance(pace::LONGEST).await;
        // Only the newest is left to tell.
        let last = watcher.next().now_or_never().flatten().unwrap();
        assert_eq!(last.members.len(), 103);
        tokio::time::advance(pace::LONGEST).await;
        replica.done(Command::Admit(admit(104, Role::Worker)));
        states.send_replace(Arc::new(replica.state.clone()));
        let view = watcher.next().now_or_never().flatten().unwrap();
        assert_eq!((view.members.len(), view.index), (104, replica.index));
        // Whoever comes in the next moment is told later, whoever begins to watch sees it, and whoever
        // goes is told at once.
        replica.done(Command::Admit(admit(105, Role::Worker)));
        states.send_replace(Arc::new(replica.state.clone()));
        assert!(watcher.next().now_or_never().is_none());
        let mut late = Watcher::new(seen, shared);
        assert_eq!(late.next().await.unwrap().members.len(), 105);
        assert_eq!(watcher.next().await.unwrap().members.len(), 105);
        replica.done(Command::Remove(Remove { node: id(105), by: by(ADMIN), force: false }));
        states.send_replace(Arc::new(replica.state.clone()));
        let view = watcher.next().now_or_never().flatten().unwrap();
        assert_eq!((view.members.len(), view.removed.len()), (104, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_member_may_know_makes_no_view_but_whoever_begins_gets_the_newest_index() {
        let mut replica = Replica::founded(1);
        let (states, seen) = watch::channel(Arc::new(replica.state.clone()));
        let shared = Arc::new(Shared::default());
        let mut early = Watcher::new(seen.clone(), Arc::clone(&shared));
        let first = early.next().await.unwrap();
        replica.done(audit());
        states.send_replace(Arc::new(replica.state.clone()));
        tokio::time::advance(pace::LONGEST).await;
        assert!(early.next().now_or_never().is_none());
        let late = Watcher::new(seen, shared).next().await.unwrap();
        assert_eq!(late, View { index: replica.index, ..first });
        drop(states);
        assert_eq!(early.next().await, None);
    }
}
