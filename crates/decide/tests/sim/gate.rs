//! The way of one write: client, edge, gate, database, and back through the gate.

use isles_model::{Epoch, Writes};

use crate::{
    agent::Wake,
    clock::MS,
    database::Work,
    follow::Pending,
    mutant::Mutant,
    network::End,
    world::{Event, World},
};

impl World {
    /// A client writes in its own region.
    pub(crate) fn on_client(&mut self, region: usize) {
        self.writes += 1;
        let write = self.writes;
        if self.agents[region].helm.is_some() {
            self.wake(region, 0, Wake::Write { write });
        }
        let next = self.rng.u64(self.setup.client_every / 2..self.setup.client_every * 3 / 2);
        self.after(next, Event::Client(region));
    }

    /// The edge sends it where its plan says.
    pub(crate) fn route(&mut self, region: usize, write: u32) {
        match self.agents[region].writes.clone() {
            Some(Writes::Here { .. }) => self.admit(region, write, None),
            Some(Writes::At { region: writer, epoch }) => {
                let writer = self.setup.index(&writer);
                if let Some(delay) = self.net.delay(&mut self.rng, End::Region(region), End::Region(writer)) {
                    self.wake(writer, delay, Wake::PeerWrite { write, epoch });
                }
            }
            Some(Writes::Nowhere { .. }) | None => {}
        }
    }

    /// The gate lets it in, if it is open. What happens after the check cannot be called back.
    pub(crate) fn admit(&mut self, region: usize, write: u32, asked: Option<Epoch>) {
        let Some(epoch) = self.gate(region) else { return };
        if asked.is_some_and(|asked| asked != epoch) {
            return;
        }
        let stalls_between = self.rng.u8(..100) == 0;
        let longest = if stalls_between { 3_000 * MS } else { self.setup.gap_max };
        let gap = self.rng.u64(..longest);
        let life = self.databases[region].life;
        let incarnation = self.agents[region].incarnation;
        self.after(gap, Event::Database(region, life, Work::Write { write, epoch, incarnation }));
    }

    /// The database has committed: the gate checks again before it lets the acknowledgement out.
    pub(crate) fn acknowledge(&mut self, region: usize, one: Pending) {
        let Pending { write, epoch, .. } = one;
        let checked = self.setup.mutant != Some(Mutant::NoCheckOnAcknowledgement);
        if checked && self.gate(region) != Some(epoch) {
            self.note(|| format!("{region}: write {write} of epoch {epoch} is not acknowledged"));
            return;
        }
        if self.too_old(region, one) {
            return;
        }
        self.judge.admits(write, epoch);
        let gap = self.rng.u64(..self.setup.gap_max);
        self.after(gap, Event::Acknowledged { region, write });
    }

    pub(crate) fn on_acknowledged(&mut self, region: usize, write: u32) {
        self.judge.acknowledge(self.now, region, write);
    }

    /// The epoch under which a gate is open now.
    pub(crate) fn gate(&self, region: usize) -> Option<Epoch> {
        let agent = &self.agents[region];
        let gate = agent.gate?;
        let in_time = agent.clock.read(self.now) < gate.until;
        let open = in_time || self.setup.mutant == Some(Mutant::GateWithoutDeadline);
        (agent.helm.is_some() && open).then_some(gate.epoch)
    }

    /// No two gates are open at one true time. A stalled process's gate counts until its deadline.
    pub(crate) fn check_gates(&mut self) {
        self.judge.checked.check("I1");
        let mut open = (0..self.agents.len()).filter(|region| self.gate(*region).is_some());
        if let (Some(a), Some(b)) = (open.next(), open.next()) {
            let gates = [self.agents[a].gate, self.agents[b].gate];
            self.judge
                .fail(self.now, "I1", || format!("the gates of {a} and {b} are open at once: {gates:?}"));
        }
    }
}
