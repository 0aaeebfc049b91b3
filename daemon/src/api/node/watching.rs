//! View streams of members. A view grows with the number of members, and each join changes the view
//! of every watcher. Therefore one cached view serves all watchers of this node, and it is not
//! updated too often.

use std::sync::{Arc, Mutex, PoisonError};

use muster_messages::node::View;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::controllers::pace;
use muster_state::{ClusterState, view};

/// Cache of the newest view, shared by all watchers.
#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<Newest>);

#[derive(Debug, Default)]
struct Newest {
    /// View with index 0, so that only a change of content replaces it.
    view: Arc<View>,
    /// Index of the state that the view was last built from.
    index: u64,
    /// Number of removed nodes in that state.
    removed: usize,
    /// Earliest time of the next update. `None` before the first one.
    again: Option<Instant>,
}

/// The cached view, and the time of its next update.
struct Look {
    view: Arc<View>,
    /// Index of the newest state that is known to have this view.
    index: u64,
    /// Time of the next update. `None` if the view is up to date.
    again: Option<Instant>,
}

impl Shared {
    /// Returns the view of a state, or an older one if the next update is not due. Returns the same
    /// `Arc` while the content is unchanged. A new watcher (`is_first`) gets the newest view, since
    /// it may have joined just now. A removal is shown at once.
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

/// One watcher of the view.
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

    /// Returns the first view of a founded cluster, then each view that differs from the last. A
    /// change after an idle time is returned at once; see [`pace`]. `None` when the state has
    /// ended.
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
    use muster_state::fixtures::{ADMIN, Replica, admit, by, id};

    fn audit() -> Command {
        Command::RecordAudit(RecordAudit {
            by: id(1),
            action: "look".to_owned(),
            subject: "it".to_owned(),
            outcome: "ok".to_owned(),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn many_joins_at_once_make_few_views_and_a_single_join_is_sent_at_once() {
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
        // Only the newest view is left to send.
        let last = watcher.next().now_or_never().flatten().unwrap();
        assert_eq!(last.members.len(), 103);
        tokio::time::advance(pace::LONGEST).await;
        replica.done(Command::Admit(admit(104, Role::Worker)));
        states.send_replace(Arc::new(replica.state.clone()));
        let view = watcher.next().now_or_never().flatten().unwrap();
        assert_eq!((view.members.len(), view.index), (104, replica.index));
        // The next join is sent later, a new watcher sees it, and a removal is sent at once.
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
    async fn a_change_hidden_from_members_makes_no_view_but_a_new_watcher_gets_the_newest_index() {
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
