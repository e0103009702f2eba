//! Rules about promises: an objective that the settings cannot keep is refused before anything runs.

use std::time::Duration;

use super::Check;
use crate::{
    spec::{
        codes::Code,
        duration::show,
        objectives::{failover_budget, round_trip},
    },
    topology::{Commit, WriteRouting},
};

/// What a standby's database may take to confirm a commit, beside the way.
const BOUND_ALLOWANCE: Duration = Duration::from_millis(100);

pub(super) fn rules(check: &mut Check<'_>) {
    recovery_time_covers_the_failover(check);
    recovery_point_needs_waiting_commits(check);
    commits_can_wait(check);
    a_dead_app_is_noticed_in_time(check);
    probes_do_not_overlap(check);
    dns_answers_expire_in_time(check);
    held_writes_outlast_the_failover(check);
    staleness_allows_for_distance(check);
}

fn recovery_time_covers_the_failover(check: &mut Check<'_>) {
    let (rto, budget) = (check.topology.objectives.rto, failover_budget(check.topology));
    if !check.topology.may_fail_over() || rto >= budget.total() {
        return;
    }
    let message = format!(
        "a recovery time of {} cannot be kept: a failover may take {}",
        show(rto),
        show(budget.total())
    );
    let help = format!(
        "The lease runs out in {}, claiming it takes up to {}, promoting the database up to {}. Raise `objectives.rto` \
         to {} or more, or choose regions that are nearer to each other.",
        show(budget.lease),
        show(budget.claim),
        show(budget.promotion),
        show(budget.total())
    );
    check.add(Code::RecoveryTimeTooShort, check.at(&["objectives", "rto"]), message, help);
}

fn recovery_point_needs_waiting_commits(check: &mut Check<'_>) {
    let path = ["objectives", "rpo"];
    let Some(rpo) = check.topology.objectives.rpo else { return };
    let kept = match check.topology.database.commit {
        Commit::Remote => Duration::ZERO,
        Commit::Bounded(bound) => bound,
        Commit::Async => Duration::MAX,
    };
    if rpo >= kept {
        return;
    }
    if rpo.is_zero() || kept != Duration::MAX {
        let message =
            format!("a loss of at most {} cannot be promised with this `database.commit`", show(rpo));
        let help = "Use `commit: remote`, where every commit waits for another region, or a bound no longer than this. \
                    Or remove `rpo`: with `commit: async` every lost write is counted and listed, none is promised away.";
        check.add(Code::RecoveryPointImpossible, check.at(&path), message, help);
    } else {
        let message = format!("a loss of at most {} is measured by drills, but not enforced", show(rpo));
        let help = "With `commit: async` the writer does not stop when replicas fall behind. Enforce it with \
                    `commit: { bounded: … }`, or watch `isles status`.";
        check.add(Code::RecoveryPointMeasured, check.at(&path), message, help);
    }
}

/// An acknowledgement that waits for another region needs one, and time for the way there and back.
fn commits_can_wait(check: &mut Check<'_>) {
    let path = ["database", "commit"];
    let commit = check.topology.database.commit;
    if commit == Commit::Async {
        return;
    }
    let regions: Vec<_> = check.topology.region_names().collect();
    if regions.len() < 2 {
        let message = "commits are to wait for another region, and there is none".to_owned();
        let help = "Add a second region (and a witness), or use `commit: async`.";
        check.add(Code::CommitCannotWait, check.at(&path), message, help);
        return;
    }
    let nearest = |from| regions.iter().filter(|to| **to != from).map(|to| round_trip(from, to)).min();
    let farthest = regions.iter().filter_map(|from| nearest(*from)).max().unwrap_or_default();
    let least = farthest * 2 + BOUND_ALLOWANCE;
    if let Commit::Bounded(bound) = commit
        && bound < least
    {
        let message = format!(
            "a bound of {} is shorter than the way to another region takes: acknowledgements would wait all the time",
            show(bound)
        );
        let help = format!(
            "Allow {} or more (two round trips to the nearest region, and {} for the databases), or use `commit: remote`.",
            show(least),
            show(BOUND_ALLOWANCE)
        );
        check.add(Code::CommitCannotWait, check.at(&path), message, help);
    }
}

fn a_dead_app_is_noticed_in_time(check: &mut Check<'_>) {
    let probe = &check.topology.service.healthcheck;
    let noticed = probe.interval.saturating_mul(probe.unhealthy_threshold).saturating_add(probe.timeout);
    let rto = check.topology.objectives.rto;
    if noticed > rto {
        let message = format!(
            "a dead app is noticed after {}, later than the recovery time of {}",
            show(noticed),
            show(rto)
        );
        let help = "Shorten `interval`, `timeout` or `unhealthy_threshold` (the product counts), or raise \
                    `objectives.rto`.";
        let at = check.at(&["services", &check.topology.service.name, "healthcheck"]);
        check.add(Code::ProbeTooSlow, at, message, help);
    }
}

fn probes_do_not_overlap(check: &mut Check<'_>) {
    let probe = &check.topology.service.healthcheck;
    if probe.timeout > probe.interval {
        let message = format!(
            "a probe may last {}, longer than the {} between two",
            show(probe.timeout),
            show(probe.interval)
        );
        let path = ["services", &check.topology.service.name, "healthcheck", "timeout"];
        check.add(
            Code::ProbesOverlap,
            check.at(&path),
            message,
            "Make `timeout` at most as long as `interval`.",
        );
    }
}

fn dns_answers_expire_in_time(check: &mut Check<'_>) {
    let (ttl, rto) = (check.topology.routing.ttl, check.topology.objectives.rto);
    if ttl > rto {
        let message = format!(
            "some users hold an old address for {}, past the recovery time of {}",
            show(ttl),
            show(rto)
        );
        let help = "The DNS time to live is a floor for clients that resolve only when it ends: lower `routing.ttl`.";
        check.add(Code::TtlAboveRecoveryTime, check.at(&["routing", "ttl"]), message, help);
    }
}

fn held_writes_outlast_the_failover(check: &mut Check<'_>) {
    let (hold, budget) = (check.topology.routing.hold_writes, failover_budget(check.topology).total());
    let holds = check.topology.routing.writes == WriteRouting::Forward && check.topology.may_fail_over();
    if holds && hold < budget {
        let message = format!("writes wait {} at most, and a failover may take {}", show(hold), show(budget));
        let help = format!("Users would see errors that waiting avoids: use {} or more.", show(budget));
        check.add(Code::HoldTooShort, check.at(&["routing", "hold_writes"]), message, help);
    }
}

fn staleness_allows_for_distance(check: &mut Check<'_>) {
    let Some(primary) = check.topology.regions.first() else { return };
    let trips = check.topology.region_names().map(|name| (round_trip(&primary.name, name), name));
    let Some((farthest, name)) = trips.max() else { return };
    let staleness = check.topology.objectives.max_staleness;
    if staleness < farthest {
        let message = format!(
            "`{name}` is {} away and could never be fresh within {}",
            show(farthest),
            show(staleness)
        );
        let help = format!("Its reads would all go to the writer. Use {} or more.", show(4 * farthest));
        check.add(Code::StalenessBelowDistance, check.at(&["objectives", "max_staleness"]), message, help);
    }
}
