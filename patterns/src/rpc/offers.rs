//! Who offers what: offers that come, change and end.

use semver::Version;
use smol_str::SmolStr;

use super::calls::waits;
use super::registry::{DemandId, Offered, Source};
use super::workers::Worker;
use super::{Output, Rpc};
use crate::base::{CallId, Code, Out, PeerId, Refusal, Time};
use crate::ops::Offer;

impl Rpc {
    pub(super) fn offer(
        &mut self,
        now: Time,
        peer: PeerId,
        mut offer: Offer,
        out: &mut Out<Output>,
    ) {
        let id = offer.id.take();
        if let Err(refusal) = self.check_offer(&offer) {
            return out.push(Output::Offered { to: peer, id, outcome: Err(Box::new(refusal)) });
        }
        let credit = offer.credit.unwrap_or(1).min(self.limits.credit);
        let granted = (offer.functions.len() as u32, credit);
        let unchanged = self
            .workers
            .of(peer)
            .is_some_and(|worker| worker.offer == offer && worker.leaving.is_none());
        if !unchanged {
            self.accept(peer, offer, credit, now, out);
        }
        out.push(Output::Offered { to: peer, id, outcome: Ok(granted) });
        self.pump(now, peer.slot, out);
    }

    fn accept(
        &mut self,
        peer: PeerId,
        offer: Offer,
        credit: u32,
        now: Time,
        out: &mut Out<Output>,
    ) {
        let old = match self.workers.of(peer) {
            Some(worker) => {
                (worker.credit, worker.leaving) = (credit, None);
                worker.waiting.clear();
                Some(std::mem::replace(&mut worker.offer, offer.clone()))
            }
            None => {
                let offer = offer.clone();
                self.workers.insert(Worker { offer, ..Worker::new(peer, credit) });
                out.push(Output::Joined { peer });
                None
            }
        };
        for function in old.iter().flat_map(|old| &old.functions) {
            self.registry.withdraw(&function.name, peer.slot);
        }
        for (place, function) in offer.functions.iter().enumerate() {
            let version = function.version.as_deref().unwrap_or("1.0.0");
            let Ok(version) = Version::parse(version) else { continue };
            let idempotent = function.idempotent;
            let source = Source::Here(place);
            let offered = Offered { worker: peer.slot, source, version, idempotent };
            self.registry.add(&function.name, offered);
        }
        self.refresh(&offer, Some(peer), now, out);
        if let Some(old) = old {
            self.refresh(&old, Some(peer), now, out);
        }
    }

    fn check_offer(&self, offer: &Offer) -> Result<(), Refusal> {
        let bad = |message: String| Err(Refusal::field(Code::BadField, "functions", message));
        if offer.functions.len() > self.limits.functions_per_offer {
            return bad(format!("at most {} functions", self.limits.functions_per_offer));
        }
        if offer.locs.len() > self.limits.locs {
            let message = format!("at most {} locs", self.limits.locs);
            return Err(Refusal::field(Code::BadField, "locs", message));
        }
        let mut names: Vec<&SmolStr> = offer.functions.iter().map(|f| &f.name).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return bad(format!("{} is there twice", twice[0]));
        }
        if let Some(name) = names.iter().find(|name| name.starts_with("mpreg.")) {
            let message = format!("{name} is the broker's");
            return Err(Refusal::field(Code::ReservedName, "functions", message));
        }
        for function in &offer.functions {
            let Some(Err(error)) = function.version.as_deref().map(Version::parse) else {
                continue;
            };
            let message = format!("the version of {}: {error}", function.name);
            return Err(Refusal::field(Code::BadVersion, "functions", message));
        }
        Ok(())
    }

    /// Works out anew who serves the functions of an offer, and what that means for their lines.
    /// `peer` serves its own lines once its reply is out.
    pub(super) fn refresh(
        &mut self,
        offer: &Offer,
        peer: Option<PeerId>,
        now: Time,
        out: &mut Out<Output>,
    ) {
        for function in &offer.functions {
            self.refresh_one(&function.name, peer, now, out);
        }
    }

    /// The same for one function.
    pub(super) fn refresh_one(
        &mut self,
        name: &str,
        peer: Option<PeerId>,
        now: Time,
        out: &mut Out<Output>,
    ) {
        self.shared.changed(name);
        for demand in self.registry.refresh(name, &self.workers) {
            if !self.registry.demand(demand).has_waiting() {
                continue;
            }
            if self.registry.demand(demand).candidates.is_empty() {
                self.refuse_line(demand, out);
            } else {
                self.announce(demand);
                self.pump_candidates(demand, peer, now, out);
            }
        }
    }

    /// One that serves a line may have credit and be asked for the first time: what came before it
    /// (a worker, a higher version) is gone.
    fn pump_candidates(
        &mut self,
        demand: DemandId,
        except: Option<PeerId>,
        now: Time,
        out: &mut Out<Output>,
    ) {
        let candidates = self.registry.demand(demand).candidates.iter();
        let workers: Vec<u32> = candidates.map(|candidate| candidate.worker).collect();
        for worker in workers {
            if except.is_none_or(|peer| peer.slot != worker) {
                self.pump(now, worker, out);
            }
        }
    }

    /// Nobody is left to serve a line: those that did not ask to wait are refused.
    fn refuse_line(&mut self, demand: DemandId, out: &mut Out<Output>) {
        let calls = &self.calls;
        let line = std::mem::take(&mut self.registry.demand_mut(demand).line);
        self.registry.demand_mut(demand).stale = 0;
        let waiting: Vec<CallId> = line.into_iter().filter(|&id| waits(calls, id)).collect();
        for id in waiting {
            if self.calls[id.slot as usize].waits() {
                self.registry.demand_mut(demand).line.push_back(id);
            } else {
                self.refuse_unplaced(id.slot, out);
            }
        }
    }

    pub(super) fn bye(
        &mut self,
        now: Time,
        peer: PeerId,
        id: Option<SmolStr>,
        out: &mut Out<Output>,
    ) {
        let Some(worker) = self.workers.of(peer) else {
            return out.push(Output::Bye { to: peer, id });
        };
        worker.leaving = Some(id);
        let offer = std::mem::take(&mut worker.offer);
        for function in &offer.functions {
            self.registry.withdraw(&function.name, peer.slot);
        }
        self.refresh(&offer, None, now, out);
        self.farewell(peer, out);
    }

    /// Answers a leaving worker's `bye` once nothing is in its hands.
    pub(super) fn farewell(&mut self, peer: PeerId, out: &mut Out<Output>) {
        let Some(worker) = self.workers.of(peer) else { return };
        if worker.in_hand.is_empty()
            && let Some(id) = worker.leaving.take()
        {
            self.workers.remove(peer);
            out.push(Output::Left { peer });
            out.push(Output::Bye { to: peer, id });
        }
    }
}
