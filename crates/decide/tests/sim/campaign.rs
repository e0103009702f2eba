//! Runs seed after seed on a few threads until a number of seeds, failovers or seconds is reached, and counts.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    setup::Weather,
    tally::{INVARIANTS, Tally},
    tell,
    world::run,
};

/// Threads of a campaign.
pub(crate) const THREADS: usize = 2;

/// Between two lines about how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(60);

/// What to run.
pub(crate) struct Campaign {
    /// The world of a seed.
    pub(crate) weather: Box<dyn Fn(u64) -> Weather + Sync>,
    /// The first seed.
    pub(crate) first: u64,
    /// At most so many seeds, failovers and seconds.
    pub(crate) seeds: u64,
    pub(crate) failovers: u64,
    pub(crate) budget: Duration,
}

/// What was run without a violation.
pub(crate) struct Counts {
    first: u64,
    seeds: u64,
    acknowledged: u64,
    stranded: u64,
    /// How often the right went from one region to another.
    pub(crate) failovers: u64,
    /// Of these, how often the last writer gave it back: it was asked to, or its database had died.
    given_back: u64,
    tally: Tally,
    seconds: f64,
}

impl Campaign {
    /// Runs it; fails at the first violation, with all that helps to understand it.
    pub(crate) fn run(&self) -> Counts {
        let began = crate::clock();
        let (next, failed) = (AtomicU64::new(self.first), AtomicU64::new(u64::MAX));
        let [acknowledged, stranded, failovers, given_back, done] = [const { AtomicU64::new(0) }; 5];
        let tally = Mutex::new(Tally::default());
        let told = AtomicU64::new(1);
        let work = || {
            while began.elapsed() < self.budget
                && failed.load(Ordering::Relaxed) == u64::MAX
                && failovers.load(Ordering::Relaxed) < self.failovers
            {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed - self.first >= self.seeds {
                    return;
                }
                let outcome = run(seed, None, (self.weather)(seed), false);
                acknowledged.fetch_add(outcome.acknowledged as u64, Ordering::Relaxed);
                stranded.fetch_add(outcome.stranded as u64, Ordering::Relaxed);
                failovers.fetch_add(outcome.failovers, Ordering::Relaxed);
                given_back.fetch_add(outcome.given_back, Ordering::Relaxed);
                tally.lock().unwrap_or_else(PoisonError::into_inner).add(&outcome.tally);
                done.fetch_add(1, Ordering::Relaxed);
                if outcome.violation.is_some() {
                    failed.fetch_min(seed, Ordering::Relaxed);
                }
                let minute = told.load(Ordering::Relaxed);
                let due = began.elapsed() >= PROGRESS_EVERY * u32::try_from(minute).unwrap_or(u32::MAX);
                if due
                    && told.compare_exchange(minute, minute + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok()
                {
                    let moved = failovers.load(Ordering::Relaxed);
                    println!("{minute} min: {moved} failovers in {} seeds", done.load(Ordering::Relaxed));
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(work);
            }
        });
        let failed = failed.into_inner();
        assert!(
            failed == u64::MAX,
            "\nFAILED at seed {failed}\n{}",
            tell(failed, None, (self.weather)(failed))
        );
        Counts {
            first: self.first,
            seeds: done.into_inner(),
            acknowledged: acknowledged.into_inner(),
            stranded: stranded.into_inner(),
            failovers: failovers.into_inner(),
            given_back: given_back.into_inner(),
            tally: tally.into_inner().unwrap_or_else(PoisonError::into_inner),
            seconds: began.elapsed().as_secs_f64(),
        }
    }
}

impl Counts {
    /// One line that says it all.
    pub(crate) fn verdict(&self) -> String {
        let Self { first, seeds, failovers, tally, .. } = self;
        format!(
            "{failovers} failovers in {seeds} worlds (seeds {first} to {}), {} faults of {} kinds, \
             {} invariants checked {} times: none was broken",
            first + seeds - 1,
            tally.faults(),
            tally.kinds(),
            INVARIANTS.len(),
            tally.checks(),
        )
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, acknowledged, stranded, failovers, given_back, tally, seconds, .. } = self;
        let (rate, moved) = (*seeds as f64 / seconds, *failovers as f64 / seconds);
        writeln!(
            f,
            "{seeds} worlds in {seconds:.1} s on {THREADS} threads: {rate:.0} worlds and {moved:.0} failovers a second"
        )?;
        let lapsed = failovers - given_back;
        writeln!(
            f,
            "failovers: {lapsed} after the right of a lost writer had run out, {given_back} after it was given back"
        )?;
        writeln!(
            f,
            "writes: {acknowledged} acknowledged; {stranded} left behind by a lost writer, each one listed"
        )?;
        write!(f, "{tally}")
    }
}
