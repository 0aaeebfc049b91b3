//! View streams of members. A view grows with the number of members, and each join changes the view
//! of every watcher. Therefore one cached view serves all watchers of this node, and it is not
//! updated too often.

use std::sync::{Arc, Mutex, PoisonError};

use muster_messages::node::ClusterView;
use muster_types::LogIndex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::throttle;
use muster_state::{ClusterState, view};

/// Cache of the newest view, shared by all watchers.
#[derive(Debug, Default)]
pub(super) struct ViewCache(Mutex<CacheEntry>);

#[derive(Debug, Default)]
struct CacheEntry {
    /// View with index 0, so that only a change of content replaces it.
    view: Arc<ClusterView>,
    /// Index of the state that the view was last built from.
    index: LogIndex,
    /// Number of removed nodes in that state.
    removed: usize,
    /// Earliest time of the next update. `None` before the first one.
    next_update: Option<Instant>,
}

/// The cached view, and the time of its next update.
struct CachedView {
    view: Arc<ClusterView>,
    /// Index of the newest state that is known to have this view.
    index: LogIndex,
    /// Time of the next update. `None` if the view is up to date.
    next_update: Option<Instant>,
}

impl ViewCache {
    /// Returns the view of a state, or an older one if the next update is not due. Returns the same
    /// `Arc` while the content is unchanged. A new watcher (`is_first`) gets the newest view, since
    /// it may have joined just now. A removal is shown at once.
    fn get(&self, state: &ClusterState, is_first: bool) -> CachedView {
        let now = Instant::now();
        let removed = state.removed().len();
        let mut entry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_stale = state.index() > entry.index;
        let is_urgent = is_first || removed != entry.removed;
        let next_update =
            entry.next_update.filter(|next_update| is_stale && !is_urgent && now < *next_update);
        if is_stale && next_update.is_none() {
            let view = ClusterView { index: 0, ..view::cluster_view(state) };
            entry.next_update = Some(now + throttle::delay(view.members.len()));
            (entry.index, entry.removed) = (state.index(), removed);
            if view != *entry.view {
                entry.view = Arc::new(view);
            }
        }
        CachedView { view: Arc::clone(&entry.view), index: entry.index, next_update }
    }
}

/// One watcher of the view.
#[derive(Debug)]
pub(super) struct Watcher {
    states: watch::Receiver<Arc<ClusterState>>,
    cache: Arc<ViewCache>,
    last: Option<Arc<ClusterView>>,
}

impl Watcher {
    pub(super) fn new(states: watch::Receiver<Arc<ClusterState>>, cache: Arc<ViewCache>) -> Self {
        Self { states, cache, last: None }
    }

    /// Returns the first view of a founded cluster, then each view that differs from the last. A
    /// change after an idle time is returned at once; see [`throttle`]. `None` when the state has
    /// ended.
    pub(super) async fn next(&mut self) -> Option<ClusterView> {
        loop {
            let state = Arc::clone(&self.states.borrow_and_update());
            let CachedView { view, index, next_update } =
                self.cache.get(&state, self.last.is_none());
            let is_known = self.last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &view));
            if !is_known && !view.cluster_id.is_empty() {
                self.last = Some(Arc::clone(&view));
                return Some(ClusterView { index: index.0, ..ClusterView::clone(&view) });
            }
            match next_update {
                None => self.states.changed().await.ok()?,
                Some(next_update) => tokio::select! {
                    biased;
                    changed = self.states.changed() => changed.ok()?,
                    () = sleep_until(next_update) => {}
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
        let cache = Arc::new(ViewCache::default());
        let mut watcher = Watcher::new(seen.clone(), Arc::clone(&cache));
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
        tokio::time::advance(throttle::MAX_DELAY).await;
        // Only the newest view is left to send.
        let last = watcher.next().now_or_never().flatten().unwrap();
        assert_eq!(last.members.len(), 103);
        tokio::time::advance(throttle::MAX_DELAY).await;
        replica.done(Command::Admit(admit(104, Role::Worker)));
        states.send_replace(Arc::new(replica.state.clone()));
        let view = watcher.next().now_or_never().flatten().unwrap();
        assert_eq!((view.members.len(), view.index), (104, replica.index.0));
        // The next join is sent later, a new watcher sees it, and a removal is sent at once.
        replica.done(Command::Admit(admit(105, Role::Worker)));
        states.send_replace(Arc::new(replica.state.clone()));
        assert!(watcher.next().now_or_never().is_none());
        let mut late = Watcher::new(seen, cache);
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
        let cache = Arc::new(ViewCache::default());
        let mut early = Watcher::new(seen.clone(), Arc::clone(&cache));
        let first = early.next().await.unwrap();
        replica.done(audit());
        states.send_replace(Arc::new(replica.state.clone()));
        tokio::time::advance(throttle::MAX_DELAY).await;
        assert!(early.next().now_or_never().is_none());
        let late = Watcher::new(seen, cache).next().await.unwrap();
        assert_eq!(late, ClusterView { index: replica.index.0, ..first });
        drop(states);
        assert_eq!(early.next().await, None);
    }
}
