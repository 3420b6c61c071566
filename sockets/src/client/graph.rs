//! A dependency graph, put together step by step.

use std::time::Duration;

use bytes::Bytes;
use mpreg_patterns::ops::{GraphOptions, GraphPart, GraphReply, OnError, ProgressReply, Returns};
use mpreg_patterns::values::Value;
use serde::Serialize;
use serde_json::{Map, Value as Json, json};
use smol_str::SmolStr;
use tokio::sync::mpsc;

use super::{Client, Error};

/// A part is closed once its steps hold this many bytes.
const PART_BYTES: usize = 1 << 20;

/// One step: a name, a function, and what it takes.
#[derive(Clone, Debug)]
pub struct Step {
    fields: Map<String, Json>,
}

impl Step {
    /// A step called `name` that runs `fun`.
    #[must_use]
    pub fn new(name: &str, fun: &str) -> Self {
        let mut fields = Map::new();
        fields.insert("name".into(), name.into());
        fields.insert("fun".into(), fun.into());
        Self { fields }
    }

    /// A reference to the result of another step, for use in arguments.
    #[must_use]
    pub fn result_of(step: &str) -> Json {
        json!({ "$ref": step })
    }

    /// The arguments by position.
    #[must_use]
    pub fn args(self, args: impl Into<Vec<Json>>) -> Self {
        self.field("args", Json::Array(args.into()))
    }

    /// The arguments by name.
    #[must_use]
    pub fn kwargs(self, kwargs: Map<String, Json>) -> Self {
        self.field("kwargs", Json::Object(kwargs))
    }

    /// Any other field of a step, as docs/PROTOCOL.md names it.
    #[must_use]
    pub fn field(mut self, name: &str, value: Json) -> Self {
        self.fields.insert(name.into(), value);
        self
    }
}

/// A graph that is being put together. Large ones are sent in parts.
#[derive(Debug)]
#[must_use = "a graph does nothing until it is sent"]
pub struct GraphBuilder {
    client: Client,
    options: GraphOptions,
    parts: Vec<Vec<u8>>,
    frames: Vec<Bytes>,
    progress: Option<mpsc::UnboundedSender<ProgressReply>>,
}

impl GraphBuilder {
    pub(super) fn new(client: Client) -> Self {
        let (options, frames) = (GraphOptions::default(), Vec::new());
        Self { client, options, parts: Vec::new(), frames, progress: None }
    }

    /// Adds a step.
    pub fn step(self, step: Step) -> Self {
        self.raw_step(&Json::Object(step.fields))
    }

    /// Adds a step given as anything that serialises as one.
    pub fn raw_step<T: Serialize + ?Sized>(mut self, step: &T) -> Self {
        let text = serde_json::to_vec(step).unwrap_or_default();
        match self.parts.last_mut() {
            Some(part) if part.len() + text.len() < PART_BYTES => part.push(b','),
            _ => self.parts.push(vec![b'[']),
        }
        if let Some(part) = self.parts.last_mut() {
            part.extend_from_slice(&text);
        }
        self
    }

    /// Adds an attachment to the first part, named in its steps as `{"$frame":n}` from 1.
    pub fn attach(mut self, bytes: impl Into<Bytes>) -> Self {
        self.frames.push(bytes.into());
        self
    }

    /// Returns exactly these results instead of every sink's.
    pub fn returns<S: AsRef<str>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        let names = names.into_iter().map(|name| SmolStr::new(name.as_ref())).collect();
        self.options.returns = Returns::Names(names);
        self
    }

    /// Lets the siblings of a failed step finish.
    pub fn continue_on_error(mut self) -> Self {
        self.options.on_error = OnError::Continue;
        self
    }

    /// Time for the whole graph; 30 s if not set.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout_ms = Some(timeout.as_millis().max(1) as u64);
        self
    }

    /// Sends what happens to the graph and its steps to a channel.
    pub fn progress(mut self, to: mpsc::UnboundedSender<ProgressReply>) -> Self {
        self.options.progress = true;
        self.progress = Some(to);
        self
    }

    /// Sends the graph and waits for its reply, whose `error` is set if it did not succeed.
    pub async fn send(self) -> Result<GraphReply, Error> {
        let Self { client, options, parts, mut frames, progress } = self;
        let last = parts.len().saturating_sub(1);
        let mut options = Some(options);
        let mut parts: Vec<GraphPart> = parts
            .into_iter()
            .enumerate()
            .map(|(index, mut text)| {
                text.push(b']');
                GraphPart {
                    id: SmolStr::default(),
                    steps: Some(Value::json(text)),
                    frames: std::mem::take(&mut frames),
                    part: index as u32,
                    more: index < last,
                    options: options.take().unwrap_or_default(),
                }
            })
            .collect();
        if parts.is_empty() {
            let (steps, options) = (Some(Value::json(&b"[]"[..])), options.unwrap_or_default());
            parts.push(GraphPart { steps, options, ..GraphPart::default() });
        }
        client.submit(parts, progress).await
    }
}
