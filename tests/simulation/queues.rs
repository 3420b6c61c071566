//! The queues of the simulation: how they are declared, and what is particular to each.

use mpreg_patterns::base::Rng;
use mpreg_patterns::ops::{Durability, Request};
use mpreg_patterns::queues::{Kind, Settings, WhenFull};

use crate::publishers::builtin;

/// What is sent to reach the queues that are bound, and what they are bound to.
pub(crate) const BOUND_TOPIC: &str = "q.a";
const BOUND_TO: &str = "q.*";

/// One queue.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) settings: Settings,
    /// Whether its messages have keys, and whether groups take from it.
    pub(crate) keyed: bool,
    pub(crate) grouped: bool,
}

impl Plan {
    pub(crate) fn is_stored(&self) -> bool {
        self.settings.durability == Durability::Fsync
    }

    pub(crate) fn is_bound(&self) -> bool {
        !self.settings.bind.is_empty()
    }

    /// Groups that take from it.
    pub(crate) const fn groups(&self) -> &'static [&'static str] {
        if self.grouped { &["a", "b"] } else { &[""] }
    }

    /// A call that declares it.
    pub(crate) fn declare(&self, id: &str) -> Request {
        let mut kwargs = serde_json::to_value(&self.settings).expect("settings");
        kwargs["name"] = self.name.into();
        if self.settings.ttl_ms.is_none() {
            kwargs.as_object_mut().expect("an object").remove("ttl_ms");
        }
        builtin(id, "mpreg.queue.declare", kwargs.to_string(), 30_000)
    }
}

/// Some of the queues there may be; few, so that much happens in each.
pub(crate) fn plans(rng: &mut Rng) -> Vec<Plan> {
    let settings = Settings {
        max_attempts: 3 + rng.below(6) as u32,
        lease_ms: [150, 400, 1_500][rng.below(3)],
        backoff_ms: [0, 5, 40][rng.below(3)],
        dedup_ms: [0, 300, 120_000][rng.below(3)],
        ..Settings::default()
    };
    let when_full = [WhenFull::Refuse, WhenFull::DropOldest, WhenFull::DeadLetter][rng.below(3)];
    let plan = |name, keyed, settings| Plan { name, settings, keyed, grouped: name == "teams" };
    let plain = settings.clone();
    let mut plans = vec![
        plan("jobs", false, plain.clone()),
        plan("keys", true, plain.clone()),
        plan("urgent", false, Settings { kind: Kind::Priority, ..plain.clone() }),
        plan("later", false, Settings { kind: Kind::Delay, ..plain.clone() }),
        plan("lively", true, Settings { durability: Durability::Memory, ..plain.clone() }),
        plan("small", false, Settings { max_count: 6, when_full, ..plain.clone() }),
        plan("teams", false, Settings { bind: vec![BOUND_TO.into()], ..plain }),
        plan("short", false, Settings { ttl_ms: Some(250), ..settings }),
    ];
    while plans.len() > 3 {
        plans.remove(rng.below(plans.len()));
    }
    plans
}
