//! Steps that run: what may start, what an outcome means, how failures spread.

use std::sync::Arc;

use smol_str::SmolStr;

use super::load::ARROWS_PER_UNIT;
use super::plan::{Fallback, Graph, Phase, Purpose, State, Step, Template};
use super::{Graphs, Output, StepCall, Timer};
use crate::base::{Code, GraphId, JobId, Out, Refusal, Time, TimerId};
use crate::ops::{Call, CallOptions, OnError};
use crate::values::{self, Body, Fault, Frames, Mark, What};

impl Graphs {
    /// Starts a graph that was checked, or reports on it.
    pub(super) fn launch(&mut self, _now: Time, id: GraphId, out: &mut Out<Output>) -> bool {
        let Some(graph) = self.find(id) else { return true };
        if let Purpose::Check(ask) = graph.purpose.clone() {
            let outcome = graph.report(&ask);
            out.push(Output::Checked { request: graph.request, outcome });
            graph.quiet = true;
            self.end(id);
            return true;
        }
        (graph.phase, graph.cursor, graph.began) = (Phase::Run, 0, true);
        (graph.counts, graph.levels) = (Vec::new(), Vec::new());
        (graph.asks, graph.ask_table) = Default::default();
        graph.placements = Vec::new();
        graph.queue = std::mem::take(&mut graph.starts);
        graph.remaining = graph.steps.len();
        if graph.options.progress {
            let (request, track) = (graph.request, graph.track);
            let (step, event, percent, note) = (None, "accepted", Some(0.0), None);
            out.push(Output::Progress { request, track, step, event, percent, note });
        }
        self.counters.started += 1;
        false
    }

    /// One slice of a running graph. True when only outcomes can take it further.
    pub(super) fn step_slice(
        &mut self,
        now: Time,
        id: GraphId,
        budget: &mut usize,
        out: &mut Out<Output>,
    ) -> bool {
        let window = self.limits.graph_window;
        while *budget > 0 {
            let Some(graph) = self.find(id) else { return true };
            *budget -= 1;
            if let Some((step, arrow)) = graph.ended.pop_front() {
                graph.follow(step, arrow, out);
            } else if graph.stopping && graph.handed_out {
                // What was handed out a moment ago can be cancelled once it is known by an id.
                self.wake(id);
                return true;
            } else if graph.stopping {
                match graph.give_up_one(out) {
                    GivenUp::Timer(timer) => drop(self.deadlines.cancel(timer)),
                    GivenUp::Step => {}
                    GivenUp::All => return graph.close(out),
                }
            } else if graph.remaining == 0 {
                return graph.close(out);
            } else if graph.running < window
                && let Some(step) = graph.queue.pop_front()
            {
                *budget = budget.saturating_sub(graph.units_to_read(step));
                self.counters.steps += 1;
                self.dispatch(now, id, step, out);
            } else {
                return true;
            }
        }
        false
    }

    /// Hands a step out, its references replaced.
    fn dispatch(&mut self, now: Time, id: GraphId, step: u32, out: &mut Out<Output>) {
        let Some(graph) = self.find(id) else { return };
        if graph.steps[step as usize].state != State::Ready
            && graph.steps[step as usize].state != State::Pending
        {
            return;
        }
        match graph.compose_call(now, step) {
            Ok(call) => {
                let step = &mut graph.steps[step as usize];
                step.state = State::Running;
                step.attempt += 1;
                graph.running += 1;
                graph.handed_out = true;
                out.push(Output::Call(call));
            }
            Err(fault) => {
                let message = graph.fault_message(step, &fault);
                // Trying again would meet the same inputs, but something may stand in.
                self.fall_back(now, id, step, Refusal::new(fault.code(), message), out);
            }
        }
    }

    /// A step's call was accepted. If the step was given up since it was handed out, so is its
    /// call: a call of a step never outlives the step, so that no later graph hears of it.
    pub(super) fn begun(&mut self, graph: u32, step: u32, job: JobId, out: &mut Out<Output>) {
        let mut graph = self.graphs.get_mut(graph as usize);
        if let Some(graph) = &mut graph {
            graph.takes |= matches!(job, JobId::Take(_) | JobId::Errand(_));
        }
        let step = graph.and_then(|graph| graph.steps.get_mut(step as usize));
        match step.filter(|step| step.state == State::Running) {
            Some(step) => step.call = Some(job),
            None => out.push(Output::CancelCall(job)),
        }
    }

