//! Runs several helms in virtual time against a bad network, stalls, skewed clocks and an imperfect lease store.
//!
//! `SEED=n` replays one seed with its last events. `SIM_SECONDS=n` runs for so long instead of 10,000 seeds, from
//! `SEED_FROM=n` on. `MUTANT_SEEDS=n` counts how many of n seeds catch each deliberate breakage.
//! Knows nothing of PostgreSQL or etcd: a database is a log, the store a register.

#![allow(clippy::unwrap_used, reason = "the whole crate is a test")]

mod agent;
mod clock;
mod database;
mod faults;
mod follow;
mod gate;
mod judge;
mod mutant;
mod network;
mod promise;
mod setup;
mod store;
mod world;

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use mutant::Mutant;
use world::{Outcome, run, takeover};

/// Seeds of an ordinary run, and its longest duration.
const SEEDS: u64 = 10_000;
const SECONDS: u64 = 60;

/// Seeds after which a breakage counts as not caught.
const MUTANT_SEEDS_MAX: u64 = 4_000;

const THREADS: usize = 2;

/// Seeds that failed once.
const FAILED_ONCE: [u64; 10] = [33, 57, 84, 446, 1_798, 9_757, 11_012, 15_872, 101_406, 114_740];

fn number(variable: &str) -> Option<u64> {
    #[allow(clippy::disallowed_methods)] // Because only the test's own harness reads the environment.
    std::env::var(variable).ok()?.parse().ok()
}

fn clock() -> Instant {
    #[allow(clippy::disallowed_methods)] // Because only the harness's budget is counted in real time.
    Instant::now()
}

/// Everything that helps to understand a failing seed: the same seed again, traced.
fn tell(seed: u64, mutant: Option<Mutant>) -> String {
    let Outcome { violation, trace, .. } = run(seed, mutant, true);
    let mut text = String::new();
    for line in trace {
        writeln!(text, "{line}").unwrap();
    }
    if let Some(violation) = violation {
        let at_ms = violation.at / clock::MS;
        writeln!(text, "{} at {at_ms} ms: {}", violation.invariant, violation.text).unwrap();
    }
    writeln!(text, "SEED={seed} cargo test -p isles-decide --test sim").unwrap();
    text
}

#[test]
fn every_seed_keeps_the_invariants() {
    if let Some(seed) = number("SEED") {
        let told = tell(seed, None);
        assert!(run(seed, None, false).violation.is_none(), "\n{told}");
        println!("{told}");
        return;
    }
    let budget = number("SIM_SECONDS");
    let seeds = if budget.is_some() { u64::MAX } else { SEEDS };
    let budget = Duration::from_secs(budget.unwrap_or(SECONDS));
    let began = clock();
    let first = number("SEED_FROM").unwrap_or(0);
    let (next, failed) = (AtomicU64::new(first), AtomicU64::new(u64::MAX));
    let (acknowledged, stranded, changes) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        while began.elapsed() < budget && failed.load(Ordering::Relaxed) == u64::MAX {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed - first >= seeds {
                return;
            }
            let outcome = run(seed, None, false);
            acknowledged.fetch_add(outcome.acknowledged as u64, Ordering::Relaxed);
            stranded.fetch_add(outcome.stranded as u64, Ordering::Relaxed);
            changes.fetch_add(outcome.epochs.saturating_sub(1), Ordering::Relaxed);
            if outcome.violation.is_some() {
                failed.fetch_min(seed, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner();
    assert!(failed == u64::MAX, "\n{}", tell(failed, None));
    let (seeds, seconds) = ((next.into_inner() - first).min(seeds), began.elapsed().as_secs_f64());
    println!(
        "{seeds} seeds in {seconds:.1} s: {:.0} a second and thread; {} writes acknowledged, {} stranded, {} epochs changed",
        seeds as f64 / seconds / THREADS as f64,
        acknowledged.into_inner(),
        stranded.into_inner(),
        changes.into_inner()
    );
}

#[test]
fn every_deliberate_breakage_is_caught() {
    let count_all = number("MUTANT_SEEDS");
    let seeds = count_all.unwrap_or(MUTANT_SEEDS_MAX);
    let next = AtomicU64::new(0);
    let work = || {
        let mut verdicts = Vec::new();
        while let Some(mutant) = Mutant::ALL.get(next.fetch_add(1, Ordering::Relaxed) as usize).copied() {
            let mut found =
                (0..seeds).filter_map(|seed| Some((seed, run(seed, Some(mutant), false).violation?)));
            let first = found.next();
            let others = if count_all.is_some() { found.count() } else { 0 };
            verdicts.push((mutant, first, others));
        }
        verdicts
    };
    let verdicts: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    for (mutant, first, others) in verdicts {
        let Some((seed, violation)) = first else {
            assert!(count_all.is_some(), "{mutant:?} is not caught in {seeds} seeds");
            println!("{mutant:?}: not in {seeds} seeds");
            continue;
        };
        let noticed = violation.invariant;
        let expected = mutant.breaks().contains(&noticed);
        assert!(expected, "{mutant:?} breaks {noticed}:\n{}", tell(seed, Some(mutant)));
        println!("{mutant:?}: {noticed} at seed {seed}, {others} more");
    }
}

#[test]
fn a_lost_writer_is_replaced_soon_after_its_lease_ends() {
    let ttl = 1_500 * clock::MS;
    let takeovers = (0..600).filter_map(takeover);
    let mut pauses: Vec<u64> = takeovers.filter(|(_, of)| *of == ttl).map(|(pause, _)| pause).collect();
    pauses.sort_unstable();
    let [first, median, last] =
        [0, pauses.len() / 2, pauses.len() - 1].map(|index| pauses[index] / clock::MS);
    println!("{} takeovers with a TTL of 1500 ms: {first} / {median} / {last} ms", pauses.len());
    // A slow clock counts the TTL in 1,580 ms; then a turn or two of 400 ms, a put of 100 ms, a promotion of 250 ms.
    assert!(last < 3_000, "{last} ms");
}

#[test]
fn seeds_that_failed_once_pass() {
    for seed in FAILED_ONCE {
        assert!(run(seed, None, false).violation.is_none(), "\n{}", tell(seed, None));
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..20 {
        let (a, b) = (run(seed, None, true), run(seed, None, true));
        assert_eq!(a.trace, b.trace);
        assert_eq!((a.acknowledged, a.stranded), (b.acknowledged, b.stranded));
    }
}
