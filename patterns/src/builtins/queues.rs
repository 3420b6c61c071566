//! What the built-ins of queues take.

use std::net::SocketAddr;
use std::sync::Arc;

use smol_str::{SmolStr, format_smolstr};

use super::topics::{Sending, missing, small};
use super::{bad_args, kwargs};
use crate::base::limits::{MESSAGES_PER_ANSWER, NAME_BYTES};
use crate::base::names::{is_name, no_name};
use crate::base::{Code, Refusal};
use crate::names::{Pattern, is_reserved};
use crate::ops::{Call, Durability, Send, SendOptions};
use crate::queues::{Declaration, Kind, WhenFull};
use crate::values::Cursor;

/// Rows of `mpreg.queues` unless more are asked for.
const TOP: usize = 100;
/// Most rows of `mpreg.queues`.
const TOP_MOST: usize = 10_000;
/// Messages of a `peek` unless another number is asked for.
const PEEK: u32 = 10;
/// Patterns one queue may be bound to.
const BINDINGS: usize = 1_000;
/// The longest lease, and the longest time between attempts, milliseconds.
const LONGEST_MS: u64 = 7 * 24 * 3_600 * 1_000;

/// A call about queues, its arguments read.
#[derive(Debug)]
pub enum QueueAsk {
    /// Every queue.
    List {
        /// So many at most.
        top: usize,
    },
    /// One queue.
    Stats {
        /// Which.
        name: SmolStr,
    },
    /// A queue is to be there.
    Declare {
        /// Its name.
        name: SmolStr,
        /// How it is to be.
        declaration: Box<Declaration>,
    },
    /// Shows the first messages.
    Peek {
        /// Of which queue.
        name: SmolStr,
        /// So many at most.
        count: u32,
        /// The dead letters instead.
        dead: bool,
    },
    /// Throws away what is ready or delayed.
    Purge {
        /// Of which queue.
        name: SmolStr,
        /// The dead letters instead.
        dead: bool,
    },
    /// Sends dead letters again.
    Redrive {
        /// Of which queue.
        name: SmolStr,
        /// So many at most.
        count: u64,
    },
    /// A queue is to be gone.
    Delete {
        /// Which.
        name: SmolStr,
    },
    /// Sends a message.
    Send(Box<Send>),
    /// Takes a message.
    Next {
        /// Of which queue.
        name: SmolStr,
        /// Of which of its groups.
        group: Option<SmolStr>,
        /// How long to wait for it.
        timeout_ms: Option<u64>,
    },
}

impl QueueAsk {
    /// The one queue that it is about, which may be kept anywhere. What is sent finds its own way.
    #[must_use]
    pub const fn queue(&self) -> Option<&SmolStr> {
        match self {
            Self::List { .. } | Self::Send(_) => None,
            Self::Stats { name }
            | Self::Declare { name, .. }
            | Self::Peek { name, .. }
            | Self::Purge { name, .. }
            | Self::Redrive { name, .. }
            | Self::Delete { name }
            | Self::Next { name, .. } => Some(name),
        }
    }
}

/// A name of a queue or a route that is not the broker's own.
pub(super) fn name(field: &'static str, cursor: &mut Cursor<'_>) -> Result<SmolStr, Refusal> {
    let text = any_name(field, cursor)?;
    if is_reserved(&text) {
        let message = "names that begin with `mpreg.` are the broker's own";
        return Err(Refusal::field(Code::ReservedName, field, message));
    }
    Ok(text)
}

/// Any name.
pub(super) fn any_name(field: &'static str, cursor: &mut Cursor<'_>) -> Result<SmolStr, Refusal> {
    let text = cursor.string().map_err(bad_args(field))?;
    if is_name(&text) { Ok(SmolStr::new(text)) } else { Err(no_name(field, &text)) }
}

/// A number of milliseconds or the like, from 1 on.
fn some(field: &'static str, cursor: &mut Cursor<'_>, most: u64) -> Result<u64, Refusal> {
    let number = cursor.u64().map_err(bad_args(field))?;
    if (1..=most).contains(&number) {
        return Ok(number);
    }
    Err(Refusal::field(Code::BadArgs, field, format!("`{field}` takes 1 to {most}")))
}