    /// What the graph had taken is settled, or cannot be: then nothing of it counts as done.
    pub(super) fn settled(&mut self, graph: u32, outcome: Result<(), Refusal>) {
        let graph = self.graphs.get_mut(graph as usize);
        let Some(graph) = graph.filter(|graph| graph.phase == Phase::Settle) else { return };
        if let Err(refusal) = outcome {
            let message = format!("what it took counts as not acknowledged: {}", refusal.message);
            graph.failure = Some((Refusal { message: message.into(), ..refusal }, None));
        }
        graph.enter(Phase::Answer);
        let id = graph.id;
        self.wake(id);
    }

    pub(super) fn step_done(
        &mut self,
        now: Time,
        graph: u32,
        step: u32,
        outcome: Result<Body, Refusal>,
        out: &mut Out<Output>,
    ) {
        let Some(found) = self.graphs.get(graph as usize) else { return };
        let id = found.id;
        let running = found.steps.get(step as usize).is_some_and(|s| s.state == State::Running);
        if !running {
            return;
        }
        self.settle(now, id, step, outcome, out);
        self.wake(id);
    }

    /// What one outcome of a running step means.
    fn settle(
        &mut self,
        now: Time,
        id: GraphId,
        at: u32,
        outcome: Result<Body, Refusal>,
        out: &mut Out<Output>,
    ) {
        let Some(graph) = self.find(id) else { return };
        graph.running -= 1;
        let step = &mut graph.steps[at as usize];
        step.call = None;
        match outcome {
            Ok(body) => {
                let state = if step.falling_back { State::Degraded } else { State::Done };
                graph.finish(at, state, Some(body), out);
            }
            Err(refusal) if step.may_retry(&refusal) && !graph.stopping => {
                self.back_off(now, id, at, &refusal, out);
            }
            Err(refusal) => self.fall_back(now, id, at, refusal, out),
        }
    }

    fn back_off(
        &mut self,
        now: Time,
        id: GraphId,
        at: u32,
        refusal: &Refusal,
        out: &mut Out<Output>,
    ) {
        let jitter = self.rng.below(256) as u64;
        self.counters.retried += 1;
        let Some(graph) = self.graphs.get_mut(id.slot as usize) else { return };
        let step = &mut graph.steps[at as usize];
        step.state = State::Backoff;
        let first_ms = step.retry().map_or(0, |retry| retry.backoff_ms);
        let doubled_ms = first_ms.saturating_mul(1 << (step.attempt - 1).min(16));
        // Up to a quarter more, so that steps that failed together do not return together.
        let wait_ns = (doubled_ms.saturating_mul(1_000_000))
            .saturating_add(doubled_ms.saturating_mul(jitter * 1_000_000 / 1024));
        let due_ns = now.mono_ns.saturating_add(wait_ns);
        step.timer = Some(self.deadlines.set(due_ns, Timer::Retry(id, at)));
        let note = format!("attempt {} failed: {refusal}", step.attempt);
        graph.event(at, "retrying", Some(note.into()), out);
    }

    /// A wait between attempts is over.
    pub(super) fn retry(&mut self, id: GraphId, at: u32) {
        let Some(graph) = self.find(id) else { return };
        let step = &mut graph.steps[at as usize];
        step.timer = None;
        if step.state == State::Backoff {
            step.state = State::Ready;
            graph.queue.push_back(at);
            self.wake(id);
        }
    }

    /// A step has failed for good, unless something stands in for it.
    fn fall_back(
        &mut self,
        now: Time,
        id: GraphId,
        at: u32,
        mut refusal: Refusal,
        out: &mut Out<Output>,
    ) {
        let Some(graph) = self.find(id) else { return };
        if graph.steps[at as usize].falling_back {
            if let Some(first) = graph.steps[at as usize].failure.take() {
                let message = format!("{}; its fallback failed too: {refusal}", first.message);
                refusal = Refusal { message: message.into(), ..*first };
            }
            return graph.fail(at, refusal, out);
        }
        match graph.compose_fallback(now, at) {
            None => graph.fail(at, refusal, out),
            Some(Err(fault)) => {
                let fault = graph.fault_message(at, &fault);
                let message = format!("{}; its fallback: {fault}", refusal.message);
                graph.fail(at, Refusal { message: message.into(), ..refusal }, out);
            }
            Some(Ok(FallbackNow::Value(body))) => {
                graph.steps[at as usize].failure = Some(Box::new(refusal));
                graph.finish(at, State::Degraded, Some(body), out);
            }
            // A graph that stops hands nothing more out.
            Some(Ok(FallbackNow::Call(_))) if graph.stopping => graph.fail(at, refusal, out),
            Some(Ok(FallbackNow::Call(call))) => {
                let step = &mut graph.steps[at as usize];
                step.failure = Some(Box::new(refusal));
                (step.falling_back, step.state) = (true, State::Running);
                graph.running += 1;
                graph.handed_out = true;
                self.counters.steps += 1;
                out.push(Output::Call(*call));
            }
        }
    }

