//! What is known of the other brokers, for people.

use serde_json::{Value as Json, json};

use super::wire::{Fact, Key};
use super::{Federation, catalog::Entry};
use crate::base::{Code, Refusal};

impl Federation {
    /// Every broker that has been heard of, this one too: what it is, and the way to it.
    #[must_use]
    pub fn describe(&self) -> Json {
        let nodes = self.catalog.entries().values().map(|entry| self.describe_one(entry));
        json!({
            "node": self.me.node.as_str(),
            "nodes": nodes.collect::<Vec<_>>(),
            "counters": self.counters,
        })
    }

    /// Bytes for other brokers that do not have them yet.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.reached.values().map(|reached| reached.conversation.kept_bytes()).sum()
    }

    /// The way to a broker, or why there is none.
    pub fn explain(&self, node: &str, name: Option<&str>) -> Result<Json, Refusal> {
        let Some(entry) = self.catalog.get(node) else {
            let known: Vec<_> = self.catalog.entries().keys().map(|name| name.as_str()).collect();
            let message = format!("{node} is not known here; known are {}", known.join(", "));
            return Err(Refusal::field(Code::UnknownNode, "node", message));
        };
        let mut told = self.describe_one(entry);
        if let Some(name) = name {
            told["gives"] = self.gives(node, name).into();
            told["takes"] = self.takes(node, name).into();
        }
        let Some(way) = self.routes.ways().get(node) else {
            if *node != *self.me.node {
                told["why"] =
                    "no chain of links leads there that both ends of each speak of".into();
            }
            return Ok(told);
        };
        told["next"] = way.first.iter().map(|node| node.as_str()).collect::<Vec<_>>().into();
        let path = self.routes.path(node).unwrap_or_default();
        let links = path.windows(2).map(|ends| {
            let cost_us = self.routes.said(&ends[0], &ends[1]);
            let rule = |of: &str, to: &str| {
                let facts = self.catalog.get(of)?;
                let rule = |to: &str| facts.fact(&Key::Rule(to.into()));
                rule(to).or_else(|| rule("*")).map(rule_of)
            };
            json!({
                "from": ends[0].as_str(),
                "to": ends[1].as_str(),
                "cost_us": cost_us,
                "rule": rule(&ends[0], &ends[1]),
                "their_rule": rule(&ends[1], &ends[0]),
            })
        });
        told["links"] = links.collect::<Vec<_>>().into();
        Ok(told)
    }

    /// What this broker gives to its neighbours and takes from them.
    #[must_use]
    pub fn rules(&self) -> Json {
        let facts = self.catalog.get(&self.me.node).into_iter().flat_map(Entry::facts);
        let rules = facts.filter_map(|(key, fact)| {
            let Key::Rule(neighbour) = key else { return None };
            let mut told = rule_of(fact);
            told["neighbour"] = neighbour.as_str().into();
            Some(told)
        });
        rules.collect()
    }

    fn describe_one(&self, entry: &Entry) -> Json {
        let node = &entry.life.node;
        let count = |is: fn(&Key) -> bool| entry.facts().filter(|(key, _)| is(key)).count();
        let reached = self.reached.get(node);
        let mut told = json!({
            "node": node.as_str(),
            "epoch": entry.life.epoch,
            "state": if *node == self.me.node { "self" }
                else if reached.is_some() { "reached" } else { "unreachable" },
            "version": entry.version,
            "functions": count(|key| matches!(key, Key::Function { .. })),
            "queues": count(|key| matches!(key, Key::Queue(_))),
            "patterns": count(|key| matches!(key, Key::Interest(_))),
            "bound": count(|key| matches!(key, Key::Bound(_))),
            "neighbours": count(|key| matches!(key, Key::Link(_))),
        });
        if *node == self.me.node && self.rival.is_some() {
            told["state"] = "taken".into();
        }
        if let Some(Fact::About { cluster, version, door }) = entry.fact(&Key::About) {
            told["cluster"] = cluster.as_str().into();
            told["program"] = version.as_str().into();
            told["door"] = door.as_str().into();
        }
        if let Some(Fact::Load { in_flight, credit }) = entry.fact(&Key::Load) {
            told["in_flight"] = (*in_flight).into();
            told["credit"] = (*credit).into();
        }
        if let Some(reached) = reached {
            told["cost_us"] = reached.cost_us.into();
            told["repeats"] = reached.conversation.repeats.into();
            let path = self.routes.path(node).unwrap_or_default();
            told["path"] = path.iter().map(|node| node.as_str()).collect::<Vec<_>>().into();
        }
        told
    }
}

fn rule_of(fact: &Fact) -> Json {
    let Fact::Rule { export, import } = fact else { return Json::Null };
    json!({ "export": export, "import": import })
}
