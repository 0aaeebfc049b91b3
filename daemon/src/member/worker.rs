//! Tasks of a worker: the cluster view, its reports, the relay for operators.

use muster_gossip::Gossip;

use super::{MemberRuntime, MemberTasks};
use crate::api::relay;
use crate::controllers::cluster_view::ClusterViewWatcher;
use crate::controllers::report;

impl MemberRuntime {
    /// Starts a worker's tasks.
    pub(super) fn worker(self, member_tasks: &mut MemberTasks, gossip: &Gossip) {
        let MemberTasks { tasks, stop, .. } = member_tasks;
        let trust = self.trust_store.trust();
        let me = self.me();
        let addresses = self.status.reader().addresses();
        let watcher = ClusterViewWatcher {
            me,
            endpoint: self.endpoint.clone(),
            trust: trust.clone(),
            liveness: gossip.liveness(),
            trust_store: self.trust_store,
            status: self.status,
        };
        tasks.spawn("view", watcher.run(stop.clone()));
        tasks.spawn(
            "report",
            report::run_on_worker(self.endpoint, trust.clone(), addresses, stop.clone()),
        );
        tasks.spawn("relay", relay::serve(self.operator_port, trust, stop.clone()));
    }
}