    pub(super) fn deadline(&mut self, id: GraphId) {
        let Some(graph) = self.find(id) else { return };
        graph.deadline = None;
        let done = graph.steps.len() - graph.remaining;
        let message = match graph.phase {
            Phase::Run => format!("{done} of {} steps had ended", graph.steps.len()),
            _ => "it was still being read".into(),
        };
        self.stop(id, Refusal::new(Code::Timeout, message));
    }

    pub(super) fn cancel(&mut self, id: GraphId, quiet: bool) {
        let Some(graph) = self.find(id) else { return };
        graph.quiet |= quiet;
        self.stop(id, Refusal::new(Code::Cancelled, "cancelled by the caller"));
    }

    /// The broker ends: so does every graph, with what it has.
    pub(super) fn end_all(&mut self) {
        let graphs: Vec<(GraphId, bool)> =
            self.graphs.iter().map(|(_, graph)| (graph.id, graph.phase == Phase::Run)).collect();
        for (id, begun) in graphs {
            self.stop(id, Refusal::cut_off(begun));
        }
    }

    fn stop(&mut self, id: GraphId, refusal: Refusal) {
        let Some(graph) = self.find(id) else { return };
        match graph.phase {
            Phase::Settle | Phase::Answer => {}
            Phase::Run => {
                if !graph.stopping {
                    graph.failure = Some((refusal, None));
                }
                graph.stopping = true;
                graph.cursor = 0;
                self.wake(id);
            }
            _ => self.refuse(id, refusal, None),
        }
    }

    pub(super) fn tell(&self, graph: u32, step: u32, event: &'static str, out: &mut Out<Output>) {
        if let Some(graph) = self.graphs.get(graph as usize) {
            graph.event(step, event, None, out);
        }
    }

    pub(super) fn step_progress(
        &self,
        graph: u32,
        step: u32,
        percent: Option<f64>,
        note: Option<Box<str>>,
        out: &mut Out<Output>,
    ) {
        let Some(graph) = self.graphs.get(graph as usize) else { return };
        if graph.options.progress && !graph.quiet && (step as usize) < graph.steps.len() {
            let name = graph.steps[step as usize].name.clone();
            let (request, track) = (graph.request, graph.track);
            let step = Some((name, graph.step_id(step)));
            out.push(Output::Progress { request, track, step, event: "progress", percent, note });
        }
    }
}

/// Bytes of a result gone through that count as much as one step, in a slice of work.
const BYTES_PER_UNIT: usize = 512;

/// What giving a step up left to do.
enum GivenUp {
    Step,
    Timer(TimerId),
    All,
}

/// What stands in for a failed step, ready to use.
enum FallbackNow {
    Value(Body),
    Call(Box<StepCall>),
}

impl Graph {
    /// All steps have ended. True when what was taken from queues has to be settled first.
    fn close(&mut self, out: &mut Out<Output>) -> bool {
        if !self.takes {
            self.enter(Phase::Answer);
            return false;
        }
        self.enter(Phase::Settle);
        let cause = self.failure.as_ref().filter(|_| self.is_failed());
        let failure = cause.map(|(refusal, step)| match step {
            Some(step) => {
                let name = &self.steps[*step as usize].name;
                let message = format!("step {name}: {}", refusal.message);
                Refusal { message: message.into(), ..refusal.clone() }
            }
            None => refusal.clone(),
        });
        out.push(Output::Settle { graph: self.id.slot, failure });
        true
    }

    fn compose_call(&self, now: Time, at: u32) -> Result<StepCall, Fault> {
        let step = &self.steps[at as usize];
        let options = step.extras.as_deref().map(|extras| extras.options.clone());
        let templates = (step.args.as_ref(), step.kwargs.as_ref());
        self.compose_step(now, at, step.fun.clone(), templates, options.unwrap_or_default())
    }

