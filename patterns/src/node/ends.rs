//! What ends before its time: requests that are given up, and connections with all that was theirs.

use super::Node;
use crate::base::limits::STEPS_PER_TURN;
use crate::base::{JobId, PeerId, RunId, Time};
use crate::requests::Target;
use crate::{graph, queues as queue, rpc, topics as topic};

impl Node {
    pub(super) fn cancel(&mut self, now: Time, peer: PeerId, id: &str) {
        if self.is_far(peer)
            && let Some(lapsed) = RunId::parse(id)
            && self.afar.lapsed(lapsed, &mut self.afar_out)
        {
            return;
        }
        let request = self.requests.find(peer, id).and_then(|key| self.requests.get(key));
        match request.map(|request| request.target) {
            Some(target) => self.give_up(now, target, false),
            None => self.cancels_ignored += 1,
        }
    }

    pub(super) fn give_up(&mut self, now: Time, target: Target, quiet: bool) {
        match target {
            Target::Job(job) => self.give_up_job(now, job),
            Target::Graph(graph) => {
                let input = graph::Input::Cancel { graph, quiet };
                self.graphs.handle(now, input, &mut self.graph_out);
            }
            Target::New | Target::Send { .. } => {}
        }
    }

    pub(super) fn give_up_job(&mut self, now: Time, job: JobId) {
        match job {
            JobId::Call(call) => {
                self.rpc.handle(now, rpc::Input::Cancel(call), &mut self.rpc_out);
            }
            JobId::Wait(wait) => self.topic(now, topic::Input::CancelWait(wait)),
            JobId::Take(wait) => self.queue(now, queue::Input::CancelWait(wait)),
            JobId::Errand(wait) => self.afar.give_up(wait, &mut self.afar_out),
        }
    }

    pub(super) fn gone(&mut self, now: Time, peer: PeerId, unsent: Vec<RunId>) {
        self.known.remove(&peer.slot);
        self.parted(peer);
        self.topic(now, topic::Input::Gone { peer });
        self.queue(now, queue::Input::Gone { peer });
        self.afar.gone(now, peer, &mut self.afar_out);
        let keys = self.requests.gone(peer);
        self.abandoned.extend(keys.into_iter().map(|key| (peer, key)));
        self.abandon(now);
        self.rpc.handle(now, rpc::Input::Gone { peer, unsent }, &mut self.rpc_out);
    }

    /// Gives up a turn's worth of what nobody waits for any more.
    pub(super) fn abandon(&mut self, now: Time) {
        let turn = self.abandoned.len().min(STEPS_PER_TURN);
        for (peer, key) in self.abandoned.drain(..turn).collect::<Vec<_>>() {
            // It may have had its outcome since, and its key be another's. What cannot be given up
            // keeps its key until it has one: whoever had that key next would be answered for it.
            let request = self.requests.get(key).filter(|request| request.peer == peer);
            let ends = request.map(|request| request.target);
            if ends.is_some_and(|target| !matches!(target, Target::New | Target::Send { .. }))
                && let Some(request) = self.requests.end(key)
            {
                self.watched.remove(&key);
                self.give_up(now, request.target, true);
            }
        }
    }
}
