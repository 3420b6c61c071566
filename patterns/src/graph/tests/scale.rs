//! Large graphs: every slice is bounded, and the reply says what it must in parts.

use std::fmt::Write as _;

use super::super::plan::Phase;
use super::super::{Graphs, Input, Output, StepCall};
use crate::base::limits::{STEPS_IN_REPLY, STEPS_PER_TURN};
use crate::base::{CallId, Code, JobId, Limits, Out, PeerId, Refusal, Time};
use crate::ops::{GraphOptions, GraphPart, GraphReply, OnError, Returns};
use crate::values::{Body, Value};

const CALLER: PeerId = PeerId { slot: 0, generation: 0 };
/// As many as the specification speaks of; fewer where nothing is optimized.
const MANY: usize = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };

/// The system with callers and workers that answer at once.
struct Rig {
    graphs: Graphs,
    now: Time,
    out: Out<Output>,
    calls: Vec<StepCall>,
    replies: Vec<GraphReply>,
    handed_out: usize,
}

impl Rig {
    fn new() -> Self {
        Self {
            graphs: Graphs::new(Limits::default(), 1),
            now: Time { mono_ns: 1, wall_ms: 1 },
            out: Out::new(),
            calls: Vec::new(),
            replies: Vec::new(),
            handed_out: 0,
        }
    }

    /// Sends the steps in parts of `size`, with turns between as the driver gives them.
    fn send(
        &mut self,
        steps: usize,
        size: usize,
        options: &GraphOptions,
        text: fn(usize) -> String,
    ) {
        let mut graph = None;
        for (part, start) in (0..steps).step_by(size).enumerate() {
            let mut array = String::from("[");
            for step in start..steps.min(start + size) {
                write!(array, "{}{}", if step > start { "," } else { "" }, text(step)).unwrap();
            }
            let part = GraphPart {
                id: "g".into(),
                steps: Some(Value::json(array + "]")),
                part: part as u32,
                more: start + size < steps,
                options: if part == 0 { options.clone() } else { GraphOptions::default() },
                ..GraphPart::default()
            };
            self.handle(Input::Part { request: 0, peer: CALLER, graph, part });
            graph = self.graphs.graphs.iter().next().map(|(_, graph)| graph.id);
            self.turn();
        }
    }

    fn handle(&mut self, input: Input) {
        let before = self.position();
        self.graphs.handle(self.now, input, &mut self.out);
        self.check(before);
        self.collect();
    }

    fn turn(&mut self) {
        let before = self.position();
        self.graphs.tick(self.now, &mut self.out);
        self.check(before);
        self.collect();
    }

    /// Where the one graph is: its phase, and the steps that phase has gone over.
    fn position(&self) -> Option<(Phase, usize)> {
        let (_, graph) = self.graphs.graphs.iter().next()?;
        let done = match graph.phase {
            Phase::Parse => graph.steps.len(),
            Phase::Run => graph.steps.len() - graph.remaining,
            _ => graph.cursor,
        };
        Some((graph.phase, done))
    }

    /// No slice goes over more steps than a turn allows.
    fn check(&self, before: Option<(Phase, usize)>) {
        assert!(self.out.len() <= STEPS_PER_TURN + 8, "{} outputs at once", self.out.len());
        let (Some((phase, was)), Some((now, is))) = (before, self.position()) else { return };
        if phase == now {
            // A step that fails takes up to a unit's worth of dependents with it.
            let most = if phase == Phase::Run { 17 * STEPS_PER_TURN } else { STEPS_PER_TURN };
            assert!(is - was.min(is) <= most, "{} steps of {phase:?} at once", is - was);
        }
    }

