//! What a queue is declared with.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::base::{Code, Refusal};
use crate::ops::Durability;

/// The order in which messages are delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// As they were sent.
    #[default]
    Fifo,
    /// By priority, then as they were sent.
    Priority,
    /// By when they are due.
    Delay,
}

/// What becomes of a message that finds no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// Its sender is told.
    #[default]
    Refuse,
    /// The oldest that is ready makes room for it.
    DropOldest,
    /// It becomes a dead letter.
    DeadLetter,
}

/// What a queue is declared with, in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// How safe a message is before its sender is told.
    pub durability: Durability,
    /// The order of delivery.
    pub kind: Kind,
    /// Deliveries of one message, after which it is a dead letter.
    pub max_attempts: u32,
    /// How long a consumer has for a message, milliseconds.
    pub lease_ms: u64,
    /// How long a message waits after its first failure, milliseconds; twice as long after each
    /// further one.
    pub backoff_ms: u64,
    /// After this a message is worth nothing, milliseconds.
    pub ttl_ms: Option<u64>,
    /// Messages it holds at most, dead letters apart.
    pub max_count: u64,
    /// Their bytes at most.
    pub max_bytes: u64,
    /// What becomes of a message that finds no room.
    pub when_full: WhenFull,
    /// How long a repeated `dedup` is known, milliseconds.
    pub dedup_ms: u64,
    /// Patterns of the topics it gets, in order.
    pub bind: Vec<SmolStr>,
    /// Where a PUSH socket of its own is bound, `tcp://ADDRESS:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlet: Option<SmolStr>,
    /// The broker that keeps the queue. Here is only what is on its way there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<SmolStr>,
}

impl Settings {
    /// Those of a queue that leads to another broker, which decides what becomes of its messages.
    pub(super) fn leading_to(home: SmolStr) -> Self {
        Self { max_attempts: u32::MAX, home: Some(home), ..Self::default() }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            durability: Durability::Fsync,
            kind: Kind::Fifo,
            max_attempts: 10,
            lease_ms: 30_000,
            backoff_ms: 1_000,
            ttl_ms: None,
            max_count: 100_000_000,
            max_bytes: 64 << 30,
            when_full: WhenFull::Refuse,
            dedup_ms: 120_000,
            bind: Vec::new(),
            outlet: None,
            home: None,
        }
    }
}

/// What a declaration says; what it leaves out is as it is, or the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declaration {
    /// See [`Settings::durability`].
    pub durability: Option<Durability>,
    /// See [`Settings::kind`].
    pub kind: Option<Kind>,
    /// See [`Settings::max_attempts`].
    pub max_attempts: Option<u32>,
    /// See [`Settings::lease_ms`].
    pub lease_ms: Option<u64>,
    /// See [`Settings::backoff_ms`].
    pub backoff_ms: Option<u64>,
    /// See [`Settings::ttl_ms`].
    pub ttl_ms: Option<u64>,
    /// See [`Settings::max_count`].
    pub max_count: Option<u64>,
    /// See [`Settings::max_bytes`].
    pub max_bytes: Option<u64>,
    /// See [`Settings::when_full`].
    pub when_full: Option<WhenFull>,
    /// See [`Settings::dedup_ms`].
    pub dedup_ms: Option<u64>,
    /// See [`Settings::bind`].
    pub bind: Option<Vec<SmolStr>>,
    /// See [`Settings::outlet`].
    pub outlet: Option<SmolStr>,
}

/// What a queue in memory holds unless more is asked for, bytes.
const MEMORY_BYTES: u64 = 1 << 30;

impl Declaration {
    /// The settings of a new queue.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let by_default = Settings::default();
        let durability = self.durability.unwrap_or(by_default.durability);
        let max_bytes = match durability {
            Durability::Fsync => by_default.max_bytes,
            Durability::Memory => MEMORY_BYTES,
        };
        Settings {
            durability,
            kind: self.kind.unwrap_or(by_default.kind),
            max_attempts: self.max_attempts.unwrap_or(by_default.max_attempts),
            lease_ms: self.lease_ms.unwrap_or(by_default.lease_ms),
            backoff_ms: self.backoff_ms.unwrap_or(by_default.backoff_ms),
            ttl_ms: self.ttl_ms,
            max_count: self.max_count.unwrap_or(by_default.max_count),
            max_bytes: self.max_bytes.unwrap_or(max_bytes),
            when_full: self.when_full.unwrap_or(by_default.when_full),
            dedup_ms: self.dedup_ms.unwrap_or(by_default.dedup_ms),
            bind: self.bind.clone().unwrap_or_default(),
            outlet: self.outlet.clone(),
            home: None,
        }
    }

    /// Whether a queue is as it is declared, so that declaring it again changes nothing.
    pub fn agrees(&self, settings: &Settings) -> Result<(), Refusal> {
        let differs =
            |field: &'static str, wanted: &dyn std::fmt::Debug, is: &dyn std::fmt::Debug| {
                let message = format!("its {field} is {is:?}, not {wanted:?}");
                Err(Refusal::field(Code::QueueDiffers, field, message))
            };
        macro_rules! compare {
            ($($field:ident),*) => {$(
                if let Some(wanted) = &self.$field
                    && *wanted != settings.$field
                {
                    return differs(stringify!($field), wanted, &settings.$field);
                }
            )*};
        }
        compare!(durability, kind, max_attempts, lease_ms, backoff_ms, max_count, max_bytes);
        compare!(when_full, dedup_ms, bind);
        if self.ttl_ms.is_some() && self.ttl_ms != settings.ttl_ms {
            return differs("ttl_ms", &self.ttl_ms, &settings.ttl_ms);
        }
        if self.outlet.is_some() && self.outlet != settings.outlet {
            return differs("outlet", &self.outlet, &settings.outlet);
        }
        Ok(())
    }
}