pub(super) fn one_of<T: Copy>(
    field: &'static str,
    cursor: &mut Cursor<'_>,
    words: &[(&str, T)],
) -> Result<T, Refusal> {
    let text = cursor.string().map_err(bad_args(field))?;
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let all: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        Refusal::field(Code::BadArgs, field, format!("`{field}` is one of {}", all.join(", ")))
    })
}

pub(super) fn parse(call: &Call) -> Result<QueueAsk, Refusal> {
    match call.fun.as_str() {
        "mpreg.queues" => list(call),
        "mpreg.queue.declare" => declare(call),
        "mpreg.queue.send" => send(call),
        "mpreg.queue.next" => next(call),
        _ => about(call),
    }
}

fn list(call: &Call) -> Result<QueueAsk, Refusal> {
    let mut top = TOP;
    kwargs(call, |key, cursor| {
        if key == "top" {
            top = small("top", cursor, TOP_MOST)? as usize;
        }
        Ok(key == "top")
    })?;
    Ok(QueueAsk::List { top })
}

/// The built-ins that name a queue, and how many of what.
fn about(call: &Call) -> Result<QueueAsk, Refusal> {
    let (mut queue, mut count, mut dead) = (None, None, false);
    let fun = call.fun.as_str();
    kwargs(call, |key, cursor| {
        match (key, fun) {
            // Queues of the broker's own can be looked at, and emptied.
            ("name", _) => queue = Some(any_name("name", cursor)?),
            ("count", "mpreg.queue.peek") => {
                count = Some(small("count", cursor, MESSAGES_PER_ANSWER)?.into());
            }
            ("count", "mpreg.queue.redrive") => count = Some(some("count", cursor, u64::MAX)?),
            ("dead", "mpreg.queue.peek" | "mpreg.queue.purge") => {
                dead = cursor.bool().map_err(bad_args("dead"))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let name = queue.ok_or_else(|| missing("name"))?;
    Ok(match fun {
        "mpreg.queue.stats" => QueueAsk::Stats { name },
        "mpreg.queue.peek" => {
            QueueAsk::Peek { name, count: count.map_or(PEEK, |count| count as u32), dead }
        }
        "mpreg.queue.purge" => QueueAsk::Purge { name, dead },
        "mpreg.queue.redrive" => QueueAsk::Redrive { name, count: count.unwrap_or(u64::MAX) },
        _ => QueueAsk::Delete { name },
    })
}

fn declare(call: &Call) -> Result<QueueAsk, Refusal> {
    let (mut queue, mut of) = (None, Box::<Declaration>::default());
    kwargs(call, |key, cursor| {
        match key {
            "name" => queue = Some(name("name", cursor)?),
            "durability" => of.durability = Some(one_of("durability", cursor, DURABILITIES)?),
            "kind" => of.kind = Some(one_of("kind", cursor, KINDS)?),
            "when_full" => of.when_full = Some(one_of("when_full", cursor, WHEN_FULL)?),
            "max_attempts" => of.max_attempts = Some(small("max_attempts", cursor, 1_000_000)?),
            "lease_ms" => of.lease_ms = Some(some("lease_ms", cursor, LONGEST_MS)?),
            "backoff_ms" => {
                let backoff_ms = cursor.u64().map_err(bad_args("backoff_ms"))?;
                of.backoff_ms = Some(backoff_ms.min(LONGEST_MS));
            }
            "ttl_ms" => of.ttl_ms = Some(some("ttl_ms", cursor, u64::MAX >> 1)?),
            "max_count" => of.max_count = Some(some("max_count", cursor, u64::MAX)?),
            "max_bytes" => of.max_bytes = Some(some("max_bytes", cursor, u64::MAX)?),
            "dedup_ms" => of.dedup_ms = Some(cursor.u64().map_err(bad_args("dedup_ms"))?),
            "bind" => of.bind = Some(bind("queue", BINDINGS, cursor)?),
            "outlet" => of.outlet = Some(outlet(cursor)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let name = queue.ok_or_else(|| missing("name"))?;
    Ok(QueueAsk::Declare { name, declaration: of })
}

const DURABILITIES: &[(&str, Durability)] =
    &[("fsync", Durability::Fsync), ("memory", Durability::Memory)];
const KINDS: &[(&str, Kind)] =
    &[("fifo", Kind::Fifo), ("priority", Kind::Priority), ("delay", Kind::Delay)];
const WHEN_FULL: &[(&str, WhenFull)] = &[
    ("refuse", WhenFull::Refuse),
    ("drop_oldest", WhenFull::DropOldest),
    ("dead_letter", WhenFull::DeadLetter),
];

/// Patterns that a queue or route is bound to, in order and each once.
pub(super) fn bind(
    what: &str,
    most: usize,
    cursor: &mut Cursor<'_>,
) -> Result<Vec<SmolStr>, Refusal> {
    let bad = bad_args("bind");
    let (mut texts, mut array) = (Vec::new(), cursor.array().map_err(&bad)?);
    while cursor.item(&mut array).map_err(&bad)? {
        let text = cursor.string().map_err(&bad)?;
        let refuse = |refusal| Refusal { field: Some("bind".into()), ..refusal };
        texts.push(SmolStr::new(Pattern::parse(&text).map_err(refuse)?.as_str()));
        if texts.len() > most {
            let message = format!("a {what} is bound to {most} patterns at most");
            return Err(Refusal::field(Code::BadArgs, "bind", message));
        }
    }
    texts.sort_unstable();
    texts.dedup();
    Ok(texts)
}

/// Where an outlet is to be bound; port 0 lets the system choose.
fn outlet(cursor: &mut Cursor<'_>) -> Result<SmolStr, Refusal> {
    let text = cursor.string().map_err(bad_args("outlet"))?;
    let address = text.strip_prefix("tcp://").and_then(|text| text.parse::<SocketAddr>().ok());
    address.map(|address| format_smolstr!("tcp://{address}")).ok_or_else(|| {
        let message = "`outlet` takes an IP address and a port: tcp://127.0.0.1:7500";
        Refusal::field(Code::BadArgs, "outlet", message)
    })
}

fn send(call: &Call) -> Result<QueueAsk, Refusal> {
    let (mut read, mut queue) = (Sending::default(), None);
    let mut options = SendOptions::default();
    kwargs(call, |key, cursor| {
        match key {
            "name" => queue = Some(name("name", cursor)?),
            "delay_ms" => options.delay_ms = cursor.u64().map_err(bad_args("delay_ms"))?,
            "priority" => {
                let priority = cursor.u64().map_err(bad_args("priority"))?;
                let known = u8::try_from(priority).ok().filter(|priority| *priority <= 9);
                let wrong = || Refusal::field(Code::BadArgs, "priority", "`priority` takes 0 to 9");
                options.priority = known.ok_or_else(wrong)?;
            }
            "key" => options.key = Some(short("key", cursor)?),
            "dedup" => options.dedup = Some(short("dedup", cursor)?),
            _ => return read.take(call, key, cursor),
        }
        Ok(true)
    })?;
    let topic = match (&queue, read.topic.take()) {
        (Some(_), None) => SmolStr::default(),
        (None, Some(topic)) => topic,
        _ => return Err(Refusal::field(Code::BadArgs, "name", "takes one of `name` and `topic`")),
    };
    let event = Arc::new(read.event(call, topic)?);
    let id = SmolStr::default();
    Ok(QueueAsk::Send(Box::new(Send { id, confirm: true, queue, event, options })))
}

/// A text of 1 to 255 bytes.
fn short(field: &'static str, cursor: &mut Cursor<'_>) -> Result<SmolStr, Refusal> {
    let text = cursor.string().map_err(bad_args(field))?;
    if (1..=NAME_BYTES).contains(&text.len()) {
        return Ok(SmolStr::new(text));
    }
    let message = format!("`{field}` takes 1 to {NAME_BYTES} bytes");
    Err(Refusal::field(Code::BadArgs, field, message))
}

fn next(call: &Call) -> Result<QueueAsk, Refusal> {
    let (mut queue, mut group, mut timeout_ms) = (None, None, None);
    kwargs(call, |key, cursor| {
        match key {
            "name" => queue = Some(name("name", cursor)?),
            "group" => group = Some(any_name("group", cursor)?),
            "timeout_ms" => timeout_ms = Some(cursor.u64().map_err(bad_args("timeout_ms"))?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(QueueAsk::Next { name: queue.ok_or_else(|| missing("name"))?, group, timeout_ms })
}
