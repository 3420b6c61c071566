//! What the broker tells of calls, graphs, workers and queues, through topics of its own.
//!
//! Nothing is made of it unless somebody listens: `Topics::hears` is asked first.

use std::sync::Arc;

use serde_json::json;
use smol_str::{SmolStr, format_smolstr};

use super::Node;
use crate::base::limits::NAME_BYTES;
use crate::base::{PeerId, Refusal, RunId, Time};
use crate::ops::{Call, GraphReply, ProgressReply};
use crate::queues::Life;
use crate::topics::{self as topic, Family};
use crate::values::Value;

/// A request whose life is told.
#[derive(Clone, Debug)]
pub(super) enum Watched {
    /// A call.
    Call {
        /// Its ULID.
        track: RunId,
        /// The function.
        fun: SmolStr,
    },
    /// A graph, which knows its ULID.
    Graph,
}

impl Node {
    /// Follows a call: its runs are reported as if its caller had asked for progress.
    #[cold]
    pub(super) fn watch_call(&mut self, now: Time, key: u32, call: &mut Arc<Call>) {
        let asked = self.requests.get(key).and_then(|request| request.track);
        let track = asked.unwrap_or_else(|| self.ids.next(now));
        self.watched.insert(key, Watched::Call { track, fun: call.fun.clone() });
        Arc::make_mut(call).progress = true;
    }

    pub(super) fn tell_call(
        &mut self,
        now: Time,
        key: u32,
        event: &'static str,
        percent: Option<f64>,
        note: Option<&str>,
    ) {
        let Some(Watched::Call { track, fun }) = self.watched.get(&key).cloned() else { return };
        let track = track.to_string();
        let mut told = json!({ "track": track, "fun": fun });
        if let Some(percent) = percent {
            told["percent"] = percent.into();
        }
        if let Some(note) = note {
            told["note"] = note.into();
        }
        self.tell(now, format_smolstr!("mpreg.rpc.command.{track}.{event}"), &told);
    }

    /// A call has had its outcome.
    #[cold]
    pub(super) fn tell_outcome(&mut self, now: Time, key: u32, error: Option<&Refusal>) {
        let Some(Watched::Call { track, fun }) = self.watched.remove(&key) else { return };
        let track = track.to_string();
        let mut told = json!({ "track": track, "fun": fun });
        if let Some(error) = error {
            told["code"] = error.code.as_str().into();
            told["message"] = (*error.message).into();
        }
        let event = if error.is_some() { "failed" } else { "completed" };
        self.tell(now, format_smolstr!("mpreg.rpc.command.{track}.{event}"), &told);
    }

    pub(super) fn tell_graph(&mut self, now: Time, progress: &ProgressReply) {
        let track = progress.track.to_string();
        let event = if progress.event == "accepted" { "started" } else { "progress" };
        let mut told = json!({ "track": track, "event": progress.event });
        if let Some(step) = &progress.step {
            told["step"] = step.as_str().into();
        }
        if let Some(percent) = progress.percent {
            told["percent"] = percent.into();
        }
        if let Some(note) = &progress.note {
            told["note"] = (**note).into();
        }
        self.tell(now, format_smolstr!("mpreg.rpc.graph.{track}.{event}"), &told);
    }

    /// A graph has had its outcome. One that was refused before it ran has no life to tell of.
    pub(super) fn tell_graph_outcome(&mut self, now: Time, reply: &GraphReply) {
        let Some(track) = reply.track else { return };
        let track = track.to_string();
        let mut told = json!({ "track": track });
        if let Some((error, step)) = &reply.error {
            told["code"] = error.code.as_str().into();
            told["message"] = (*error.message).into();
            told["step"] = step.as_deref().into();
        }
        let event = if reply.error.is_some() { "failed" } else { "completed" };
        self.tell(now, format_smolstr!("mpreg.rpc.graph.{track}.{event}"), &told);
    }

    /// Something has happened to a queue. One with a name too long for a topic has no life to tell.
    pub(super) fn tell_life(&mut self, now: Time, life: &Life) {
        let topic = format_smolstr!("mpreg.queue.{}.{}", life.queue, life.event);
        if topic.len() <= NAME_BYTES {
            let payload = Value::from_serialize(life);
            self.topic(now, topic::Input::Tell { topic, payload });
        }
    }

    pub(super) fn tell_worker(&mut self, now: Time, peer: PeerId, event: &'static str) {
        if !self.topics.hears(Family::Workers) {
            return;
        }
        let name = self.known.get(&peer.slot).and_then(|(_, name)| name.clone());
        let told = json!({ "worker": peer.to_string(), "name": name });
        self.tell(now, format_smolstr!("mpreg.worker.{peer}.{event}"), &told);
    }
}
