//! One route, and what it makes of a message.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use smol_str::SmolStr;

use super::settings::{HeaderTexts, RouteSettings, SetTexts};
use crate::base::Refusal;
use crate::base::limits::NAME_BYTES;
use crate::base::names::is_name;
use crate::expr::{Answer, Expression, Seen};
use crate::names::is_reserved;
use crate::ops::{Event, SendOptions};
use crate::values::{Value, json};

/// What has been counted since a route was changed last, or the broker started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counters {
    /// Messages it took.
    pub(super) matched: u64,
    /// Messages that queues have got of it.
    pub(super) sent: u64,
    /// Messages for which `when` or `set` came to nothing, or that no queue of it took.
    pub(super) failed: u64,
    /// Queues that were not there when it was their turn.
    pub(super) missing: u64,
}

/// A route as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) route: SmolStr,
    pub(super) version: u64,
    #[serde(flatten)]
    pub(super) settings: RouteSettings,
}

/// A route, ready for messages.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) name: SmolStr,
    /// The version of the table that it came with.
    pub(super) version: u64,
    pub(super) settings: RouteSettings,
    when: Option<Expression>,
    set: Option<Set>,
    /// Whose turn it is, where its queues take turns.
    pub(super) next: usize,
    pub(super) counters: Counters,
    /// As it is stored.
    pub(super) text: Box<RawValue>,
}

/// What a route says to a message.
pub(super) enum Verdict {
    /// It takes it, changed if so.
    Takes(Option<(Arc<Event>, SendOptions)>),
    /// It is none of its own.
    Leaves,
    /// It cannot say.
    Fails(String),
}

impl Route {
    pub(super) fn new(stored: Stored) -> Result<Self, Refusal> {
        let text = serde_json::value::to_raw_value(&stored).expect("settings are JSON");
        let Stored { route: name, version, settings } = stored;
        let when = settings.when.as_deref().map(|text| Expression::read("when", text));
        let (when, set) = (when.transpose()?, settings.set.as_ref().map(Set::read).transpose()?);
        let (next, counters) = (0, Counters::default());
        Ok(Self { name, version, settings, when, set, next, counters, text })
    }

    /// What judging a message may cost, in deliveries.
    pub(super) fn cost(&self, event: &Event) -> usize {
        let when = self.when.as_ref().map_or(0, |when| when.cost(event));
        when + self.set.as_ref().map_or(0, |set| set.cost(event))
    }

    pub(super) fn judge(
        &mut self,
        event: &Arc<Event>,
        options: &SendOptions,
        seen: &mut Seen,
    ) -> Verdict {
        if let Some(when) = &self.when {
            match when.ask(event, seen).ok().and_then(|answer| answer.bool()) {
                Some(true) => {}
                Some(false) => return Verdict::Leaves,
                None => {
                    self.counters.failed += 1;
                    return Verdict::Leaves;
                }
            }
        }
        let Some(set) = &self.set else { return Verdict::Takes(None) };
        match set.apply(event, options, seen) {
            Ok(changed) => Verdict::Takes(Some(changed)),
            Err(why) => Verdict::Fails(why),
        }
    }
}

/// What a route changes.
#[derive(Debug)]
struct Set {
    payload: Option<Expression>,
    headers: Option<Headers>,
    key: Option<Expression>,
    priority: Option<Expression>,
    delay_ms: Option<Expression>,
    topic: Option<Expression>,
}

#[derive(Debug)]
enum Headers {
    Whole(Expression),
    /// Names as JSON.
    Each(Vec<(SmolStr, Expression)>),
}

impl Set {
    fn read(texts: &SetTexts) -> Result<Self, Refusal> {
        let read = |field: &str, text: &Option<SmolStr>| {
            let read = |text: &SmolStr| Expression::read(&format!("set/{field}"), text);
            text.as_ref().map(read).transpose()
        };
        let headers = match &texts.headers {
            None => None,
            Some(HeaderTexts::Whole(text)) => {
                Some(Headers::Whole(Expression::read("set/headers", text)?))
            }
            Some(HeaderTexts::Each(each)) => {
                let read = |(name, text): (&SmolStr, &SmolStr)| {
                    let field = format!("set/headers/{name}");
                    Ok((name.clone(), Expression::read(&field, text)?))
                };
                Some(Headers::Each(each.iter().map(read).collect::<Result<_, Refusal>>()?))
            }
        };
        Ok(Self {
            payload: read("payload", &texts.payload)?,
            headers,
            key: read("key", &texts.key)?,
            priority: read("priority", &texts.priority)?,
            delay_ms: read("delay_ms", &texts.delay_ms)?,
            topic: read("topic", &texts.topic)?,
        })
    }

