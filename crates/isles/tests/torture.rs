//! A drill of one's own and a short torture through the real program, on one lab that runs already.

#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

mod site;

use std::fs;

use serde_json::Value;
use site::{ASYNC, Site};

const DRILL: &str = "# The writer is cut off for less than the catalogue's own drill.
drill short-partition
regions 3
at 0s   cut link holder <-> others
at 4s   heal
expect  writes within 50s
expect  two-writers never
";

#[test]
fn a_drill_of_ones_own_and_a_torture_run_on_a_lab_and_leave_it_whole() {
    let site = Site::new(ASYNC);
    let dir = site.path();
    fs::write(dir.join("my.drill"), DRILL).unwrap();
    fs::write(dir.join("bad.drill"), "drill bad\nat 5s kil region writer\n").unwrap();

    let bad = site.isles(&["drill", "./bad.drill"]);
    let said = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert_eq!(bad.status.code(), Some(1));
    assert!(said.contains("did you mean `kill`?"), "{said}");
    let unknown = site.isles(&["drill", "quorums"]);
    assert_eq!(unknown.status.code(), Some(2));

    let up = site.isles(&["up", "--detach"]);
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let wrong = site.isles(&["drill", "partition-minority-writer"]);
    assert_eq!(wrong.status.code(), Some(3), "{}", String::from_utf8_lossy(&wrong.stderr));

    let report = site.json(&["drill", "./my.drill"]);
    assert_eq!(report["scenario"], "short-partition");
    // A machine that is busy with other tests may be too slow for the distances asked for, and says so.
    assert!(report["verdict"] == "pass" || report["verdict"] == "void", "{report}");
    assert!(report["runs"][0]["writes_after_heal_ms"].is_u64(), "{report}");
    assert!(report["runs"][0]["failed_over_to"].is_string(), "{report}");

    let report = site.json(&["torture", "--minutes", "0.1", "--seed", "2"]);
    assert_eq!((&report["seed"], &report["violations"]), (&2.into(), &Value::Array(Vec::new())), "{report}");
    assert!(report["acknowledged"].as_u64().is_some_and(|writes| writes > 50), "{report}");
    assert!(report["replayed"]["decisions"].as_u64().is_some_and(|decisions| decisions > 50), "{report}");
    assert_eq!(report["replayed"]["differ"], 0, "{report}");
    assert_eq!(report["divergent_rows"], 0, "{report}");
    let kept = fs::read_dir(dir.join(".isles/reports")).unwrap().map(|entry| entry.unwrap().path());
    let kept = kept.filter(|path| path.is_dir()).collect::<Vec<_>>();
    let schedule = fs::read_to_string(kept[0].join("schedule.drill")).unwrap();
    assert!(schedule.contains("drill torture-2\n"), "{schedule}");
    assert!(fs::metadata(kept[0].join("history.jsonl")).unwrap().len() > 1000);

    assert!(site.isles(&["status"]).status.success());
    assert!(site.isles(&["down"]).status.success());
}
