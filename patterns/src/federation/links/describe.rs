//! What there is to say about links.

use serde_json::{Value as Json, json};

use super::dial::State;
use super::{Links, Neighbour, Stage};

impl Links {
    /// Every address that is dialled, and every neighbour that dialled this broker.
    #[must_use]
    pub fn describe(&self) -> Json {
        let dialled = self.dials.iter().map(|dial| {
            let node = dial.node.as_ref();
            let at = node.and_then(|node| self.find(node)).map(|key| &self.neighbours[key]);
            let mut entry = at.map_or_else(|| json!({ "state": "down" }), of_neighbour);
            if entry["state"] == "down" {
                entry["state"] = match dial.state {
                    State::Waiting(_) => "waiting",
                    _ => "dialling",
                }
                .into();
            }
            entry["node"] = node.map(ToString::to_string).into();
            entry["address"] = dial.address.to_string().into();
            entry["price_us"] = dial.price_us.into();
            if let Some(why) = &dial.why {
                entry["error"] = json!({ "code": why.code, "message": why.message });
            }
            entry
        });
        let is_dialled =
            |at: &Neighbour| self.dials.iter().any(|dial| dial.node.as_ref() == Some(&at.node));
        let others = self.neighbours.iter().filter(|(_, at)| !is_dialled(at)).map(|(_, at)| {
            let mut entry = of_neighbour(at);
            entry["node"] = at.node.to_string().into();
            entry
        });
        dialled.chain(others).collect()
    }

    /// Links that are up.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_link.len()
    }
}

fn of_neighbour(at: &Neighbour) -> Json {
    let live = at.session.as_ref().is_some_and(|session| session.stage == Stage::Live);
    let Some(link) = &at.link else {
        return json!({ "state": if at.session.is_some() { "agreeing" } else { "down" } });
    };
    let counts = &link.counts;
    json!({
        "state": if live { "up" } else { "resuming" },
        "epoch": link.peer.epoch,
        "cluster": link.cluster,
        "since_ms": link.since_ms,
        "rtt_us": link.rtt_us,
        "cost_us": link.cost_us,
        "messages_in": counts.messages_in,
        "messages_out": counts.messages_out,
        "bytes_in": counts.bytes_in,
        "bytes_out": counts.bytes_out,
        "resends": counts.resends,
        "sessions": counts.sessions,
        "refused": counts.refused,
        "waiting": link.stream.len(),
        "waiting_bytes": link.stream.bytes(),
    })
}
