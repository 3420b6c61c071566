//! From parts on the wire to a checked plan, slice by slice.

use std::ops::ControlFlow;

use smol_str::SmolStr;

use super::parse::parse_step;
use super::plan::{Ask, Fallback, Graph, Opening, PartReader, Phase, Purpose};
use super::{Graphs, Output, Timer};
use crate::base::limits::DEFAULT_TIMEOUT_MS;
use crate::base::{Code, GraphId, Map, Out, PeerId, Refusal, Time};
use crate::ops::{CallOptions, GraphOptions, GraphPart, Refs, Returns};
use crate::values::{self, Mark, Mode};

/// Hops after which a circle is no longer followed to print it.
const CIRCLE_HOPS: usize = 50_000;
/// Steps of a circle that are printed.
const CIRCLE_NAMES: usize = 32;
/// Distinct things the steps of one graph may ask of workers.
const ASKS: usize = 10_000;
/// Arrows that count as much as one step, in a slice of work.
pub(super) const ARROWS_PER_UNIT: usize = 16;

/// A reason to refuse a graph, and the step it is about.
type Fatal = (Refusal, Option<u32>);

impl Graphs {
    pub(super) fn begin(
        &mut self,
        now: Time,
        request: u32,
        peer: PeerId,
        mut part: GraphPart,
        purpose: Purpose,
        out: &mut Out<Output>,
    ) {
        let options = std::mem::take(&mut part.options);
        let id = self.open(now, request, peer, purpose, options);
        out.push(Output::Accepted { request, graph: id });
        let share = self.shares.entry(peer).or_default();
        share.graphs += 1;
        if share.graphs > self.limits.graphs_per_peer {
            let message = format!("{} graphs are in flight here", self.limits.graphs_per_peer);
            self.refuse(id, Refusal::new(Code::Busy, message), None);
        }
        self.part(now, id, part);
        // A small graph is checked and started at once; a large one goes on in `tick`.
        let mut budget = crate::base::limits::STEPS_PER_TURN;
        self.advance(now, id, &mut budget, out);
    }

