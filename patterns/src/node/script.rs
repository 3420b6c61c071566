//! Tests as transcripts: what peers say, a line each, and under it what the broker answers.
//!
//! ```text
//! w1 offers echo credit=2
//! → w1 offered 1, credit 2
//! c1 calls a echo [1]
//! → w1 run echo [1]
//! w1 returns echo 1
//! → c1 result a 1
//! ```
//!
//! A line that begins with `→` is an answer, an indented one belongs to the line before it. Time
//! stands still but for lines like `+100ms`. Whatever is in flight at the end is written there.

mod far;
mod outlets;
mod queues;
mod told;
mod topics;

use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::value::RawValue;
use smol_str::SmolStr;

use super::{About, Input, Node, Output, Rules};
use crate::base::{Code, Limits, Out, PeerId, Refusal, RunId, Time};
use crate::ops::{
    Call, Function, GraphPart, Hello, Offer, OnError, Refs, Reply, Request, Returns, Settle,
};
use crate::store::shelf::Shelf;
use crate::topics::Retain;
use crate::values::{Body, Frames, Value};

/// Columns of an answer, so that a test file keeps to a hundred.
const COLUMNS: usize = 96;

/// Plays the inputs of a transcript and compares all of it.
#[track_caller]
pub(crate) fn check(script: &str) {
    check_within(Limits::default(), script);
}

/// The same under other bounds.
#[track_caller]
pub(crate) fn check_within(limits: Limits, script: &str) {
    let lines = logical_lines(script);
    let keep: Vec<Retain> = lines.iter().filter_map(|line| topics::rule(line)).collect();
    let mut stage = Stage::keeping(limits, &keep);
    for line in lines.iter().filter(|line| !line.starts_with('→')) {
        stage.play(line);
    }
    let in_flight = stage.node.in_flight();
    if in_flight > 0 {
        stage.lines.push(format!("→ {in_flight} in flight"));
    }
    let (actual, expected) = (stage.lines.join("\n"), lines.join("\n"));
    assert!(actual == expected, "the transcript was:\n<<<\n{actual}\n>>>\nnot:\n{expected}");
}

/// Lines without their common indentation, continued ones kept together.
fn logical_lines(script: &str) -> Vec<String> {
    let filled = script.lines().filter(|line| !line.trim().is_empty());
    let margin = filled.clone().map(|line| line.len() - line.trim_start().len()).min();
    let mut lines: Vec<String> = Vec::new();
    for line in filled {
        let line = line[margin.unwrap_or(0)..].trim_end();
        match lines.last_mut() {
            Some(last) if line.starts_with(' ') => write!(last, "\n{line}").unwrap(),
            _ => lines.push(line.to_owned()),
        }
    }
    lines
}

struct Peer {
    name: String,
    id: PeerId,
    /// Every run and every message it was ever given; those in hand are marked.
    runs: Vec<(String, RunId, bool)>,
    /// What it was told last of messages of its queues.
    settled: Option<Settle>,
}

fn broker(limits: &Limits, rules: &Rules) -> Node {
    let about = About {
        node: "n1".into(),
        version: "0.1.0".into(),
        epoch: 7,
        endpoints: serde_json::json!({}),
        cluster: "main".into(),
    };
    Node::new(about, limits.clone(), rules, 1)
}

/// A broker and the peers around it.
pub(crate) struct Stage {
    pub(crate) node: Node,
    pub(crate) now: Time,
    out: Out<Output>,
    peers: Vec<Peer>,
    pub(crate) lines: Vec<String>,
    held: bool,
    /// How its broker is made.
    made: (Limits, Rules),
    store: Shelf,
    outlets: outlets::Outlets,
    neighbours: Vec<far::Neighbour>,
    /// How many links there have been.
    links: u32,
    /// Whether the store does nothing until it is told to.
    slow: bool,
}

impl Stage {
    pub(crate) fn new(limits: Limits) -> Self {
        Self::keeping(limits, &[])
    }

