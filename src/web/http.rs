//! What is asked with plain HTTP: the ops that have one reply.

use std::collections::BTreeMap;

use axum::extract::{Path, RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use mpreg_patterns::base::{Code, Refusal};
use mpreg_patterns::node::Envelope;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use super::Site;
use super::answer::{ended, json_body, refused};
use super::guard::{Kind, kind};
use super::guest::{self, Guest, Op, checked};
use super::query::{self, Type};

/// The id of the one request a guest makes.
const ID: &str = "http";
/// How long `next` waits if it is not told, milliseconds.
const NEXT_MS: u64 = 30_000;

const OF_A_CALL: [(&str, Type); 6] = [
    ("timeout_ms", Type::Number),
    ("version", Type::Text),
    ("cluster", Type::Text),
    ("locs", Type::Texts),
    ("idempotent", Type::Flag),
    ("wait", Type::Flag),
];
const OF_A_SEND: [(&str, Type); 4] = [
    ("delay_ms", Type::Number),
    ("priority", Type::Number),
    ("key", Type::Text),
    ("dedup", Type::Text),
];
const OF_NEXT: [(&str, Type); 2] = [("timeout_ms", Type::Number), ("group", Type::Text)];

/// `POST /call/FUN`: an array is `args`, an object is `kwargs`, bytes are one argument.
pub(super) async fn call(
    State(site): State<Site>,
    Path(function): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut op = Op::new("call", ID);
    op.put("fun", &function);
    let filled = query::put(query.as_deref(), &OF_A_CALL, &mut op)
        .and_then(|()| arguments(&headers, body, &mut op));
    match filled {
        Ok(()) => ask(&site, op, result).await,
        Err(refusal) => refused(&refusal),
    }
}

fn arguments(headers: &HeaderMap, body: Bytes, op: &mut Op) -> Result<(), Refusal> {
    match value(headers, body, op)? {
        Given::Bytes(frame) => op.put("args", &[frame]),
        Given::Json(value) if value.get().starts_with('[') => op.put("args", &value),
        Given::Json(value) if value.get().starts_with('{') => op.put("kwargs", &value),
        Given::Json(_) => {
            let message = "the body takes an array (args) or an object (kwargs)";
            return Err(Refusal::field(Code::BadField, "args", message));
        }
    }
    Ok(())
}

/// `POST /graph`: the fields of the op.
pub(super) async fn graph(State(site): State<Site>, headers: HeaderMap, body: Bytes) -> Response {
    let fields = match content(&headers) {
        Kind::Bytes => Err("a graph is JSON".to_owned()),
        Kind::Json => serde_json::from_slice::<BTreeMap<String, Box<RawValue>>>(&body)
            .map_err(|why| format!("the body takes an object of the graph's fields: {why}")),
    };
    match fields {
        Err(why) => refused(&Refusal::new(Code::BadEncoding, why)),
        Ok(fields) if fields.contains_key("more") || fields.contains_key("part") => {
            let message = "a graph in parts needs a peer that stays: /ws or the door";
            refused(&Refusal::field(Code::NotSupported, "more", message))
        }
        Ok(fields) => {
            let mut op = Op::new("graph", ID);
            let own = ["op", "id", "progress"];
            let fields = fields.iter().filter(|(name, _)| !own.contains(&name.as_str()));
            fields.for_each(|(name, value)| op.put(name, value));
            ask(&site, op, rest).await
        }
    }
}

/// `POST /publish/TOPIC`: the body is the payload.
pub(super) async fn publish(
    State(site): State<Site>,
    Path(topic): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut op = Op::new("publish", ID);
    op.put("topic", &topic);
    let filled =
        query::put(query.as_deref(), &[], &mut op).and_then(|()| payload(&headers, body, &mut op));
    match filled {
        Ok(()) => ask(&site, op, rest).await,
        Err(refusal) => refused(&refusal),
    }
}

/// `POST /queues/NAME`: the body is the payload. Answered once it is as safe as the queue is.
pub(super) async fn send(
    State(site): State<Site>,
    Path(queue): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut op = Op::new("send", ID);
    op.put("queue", &queue);
    let filled = query::put(query.as_deref(), &OF_A_SEND, &mut op)
        .and_then(|()| payload(&headers, body, &mut op));
    match filled {
        Ok(()) => ask(&site, op, rest).await,
        Err(refusal) => refused(&refusal),
    }
}

/// `GET /queues/NAME/next`: waits for a message, which is acked before it is told: at most once.
pub(super) async fn next(
    State(site): State<Site>,
    Path(queue): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let fields = match query::fields(query.as_deref(), &OF_NEXT) {
        Ok(fields) => fields,
        Err(refusal) => return refused(&refusal),
    };
    let given = fields.iter().find(|(name, _)| *name == "timeout_ms");
    let timeout_ms = given.and_then(|(_, ms)| ms.as_u64()).unwrap_or(NEXT_MS);
    let mut kwargs = json!({ "name": queue });
    for (name, value) in fields.into_iter().filter(|(name, _)| *name == "group") {
        kwargs[name] = value;
    }
    let mut op = Op::new("call", ID);
    op.put("fun", "mpreg.queue.next");
    op.put("kwargs", &kwargs);
    op.put("timeout_ms", &timeout_ms);
    take(&site, op).await.unwrap_or_else(|response| *response)
}

async fn take(site: &Site, op: Op) -> Result<Response, Box<Response>> {
    let gone = |why| Box::new(ended(why));
    let mut guest = Guest::arrive(&site.lane).await.map_err(gone)?;
    let taken = guest.ask(op).await.map_err(gone)?;
    let reply = checked(&taken).map_err(|response| match response.status() {
        StatusCode::GATEWAY_TIMEOUT => Box::new(StatusCode::NO_CONTENT.into_response()),
        _ => response,
    })?;
    let result = reply.result.map_or("null", RawValue::get);
    let message: Json = serde_json::from_str(result).unwrap_or_default();
    let mut ack = Op::new("ack", "ack");
    ack.put("ids", &[&message["id"]]);
    let acked = guest.ask(ack).await.map_err(gone)?;
    checked(&acked)?;
    if is_late(&acked) {
        // Its lease ran out: somebody else has it.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let Some(frame) = lone_frame(&message["payload"], &taken) else {
        return Ok(whole(result, &taken));
    };
    let mut response = bytes(frame);
    for name in ["message", "id", "queue", "attempt", "topic", "key"] {
        let text = match &message[name] {
            Json::Null => continue,
            Json::String(text) => text.clone(),
            other => other.to_string(),
        };
        let header = HeaderName::try_from(format!("mpreg-{name}"));
        if let (Ok(header), Ok(value)) = (header, HeaderValue::from_str(&text)) {
            response.headers_mut().insert(header, value);
        }
    }
    Ok(response)
}

/// Whether what was to be acked was in hand no longer.
fn is_late(acked: &Envelope) -> bool {
    let acked: Json = serde_json::from_slice(&acked.body).unwrap_or_default();
    acked["ids"].as_array().is_none_or(Vec::is_empty)
}

/// Asks as a guest, and answers with what `show` makes of the reply.
async fn ask(site: &Site, op: Op, show: fn(&Envelope) -> Response) -> Response {
    let asked = async { Guest::arrive(&site.lane).await?.ask(op).await };
    match asked.await {
        Err(why) => ended(why),
        Ok(envelope) => match checked(&envelope) {
            Ok(_) => show(&envelope),
            Err(response) => *response,
        },
    }
}

/// What a call returned: bytes as they are, everything else as JSON.
fn result(envelope: &Envelope) -> Response {
    let reply = checked(envelope).ok();
    let result = reply.and_then(|reply| reply.result).map_or("null", RawValue::get);
    let frame = match envelope.frames.is_empty() {
        true => None,
        false => lone_frame(&serde_json::from_str(result).unwrap_or_default(), envelope),
    };
    frame.map_or_else(|| whole(result, envelope), bytes)
}

/// What a reply says, with the fields of the envelope.
fn rest(envelope: &Envelope) -> Response {
    whole(&guest::rest(&envelope.body), envelope)
}

/// A value of JSON, if it is all in it.
fn whole(value: &str, envelope: &Envelope) -> Response {
    if envelope.frames.is_empty() {
        return json_body(StatusCode::OK, value.to_owned());
    }
    let message = "bytes within a value need a peer with attachments: /ws or the door";
    refused(&Refusal::new(Code::UnencodableValue, message))
}

/// The bytes that a value is, and nothing else.
fn lone_frame(value: &Json, envelope: &Envelope) -> Option<Bytes> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    match (object.get("$frame")?.as_u64(), &envelope.frames[..]) {
        (Some(1), [frame]) => Some(frame.clone()),
        _ => None,
    }
}

fn bytes(frame: Bytes) -> Response {
    let mut response = Response::new(frame.into());
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// A body, as the envelope has it.
enum Given {
    Json(Box<RawValue>),
    /// Names the attachment.
    Bytes(Json),
}

fn content(headers: &HeaderMap) -> Kind {
    let sent = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    // The guard has let nothing else in.
    sent.and_then(kind).unwrap_or(Kind::Bytes)
}

fn value(headers: &HeaderMap, body: Bytes, op: &mut Op) -> Result<Given, Refusal> {
    match content(headers) {
        Kind::Bytes => Ok(Given::Bytes(op.attach(body))),
        Kind::Json => serde_json::from_slice(&body)
            .map(Given::Json)
            .map_err(|why| Refusal::new(Code::BadEncoding, format!("the body is not JSON: {why}"))),
    }
}

fn payload(headers: &HeaderMap, body: Bytes, op: &mut Op) -> Result<(), Refusal> {
    match value(headers, body, op)? {
        Given::Json(value) => op.put("payload", &value),
        Given::Bytes(frame) => op.put("payload", &frame),
    }
    Ok(())
}
