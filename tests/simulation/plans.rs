//! What clients meant: the plan of every call and step, for the checkers.
//!
//! Each has a key that travels as its first argument: a call's is unique, a step's is its graph's
//! with `/name`, and `!` marks the function that stands in for a step.

use std::collections::{BTreeMap, BTreeSet};

/// One call or step.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) fun: String,
    /// It cannot run: it points at something that is not there.
    pub(crate) never: bool,
    /// Keys of the steps whose results are its other arguments.
    pub(crate) refs: Vec<String>,
    /// Keys of the steps it comes after.
    pub(crate) after: Vec<String>,
    pub(crate) retries: u32,
    pub(crate) idempotent: Option<bool>,
    pub(crate) version: Option<String>,
    pub(crate) locs: Vec<String>,
    pub(crate) fallback_value: Option<String>,
    pub(crate) fallback_function: bool,
}

impl Plan {
    pub(crate) const fn has_fallback(&self) -> bool {
        self.fallback_value.is_some() || self.fallback_function
    }
}

/// All plans of a simulation.
#[derive(Debug, Default)]
pub(crate) struct Plans {
    plans: BTreeMap<String, Plan>,
    returned: BTreeMap<String, BTreeSet<String>>,
}

impl Plans {
    pub(crate) fn add(&mut self, key: &str, plan: Plan) {
        assert!(self.plans.insert(key.to_owned(), plan).is_none(), "{key} is planned twice");
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Plan> {
        self.plans.get(key)
    }

    /// Notes the names a graph returns.
    pub(crate) fn returns(&mut self, graph: &str, names: BTreeSet<String>) {
        self.returned.insert(graph.to_owned(), names);
    }

    pub(crate) fn returned(&self, graph: &str) -> BTreeSet<String> {
        self.returned.get(graph).cloned().unwrap_or_default()
    }
}