    /// Puts a graph without steps into the tables.
    fn open(
        &mut self,
        now: Time,
        request: u32,
        peer: PeerId,
        purpose: Purpose,
        options: GraphOptions,
    ) -> GraphId {
        self.serial = self.serial.wrapping_add(1);
        let track = options.track.unwrap_or_else(|| self.ids.next(now));
        let timeout_ms = options.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS);
        let deadline_ns = now.mono_ns.saturating_add(timeout_ms.saturating_mul(1_000_000));
        let entry = self.graphs.vacant_entry();
        let id = GraphId { slot: entry.key() as u32, serial: self.serial };
        let deadline = self.deadlines.set(deadline_ns, Timer::Deadline(id));
        let begun_ms = now.wall_ms;
        entry.insert(Box::new(Graph::open(Opening {
            id,
            request,
            peer,
            purpose,
            options,
            track,
            deadline_ns,
            deadline,
            begun_ms,
        })));
        self.by_track.insert(track, id);
        id
    }

    pub(super) fn part(&mut self, now: Time, id: GraphId, part: GraphPart) {
        if let Err(refusal) = self.admit(now, id, part) {
            self.refuse(id, refusal, None);
        }
        self.wake(id);
    }

    fn admit(&mut self, now: Time, id: GraphId, part: GraphPart) -> Result<(), Refusal> {
        let part_ns = now.mono_ns + self.limits.graph_part_ms * 1_000_000;
        let limit = self.limits.graph_bytes;
        let Some(graph) = self.graphs.get_mut(id.slot as usize).filter(|g| g.id == id) else {
            return Ok(());
        };
        if let Some(timer) = graph.part_timer.take() {
            self.deadlines.cancel(timer);
        }
        if graph.phase != Phase::Parse || graph.complete {
            return Ok(());
        }
        if part.part != graph.next_part {
            let message = format!("part {} came instead of {}", part.part, graph.next_part);
            return Err(Refusal::field(Code::IncompleteGraph, "part", message));
        }
        let size = part.steps.as_ref().map_or(0, |steps| steps.bytes.len())
            + part.frames.iter().map(bytes::Bytes::len).sum::<usize>();
        let share = self.shares.entry(graph.peer).or_default();
        if share.bytes + size > limit {
            let message = format!("{} bytes of graphs are in the broker already", share.bytes);
            return Err(Refusal::new(Code::Busy, message));
        }
        share.bytes += size;
        graph.bytes += size;
        if let Some(steps) = part.steps {
            let index = graph.next_part;
            graph.parts.push_back(PartReader { steps, resume: None, index });
        }
        graph.frames.push(part.frames);
        graph.next_part += 1;
        graph.complete = !part.more;
        if part.more {
            graph.part_timer = Some(self.deadlines.set(part_ns, Timer::NextPart(id)));
        }
        Ok(())
    }

    /// The next part did not come in time.
    pub(super) fn silent(&mut self, id: GraphId) {
        let wait_ms = self.limits.graph_part_ms;
        let Some(graph) = self.find(id) else { return };
        graph.part_timer = None;
        let message = format!("part {} did not come within {wait_ms} ms", graph.next_part);
        self.refuse(id, Refusal::field(Code::IncompleteGraph, "part", message), None);
    }

    /// Ends a graph that never ran; the answer leaves with its next slice.
    pub(super) fn refuse(&mut self, id: GraphId, refusal: Refusal, step: Option<u32>) {
        let Some(graph) = self.find(id) else { return };
        if graph.phase == Phase::Answer {
            return;
        }
        graph.failure = Some((refusal, step));
        graph.phase = Phase::Answer;
        graph.cursor = 0;
        self.wake(id);
    }

    /// Reads steps from the parts that are here. True when there is nothing to read now.
    pub(super) fn parse(&mut self, id: GraphId, budget: &mut usize) -> bool {
        let limits = self.limits.clone();
        let max_steps = limits.steps;
        let Some(graph) = self.find(id) else { return true };
        while let Some(reader) = graph.parts.front_mut() {
            if *budget == 0 {
                return false;
            }
            match parse_step(reader, &limits) {
                Ok(Some(step)) if graph.steps.len() < max_steps => {
                    graph.steps.push(step);
                    *budget -= 1;
                }
                Ok(Some(_)) => {
                    let message = format!("a graph has at most {max_steps} steps");
                    self.refuse(id, Refusal::field(Code::TooLarge, "steps", message), None);
                    return false;
                }
                Ok(None) => drop(graph.parts.pop_front()),
                Err(mut refusal) => {
                    let position = graph.steps.len();
                    refusal.message = format!("step {position}: {}", refusal.message).into();
                    self.refuse(id, refusal, None);
                    return false;
                }
            }
        }
        if !graph.complete {
            return true;
        }
        if graph.steps.len() == 0 {
            let refusal = Refusal::field(Code::BadGraph, "steps", "a graph needs a step");
            self.refuse(id, refusal, None);
            return false;
        }
        graph.enter(Phase::Index);
        false
    }

    /// One slice of the phases between reading and starting. True when it waits for an input.
    pub(super) fn build(&mut self, id: GraphId, budget: &mut usize, out: &mut Out<Output>) -> bool {
        let Some(graph) = self.find(id) else { return true };
        while *budget > 0 {
            *budget -= 1;
            let slice = match graph.phase {
                Phase::Index => graph.index(),
                Phase::Link => graph.link(),
                Phase::Count => graph.count(),
                Phase::Spread => graph.spread(),
                Phase::Fill => graph.fill(),
                _ => graph.order(),
            };
            match slice {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return self.built(id, out),
                Err((refusal, step)) => {
                    self.refuse(id, refusal, step);
                    return false;
                }
            }
        }
        false
    }

    /// All phases are through: asks where the steps would go.
    fn built(&mut self, id: GraphId, out: &mut Out<Output>) -> bool {
        let Some(graph) = self.find(id) else { return true };
        graph.phase = Phase::Placing;
        let asks = graph.asks.iter().map(|ask| (ask.fun.clone(), ask.options.clone())).collect();
        out.push(Output::Place { graph: id, asks });
        true
    }

    /// The answer to `Output::Place`.
    pub(super) fn placed(&mut self, id: GraphId, answers: Vec<Result<String, Refusal>>) {
        let Some(graph) = self.find(id) else { return };
        let missing = graph.asks.iter().zip(&answers).find_map(|(ask, answer)| {
            let refusal = answer.as_ref().err().filter(|_| !ask.options.wait)?;
            Some((refusal.clone(), ask.step))
        });
        graph.placements = answers;
        match missing {
            Some((refusal, step)) => self.refuse(id, refusal, Some(step)),
            None => {
                graph.phase = Phase::Ready;
                self.wake(id);
            }
        }
    }
}

