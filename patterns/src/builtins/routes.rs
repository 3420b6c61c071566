//! What the built-ins of routes take.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use super::queues::{bind, name, one_of};
use super::topics::missing;
use super::{bad_args, kwargs};
use crate::base::limits::{NAME_BYTES, ROUTE_HEADERS, ROUTE_PATTERNS, ROUTE_QUEUES};
use crate::base::{Code, Refusal};
use crate::ops::Call;
use crate::queues::{HeaderTexts, RouteSettings, SetTexts, Strategy};
use crate::values::{Cursor, Shape};

/// A call about routes, its arguments read.
#[derive(Debug)]
pub enum RouteAsk {
    /// A route is to be there.
    Add {
        /// Its name.
        name: SmolStr,
        /// How it is to be.
        settings: Box<RouteSettings>,
        /// Only if it has this version now.
        if_version: Option<u64>,
    },
    /// Every route.
    List,
    /// A route is to be gone.
    Remove {
        /// Which.
        name: SmolStr,
        /// Only if it has this version now.
        if_version: Option<u64>,
    },
}

const STRATEGIES: &[(&str, Strategy)] = &[
    ("fanout", Strategy::Fanout),
    ("round_robin", Strategy::RoundRobin),
    ("priority", Strategy::Priority),
    ("least_loaded", Strategy::LeastLoaded),
    ("random", Strategy::Random),
];

pub(super) fn parse(call: &Call) -> Result<RouteAsk, Refusal> {
    match call.fun.as_str() {
        "mpreg.route.add" => add(call),
        "mpreg.route.remove" => remove(call),
        _ => kwargs(call, |_, _| Ok(false)).map(|()| RouteAsk::List),
    }
}

fn add(call: &Call) -> Result<RouteAsk, Refusal> {
    let (mut route, mut if_version) = (None, None);
    let mut of = Box::<RouteSettings>::default();
    kwargs(call, |key, cursor| {
        match key {
            "name" => route = Some(name("name", cursor)?),
            "bind" => of.bind = bind("route", ROUTE_PATTERNS, cursor)?,
            "when" => of.when = Some(expression("when", cursor)?),
            "to" => of.to = queues(cursor)?,
            "strategy" => of.strategy = one_of("strategy", cursor, STRATEGIES)?,
            "set" => of.set = Some(set(cursor)?),
            "if_version" => if_version = Some(cursor.u64().map_err(bad_args("if_version"))?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let name = route.ok_or_else(|| missing("name"))?;
    for (field, is_empty) in [("bind", of.bind.is_empty()), ("to", of.to.is_empty())] {
        if is_empty {
            return Err(missing(field));
        }
    }
    Ok(RouteAsk::Add { name, settings: of, if_version })
}

fn remove(call: &Call) -> Result<RouteAsk, Refusal> {
    let (mut route, mut if_version) = (None, None);
    kwargs(call, |key, cursor| {
        match key {
            "name" => route = Some(name("name", cursor)?),
            "if_version" => if_version = Some(cursor.u64().map_err(bad_args("if_version"))?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(RouteAsk::Remove { name: route.ok_or_else(|| missing("name"))?, if_version })
}

/// Names of queues, each once, in the order given.
fn queues(cursor: &mut Cursor<'_>) -> Result<Vec<SmolStr>, Refusal> {
    let bad = bad_args("to");
    let refuse = |message: String| Err(Refusal::field(Code::BadArgs, "to", message));
    let (mut names, mut array) = (Vec::new(), cursor.array().map_err(&bad)?);
    while cursor.item(&mut array).map_err(&bad)? {
        let name = name("to", cursor)?;
        if names.contains(&name) {
            return refuse(format!("`to` names {name} twice"));
        }
        if names.len() == ROUTE_QUEUES {
            return refuse(format!("a route has {ROUTE_QUEUES} queues at most"));
        }
        names.push(name);
    }
    Ok(names)
}

/// The text of an expression; it is read where the route is made.
fn expression(field: &'static str, cursor: &mut Cursor<'_>) -> Result<SmolStr, Refusal> {
    cursor.string().map(SmolStr::new).map_err(bad_args(field))
}

fn set(cursor: &mut Cursor<'_>) -> Result<SetTexts, Refusal> {
    let bad = bad_args("set");
    let (mut texts, mut map) = (SetTexts::default(), cursor.map().map_err(&bad)?);
    while let Some(key) = cursor.key(&mut map).map_err(&bad)? {
        let field = match &*key {
            "payload" => &mut texts.payload,
            "key" => &mut texts.key,
            "priority" => &mut texts.priority,
            "delay_ms" => &mut texts.delay_ms,
            "topic" => &mut texts.topic,
            "headers" => {
                texts.headers = Some(headers(cursor)?);
                continue;
            }
            other => {
                let message = format!(
                    "`set` takes payload, headers, key, priority, delay_ms and topic, no {other}"
                );
                return Err(Refusal::field(Code::BadArgs, "set", message));
            }
        };
        *field = Some(expression("set", cursor)?);
    }
    Ok(texts)
}

/// One expression for all headers, or one for each of some.
fn headers(cursor: &mut Cursor<'_>) -> Result<HeaderTexts, Refusal> {
    let bad = bad_args("set");
    if cursor.peek().map_err(&bad)? == Shape::String {
        return expression("set", cursor).map(HeaderTexts::Whole);
    }
    let (mut each, mut map) = (BTreeMap::new(), cursor.map().map_err(&bad)?);
    while let Some(name) = cursor.key(&mut map).map_err(&bad)? {
        let name = SmolStr::new(name);
        if name.len() > NAME_BYTES || each.len() == ROUTE_HEADERS {
            let message = format!("`set` takes {ROUTE_HEADERS} headers of {NAME_BYTES} bytes");
            return Err(Refusal::field(Code::BadArgs, "set", message));
        }
        each.insert(name, expression("set", cursor)?);
    }
    Ok(HeaderTexts::Each(each))
}
