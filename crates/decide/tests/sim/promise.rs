//! Carries promises between agents: the holder's request, and the consent.

use isles_model::{Epoch, Fact, Moment, PromiseRequest};

use crate::{
    agent::Wake,
    mutant::Mutant,
    network::End,
    world::{Event, World},
};

impl World {
    /// The holder asks all others.
    pub(crate) fn ask_promises(&mut self, region: usize, request: &PromiseRequest) {
        let incarnation = self.agents[region].incarnation;
        for peer in (0..self.agents.len()).filter(|peer| *peer != region) {
            if let Some(delay) = self.net.delay(&mut self.rng, End::Region(region), End::Region(peer)) {
                let request = Box::new(request.clone());
                self.wake(peer, delay, Wake::PromiseAsked { from: region, incarnation, request });
            }
        }
    }

    pub(crate) fn consider_promise(
        &mut self,
        region: usize,
        from: usize,
        incarnation: u64,
        request: &PromiseRequest,
    ) {
        self.tell(region, Fact::PromiseAsked(request.clone()));
        let gave = self.agents[region].helm.as_ref().is_some_and(|helm| helm.promised(request));
        if gave {
            self.agents[region].consented_at = self.now;
        }
        if gave && let Some(delay) = self.net.delay(&mut self.rng, End::Region(region), End::Region(from)) {
            let PromiseRequest { epoch, asked_at, .. } = *request;
            let wake = Wake::Promised { region, epoch, asked_at };
            self.after(delay, Event::Agent(from, incarnation, wake));
        }
    }

    pub(crate) fn see_promise(&mut self, region: usize, peer: usize, epoch: Epoch, mut asked_at: Moment) {
        let majority = self.setup.mutant == Some(Mutant::OnePromiseIsEnough);
        if self.setup.mutant == Some(Mutant::PromiseForNewest) {
            asked_at = self.agents[region].asked.max(asked_at);
        }
        let peers = (0..self.agents.len()).filter(|other| *other != region && (majority || *other == peer));
        for other in peers.collect::<Vec<_>>() {
            let name = self.setup.name(other).clone();
            self.tell(region, Fact::Promised { region: name, epoch, asked_at });
        }
    }
}