    fn compose_fallback(&self, now: Time, at: u32) -> Option<Result<FallbackNow, Fault>> {
        Some(match self.steps[at as usize].fallback()? {
            Fallback::Value(template) => self.compose_value(at, template).map(FallbackNow::Value),
            Fallback::Call { fun, args, kwargs } => {
                let templates = (args.as_ref(), kwargs.as_ref());
                self.compose_step(now, at, fun.clone(), templates, CallOptions::default())
                    .map(|call| FallbackNow::Call(Box::new(call)))
            }
        })
    }

    fn compose_step(
        &self,
        now: Time,
        at: u32,
        fun: SmolStr,
        (args, kwargs): (Option<&Template>, Option<&Template>),
        options: CallOptions,
    ) -> Result<StepCall, Fault> {
        let own = &self.frames[self.steps[at as usize].part as usize];
        let args = args.map(|template| (&template.value, &*template.marks));
        let kwargs = kwargs.map(|template| (&template.value, &*template.marks));
        let filled = values::arguments(args, kwargs, own, &mut |step| self.result(step))?;
        let own_ns = options.timeout_ms.map_or(u64::MAX, |ms| ms.saturating_mul(1_000_000));
        Ok(StepCall {
            graph: self.id.slot,
            step: at,
            deadline_ns: self.deadline_ns.min(now.mono_ns.saturating_add(own_ns)),
            call: Arc::new(Call {
                id: SmolStr::default(),
                fun,
                args: filled.args,
                kwargs: filled.kwargs,
                frames: filled.frames,
                options,
                progress: self.options.progress,
                track: None,
            }),
        })
    }

    fn compose_value(&self, at: u32, template: &Template) -> Result<Body, Fault> {
        let own = &self.frames[self.steps[at as usize].part as usize];
        let quoting = template.marks.iter().any(|mark| {
            let carried = mark.step().is_some_and(|step| values::carries_frames(self.result(step)));
            carried || mark.frame().is_some() && !own.is_empty()
        });
        let (marks, mut frames) = (&template.marks, Frames::new());
        let value = &template.value;
        let mut get = |step| self.result(step);
        let value = values::compose(value, marks, own, &mut get, quoting, &mut frames)?;
        Ok(Body { value, frames })
    }

    /// Says what is wrong with a step's arguments, naming the steps it lies between.
    fn fault_message(&self, at: u32, fault: &Fault) -> String {
        let name = &self.steps[at as usize].name;
        match fault.step().and_then(|from| self.steps.get(from as usize)) {
            Some(from) => format!("step {name}: the result of {}: {}", from.name, fault.message()),
            None => format!("step {name}: {}", fault.message()),
        }
    }

    /// What following a step's pointers costs: each goes through a result from its beginning.
    fn units_to_read(&self, at: u32) -> usize {
        let pointed = |mark: &Mark| match &mark.what {
            What::Ref { step, at: Some(_) } => self.steps[*step as usize].result.as_deref(),
            _ => None,
        };
        let marks = self.steps[at as usize].templates().flat_map(|template| &*template.marks);
        marks.filter_map(pointed).map(|body| body.value.bytes.len() / BYTES_PER_UNIT).sum()
    }

    /// The result of a step that this graph still needs.
    fn result(&self, step: u32) -> &Body {
        let body = self.steps[step as usize].result.as_deref();
        body.expect("a step starts after the steps it refers to")
    }

    /// Ends a step whose result is there.
    fn finish(&mut self, at: u32, state: State, body: Option<Body>, out: &mut Out<Output>) {
        let step = &mut self.steps[at as usize];
        step.state = state;
        if step.uses > 0 || step.returned {
            step.result = body.map(Box::new);
        }
        self.returned_good += usize::from(step.returned);
        self.not_done += usize::from(state != State::Done);
        self.remaining -= 1;
        self.release_inputs(at);
        self.ended.push_back((at, self.steps[at as usize].arrows));
        self.event(at, if state == State::Done { "done" } else { "degraded" }, None, out);
    }

    /// Ends a step that has failed for good.
    fn fail(&mut self, at: u32, refusal: Refusal, out: &mut Out<Output>) {
        let state = if refusal.is(Code::OutcomeUnknown) { State::Unknown } else { State::Failed };
        let note = refusal.to_string();
        if self.failure.is_none() {
            self.failure = Some((refusal.clone(), Some(at)));
        }
        self.steps[at as usize].state = state;
        self.steps[at as usize].failure = Some(Box::new(refusal));
        self.remaining -= 1;
        self.not_done += 1;
        self.release_inputs(at);
        self.ended.push_back((at, self.steps[at as usize].arrows));
        self.event(at, "failed", Some(note.into()), out);
        if self.options.on_error == OnError::Fail && !self.stopping {
            (self.stopping, self.cursor) = (true, 0);
        }
    }

