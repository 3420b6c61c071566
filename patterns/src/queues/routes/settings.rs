//! What a route is made of, as it is said and stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Which of its queues a route gives a message to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// All of them.
    #[default]
    Fanout,
    /// One after the other.
    RoundRobin,
    /// The first that has room.
    Priority,
    /// The one with the fewest messages ready and in hand.
    LeastLoaded,
    /// Any of them.
    Random,
}

/// What a route is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSettings {
    /// Patterns of the topics it takes, in order.
    pub bind: Vec<SmolStr>,
    /// What has to hold of a message, in CEL; none takes all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<SmolStr>,
    /// Its queues.
    pub to: Vec<SmolStr>,
    /// Which of them gets a message.
    #[serde(default)]
    pub strategy: Strategy,
    /// What it changes, in CEL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<SetTexts>,
}

/// Expressions that say what becomes of a message; what is none stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetTexts {
    /// The payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<SmolStr>,
    /// The headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<HeaderTexts>,
    /// What orders it among those with the same one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<SmolStr>,
    /// 0 to 9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<SmolStr>,
    /// How long it waits first, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<SmolStr>,
    /// What its consumer is told as its topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<SmolStr>,
}

/// What becomes of headers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HeaderTexts {
    /// All of them, as one map.
    Whole(SmolStr),
    /// Some of them; the others stay.
    Each(BTreeMap<SmolStr, SmolStr>),
}