    fn collect(&mut self) {
        let outputs: Vec<Output> = self.out.drain().collect();
        for output in outputs {
            match output {
                Output::Place { graph, asks } => {
                    let answers = asks.iter().map(|_| Ok("w".into())).collect();
                    self.graphs.handle(self.now, Input::Placed { graph, answers }, &mut self.out);
                }
                Output::Call(call) => self.calls.push(call),
                Output::Reply { reply, .. } => self.replies.push(reply),
                Output::Accepted { .. } | Output::CancelCall(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Runs to the end; `answer` is the worker.
    fn run(&mut self, mut answer: impl FnMut(&StepCall) -> Result<Body, Refusal>) {
        while self.graphs.wake_at() == Some(0) || !self.calls.is_empty() {
            for call in std::mem::take(&mut self.calls) {
                self.handed_out += 1;
                let (graph, step, outcome) = (call.graph, call.step, answer(&call));
                let id = JobId::Call(CallId { slot: 0, serial: self.handed_out as u32 });
                self.handle(Input::Begun { graph, step, job: id });
                self.handle(Input::Done { graph, step, outcome });
            }
            self.turn();
        }
        assert_eq!(self.graphs.in_flight(), 0);
        assert!(self.graphs.deadlines.is_empty() && self.graphs.buried.is_empty());
        assert!(self.graphs.shares.is_empty() && self.graphs.by_track.is_empty());
    }

    fn reply(&self) -> &GraphReply {
        assert_eq!(self.replies.len(), 1);
        &self.replies[0]
    }
}

fn one(_: &StepCall) -> Result<Body, Refusal> {
    Ok(Body::plain(Value::json("1")))
}

fn broken(_: &StepCall) -> Result<Body, Refusal> {
    Err(Refusal::new(Code::Failed, "broken"))
}

#[test]
fn a_long_chain_in_parts() {
    let mut rig = Rig::new();
    rig.send(MANY, 30_000, &GraphOptions::default(), |step| match step {
        0 => r#"{"name":"s0","fun":"f"}"#.into(),
        _ => format!(r#"{{"name":"s{step}","fun":"f","args":[{{"$ref":"s{}"}}]}}"#, step - 1),
    });
    rig.run(one);
    assert_eq!(rig.handed_out, MANY);
    assert_eq!(rig.reply().results.len(), 1);
}

#[test]
fn a_chain_whose_parts_point_forward() {
    let mut rig = Rig::new();
    rig.send(MANY, 30_000, &GraphOptions::default(), |step| {
        if step + 1 == MANY {
            return format!(r#"{{"name":"s{step}","fun":"f"}}"#);
        }
        format!(r#"{{"name":"s{step}","fun":"f","args":[{{"$ref":"s{}"}}]}}"#, step + 1)
    });
    rig.run(one);
    assert_eq!(rig.handed_out, MANY);
    assert_eq!(rig.reply().results[0].0, "s0");
}

/// One step feeds all others, and the last waits for all of them, a thousand at a time.
#[test]
fn a_wide_fan() {
    let mut rig = Rig::new();
    rig.send(MANY, 30_000, &GraphOptions::default(), |step| match step {
        0 => r#"{"name":"s0","fun":"f"}"#.into(),
        _ if step + 1 == MANY => {
            let joins = (1_000..MANY).step_by(1_000).map(|step| format!("\"s{step}\""));
            let joins = joins.collect::<Vec<_>>().join(",");
            format!(r#"{{"name":"s{step}","fun":"f","after":[{joins}]}}"#)
        }
        _ if step % 1_000 == 0 => {
            let joins = (step - 999..step).map(|step| format!("\"s{step}\""));
            let joins = joins.collect::<Vec<_>>().join(",");
            format!(r#"{{"name":"s{step}","fun":"f","after":[{joins}]}}"#)
        }
        _ => format!(r#"{{"name":"s{step}","fun":"f","args":[{{"$ref":"s0"}}]}}"#),
    });
    rig.run(one);
    assert_eq!(rig.handed_out, MANY);
}

/// What fails at the head of a wide graph is told of every step, those done left out.
#[test]
fn outcomes_beyond_a_thousand_steps_leave_out_what_is_done() {
    let options = GraphOptions { on_error: OnError::Continue, ..GraphOptions::default() };
    let text = |step: usize| match step {
        0 | 1 => format!(r#"{{"name":"s{step}","fun":"f"}}"#),
        _ => format!(r#"{{"name":"s{step}","fun":"f","args":[{{"$ref":"s{}"}}]}}"#, step % 2),
    };
    for (steps, told) in [(STEPS_IN_REPLY, STEPS_IN_REPLY), (STEPS_IN_REPLY + 2, 501)] {
        let mut rig = Rig::new();
        rig.send(steps, 10_000, &options, text);
        rig.run(|call| if call.step == 0 { broken(call) } else { one(call) });
        assert_eq!(rig.reply().steps.len(), told);
        assert!(
            told == steps || rig.reply().steps.iter().all(|step| step.state.as_str() != "done")
        );
    }
}

#[test]
fn a_wide_failure_is_followed_in_slices() {
    let mut rig = Rig::new();
    let options = GraphOptions { on_error: OnError::Continue, ..GraphOptions::default() };
    rig.send(MANY, 30_000, &options, |step| match step {
        0 => r#"{"name":"s0","fun":"f"}"#.into(),
        _ => format!(r#"{{"name":"s{step}","fun":"f","after":["s0"]}}"#),
    });
    rig.run(broken);
    assert_eq!(rig.handed_out, 1);
    let told: usize = rig.replies.iter().map(|reply| reply.steps.len()).sum();
    assert_eq!(told, MANY);
}

/// Parts of a reply are numbered, each below the envelope, and the error is in the last.
#[test]
fn a_large_reply_comes_in_parts() {
    let mut rig = Rig::new();
    let (returns, on_error) = (Returns::All, OnError::Continue);
    let options = GraphOptions { returns, on_error, ..GraphOptions::default() };
    rig.send(9, 9, &options, |step| format!(r#"{{"name":"s{step}","fun":"f"}}"#));
    let large = Body::plain(Value::json(format!("\"{}\"", "x".repeat(400_000))));
    rig.run(|call| if call.step == 8 { broken(call) } else { Ok(large.clone()) });
    let parts: Vec<_> = rig.replies.iter().map(|reply| (reply.part, reply.more)).collect();
    assert_eq!(parts, [(Some(0), true), (Some(1), true), (Some(2), false)]);
    let results: Vec<_> = rig.replies.iter().map(|reply| reply.results.len()).collect();
    assert_eq!(results, [3, 3, 2]);
    assert!(rig.replies.iter().all(|reply| reply.error.is_some() != reply.more));
    let steps: usize = rig.replies.iter().map(|reply| reply.steps.len()).sum();
    assert_eq!(steps, 9);
}

#[test]
fn a_long_circle_is_found_and_cut_short() {
    let mut rig = Rig::new();
    rig.send(10_000, 10_000, &GraphOptions::default(), |step| {
        let before = (step + 9_999) % 10_000;
        format!(r#"{{"name":"s{step}","fun":"f","after":["s{before}"]}}"#)
    });
    rig.run(one);
    let (error, step) = rig.reply().error.as_ref().expect("an error");
    assert!(error.is(Code::Cycle) && step.as_deref() == Some("s0"));
    assert!(error.message.contains("s0 → s1 → s2") && error.message.ends_with("(10000 steps)"));
}

/// Two graphs share the turns: a small one does not wait for a large one.
#[test]
fn a_small_graph_passes_a_large_one() {
    let mut rig = Rig::new();
    let text = |step: usize| format!(r#"{{"name":"s{step}","fun":"f"}}"#);
    rig.send(50_000, 50_000, &GraphOptions::default(), text);
    let steps = Some(Value::json(r#"[{"name":"small","fun":"f"}]"#));
    let part = GraphPart { id: "h".into(), steps, ..GraphPart::default() };
    let input = Input::Part { request: 1, peer: CALLER, graph: None, part };
    rig.graphs.handle(rig.now, input, &mut rig.out);
    rig.collect();
    for _ in 0..4 {
        rig.turn();
    }
    assert!(rig.calls.iter().any(|call| call.graph == 1), "the small graph has not started");
    rig.run(one);
    assert_eq!(rig.replies[0].results[0].0, "small");
}