    fn keeping(limits: Limits, keep: &[Retain]) -> Self {
        let rules = Rules { retain: keep.to_vec(), ..Rules::default() };
        let mut stage = Self {
            node: broker(&limits, &rules),
            made: (limits, rules),
            now: Time { mono_ns: 1_000_000_000, wall_ms: 1_700_000_000_000 },
            out: Out::new(),
            peers: Vec::new(),
            lines: Vec::new(),
            held: false,
            store: Shelf::default(),
            outlets: outlets::Outlets::default(),
            neighbours: Vec::new(),
            links: 0,
            slow: false,
        };
        let opened = stage.store.open();
        stage.input(Input::Stored(opened));
        stage
    }

    /// The broker is killed, and another one begins with what the store has.
    fn restart(&mut self) {
        for peer in &mut self.peers {
            peer.id.generation += 1;
            peer.runs.clear();
        }
        self.store.fail();
        self.node = broker(&self.made.0, &self.made.1);
        let opened = self.store.open();
        self.input(Input::Stored(opened));
    }

    /// Plays one line and notes it with its answers.
    pub(crate) fn play(&mut self, line: &str) {
        self.lines.push(line.to_owned());
        let mut words = Words { rest: line };
        let first = words.word().to_owned();
        if let Some(span) = first.strip_prefix('+') {
            return self.wait(span);
        }
        match first.as_str() {
            "drain" => return self.input(Input::Drain),
            "end" => return self.input(Input::End),
            "keep" => return,
            "restart" => return self.restart(),
            "socket" => return self.input(topics::of_socket(&mut words)),
            "store" => return self.play_store(words.word()),
            "outlet" => return self.play_outlet(&mut words),
            // Until `go`, inputs come one after the other before the broker gets a turn.
            "hold" => return self.held = true,
            "go" => {
                self.held = false;
                return self.turn();
            }
            _ => {}
        }
        let verb = words.word().to_owned();
        if self.play_neighbour(&first, &verb, &mut words) {
            return;
        }
        let peer = self.peer(&first);
        match verb.as_str() {
            "dies" => {
                self.die(peer, &mut words);
                self.peers[peer].id.generation += 1;
            }
            "stalls" => self.input(Input::Stalled { peer: self.peers[peer].id }),
            "flows" => self.input(Input::Flows { peer: self.peers[peer].id }),
            "misses" => {
                let (peer, pattern) = (self.peers[peer].id, words.word().into());
                self.input(Input::Undelivered { peer, pattern });
            }
            "drops" => {
                let id = self.take(peer, words.word());
                self.input(Input::Returned { id, refusal: None });
            }
            "unsent" => {
                let run = self.take(peer, words.word());
                let refusal = (!words.rest.is_empty())
                    .then(|| Refusal::new(Code::UnencodableValue, words.rest.trim()));
                self.input(Input::Unsent { run, refusal });
            }
            _ => {
                let request = self.request(peer, &verb, &mut words);
                self.input(Input::Request { peer: self.peers[peer].id, request });
            }
        }
    }

    fn peer(&mut self, name: &str) -> usize {
        if let Some(known) = self.peers.iter().position(|peer| peer.name == name) {
            return known;
        }
        let id = PeerId { slot: self.peers.len() as u32, generation: 0 };
        let (runs, settled) = Default::default();
        self.peers.push(Peer { name: name.to_owned(), id, runs, settled });
        self.peers.len() - 1
    }

    fn die(&mut self, peer: usize, words: &mut Words<'_>) {
        let mut unsent = Vec::new();
        if words.word() == "unsent" {
            while !words.rest.is_empty() {
                unsent.push(self.take(peer, words.word()));
            }
        }
        for run in &mut self.peers[peer].runs {
            run.2 = false;
        }
        self.input(Input::Gone { peer: self.peers[peer].id, unsent });
    }

    /// The oldest run of a function in a worker's hand, or one it has had.
    fn take(&mut self, peer: usize, fun: &str) -> RunId {
        let runs = &mut self.peers[peer].runs;
        if let Some(run) = runs.iter_mut().find(|run| run.0 == fun && run.2) {
            run.2 = false;
            return run.1;
        }
        let late = runs.iter().rev().find(|run| run.0 == fun);
        late.unwrap_or_else(|| panic!("no run of {fun}")).1
    }