    /// Follows some of the arrows out of a step that ended.
    fn follow(&mut self, step: u32, arrow: u32, out: &mut Out<Output>) {
        let good = matches!(self.steps[step as usize].state, State::Done | State::Degraded);
        let end = self.arrows_end(step);
        let stop = end.min(arrow as usize + ARROWS_PER_UNIT);
        for arrow in arrow as usize..stop {
            let next = self.arrows[arrow];
            if good {
                self.input_ready(next);
            } else {
                self.skip(next, step, out);
            }
        }
        if stop < end {
            self.ended.push_front((step, stop as u32));
        }
    }

    fn input_ready(&mut self, at: u32) {
        let step = &mut self.steps[at as usize];
        step.unfinished -= 1;
        if step.unfinished == 0 && step.state == State::Pending {
            step.state = State::Ready;
            self.queue.push_back(at);
        }
    }

    /// A step whose input failed never begins.
    fn skip(&mut self, at: u32, cause: u32, out: &mut Out<Output>) {
        if self.steps[at as usize].state != State::Pending {
            return;
        }
        let message = format!("step {} did not finish", self.steps[cause as usize].name);
        let step = &mut self.steps[at as usize];
        step.state = State::Skipped;
        step.failure = Some(Box::new(Refusal::new(Code::InputFailed, message)));
        self.remaining -= 1;
        self.not_done += 1;
        self.release_inputs(at);
        self.ended.push_back((at, self.steps[at as usize].arrows));
        self.event(at, "skipped", None, out);
    }

    /// While the graph stops: gives one more step up.
    fn give_up_one(&mut self, out: &mut Out<Output>) -> GivenUp {
        let at = self.cursor;
        let Some(step) = self.steps.get_mut(at) else { return GivenUp::All };
        self.cursor += 1;
        if step.state.is_final() {
            return GivenUp::Step;
        }
        let was = std::mem::replace(&mut step.state, State::Cancelled);
        let (call, timer) = (step.call.take(), step.timer.take());
        if was == State::Running {
            self.running -= 1;
        }
        out.extend(call.map(Output::CancelCall));
        self.remaining -= 1;
        self.not_done += 1;
        self.event(at as u32, "cancelled", None, out);
        timer.map_or(GivenUp::Step, GivenUp::Timer)
    }

    /// A step that ended no longer needs its inputs' results.
    fn release_inputs(&mut self, at: u32) {
        let references: Vec<u32> = self.steps[at as usize].references().collect();
        for reference in references {
            let step = &mut self.steps[reference as usize];
            step.uses -= 1;
            if step.uses == 0 && !step.returned {
                step.result = None;
            }
        }
        let step = &mut self.steps[at as usize];
        (step.args, step.kwargs) = (None, None);
    }

    /// Tells the caller what happened to a step, if it wants to follow.
    pub(super) fn event(
        &self,
        at: u32,
        event: &'static str,
        note: Option<Box<str>>,
        out: &mut Out<Output>,
    ) {
        if !self.options.progress || self.quiet || at as usize >= self.steps.len() {
            return;
        }
        let (total, left) = (self.steps.len(), self.remaining);
        let percent = Some(((total - left) as f64 * 1000.0 / total as f64).floor() / 10.0);
        let step = Some((self.steps[at as usize].name.clone(), self.step_id(at)));
        let (request, track) = (self.request, self.track);
        out.push(Output::Progress { request, track, step, event, percent, note });
    }
}

impl Step {
    pub(super) fn retry(&self) -> Option<super::plan::Retry> {
        self.extras.as_deref().and_then(|extras| extras.retry)
    }

    /// Whether another attempt is allowed and cannot do harm.
    fn may_retry(&self, refusal: &Refusal) -> bool {
        let Some(retry) = self.retry() else { return false };
        if self.falling_back || self.attempt > retry.times {
            return false;
        }
        let idempotent =
            self.extras.as_deref().is_some_and(|extras| extras.options.idempotent == Some(true));
        if refusal.is(Code::OutcomeUnknown) || refusal.is(Code::Timeout) {
            // It may have run, or may be running still.
            return idempotent;
        }
        refusal.culprit == crate::base::Culprit::Worker || refusal.retry
    }
}
