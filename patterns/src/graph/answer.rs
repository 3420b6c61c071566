//! The reply of a graph, put together slice by slice and cut into parts where it is large.

use super::plan::{Graph, State};
use super::{Graphs, Output};
use crate::base::limits::{RECENT_GRAPHS, REPLY_PART_BYTES, STEPS_IN_REPLY};
use crate::base::{GraphId, Out};
use crate::ops::{GraphReply, StepOutcome, StepState};
use crate::values::Body;

/// What a step's name and outcome take in a reply, bytes, beside the name itself.
const OUTCOME_BYTES: usize = 64;

impl Graphs {
    /// One slice of the reply. True once the last part has left.
    pub(super) fn answer_slice(
        &mut self,
        id: GraphId,
        budget: &mut usize,
        out: &mut Out<Output>,
    ) -> bool {
        let Some(graph) = self.find(id) else { return true };
        let request = graph.request;
        let failed = graph.is_failed();
        while let Some(reply) = graph.next_part(budget) {
            let last = !reply.more;
            if !graph.quiet {
                out.push(Output::Reply { request, reply });
            }
            if last {
                if failed {
                    self.counters.failed += 1;
                } else {
                    self.counters.done += 1;
                }
                self.end(id);
                return true;
            }
        }
        false
    }

    /// Takes a graph out of the tables. Its memory is given back slice by slice.
    pub(super) fn end(&mut self, id: GraphId) {
        let graph = self.graphs.remove(id.slot as usize);
        for timer in graph.deadline.into_iter().chain(graph.part_timer) {
            self.deadlines.cancel(timer);
        }
        if self.by_track.get(&graph.track) == Some(&id) {
            self.by_track.remove(&graph.track);
        }
        if let Some(share) = self.shares.get_mut(&graph.peer) {
            share.graphs -= 1;
            share.bytes -= graph.bytes;
            if share.graphs == 0 {
                self.shares.remove(&graph.peer);
            }
        }
        if self.recent.len() == RECENT_GRAPHS {
            self.recent.pop_front();
        }
        self.recent.push_back(graph.summary());
        self.buried.push(graph);
    }
}

impl Graph {
    /// Whether the reply is an error.
    pub(super) fn is_failed(&self) -> bool {
        match &self.failure {
            None => false,
            // Cancelled, late or refused: no step is the cause.
            Some((_, None)) => true,
            Some(_) => !self.began || self.returned_good < self.returned,
        }
    }

    /// The next part of the reply, unless the budget ends before the part does.
    fn next_part(&mut self, budget: &mut usize) -> Option<GraphReply> {
        let ran = self.began;
        let (mut reply, mut bytes) = self.draft.take().map(|draft| *draft).unwrap_or_default();
        while ran && self.cursor < self.steps.len() {
            if *budget == 0 {
                self.draft = Some(Box::new((reply, bytes)));
                return None;
            }
            if bytes >= REPLY_PART_BYTES {
                reply.more = true;
                break;
            }
            *budget -= 1;
            bytes += self.add_step(self.cursor, &mut reply);
            self.cursor += 1;
        }
        reply.ran = ran;
        reply.track = ran.then_some(self.track);
        if self.is_failed() && !reply.more {
            let name = |step: u32| self.steps.get(step as usize).map(|step| step.name.clone());
            let failure = self.failure.clone();
            reply.error = failure.map(|(refusal, step)| (refusal, step.and_then(name)));
        }
        reply.part = (reply.more || self.reply_part > 0).then_some(self.reply_part);
        self.reply_part += 1;
        Some(reply)
    }

    /// Adds what the reply tells of one step; returns about how many bytes that takes.
    fn add_step(&mut self, at: usize, reply: &mut GraphReply) -> usize {
        let tell_all = self.not_done > 0 && self.steps.len() <= STEPS_IN_REPLY;
        let not_done = self.not_done > 0;
        let step = &mut self.steps[at];
        let mut bytes = 0;
        if step.returned
            && let Some(body) = step.result.take()
        {
            bytes += step.name.len() + OUTCOME_BYTES + body_bytes(&body);
            reply.results.push((step.name.clone(), *body));
        }
        let state = step.state.outcome();
        if tell_all || not_done && state != StepState::Done {
            let code = step.failure.as_ref().map(|refusal| refusal.code.clone());
            let code = code.or_else(|| (state == StepState::Cancelled).then(|| "cancelled".into()));
            bytes += step.name.len() + OUTCOME_BYTES;
            let name = step.name.clone();
            reply.steps.push(StepOutcome { name, state, code });
        }
        bytes
    }
}

fn body_bytes(body: &Body) -> usize {
    body.value.bytes.len() + body.frames.iter().map(bytes::Bytes::len).sum::<usize>()
}

impl State {
    /// How a step that ended is told to the caller.
    pub(super) const fn outcome(self) -> StepState {
        match self {
            Self::Done => StepState::Done,
            Self::Degraded => StepState::Degraded,
            Self::Failed => StepState::Failed,
            Self::Skipped => StepState::Skipped,
            Self::Unknown => StepState::Unknown,
            Self::Pending | Self::Ready | Self::Running | Self::Backoff | Self::Cancelled => {
                StepState::Cancelled
            }
        }
    }
}
