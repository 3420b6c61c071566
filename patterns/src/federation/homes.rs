//! Which brokers keep which queues.

use std::collections::BTreeSet;

use smol_str::SmolStr;

use crate::base::Map;

/// Brokers by the queues they keep.
#[derive(Debug, Default)]
pub(super) struct Homes {
    queues: Map<SmolStr, BTreeSet<SmolStr>>,
}

impl Homes {
    /// A broker keeps a queue, or does no longer.
    pub(super) fn set(&mut self, node: &SmolStr, queue: &SmolStr, kept: bool) {
        if kept {
            self.queues.entry(queue.clone()).or_default().insert(node.clone());
        } else if let Some(nodes) = self.queues.get_mut(queue) {
            nodes.remove(node);
            if nodes.is_empty() {
                self.queues.remove(queue);
            }
        }
    }

    /// Nothing is known of a broker any more.
    pub(super) fn forget(&mut self, node: &SmolStr) {
        self.queues.retain(|_, nodes| {
            nodes.remove(node);
            !nodes.is_empty()
        });
    }

    /// Who keeps a queue, in order.
    pub(super) fn of(&self, queue: &str) -> impl Iterator<Item = &SmolStr> {
        self.queues.get(queue).into_iter().flatten()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }
}
