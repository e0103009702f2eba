//! A moment that two processes of one machine agree about.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Microseconds of the monotonic clock, which counts from boot and is the same in every process and namespace here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp(pub(crate) u64);

impl Stamp {
    /// This moment.
    pub(crate) fn now() -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = |value: i64| u64::try_from(value).unwrap_or(0);
        Self(micros(now.tv_sec) * 1_000_000 + micros(now.tv_nsec) / 1_000)
    }

    /// The time since an earlier moment; zero for a later one.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}
