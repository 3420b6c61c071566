//! What a graph says about itself: a check's report, DOT, impact, and why it is where it is.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};
use smol_str::SmolStr;

use super::plan::{Graph, Phase, State};
use super::{CheckAsk, Graphs};
use crate::base::{Code, JobId, Refusal, RunId};

/// Steps that a report names one by one.
const ROWS: usize = 1_000;
/// Steps that can be drawn.
const DOT_STEPS: usize = 10_000;
/// Inputs that a report names for one step.
const INPUTS: usize = 8;

/// Why a step has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// With a worker, or in line for one: the calls know more.
    Called(JobId),
    /// Anything else, in words.
    Says(String),
}

/// One step of `mpreg.graph.explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepReport {
    /// Its name.
    pub name: SmolStr,
    /// Where it is.
    pub state: &'static str,
    /// Why.
    pub why: Why,
}

/// What is kept of a graph that ended.
#[derive(Clone, Debug)]
pub(super) struct Summary {
    track: RunId,
    about: Json,
}

impl Graphs {
    /// Why a running or recent graph is where it is: a summary, and the steps that have not ended.
    pub fn explain(&self, track: RunId) -> Result<(Json, Vec<StepReport>), Refusal> {
        if let Some(id) = self.by_track.get(&track) {
            let graph = &self.graphs[id.slot as usize];
            return Ok((graph.overview(), graph.open_steps()));
        }
        let recent = self.recent.iter().rev().find(|summary| summary.track == track);
        match recent {
            Some(summary) => Ok((summary.about.clone(), Vec::new())),
            None => {
                let message = format!("no graph {track} runs or ended lately");
                Err(Refusal::field(Code::UnknownGraph, "track", message))
            }
        }
    }

    /// The running and recent graphs, newest last.
    #[must_use]
    pub fn list(&self) -> Json {
        let recent = self.recent.iter().map(|summary| summary.about.clone());
        let running = self.graphs.iter().map(|(_, graph)| graph.overview());
        json!(recent.chain(running).collect::<Vec<_>>())
    }
}

impl Graph {
    fn overview(&self) -> Json {
        let state = match self.phase {
            Phase::Parse => "loading",
            Phase::Index
            | Phase::Link
            | Phase::Count
            | Phase::Spread
            | Phase::Fill
            | Phase::Order
            | Phase::Placing
            | Phase::Ready => "checking",
            Phase::Run if self.stopping => "stopping",
            Phase::Run => "running",
            Phase::Settle => "settling",
            Phase::Answer if self.is_failed() => "failed",
            Phase::Answer => "done",
        };
        let failure = self.failure.as_ref().map(|(refusal, step)| {
            let step = step.and_then(|step| self.steps.get(step as usize));
            json!({
                "code": refusal.code.as_str(),
                "message": &*refusal.message,
                "step": step.map(|step| step.name.as_str()),
            })
        });
        let ended = if self.began { self.steps.len() - self.remaining } else { 0 };
        json!({
            "track": self.track.to_string(),
            "state": state,
            "steps": self.steps.len(),
            "ended": ended,
            "running": self.running,
            "not_done": self.not_done,
            "begun_ms": self.begun_ms,
            "error": failure,
        })
    }

    pub(super) fn summary(&self) -> Summary {
        Summary { track: self.track, about: self.overview() }
    }

    fn open_steps(&self) -> Vec<StepReport> {
        if self.phase != Phase::Run {
            return Vec::new();
        }
        let open = self.steps.iter().filter(|step| !step.state.is_final());
        let report = |step: &super::plan::Step| {
            let (state, why) = match step.state {
                State::Backoff => {
                    let failed = format!("attempt {} failed; waits to try again", step.attempt);
                    ("backoff", Why::Says(failed))
                }
                State::Ready => ("ready", Why::Says("in line behind the graph's window".into())),
                State::Running => match step.call {
                    Some(call) => ("running", Why::Called(call)),
                    None => ("running", Why::Says("about to be placed".into())),
                },
                _ => ("pending", Why::Says(self.missing_inputs(step))),
            };
            StepReport { name: step.name.clone(), state, why }
        };
        open.take(ROWS).map(report).collect()
    }

