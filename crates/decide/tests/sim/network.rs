//! Carries messages between regions and to the lease store: late, twice, or not at all.

use crate::{
    clock::{MS, Micros},
    setup::Setup,
};

/// The two ends of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Region(usize),
    Store,
}

/// The links, with what is wrong with each.
pub(crate) struct Network {
    base: Vec<Vec<Micros>>,
    /// How many faults block a direction.
    blocked: Vec<Vec<u8>>,
    /// What faults add to every message of a region.
    slow: Vec<Micros>,
    loss: f64,
    tail: f64,
}

impl Network {
    pub(crate) fn new(setup: &Setup) -> Self {
        let ends = setup.regions() + 1;
        let mut base = setup.one_way.clone();
        for (row, to_store) in base.iter_mut().zip(&setup.store_one_way) {
            row.push(*to_store);
        }
        base.push(setup.store_one_way.iter().copied().chain([0]).collect());
        let blocked = vec![vec![0; ends]; ends];
        Self { base, blocked, slow: vec![0; ends], loss: setup.loss, tail: setup.tail }
    }

    fn index(&self, end: End) -> usize {
        match end {
            End::Region(region) => region,
            End::Store => self.base.len() - 1,
        }
    }

    /// How long a message takes; `None`: it never arrives.
    pub(crate) fn delay(&self, rng: &mut fastrand::Rng, from: End, to: End) -> Option<Micros> {
        let (from, to) = (self.index(from), self.index(to));
        if self.blocked[from][to] > 0 || rng.f64() < self.loss {
            return None;
        }
        let base = self.base[from][to];
        let tail = if rng.f64() < self.tail { rng.u64(..2_000 * MS) } else { 0 };
        Some(base + rng.u64(..=base / 5 + 200) + self.slow[from] + self.slow[to] + tail)
    }

    /// Whether both directions are open: a TCP stream lives.
    pub(crate) fn connected(&self, a: End, b: End) -> bool {
        let (a, b) = (self.index(a), self.index(b));
        self.blocked[a][b] == 0 && self.blocked[b][a] == 0
    }

    pub(crate) fn block(&mut self, from: End, to: End) {
        let (from, to) = (self.index(from), self.index(to));
        self.blocked[from][to] += 1;
    }

    pub(crate) fn unblock(&mut self, from: End, to: End) {
        let (from, to) = (self.index(from), self.index(to));
        self.blocked[from][to] -= 1;
    }

    pub(crate) fn slow_down(&mut self, region: usize, by: Micros) {
        self.slow[region] = by;
    }

    /// From now on no message is lost or very late.
    pub(crate) fn mend(&mut self) {
        self.loss = 0.0;
        self.tail = 0.0;
        self.slow.fill(0);
        self.blocked.iter_mut().for_each(|row| row.fill(0));
    }
}