    fn request(&mut self, peer: usize, verb: &str, words: &mut Words<'_>) -> Request {
        match verb {
            "offers" => Request::Offer(words.offer().into()),
            "calls" => Request::Call(words.call().into()),
            "graph" => Request::Graph(words.graph().into()),
            "cancels" => Request::Cancel { id: words.word().into() },
            "bye" => Request::Bye { id: words.id() },
            "ping" => Request::Ping { id: words.id() },
            "hello" => {
                let name = words.id();
                Request::Hello(Hello { name, token: words.word() == "token", ..Hello::default() })
            }
            "returns" => {
                let run = self.take(peer, words.word());
                let frames = words.frames();
                let body = Body { value: words.value().unwrap_or_else(Value::null), frames };
                Request::Result { run, body: body.into() }
            }
            "fails" => {
                let run = self.take(peer, words.word());
                let code = words.option("code");
                let retry = words.flag("retry");
                let error = Refusal::by_worker(code.as_deref(), words.rest.trim(), retry);
                Request::Failed { run, error: error.into() }
            }
            "progress" => {
                let fun = words.word().to_owned();
                let runs = self.peers[peer].runs.iter();
                let run = runs.rev().find(|run| run.0 == fun).expect("a run").1;
                let percent = words.word().parse().ok();
                let note = Some(words.rest.trim().into());
                Request::Progress { run, percent, note }
            }
            "strays" => Request::Stray,
            "done" | "nacks" | "extends" => {
                let ids = vec![self.take(peer, words.word())];
                queues::settle(verb, ids, words)
            }
            other => topics::request(other, words)
                .or_else(|| queues::request(other, words))
                .unwrap_or_else(|| panic!("{other} is no verb")),
        }
    }

    /// Lets time pass, stopping wherever the broker wants to be woken.
    fn wait(&mut self, span: &str) {
        let (number, unit_ns) = match span.strip_suffix("ms") {
            Some(number) => (number, 1_000_000),
            None => (span.strip_suffix('s').expect("+Nms or +Ns"), 1_000_000_000),
        };
        let until_ns = self.now.mono_ns + number.parse::<u64>().expect("a number") * unit_ns;
        while let Some(next_ns) = self.node.wake_at().filter(|&next_ns| next_ns <= until_ns) {
            self.pass_to(next_ns.max(self.now.mono_ns));
            self.node.tick(self.now, &mut self.out);
            self.note();
            if !self.slow && self.store.is_busy() {
                self.sync();
            }
        }
        self.pass_to(until_ns);
    }

    fn pass_to(&mut self, mono_ns: u64) {
        self.now.wall_ms += mono_ns / 1_000_000 - self.now.mono_ns / 1_000_000;
        self.now.mono_ns = mono_ns;
    }

    fn input(&mut self, input: Input) {
        self.node.handle(self.now, input, &mut self.out);
        self.note();
        if !self.held {
            self.turn();
        }
    }

    /// Ticks as long as there is work now.
    fn turn(&mut self) {
        while self.node.wake_at().is_some_and(|next_ns| next_ns <= self.now.mono_ns) {
            self.node.tick(self.now, &mut self.out);
            self.note();
        }
        if !self.slow && self.store.is_busy() {
            self.sync();
        }
    }

    /// Writes down what was answered.
    fn note(&mut self) {
        let (mut reached, mut parted) = (Vec::new(), Vec::new());
        for output in self.out.drain() {
            let (to, reply) = match &output {
                Output::Send { to, reply } => (to, reply),
                Output::Broadcast(told) => {
                    self.lines.push(wrapped(&topics::broadcast_text(told)));
                    continue;
                }
                Output::Store(ask) => {
                    self.store.ask(ask.clone());
                    continue;
                }
                Output::Outlet { at, task } => {
                    self.lines.push(self.outlets.told(*at, task));
                    continue;
                }
                Output::Link(task) => {
                    self.lines.push(format!("→ {task:?}"));
                    continue;
                }
                Output::Reached { node } => {
                    reached.push(node.clone());
                    continue;
                }
                Output::Parted { peer } => {
                    parted.push(*peer);
                    continue;
                }
                Output::Tell { link, message } => {
                    self.lines.extend(far::told(&self.neighbours, *link, message));
                    continue;
                }
                Output::Received { .. } | Output::Taken { .. } => continue,
            };
            // What was on its way to a connection that is gone goes nowhere.
            let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == *to) else { continue };
            if let Reply::Run(run) | Reply::Call(run) = reply {
                peer.runs.push((run.fun.to_string(), run.id, true));
            }
            if let Reply::Deliver(told) | Reply::HandOver(told) = reply {
                peer.runs.push((queues::called(told), told.id, true));
            }
            match reply {
                Reply::Consume { id, .. } => peer.runs.push(("consume".into(), *id, true)),
                Reply::Settle(settle) => peer.settled = Some(settle.clone()),
                _ => {}
            }
            if let Reply::Cancel { run } = reply {
                let fun = peer.runs.iter().find(|known| known.1 == *run).expect("a run");
                self.lines.push(format!("→ {} cancel {}", peer.name, fun.0));
                continue;
            }
            let mut line = format!("→ {} {}", peer.name, told::told(reply));
            for peer in &self.peers {
                for generation in 0..=peer.id.generation {
                    let id = PeerId { generation, ..peer.id };
                    line = line.replace(&id.to_string(), &peer.name);
                }
            }
            self.lines.push(wrapped(&topics::without_ulids(&line)));
        }
        if reached.is_empty() && parted.is_empty() {
            return;
        }
        parted.into_iter().for_each(|peer| self.parted(peer));
        reached.into_iter().for_each(|node| self.reached(node));
        self.note();
    }
}

