//! A drill of one's own and a short torture through the real program, on one lab that runs already.

#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

const SPEC: &str = "name: tiny
pattern: read-replicas
regions: [eu-west-1, eu-central-1, eu-west-2]
objectives: { rto: 60s }
services:
  web:
    command: 'python3 -m http.server $PORT --bind 127.0.0.1'
    healthcheck: { path: / }
database: { engine: postgres }
";

const DRILL: &str = "# The writer is cut off for less than the catalogue's own drill.
drill short-partition
regions 3
at 0s   cut link holder <-> others
at 4s   heal
expect  writes within 50s
expect  two-writers never
";

fn isles(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isles"));
    command.current_dir(dir).env("TMPDIR", dir.join("tmp")).args(args).output().unwrap()
}

fn json(output: &Output) -> Value {
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// A site whose lab is taken down at the end whatever happens.
struct Site(tempfile::TempDir);

impl Drop for Site {
    fn drop(&mut self) {
        drop(isles(self.0.path(), &["down"]));
    }
}

#[test]
fn a_drill_of_ones_own_and_a_torture_run_on_a_lab_and_leave_it_whole() {
    let site = Site(tempfile::tempdir_in("/tmp").unwrap());
    let dir = site.0.path();
    fs::write(dir.join("isles.yaml"), SPEC).unwrap();
    fs::write(dir.join("my.drill"), DRILL).unwrap();
    fs::write(dir.join("bad.drill"), "drill bad\nat 5s kil region writer\n").unwrap();
    fs::create_dir(dir.join("tmp")).unwrap();

    let bad = isles(dir, &["drill", "./bad.drill"]);
    let said = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert_eq!(bad.status.code(), Some(1));
    assert!(said.contains("did you mean `kill`?"), "{said}");
    let unknown = isles(dir, &["drill", "quorums"]);
    assert_eq!(unknown.status.code(), Some(2));

    let up = isles(dir, &["up", "--detach"]);
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let wrong = isles(dir, &["drill", "partition-minority-writer"]);
    assert_eq!(wrong.status.code(), Some(3), "{}", String::from_utf8_lossy(&wrong.stderr));

    let report = json(&isles(dir, &["--json", "drill", "./my.drill"]));
    assert_eq!(report["scenario"], "short-partition");
    // A machine that is busy with other tests may be too slow for the distances asked for, and says so.
    assert!(report["verdict"] == "pass" || report["verdict"] == "void", "{report}");
    assert!(report["runs"][0]["writes_after_heal_ms"].is_u64(), "{report}");
    assert!(report["runs"][0]["failed_over_to"].is_string(), "{report}");

    let report = json(&isles(dir, &["--json", "torture", "--minutes", "0.1", "--seed", "2"]));
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

    assert!(isles(dir, &["status"]).status.success());
    assert!(isles(dir, &["down"]).status.success());
}