    fn missing_inputs(&self, step: &super::plan::Step) -> String {
        if self.stopping {
            return "the graph is stopping".into();
        }
        let missing = step.inputs().filter(|&input| !self.steps[input as usize].state.is_final());
        let mut names: Vec<_> =
            missing.take(INPUTS).map(|input| self.steps[input as usize].name.as_str()).collect();
        names.dedup();
        format!("waits for {}", names.join(", "))
    }

    /// The answer to a check of a graph that would run.
    pub(super) fn report(&self, ask: &CheckAsk) -> Result<Json, (Refusal, Option<SmolStr>)> {
        let placement = self.asks.iter().zip(&self.placements).take(ROWS).map(|(ask, answer)| {
            json!({
                "fun": ask.fun.as_str(),
                "version": ask.options.version.as_deref(),
                "locs": ask.options.locs.iter().map(SmolStr::as_str).collect::<Vec<_>>(),
                "cluster": ask.options.cluster.as_deref(),
                "worker": answer.as_ref().ok(),
                "missing": answer.as_ref().err().map(ToString::to_string),
            })
        });
        let steps = self.steps.iter().enumerate().take(ROWS).map(|(index, step)| {
            let inputs = step.inputs().take(ROWS);
            let mut inputs: Vec<_> =
                inputs.map(|input| self.steps[input as usize].name.as_str()).collect();
            inputs.dedup();
            let plain = Default::default();
            let options = step.extras.as_deref().map_or(&plain, |extras| &extras.options);
            let place = self.asks.iter().position(|ask| ask.asks(&step.fun, options));
            let place = place.and_then(|place| self.placements.get(place)?.as_ref().ok());
            json!({
                "name": step.name.as_str(),
                "fun": step.fun.as_str(),
                "level": self.levels.get(index),
                "inputs": inputs,
                "returned": step.returned,
                "worker": place,
            })
        });
        let mut report = json!({
            "ok": true,
            "steps": self.steps.len(),
            "arrows": self.arrows.len(),
            "levels": self.levels.iter().max().map_or(0, |level| level + 1),
            "placement": placement.collect::<Vec<_>>(),
            "plan": steps.collect::<Vec<_>>(),
        });
        if let Some(name) = &ask.impact {
            report["impact"] = self.impact(name)?;
        }
        if ask.dot {
            report["dot"] = self.dot()?.into();
        }
        Ok(report)
    }

    /// Every step that hangs off one.
    fn impact(&self, name: &SmolStr) -> Result<Json, (Refusal, Option<SmolStr>)> {
        let Some(first) = self.lookup(name) else {
            let message = format!("`impact` names {name}, which is not a step");
            return Err((Refusal::field(Code::UnknownStep, "impact", message), None));
        };
        let mut seen = vec![false; self.steps.len()];
        let (mut line, mut hit) = (vec![first], Vec::new());
        while let Some(step) = line.pop() {
            for &next in self.arrows_of(step as usize) {
                if !std::mem::replace(&mut seen[next as usize], true) {
                    hit.push(next);
                    line.push(next);
                }
            }
        }
        hit.sort_unstable();
        let names: Vec<_> =
            hit.iter().take(ROWS).map(|&step| self.steps[step as usize].name.as_str()).collect();
        Ok(json!({ "step": name.as_str(), "count": hit.len(), "steps": names }))
    }

    fn dot(&self) -> Result<String, (Refusal, Option<SmolStr>)> {
        if self.steps.len() > DOT_STEPS {
            let message = format!("at most {DOT_STEPS} steps can be drawn");
            return Err((Refusal::field(Code::TooLarge, "dot", message), None));
        }
        let mut text = String::from("digraph steps {\n  rankdir=LR;\n  node [shape=box];\n");
        for step in self.steps.iter() {
            let (name, fun) = (quoted(&step.name), quoted(&step.fun));
            let _ = writeln!(text, "  \"{name}\" [label=\"{name}\\n{fun}\"];");
        }
        for (index, step) in self.steps.iter().enumerate() {
            for &next in self.arrows_of(index) {
                let (from, to) = (quoted(&step.name), quoted(&self.steps[next as usize].name));
                let _ = writeln!(text, "  \"{from}\" -> \"{to}\";");
            }
        }
        text.push_str("}\n");
        Ok(text)
    }
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
