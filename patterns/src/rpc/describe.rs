//! What the system says about itself: functions, workers, and why a call is where it is.

use std::fmt::Display;

use semver::Version;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};
use smol_str::SmolStr;

use super::Rpc;
use super::registry::{DemandRef, Source};
use crate::base::{CallId, Refusal, Time};
use crate::ops::CallOptions;
use crate::values::{self, Body, Frames, Kind, Value};

/// Where a step would go now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// This worker would be given it.
    Worker(String),
    /// All who could take it are busy; it would wait in line behind this many.
    Line(usize),
}

impl Rpc {
    /// Every function on offer, by name: versions, workers, and what the offers say about it.
    ///
    /// There may be many: the text is written without a tree of it.
    #[must_use]
    pub fn functions(&self) -> Value {
        let mut entries: Vec<_> = self.registry.functions().collect();
        entries.sort_unstable_by_key(|(name, _)| name.as_str());
        let mut rows = Vec::with_capacity(entries.len());
        for (name, entry) in entries {
            let mut offered: Vec<_> = entry.offered.iter().collect();
            offered.sort_by(|a, b| (&a.version, a.worker).cmp(&(&b.version, b.worker)));
            rows.extend(offered.into_iter().filter_map(|offered| {
                let worker = self.workers.get(offered.worker)?;
                let said = match offered.source {
                    Source::Here(place) => worker.offer.functions.get(place),
                    Source::Far(_) => None,
                };
                Some(Row {
                    name,
                    version: &offered.version,
                    worker: worker.title(),
                    idempotent: offered.idempotent,
                    doc: said.and_then(|said| said.doc.as_deref()),
                    cache_ms: said.and_then(|said| said.cache_ms),
                    input: said.and_then(|said| said.input.as_ref()).and_then(schema),
                    output: said.and_then(|said| said.output.as_ref()).and_then(schema),
                    locs: offered.locs(worker),
                })
            }));
        }
        Value::from_serialize(&rows)
    }

    /// Every worker of this broker: what it offers and what it has in hand.
    #[must_use]
    pub fn workers(&self) -> Json {
        let here = self.workers.iter().filter(|worker| worker.far.is_none());
        let rows = here.map(|worker| {
            let functions = worker.offer.functions.iter().map(|f| f.name.as_str());
            json!({
                "worker": worker.peer.to_string(),
                "functions": functions.collect::<Vec<_>>(),
                "locs": worker.offer.locs.iter().map(|loc| loc.as_str()).collect::<Vec<_>>(),
                "credit": worker.credit,
                "in_hand": worker.in_hand.len(),
                "state": if worker.leaving.is_some() { "leaving" }
                    else if worker.stalled { "stalled" } else { "ready" },
            })
        });
        json!(rows.collect::<Vec<_>>())
    }

    /// Which worker a call like this would go to, or what is missing.
    pub fn placement(&mut self, fun: &str, options: &CallOptions) -> Result<Placement, Refusal> {
        let mut locs = options.locs.clone();
        locs.sort_unstable();
        locs.dedup();
        let (version, cluster) = (options.version.as_deref(), options.cluster.as_deref());
        let wanted = DemandRef { fun, version, locs: &locs, cluster, here: false };
        let demand = self.registry.find(&wanted, &self.workers);
        if self.registry.demand(demand).candidates.is_empty() {
            return Err(self.registry.nobody(demand, &self.workers));
        }
        let free = self.choose(demand).and_then(|candidate| self.workers.get(candidate.worker));
        let line = self.registry.demand(demand).waiting();
        Ok(free.map_or(Placement::Line(line), |worker| Placement::Worker(worker.title())))
    }

    /// Why a call in flight has no outcome yet.
    #[must_use]
    pub fn explain(&self, now: Time, id: CallId) -> Option<String> {
        let (call, worker) = self.whereabouts(id)?;
        let left_ms = call.deadline_ns.saturating_sub(now.mono_ns) / 1_000_000;
        if let Some(worker) = worker {
            let attempt = call.attempt;
            return Some(format!("runs on {worker}, attempt {attempt}, {left_ms} ms left"));
        }
        let demand = self.registry.demand(call.demand);
        if demand.candidates.is_empty() {
            return Some(format!("waits for a worker that offers {}", demand.key.fun));
        }
        let busy = demand.candidates.iter().filter_map(|c| self.workers.get(c.worker));
        let busy: Vec<_> = busy
            .take(8)
            .map(|w| format!("{} {}/{}", w.title(), w.in_hand.len(), w.credit))
            .collect();
        Some(format!(
            "waits for credit, one of {} in line for {}; busy: {}; {left_ms} ms left",
            demand.waiting(),
            demand.key.fun,
            busy.join(", ")
        ))
    }
}

/// One version of a function at one worker.
#[derive(Serialize)]
struct Row<'r> {
    name: &'r str,
    #[serde(serialize_with = "in_words")]
    version: &'r Version,
    worker: String,
    idempotent: bool,
    doc: Option<&'r str>,
    cache_ms: Option<u64>,
    input: Option<Box<RawValue>>,
    output: Option<Box<RawValue>>,
    locs: &'r [SmolStr],
}

fn in_words<S: Serializer>(what: &impl Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(what)
}

/// A schema as it was offered.
fn schema(value: &Value) -> Option<Box<RawValue>> {
    let (mut text, mut frames) = (Vec::new(), Frames::new());
    values::append(&Body::plain(value.clone()), Kind::Json, false, &mut text, &mut frames).ok()?;
    RawValue::from_string(String::from_utf8(text).ok()?).ok()
}
