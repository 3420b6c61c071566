//! `GET /topics/PATTERN`: events as they are published, as server-sent events.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::Stream;
use mpreg_patterns::node::Envelope;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::Site;
use super::answer::{ended, refused};
use super::guest::{Guest, Op, checked};
use super::query::{self, Type};

/// Events on their way to one client; what is more is missed, and said to be.
const CREDIT: u32 = 256;
/// Written, and not yet taken by the client's connection.
const LINES: usize = 16;
/// So often something is written, so that whoever is between knows that both ends are there.
const PULSE: Duration = Duration::from_secs(15);

const OF_TOPICS: [(&str, Type); 3] =
    [("from_seq", Type::Number), ("since_ms", Type::Number), ("last", Type::Number)];

pub(super) async fn listen(
    State(site): State<Site>,
    Path(pattern): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let replay = match query::fields(query.as_deref(), &OF_TOPICS) {
        Ok(fields) => fields,
        Err(refusal) => return refused(&refusal),
    };
    let mut op = Op::new("subscribe", "http");
    op.put("patterns", &[pattern]);
    op.put("credit", &CREDIT);
    if !replay.is_empty() {
        let replay: serde_json::Map<_, _> =
            replay.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        op.put("replay", &replay);
    }
    let begun = async {
        let mut guest = Guest::arrive(&site.lane).await?;
        let told = guest.ask(op).await?;
        Ok((guest, told))
    };
    let (guest, told) = match begun.await {
        Ok(begun) => begun,
        Err(why) => return ended(why),
    };
    if let Err(response) = checked(&told) {
        return *response;
    }
    let (lines, written) = mpsc::channel(LINES);
    tokio::spawn(pass_on(guest, lines));
    let mut response = Response::new(Body::from_stream(Lines(written)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Writes events until the client has gone or the core hangs up.
async fn pass_on(mut guest: Guest, lines: mpsc::Sender<Bytes>) {
    loop {
        let line = match tokio::time::timeout(PULSE, guest.hear()).await {
            Err(_) => Bytes::from_static(b": \n\n"),
            Ok(Err(_)) => return,
            Ok(Ok(heard)) => match line(&heard) {
                Some(line) => line,
                None => continue,
            },
        };
        let is_event = line[0] != b':';
        if lines.send(line).await.is_err() {
            return;
        }
        let mut ack = Op::new("ack", "");
        ack.put("events", &1);
        if is_event && guest.say(ack).await.is_err() {
            return;
        }
    }
}

/// An `event`, as far as it is looked into.
#[derive(Deserialize)]
struct Event<'a> {
    op: &'a str,
    topic: String,
    seq: u64,
    message: &'a str,
    missed: Option<u64>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    #[serde(borrow)]
    headers: Option<&'a RawValue>,
}

/// What is written of it. Attachments are told in base64.
#[derive(Serialize)]
struct Told<'a> {
    topic: &'a str,
    seq: u64,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<&'a RawValue>,
    /// The attachments that the payload names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    frames: Vec<String>,
}

fn line(heard: &Envelope) -> Option<Bytes> {
    let event: Event<'_> = serde_json::from_slice(&heard.body).ok()?;
    if event.op != "event" {
        return None;
    }
    let told = Told {
        topic: &event.topic,
        seq: event.seq,
        message: event.message,
        missed: event.missed,
        payload: event.payload,
        headers: event.headers,
        frames: heard.frames.iter().map(|frame| BASE64_STANDARD.encode(frame)).collect(),
    };
    Some(format!("id: {}\ndata: {}\n\n", event.seq, json!(told)).into())
}

/// The body of the response.
struct Lines(mpsc::Receiver<Bytes>);

impl Stream for Lines {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|line| line.map(Ok))
    }
}