/// Breaks a long answer after spaces and commas; what follows is indented.
fn wrapped(line: &str) -> String {
    let (mut text, mut room) = (String::new(), COLUMNS);
    let mut rest = line;
    while let Some((end, _)) = rest.char_indices().nth(room) {
        let end = rest[..end].rfind([' ', ',']).map_or(end, |at| at + 1);
        write!(text, "{}\n    ", rest[..end].trim_end()).unwrap();
        (rest, room) = (&rest[end..], COLUMNS - 4);
    }
    text + rest
}

/// The words of one line.
struct Words<'a> {
    rest: &'a str,
}

impl Words<'_> {
    fn word(&mut self) -> &str {
        let text = self.rest.trim_start();
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        self.rest = rest.trim_start();
        word
    }

    fn id(&mut self) -> Option<SmolStr> {
        Some(SmolStr::new(self.word())).filter(|id| !id.is_empty())
    }

    /// A JSON value, if one comes next; `raw=…` is taken as it stands.
    fn value(&mut self) -> Option<Value> {
        self.option("raw").or_else(|| self.json()).map(Value::json)
    }

    fn json(&mut self) -> Option<String> {
        let mut values = serde_json::Deserializer::from_str(self.rest).into_iter::<&RawValue>();
        let text = values.next()?.ok()?.get().to_owned();
        let read = values.byte_offset();
        self.rest = self.rest[read..].trim_start();
        Some(text)
    }

    /// The value of `key=…`, if that comes next.
    fn option(&mut self, key: &str) -> Option<String> {
        let value = self.rest.strip_prefix(key)?.strip_prefix('=')?;
        self.rest = value;
        Some(self.word().to_owned())
    }

    fn flag(&mut self, word: &str) -> bool {
        let here = self.rest.split_whitespace().next() == Some(word);
        if here {
            self.word();
        }
        here
    }

    fn frames(&mut self) -> Frames {
        let text = self.option("frames");
        let frames = text.iter().flat_map(|text| text.split(','));
        frames.map(|frame| Bytes::copy_from_slice(frame.as_bytes())).collect()
    }

    /// `echo add@2.0.0! credit=2 locs=a,b id=o1`, `!` marks idempotent functions.
    fn offer(&mut self) -> Offer {
        let mut offer = Offer::default();
        while !self.rest.is_empty() {
            let word = self.word().to_owned();
            match word.split_once('=') {
                Some(("credit", number)) => offer.credit = number.parse().ok(),
                Some(("locs", locs)) => offer.locs = locs.split(',').map(SmolStr::new).collect(),
                Some(("id", id)) => offer.id = Some(id.into()),
                _ => {
                    let (name, version) = match word.trim_end_matches('!').split_once('@') {
                        Some((name, version)) => (name.to_owned(), Some(version.into())),
                        None => (word.trim_end_matches('!').to_owned(), None),
                    };
                    let (name, idempotent) = (name.into(), word.ends_with('!'));
                    offer.functions.push(Function {
                        name,
                        version,
                        idempotent,
                        ..Function::default()
                    });
                }
            }
        }
        offer
    }

    /// `id fun [args] {kwargs} timeout=100 wait progress …`
    fn call(&mut self) -> Call {
        let mut call = Call { id: self.word().into(), fun: self.word().into(), ..Call::default() };
        while self.rest.starts_with(['[', '{']) {
            let field = if self.rest.starts_with('[') { &mut call.args } else { &mut call.kwargs };
            *field = self.value();
        }
        while !self.rest.is_empty() {
            let word = self.word().to_owned();
            let (key, value) = word.split_once('=').unwrap_or((&word, ""));
            match key {
                "timeout" => call.options.timeout_ms = value.parse().ok(),
                "cluster" => call.options.cluster = Some(value.into()),
                "locs" => call.options.locs = value.split(',').map(SmolStr::new).collect(),
                "version" => call.options.version = Some(value.into()),
                "idempotent" => call.options.idempotent = value.parse().ok(),
                "wait" => call.options.wait = true,
                "progress" => call.progress = true,
                "track" => call.track = RunId::parse(value),
                "frames" => call.frames = frames(value),
                other => panic!("{other} is no option of a call"),
            }
        }
        call
    }

    /// `id options…`, then a step a line, or the whole array of steps as JSON.
    fn graph(&self) -> GraphPart {
        let (head, body) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
        let mut words = Words { rest: head };
        let mut part = GraphPart { id: words.word().into(), ..GraphPart::default() };
        let mut steps = None;
        while !words.rest.is_empty() {
            if words.rest.starts_with('[') {
                steps = Some(words.json().expect("the steps as JSON on one line"));
                continue;
            }
            let word = words.word().to_owned();
            let (key, value) = word.split_once('=').unwrap_or((&word, ""));
            match (key, value) {
                ("return", "all") => part.options.returns = Returns::All,
                ("return", names) => {
                    let names = names.split(',').filter(|name| !name.is_empty());
                    part.options.returns = Returns::Names(names.map(SmolStr::new).collect());
                }
                ("on_error", _) => part.options.on_error = OnError::Continue,
                ("refs", _) => part.options.refs = Refs::Names,
                ("timeout", ms) => part.options.timeout_ms = ms.parse().ok(),
                ("progress", _) => part.options.progress = true,
                ("track", track) => part.options.track = RunId::parse(track),
                ("part", number) => part.part = number.parse().unwrap(),
                ("more", _) => part.more = true,
                ("frames", value) => part.frames = frames(value),
                other => panic!("{other:?} is no option of a graph"),
            }
        }
        let steps = steps.unwrap_or_else(|| {
            if body.trim_start().starts_with('[') {
                return body.to_owned();
            }
            let steps: Vec<_> = body.lines().map(step).collect();
            format!("[{}]", steps.join(","))
        });
        part.steps = Some(Value::json(steps));
        part
    }
}

