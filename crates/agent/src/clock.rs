//! The agent's clock: one that goes on while the machine is suspended.

use std::{sync::Arc, time::Duration};

use isles_model::{Moment, ids::Clock};
use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_BOOTTIME` where there is one: a right to write must also run out during a suspend, in which
/// `CLOCK_MONOTONIC` stands still (clock_gettime(2)).
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// The moment it is now.
pub fn now() -> Moment {
    let time = clock_gettime(CLOCK);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Moment(Duration::new(seconds, nanos))
}

/// [`now`] as the argument that actuators take.
pub fn clock() -> Clock {
    Arc::new(now)
}
