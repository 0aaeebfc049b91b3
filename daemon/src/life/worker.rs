//! Tasks of a worker: the cluster view, its reports, the relay for operators.

use muster_gossip::Gossip;

use super::{Life, Publish, Serving};
use crate::api::relay;
use crate::controllers::report;
use crate::controllers::view::Window;

impl Life {
    /// Starts a worker's tasks.
    pub(super) fn worker(self, serving: &mut Serving, gossip: &Gossip) {
        let Serving { tasks, stop, .. } = serving;
        let trust = self.keeper.trust();
        let me = self.me();
        let Publish { in_touch, told, .. } = self.publish;
        let window = Window {
            me,
            endpoint: self.endpoint.clone(),
            trust: trust.clone(),
            liveness: gossip.liveness(),
            keeper: self.keeper,
            in_touch,
            told,
        };
        tasks.spawn("view", window.run(stop.clone()));
        tasks.spawn(
            "report",
            report::run_on_worker(self.endpoint, trust.clone(), self.own, stop.clone()),
        );
        tasks.spawn("relay", relay::relay(self.listener, trust, stop.clone()));
    }
}
