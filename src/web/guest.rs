//! A request of plain HTTP as a peer that lives as long as it: when the client hangs up, the peer
//! is gone, and what it asked for is cancelled.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use mpreg_patterns::base::{Code, Culprit, Refusal};
use mpreg_patterns::node::Envelope;
use serde::Deserialize;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use super::answer;
use super::lane::{Connection, Ended, Lane};

/// An op in JSON, with values that stay as they came.
#[derive(Debug)]
pub(super) struct Op {
    fields: Vec<(String, Box<RawValue>)>,
    frames: Vec<Bytes>,
}

impl Op {
    pub(super) fn new(op: &str, id: &str) -> Self {
        let mut new = Self { fields: Vec::new(), frames: Vec::new() };
        new.put("op", op);
        new.put("id", id);
        new
    }

    /// Adds a field.
    pub(super) fn put<V: Serialize + ?Sized>(&mut self, name: &str, value: &V) {
        if let Ok(value) = to_raw_value(value) {
            self.fields.push((name.to_owned(), value));
        }
    }

    /// Adds bytes as an attachment, and tells how a value names it.
    pub(super) fn attach(&mut self, bytes: Bytes) -> serde_json::Value {
        self.frames.push(bytes);
        serde_json::json!({ "$frame": self.frames.len() })
    }
}

impl Serialize for Op {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.fields.len()))?;
        for (name, value) in &self.fields {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// A reply, as far as the web thread looks into it.
#[derive(Deserialize)]
pub(super) struct Reply<'a> {
    #[serde(borrow)]
    pub(super) result: Option<&'a RawValue>,
    pub(super) error: Option<Error>,
}

/// What decides the status of an error.
#[derive(Deserialize)]
pub(super) struct Error {
    code: String,
    culprit: Word,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Caller,
    Worker,
    Broker,
}

impl Error {
    pub(super) fn status(&self) -> StatusCode {
        let culprit = match self.culprit {
            Word::Caller => Culprit::Caller,
            Word::Worker => Culprit::Worker,
            Word::Broker => Culprit::Broker,
        };
        answer::status(&self.code, culprit)
    }
}

/// The peer.
pub(super) struct Guest(Connection);

impl Guest {
    pub(super) async fn arrive(lane: &Lane) -> Result<Self, Ended> {
        lane.connect().await.map(Self)
    }

    /// Says something.
    pub(super) async fn say(&self, op: Op) -> Result<(), Ended> {
        let body = serde_json::to_vec(&op).unwrap_or_default();
        self.0.talk.say(body.into(), op.frames).await
    }

    /// The next thing it hears.
    pub(super) async fn hear(&mut self) -> Result<Envelope, Ended> {
        self.0.hearing.next().await.ok_or(Ended)
    }

    /// Asks what has one reply.
    pub(super) async fn ask(&mut self, op: Op) -> Result<Envelope, Ended> {
        self.say(op).await?;
        self.hear().await
    }
}

/// Reads a reply of the core.
pub(super) fn read(body: &Bytes) -> Result<Reply<'_>, Refusal> {
    serde_json::from_slice(body).map_err(|why| {
        Refusal::new(Code::BadEncoding, format!("an answer of the core cannot be read: {why}"))
    })
}

/// The fields of a reply, without those that say which it is.
pub(super) fn rest(body: &Bytes) -> String {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(body).unwrap_or_default();
    let own = ["op", "id"];
    let fields: BTreeMap<_, _> =
        fields.iter().filter(|(name, _)| !own.contains(&name.as_str())).collect();
    serde_json::to_string(&fields).unwrap_or_default()
}

/// The reply, or what an error is as HTTP.
pub(super) fn checked(envelope: &Envelope) -> Result<Reply<'_>, Box<Response>> {
    let reply = read(&envelope.body).map_err(|why| Box::new(answer::refused(&why)))?;
    match &reply.error {
        Some(error) => Err(Box::new(answer::told(error.status(), rest(&envelope.body)))),
        None => Ok(reply),
    }
}
