//! Routes: from topics to some of a few queues, by what a message says, changed on the way.
//!
//! The table is one: each change of it has a number, holds for every message after it, and is one
//! row in the store ([`changes`]). For a message the routes it concerns are gone through in the
//! order of their names. First all of them say what they make of it, and nothing has happened
//! yet; then each hands it to its queues ([`handing`]). Nobody parses a payload unless one of them
//! has a condition or changes something.

mod changes;
mod handing;
#[cfg(test)]
mod model;
mod route;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use slab::Slab;
use smol_str::SmolStr;

use crate::base::limits::ROUTE_COST;
use crate::base::{Code, Refusal};
use crate::expr::Seen;
use crate::ops::{Event, SendOptions};
use route::{Route, Verdict};
pub use settings::{HeaderTexts, RouteSettings, SetTexts, Strategy};

/// Every route.
#[derive(Debug, Default)]
pub(super) struct Routes {
    slots: Slab<Route>,
    by_name: BTreeMap<SmolStr, u32>,
    /// Counts the changes.
    version: u64,
    /// Bytes of all of them, as they are stored.
    bytes: usize,
    /// The write of the last change.
    asked_at: u64,
    /// What expressions see of the message that is sent.
    seen: Seen,
    plans: Vec<Plan>,
}

/// What a route makes of a message.
#[derive(Debug)]
struct Plan {
    slot: u32,
    /// As the route changed it; none where it did not.
    changed: Option<(Arc<Event>, SendOptions)>,
}

impl Routes {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// What the routes of a message make of it, in the order of their names. Where one cannot say,
    /// that is the end of it for a sender who is told; else the others go on.
    fn plan(
        &mut self,
        found: &mut [u32],
        (event, options): (&Arc<Event>, &SendOptions),
        is_told: bool,
        plans: &mut Vec<Plan>,
    ) -> Result<Option<Refusal>, Refusal> {
        found.sort_unstable_by(|a, b| self.name(*a).cmp(self.name(*b)));
        let (mut no, mut left) = (None, ROUTE_COST);
        for &slot in found.iter() {
            let route = &mut self.slots[slot as usize];
            let verdict = match left.checked_sub(route.cost(event)) {
                Some(rest) => {
                    left = rest;
                    route.judge(event, options, &mut self.seen)
                }
                None => Verdict::Fails("the routes of a message ask too much of it".into()),
            };
            match verdict {
                Verdict::Takes(changed) => plans.push(Plan { slot, changed }),
                Verdict::Leaves => {}
                Verdict::Fails(why) => {
                    route.counters.failed += 1;
                    let refusal =
                        Refusal::new(Code::RouteFailed, format!("route {}: {why}", route.name));
                    if is_told {
                        return Err(refusal);
                    }
                    no = Some(refusal);
                }
            }
        }
        for plan in plans.iter() {
            self.slots[plan.slot as usize].counters.matched += 1;
        }
        Ok(no)
    }

    fn name(&self, slot: u32) -> &SmolStr {
        &self.slots[slot as usize].name
    }

    fn find(&self, name: &str) -> Result<u32, Refusal> {
        self.by_name.get(name).copied().ok_or_else(|| {
            Refusal::field(Code::UnknownRoute, "name", format!("there is no route {name}"))
        })
    }

    /// Whether a route is as somebody thinks who wants to change it: 0 for one that is not there.
    fn expect(&self, name: &str, version: Option<u64>) -> Result<(), Refusal> {
        let Some(expected) = version else { return Ok(()) };
        let is = self.find(name).map_or(0, |slot| self.slots[slot as usize].version);
        if is == expected {
            return Ok(());
        }
        let message = match is {
            0 => format!("there is no route {name}"),
            _ => format!("route {name} has version {is}"),
        };
        Err(Refusal::field(Code::RouteChanged, "if_version", message))
    }
}