impl Graph {
    pub(super) fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.cursor = 0;
        match phase {
            Phase::Index => {
                // All the room at once: the table never moves what is in it.
                self.names.reserve(self.steps.len(), |_| 0);
                self.frames_used = self.frames.iter().map(|part| vec![false; part.len()]).collect();
            }
            Phase::Fill => self.counts.reserve(self.steps.len()),
            Phase::Order => self.levels = vec![0; self.steps.len()],
            _ => {}
        }
    }

    fn next(&mut self) -> Option<usize> {
        let at = self.cursor;
        self.cursor += 1;
        (at < self.steps.len()).then_some(at)
    }

    fn index(&mut self) -> Result<ControlFlow<()>, Fatal> {
        let Some(at) = self.next() else {
            self.name_returned()?;
            self.enter(Phase::Link);
            return Ok(ControlFlow::Continue(()));
        };
        let name = &self.steps[at].name;
        if self.lookup(name).is_some() {
            let message = format!("two steps are named {name}");
            return Err((Refusal::field(Code::DuplicateStep, "name", message), Some(at as u32)));
        }
        self.lengths[name.len() / 64] |= 1 << (name.len() % 64);
        let steps = &self.steps;
        let rehash = |&index: &u32| Self::hash(&steps[index as usize].name);
        self.names.insert_unique(Self::hash(name), at as u32, rehash);
        Ok(ControlFlow::Continue(()))
    }

    fn name_returned(&mut self) -> Result<(), Fatal> {
        let Returns::Names(names) = &self.options.returns else { return Ok(()) };
        for name in names.clone() {
            let Some(step) = self.lookup(&name) else {
                let message = format!("`return` names {name}, which is not a step");
                return Err((Refusal::field(Code::UnknownStep, "return", message), None));
            };
            let first = !std::mem::replace(&mut self.steps[step as usize].returned, true);
            self.returned += usize::from(first);
        }
        Ok(())
    }

    /// Finds and resolves the references of one step.
    fn link(&mut self) -> Result<ControlFlow<()>, Fatal> {
        let Some(at) = self.next() else {
            self.check_frames()?;
            self.enter(Phase::Count);
            return Ok(ControlFlow::Continue(()));
        };
        let fatal = |refusal| (refusal, Some(at as u32));
        let mode = match self.options.refs {
            Refs::Tagged => Mode::Tagged,
            Refs::Names => Mode::Names,
        };
        let mut found = Vec::new();
        for template in self.steps[at].templates() {
            let marks = values::find(&template.value, mode, &mut |name| self.lookup(name));
            let marks = marks.map_err(|fault| {
                let message = format!("step {}: {}", self.steps[at].name, fault.message());
                fatal(Refusal::new(fault.code(), message))
            })?;
            found.push(marks.into_boxed_slice());
        }
        let after = self.resolve_after(at).map_err(fatal)?;
        let step = &mut self.steps[at];
        for (template, marks) in step.templates_mut().zip(found) {
            template.marks = marks;
        }
        if let Some(extras) = step.extras.as_deref_mut() {
            extras.after_steps = after;
            extras.after = Vec::new();
        }
        self.claim_frames(at)?;
        self.note_asks(at)?;
        Ok(ControlFlow::Continue(()))
    }

    fn resolve_after(&self, at: usize) -> Result<Box<[u32]>, Refusal> {
        let step = &self.steps[at];
        let after = step.extras.as_deref().map_or(&[][..], |extras| &extras.after);
        let resolve = |name: &SmolStr| {
            self.lookup(name).ok_or_else(|| {
                let message = format!("step {} comes after {name}, which is not there", step.name);
                Refusal::field(Code::UnknownStep, "after", message)
            })
        };
        after.iter().map(resolve).collect()
    }

    /// Notes the attachments one step names: each of a part is named exactly once in it.
    fn claim_frames(&mut self, at: usize) -> Result<(), Fatal> {
        let step = &self.steps[at];
        let used = &mut self.frames_used[step.part as usize];
        // Without attachments, what looks like one is data.
        if used.is_empty() {
            return Ok(());
        }
        for frame in step.templates().flat_map(|t| t.marks.iter()).filter_map(Mark::frame) {
            let bad = |what: &str| {
                let message = format!("step {}: attachment {frame} is {what}", step.name);
                (Refusal::new(Code::BadFrame, message), Some(at as u32))
            };
            match used.get_mut((frame as usize).wrapping_sub(1)) {
                Some(used) if !*used => *used = true,
                Some(_) => return Err(bad("named twice")),
                None => return Err(bad("not there")),
            }
        }
        Ok(())
    }

    fn check_frames(&mut self) -> Result<(), Fatal> {
        let used = std::mem::take(&mut self.frames_used);
        match used.iter().flat_map(|part| part.iter().enumerate()).find(|(_, used)| !**used) {
            Some((frame, _)) => {
                let message = format!("attachment {} is named by no step", frame + 1);
                Err((Refusal::new(Code::BadFrame, message), None))
            }
            None => Ok(()),
        }
    }

    /// Notes what one step asks of workers, if no step before it asked the same.
    fn note_asks(&mut self, at: usize) -> Result<(), Fatal> {
        let step = &self.steps[at];
        let options = step.extras.as_deref().map(|extras| &extras.options);
        let fallback = match step.fallback() {
            Some(Fallback::Call { fun, .. }) => Some((fun, None)),
            _ => None,
        };
        for (fun, options) in [Some((&step.fun, options)), fallback].into_iter().flatten() {
            let plain = CallOptions::default();
            let options = options.unwrap_or(&plain);
            let same = |ask: &Ask| ask.asks(fun, options);
            if self.asks.last().is_some_and(same) {
                continue;
            }
            let hash = Ask::hash(fun, options);
            if self.ask_table.find(hash, |&i| self.asks[i as usize].asks(fun, options)).is_some() {
                continue;
            }
            if self.asks.len() >= ASKS {
                let message =
                    format!("more than {ASKS} distinct functions, versions, clusters and locs");
                return Err((Refusal::field(Code::TooLarge, "steps", message), Some(at as u32)));
            }
            let (index, asks) = (self.asks.len() as u32, &self.asks);
            self.ask_table.insert_unique(hash, index, |&i| {
                Ask::hash(&asks[i as usize].fun, &asks[i as usize].options)
            });
            let (fun, options) = (fun.clone(), options.clone());
            self.asks.push(Ask { fun, options, step: at as u32 });
        }
        Ok(())
    }

    /// Counts the arrows into one step, and out of each step it waits for.
    fn count(&mut self) -> Result<ControlFlow<()>, Fatal> {
        let Some(at) = self.next() else {
            self.enter(Phase::Spread);
            return Ok(ControlFlow::Continue(()));
        };
        let inputs: Vec<u32> = self.steps[at].inputs().collect();
        let references: Vec<u32> = self.steps[at].references().collect();
        self.steps[at].unfinished = inputs.len() as u32;
        for input in inputs {
            self.steps[input as usize].arrows += 1;
        }
        for reference in references {
            self.steps[reference as usize].uses += 1;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Turns counts of arrows into where they end; `attempt` serves as the sum so far.
    fn spread(&mut self) -> Result<ControlFlow<()>, Fatal> {
        let Some(at) = self.next() else {
            let total = self.remaining;
            self.remaining = 0;
            self.arrows = vec![0; total];
            self.enter(Phase::Fill);
            return Ok(ControlFlow::Continue(()));
        };
        let step = &mut self.steps[at];
        match self.options.returns {
            Returns::Sinks => step.returned = step.arrows == 0,
            Returns::All => step.returned = true,
            Returns::Names(_) => {}
        }
        if !matches!(self.options.returns, Returns::Names(_)) {
            self.returned += usize::from(step.returned);
        }
        self.remaining += step.arrows as usize;
        // The end of this step's arrows; `fill` writes them backwards down to their start.
        step.arrows = self.remaining as u32;
        Ok(ControlFlow::Continue(()))
    }

    fn fill(&mut self) -> Result<ControlFlow<()>, Fatal> {
        let Some(at) = self.next() else {
            self.enter(Phase::Order);
            return Ok(ControlFlow::Continue(()));
        };
        let inputs: Vec<u32> = self.steps[at].inputs().collect();
        for input in inputs {
            let end = &mut self.steps[input as usize].arrows;
            *end -= 1;
            self.arrows[*end as usize] = at as u32;
        }
        let unfinished = self.steps[at].unfinished;
        self.counts.push(unfinished);
        if unfinished == 0 {
            self.queue.push_back(at as u32);
            self.starts.push_back(at as u32);
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Puts one more step in order (Kahn 1962). What is never reached stands in a circle.
    fn order(&mut self) -> Result<ControlFlow<()>, Fatal> {
        let (step, arrow) = match self.ended.pop_front() {
            Some(rest) => rest,
            None => {
                let Some(step) = self.queue.pop_front() else {
                    if self.cursor < self.steps.len() {
                        return Err(self.circle());
                    }
                    return Ok(ControlFlow::Break(()));
                };
                self.cursor += 1;
                (step, self.steps[step as usize].arrows)
            }
        };
        let level = self.levels[step as usize] + 1;
        let end = self.arrows_end(step);
        let stop = end.min(arrow as usize + ARROWS_PER_UNIT);
        for arrow in arrow as usize..stop {
            let next = self.arrows[arrow] as usize;
            self.levels[next] = self.levels[next].max(level);
            self.counts[next] -= 1;
            if self.counts[next] == 0 {
                self.queue.push_back(next as u32);
            }
        }
        if stop < end {
            self.ended.push_front((step, stop as u32));
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Where a step's arrows end in the list.
    pub(super) fn arrows_end(&self, step: u32) -> usize {
        let next = self.steps.get(step as usize + 1);
        next.map_or(self.arrows.len(), |next| next.arrows as usize)
    }

    /// Names one circle as `a → c → a`: from a step never reached, back along its inputs.
    fn circle(&self) -> Fatal {
        let stuck = |step: u32| self.counts[step as usize] > 0;
        let first = self.counts.iter().position(|&count| count > 0).unwrap_or(0);
        let mut seen: Map<u32, usize> = Map::default();
        let (mut path, mut at) = (Vec::new(), first as u32);
        let start = loop {
            if let Some(start) = seen.insert(at, path.len()) {
                break start;
            }
            if path.len() == CIRCLE_HOPS {
                let name = &self.steps[first].name;
                let message = format!("{name} waits for a circle of steps, {CIRCLE_HOPS} or more");
                return (Refusal::field(Code::Cycle, "steps", message), Some(first as u32));
            }
            path.push(at);
            let inputs = self.steps[at as usize].inputs();
            at = inputs.filter(|&input| stuck(input)).min().unwrap_or(at);
        };
        let mut circle: Vec<u32> = path.split_off(start);
        // Inputs were followed, arrows point the other way.
        circle.reverse();
        let smallest = circle.iter().enumerate().min_by_key(|(_, step)| **step);
        let turn = smallest.map_or(0, |(position, _)| position);
        circle.rotate_left(turn);
        let names = circle.iter().chain(circle.first());
        let names: Vec<&str> = names.map(|&step| self.steps[step as usize].name.as_str()).collect();
        let text = if names.len() > CIRCLE_NAMES {
            format!("{} → … ({} steps)", names[..CIRCLE_NAMES].join(" → "), names.len() - 1)
        } else {
            names.join(" → ")
        };
        let message = format!("the steps wait for each other: {text}");
        (Refusal::field(Code::Cycle, "steps", message), circle.first().copied())
    }
}
