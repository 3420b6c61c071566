//! Queues of other brokers, and what other brokers hear of those that are here.
//!
//! A queue that another broker keeps has a shadow here, of the same name: what is sent to it here
//! is kept, and safe, until that broker has it. Its only consumer is that broker.

use smol_str::SmolStr;

use super::settings::Settings;
use super::{Output, Queues};
use crate::base::{Out, PeerId, RunId};

impl Queues {
    /// The broker that keeps a queue, if it is another.
    #[must_use]
    pub fn home(&self, name: &str) -> Option<&SmolStr> {
        let at = self.by_name.get(name)?;
        self.queues[*at as usize].settings.home.as_ref()
    }

    /// Queues whose messages go to a broker.
    #[must_use]
    pub fn leading_to(&self, home: &str) -> Vec<SmolStr> {
        let queues = self.queues.iter().map(|(_, queue)| queue);
        let led = queues.filter(|queue| queue.settings.home.as_deref() == Some(home));
        led.map(|queue| queue.name.clone()).collect()
    }

    /// Whether a delivery is in a peer's hands.
    #[must_use]
    pub fn has_in_hand(&self, peer: PeerId, id: RunId) -> bool {
        self.consumers.holds(peer, id)
    }

    /// Makes the shadow of a queue, if there is no queue of that name. Whoever sends to it hears if
    /// it cannot be made.
    pub(super) fn lead(&mut self, name: &SmolStr, home: SmolStr, out: &mut Out<Output>) {
        if !self.by_name.contains_key(name) {
            _ = self.create(name, Settings::leading_to(home), out);
        }
    }

    /// Other brokers are to hear of everything there is.
    pub(super) fn share(&mut self) {
        self.bindings.share();
        if self.shared.is_none() {
            let queues = self.queues.iter().map(|(_, queue)| queue);
            let here = queues.filter(|queue| queue.settings.home.is_none());
            self.shared = Some(here.map(|queue| (queue.name.clone(), true)).collect());
        }
    }

    pub(super) fn note_kept(&mut self, name: &SmolStr, settings: &Settings, kept: bool) {
        if let Some(shared) = &mut self.shared
            && settings.home.is_none()
        {
            shared.push((name.clone(), kept));
        }
    }

    /// Tells what has changed.
    pub(super) fn tell_brokers(&mut self, out: &mut Out<Output>) {
        for (queue, kept) in self.shared.iter_mut().flat_map(std::mem::take) {
            out.push(Output::Kept { queue, kept });
        }
        for (pattern, wanted) in self.bindings.wants.take() {
            out.push(Output::Wants { pattern, wanted });
        }
    }
}
