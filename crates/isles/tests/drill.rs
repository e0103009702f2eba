//! A whole drill through the real program, with no lab running: it starts one, breaks it, measures it, and leaves
//! nothing behind but its report.

#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

mod site;

use std::fs;

use serde_json::Value;
use site::{ASYNC, Site};

#[test]
fn an_outage_is_drilled_counted_and_kept_without_a_lab_running_before_or_after() {
    let site = Site::new(ASYNC);
    let output = site.isles(&["--json", "drill", "region-outage"]);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = format!("{printed}{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {said}"));
    let run = &report["runs"][0];
    assert_eq!(report["scenario"], "region-outage");
    assert_eq!(report["objectives"]["rto_ms"], 60_000);
    // A machine that is busy with other tests may be too slow for the distances asked for, and says so.
    assert!(report["verdict"] == "pass" || report["verdict"] == "void", "{said}");
    assert_eq!(output.status.code(), Some(i32::from(report["verdict"] != "pass")), "{said}");
    assert!(run["rto_reads_ms"].as_u64().is_some_and(|ms| ms <= 60_000), "{said}");
    assert!(run["rto_writes_ms"].as_u64().is_some_and(|ms| ms <= 60_000), "{said}");
    assert!(run["acknowledged"].as_u64().is_some_and(|writes| writes >= 30), "{said}");
    assert!(run["requests"].as_u64().is_some_and(|requests| requests >= 30), "{said}");
    assert_eq!(run["two_writers_ms"], 0, "{said}");
    // Commits are asynchronous: what was lost is listed, and the region that came back had kept it.
    assert_eq!(
        run["lost"].as_array().map(|lost| lost.len() as u64),
        run["stranded_recovered"].as_u64(),
        "{said}"
    );
    assert!(run["failed_over_to"].is_string(), "{said}");
    let events: Vec<&str> =
        run["timeline"].as_array().unwrap().iter().filter_map(|entry| entry["event"].as_str()).collect();
    for event in
        ["region stopped", "edges noticed", "promoted", "first write acknowledged", "replica complete"]
    {
        assert!(events.contains(&event), "{event}: {said}");
    }

    let kept = site.isles(&["--json", "report"]);
    let kept: Value = serde_json::from_slice(&kept.stdout).unwrap();
    assert_eq!(kept[0]["report"], report);
    let left: Vec<_> = fs::read_dir(site.path().join("tmp")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