    fn expressions(&self) -> impl Iterator<Item = &Expression> {
        let (whole, each) = match &self.headers {
            None => (None, &[][..]),
            Some(Headers::Whole(all)) => (Some(all), &[][..]),
            Some(Headers::Each(each)) => (None, &each[..]),
        };
        let plain = [&self.payload, &self.key, &self.priority, &self.delay_ms, &self.topic];
        let plain = plain.into_iter().flatten();
        plain.chain(whole).chain(each.iter().map(|(_, expression)| expression))
    }

    fn cost(&self, event: &Event) -> usize {
        self.expressions().map(|expression| expression.cost(event)).sum()
    }

    /// The message as it becomes; each expression sees it as it was.
    fn apply(
        &self,
        event: &Event,
        options: &SendOptions,
        seen: &mut Seen,
    ) -> Result<(Arc<Event>, SendOptions), String> {
        let mut ask = |field: &str, of: &Option<Expression>| -> Result<Option<Answer>, String> {
            let Some(expression) = of else { return Ok(None) };
            let answer = expression.ask_knowing(event, seen);
            answer.map(Some).map_err(|why| format!("{field}: {why}"))
        };
        let (mut changed, mut options) = (event.clone(), options.clone());
        if let Some(answer) = ask("payload", &self.payload)? {
            changed.payload = answer.payload().map_err(|why| format!("payload: {why}"))?;
        }
        if let Some(answer) = ask("key", &self.key)? {
            options.key = key(&answer).ok_or("key: takes a text of 1 to 255 bytes, or null")?;
        }
        if let Some(answer) = ask("priority", &self.priority)? {
            let priority = answer.whole().and_then(|it| u8::try_from(it).ok());
            let priority = priority.filter(|priority| *priority <= 9);
            options.priority = priority.ok_or("priority: takes 0 to 9")?;
        }
        if let Some(answer) = ask("delay_ms", &self.delay_ms)? {
            options.delay_ms = answer.whole().ok_or("delay_ms: takes a whole number from 0")?;
        }
        if let Some(answer) = ask("topic", &self.topic)? {
            let name = answer.text().filter(|text| is_name(text) && !is_reserved(text));
            changed.topic = name.ok_or("topic: takes a name that is not the broker's own")?.into();
        }
        if let Some(headers) = &self.headers {
            changed.headers =
                headers.apply(event, seen).map_err(|why| format!("headers: {why}"))?;
        }
        Ok((Arc::new(changed), options))
    }
}

/// A key, or that there is none.
fn key(answer: &Answer) -> Option<Option<SmolStr>> {
    if answer.is_null() {
        return Some(None);
    }
    let text = answer.text().filter(|text| (1..=NAME_BYTES).contains(&text.len()))?;
    Some(Some(text.into()))
}

impl Headers {
    fn apply(&self, event: &Event, seen: &mut Seen) -> Result<Option<Value>, String> {
        match self {
            Self::Whole(expression) => {
                let answer = expression.ask_knowing(event, seen)?;
                match () {
                    () if answer.is_null() => Ok(None),
                    () if answer.is_map() => answer.json().map(|text| Some(Value::json(text))),
                    () => Err("takes a map, or null".into()),
                }
            }
            Self::Each(each) => {
                let mut set = Vec::with_capacity(each.len());
                for (name, expression) in each {
                    let answer = expression.ask_knowing(event, seen)?;
                    let value = (!answer.is_null()).then(|| answer.json()).transpose()?;
                    set.push((name.as_str(), value));
                }
                merged(event.headers.as_ref(), &set)
            }
        }
    }
}

/// Headers with some of them set; what is set to nothing goes.
fn merged(
    headers: Option<&Value>,
    set: &[(&str, Option<Vec<u8>>)],
) -> Result<Option<Value>, String> {
    let mut text = vec![b'{'];
    let mut put = |name: &str, value: &[u8]| {
        if text.len() > 1 {
            text.push(b',');
        }
        json::put_string(&mut text, name);
        text.push(b':');
        text.extend_from_slice(value);
    };
    if let Some(headers) = headers {
        let no_map = |fault: crate::values::Fault| fault.message();
        let mut cursor = crate::values::Cursor::of(headers);
        let mut map = cursor.map().map_err(no_map)?;
        while let Some(name) = cursor.key(&mut map).map_err(no_map)? {
            let range = cursor.skip().map_err(no_map)?;
            if set.iter().all(|(other, _)| *other != name) {
                put(&name, &headers.bytes[range]);
            }
        }
    }
    for (name, value) in set {
        if let Some(value) = value {
            put(name, value);
        }
    }
    text.push(b'}');
    let is_none = headers.is_none() && text.len() == 2;
    Ok((!is_none).then(|| Value::json(text)))
}