fn frames(text: &str) -> Frames {
    text.split(',').map(|frame| Bytes::copy_from_slice(frame.as_bytes())).collect()
}

/// `name: fun [args] {kwargs} key=json …`; `@step` and `@step/pointer` are references.
pub(crate) fn step(line: &str) -> String {
    let line = references(line.trim());
    let (name, rest) = line.split_once(": ").expect("name: fun");
    let mut words = Words { rest };
    let mut text = format!("{{\"name\":{name:?},\"fun\":{:?}", words.word());
    while !words.rest.is_empty() {
        if words.rest.starts_with('[') {
            write!(text, ",\"args\":{}", words.json().expect("JSON")).unwrap();
        } else if words.rest.starts_with('{') {
            write!(text, ",\"kwargs\":{}", words.json().expect("JSON")).unwrap();
        } else {
            let (key, rest) = words.rest.split_once('=').expect("key=json");
            write!(text, ",{key:?}:").unwrap();
            words.rest = rest;
            text.push_str(&words.json().expect("JSON"));
        }
    }
    text + "}"
}

fn references(line: &str) -> String {
    let mut parts = line.split('@');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find([',', ']', '}', ' ']).unwrap_or(part.len());
        let (reference, rest) = part.split_at(end);
        match reference.split_once('/') {
            Some((name, at)) => write!(text, "{{\"$ref\":{name:?},\"at\":\"/{at}\"}}").unwrap(),
            None => write!(text, "{{\"$ref\":{reference:?}}}").unwrap(),
        }
        text.push_str(rest);
    }
    text
}
