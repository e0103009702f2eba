//! A machine's own clock: its origin is arbitrary, and it runs up to 5 % fast or slow.

use std::time::Duration;

use isles_model::Moment;

/// True time of the simulation, in microseconds.
pub(crate) type Micros = u64;

/// One millisecond of true time.
pub(crate) const MS: Micros = 1_000;

const MILLION: u64 = 1_000_000;

/// A machine's own clock.
pub(crate) struct Clock {
    origin: Micros,
    /// Own microseconds in a million true ones.
    rate: u64,
    /// True time that the clock has missed: only where a deliberate breakage stops it during a stall.
    missed: Micros,
    stopped: Option<(Micros, Micros)>,
}

impl Clock {
    pub(crate) fn new(rng: &mut fastrand::Rng) -> Self {
        // Because the margin is made for the worst pair, the worst rates are drawn often.
        let rate = match rng.u8(..4) {
            0 => 950_000,
            1 => 1_050_000,
            _ => rng.u64(950_000..=1_050_000),
        };
        Self { origin: rng.u64(..10_000_000_000), rate, missed: 0, stopped: None }
    }

    /// A reboot gives the clock a new origin; its quartz stays the same.
    pub(crate) fn reboot(&mut self, rng: &mut fastrand::Rng) {
        self.origin = rng.u64(..10_000_000_000);
        self.stopped = None;
    }

    /// The clock's reading at a true time.
    pub(crate) fn read(&self, now: Micros) -> Moment {
        let stopped = self.stopped.map_or(0, |(from, to)| now.clamp(from, to) - from);
        let ran = now - self.missed - stopped;
        Moment(Duration::from_micros(self.origin + scale(ran, self.rate, MILLION)))
    }

    /// How much true time passes while the clock counts `own`.
    pub(crate) fn true_length(&self, own: Duration) -> Micros {
        let own = u64::try_from(own.as_micros()).expect("simulated spans are short");
        scale(own, MILLION, self.rate) + 1
    }

    /// Stops the clock for a span, as `CLOCK_MONOTONIC` stops while a machine is suspended.
    pub(crate) fn stop(&mut self, from: Micros, to: Micros) {
        if let Some((from, to)) = self.stopped.take() {
            self.missed += to - from;
        }
        self.stopped = Some((from, to));
    }
}

fn scale(value: u64, by: u64, of: u64) -> u64 {
    value.checked_mul(by).expect("simulated spans are short") / of
}
