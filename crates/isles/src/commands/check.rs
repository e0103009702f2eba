//! Checks the spec: every mistake at once, and when there is none, what is promised and how long a failover may take.

use std::{fmt::Write as _, io::Write as _};

use isles_model::{
    Topology, rtt,
    spec::{self, Checked, Findings, show_duration},
    topology::Commit,
};
use serde_json::{Value, json};

use crate::{
    cli::Global,
    outcome::{Exit, Outcome, say},
    spec_file,
};

/// The arguments of `isles check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Prints the findings, and what is promised; exit code 1 when there are mistakes, 0 with warnings alone.
pub(crate) fn run(global: &Global, _args: &Args) -> Outcome {
    if !global.json {
        print(global, &spec_file::load(global)?);
        return Ok(Exit::Done);
    }
    let (findings, topology) = match spec_file::check(global)? {
        Ok(checked) => (checked.warnings, Some(checked.topology)),
        Err(errors) => (errors, None),
    };
    say(&json_of(global, &findings, topology.as_ref()).to_string());
    Ok(if topology.is_some() { Exit::Done } else { Exit::Finding })
}

fn print(global: &Global, checked: &Checked) {
    if !checked.warnings.is_empty() {
        // Because a broken pipe is no reason to fail, the result of writing is not looked at.
        let _ = writeln!(std::io::stderr(), "{:?}", miette::Report::new(checked.warnings.clone()));
    }
    if !global.quiet {
        say(&summary(global, &checked.topology));
    }
}

fn summary(global: &Global, topology: &Topology) -> String {
    let pattern = json!(topology.pattern);
    let count = topology.regions.len();
    let mut text = format!(
        "{} is sound: {} · {} · {count} region{}\n",
        global.file.display(),
        topology.name,
        pattern.as_str().unwrap_or_default(),
        if count == 1 { "" } else { "s" },
    );
    regions(&mut text, topology);
    failover(&mut text, topology);
    let next = if topology.service.command.is_some() { "isles up" } else { "add a `command`, then isles up" };
    let _ = write!(text, "\nNext: {next}");
    text
}

fn regions(text: &mut String, topology: &Topology) {
    let primary = topology.primary();
    let votes = topology.witness.iter().map(|name| (name, "witness", None));
    let data = topology.regions.iter().map(|region| {
        let role = if &region.name == primary { "PRIMARY" } else { "replica" };
        (&region.name, role, region.jurisdiction.as_deref())
    });
    for (name, role, jurisdiction) in data.chain(votes) {
        let known = rtt::region(name.as_str());
        let city = known.map_or("", |known| known.city);
        let law = jurisdiction.or(known.map(|known| known.jurisdiction)).unwrap_or("");
        let _ = write!(text, "  {name:<16} {role}  {law:<3} {city:<14}");
        if name != primary {
            let _ = write!(text, " {:>4} ms from the primary", spec::round_trip(primary, name).as_millis());
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
}

fn failover(text: &mut String, topology: &Topology) {
    let mut row = |what: &str, value: String| {
        let _ = writeln!(text, "  {what:<34} {value}");
    };
    let probe = &topology.service.healthcheck;
    let noticed = probe.interval * probe.unhealthy_threshold + probe.timeout;
    row("a dead app instance is noticed in", show_duration(noticed));
    if topology.may_fail_over() {
        let budget = spec::failover_budget(topology);
        row("a lost writer's lease runs out in", show_duration(budget.lease));
        row("another region claims it in", show_duration(budget.claim));
        row("its database is promoted in", show_duration(budget.promotion));
        let rto = show_duration(topology.objectives.rto);
        row("users write again within", format!("{}, of {rto} promised", show_duration(budget.total())));
        row("meanwhile writes wait up to", show_duration(topology.routing.hold_writes));
    } else {
        row(
            "a lost primary's writes",
            "wait until it is back: no third vote, no automatic failover".to_owned(),
        );
    }
    row(
        "acknowledged writes in an outage",
        match topology.database.commit {
            Commit::Async => "those not yet replicated are lost, counted and listed".to_owned(),
            Commit::Bounded(bound) => {
                format!("those of the last {} may be lost, counted and listed", show_duration(bound))
            }
            Commit::Remote => "none is lost: another region has each of them".to_owned(),
        },
    );
    let _ =
        writeln!(text, "These are plans from typical distances. A drill measures: isles drill region-outage");
}

/// What `--json` prints; its keys stay the same from version to version.
fn json_of(global: &Global, findings: &Findings, topology: Option<&Topology>) -> Value {
    json!({
        "file": global.file.display().to_string(),
        "verdict": if findings.errors() == 0 { "pass" } else { "fail" },
        "errors": findings.errors(),
        "warnings": findings.warnings(),
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
        "promises": topology.map(promises),
    })
}

fn finding(finding: &spec::Finding) -> Value {
    json!({
        "code": finding.code().to_string(),
        "severity": if finding.is_error() { "error" } else { "warning" },
        "line": finding.place().line,
        "column": finding.place().column,
        "message": finding.message(),
        "help": finding.mend(),
    })
}

fn promises(topology: &Topology) -> Value {
    let budget = spec::failover_budget(topology);
    let failover = json!({
        "lease_ms": budget.lease.as_millis() as u64,
        "claim_ms": budget.claim.as_millis() as u64,
        "promotion_ms": budget.promotion.as_millis() as u64,
        "total_ms": budget.total().as_millis() as u64,
    });
    json!({
        "name": topology.name,
        "pattern": topology.pattern,
        "regions": topology.region_names().collect::<Vec<_>>(),
        "witness": topology.witness,
        "automatic_failover": topology.may_fail_over(),
        "failover": if topology.may_fail_over() { failover } else { Value::Null },
        "rto_ms": topology.objectives.rto.as_millis() as u64,
        "rpo_ms": topology.objectives.rpo.map(|rpo| rpo.as_millis() as u64),
        "lease_ttl_ms": topology.quorum.lease_ttl.as_millis() as u64,
        "hold_writes_ms": topology.routing.hold_writes.as_millis() as u64,
    })
}
