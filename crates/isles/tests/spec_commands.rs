//! Runs the commands around the spec as a user does: what they print, and how they exit.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

fn isles(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_isles"))
        .current_dir(directory)
        .args(arguments)
        .output()
        .expect("isles runs")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ends by itself")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("it prints text")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

#[test]
fn init_writes_a_spec_that_check_likes_and_never_replaces_one_unasked() {
    let directory = tempfile::tempdir().expect("a directory");
    let here = directory.path();
    fs::write(here.join("package.json"), r#"{"name": "shop", "scripts": {"start": "node server.js"}}"#)
        .expect("a file");
    let first = isles(here, &["init"]);
    assert_eq!(code(&first), 0, "{first:?}");
    assert!(out(&first).contains("package.json"), "{first:?}");

    let checked = isles(here, &["check", "--json"]);
    assert_eq!(code(&checked), 0, "{checked:?}");
    let checked = json(&checked);
    assert_eq!((&checked["verdict"], &checked["promises"]["name"]), (&"pass".into(), &"shop".into()));
    assert_eq!(checked["promises"]["failover"]["total_ms"], 1500 + 2 * 92 + 1000);

    fs::write(here.join("isles.yaml"), "mine").expect("a file");
    assert_eq!(code(&isles(here, &["init"])), 3);
    assert_eq!(fs::read_to_string(here.join("isles.yaml")).expect("it is there"), "mine");
    assert_eq!(code(&isles(here, &["init", "--force"])), 0);
    assert_eq!(code(&isles(here, &["check"])), 0);
}

#[test]
fn check_shows_every_mistake_and_exits_with_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let here = directory.path();
    fs::write(
        here.join("isles.yaml"),
        "name: Shop\nregions: []\nservices: {}\ndatabase: { engine: mysql }\n",
    )
    .expect("a file");
    let shown = isles(here, &["check"]);
    assert_eq!(code(&shown), 1);
    let text = String::from_utf8_lossy(&shown.stderr).into_owned();
    for expected in ["4 mistakes in isles.yaml", "ISL016", "ISL020", "ISL050", "ISL014"] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    let shown = isles(here, &["check", "--json"]);
    assert_eq!((code(&shown), json(&shown)["errors"].as_u64()), (1, Some(4)));
    assert_eq!(code(&isles(here, &["check", "-f", "nowhere.yaml"])), 1);
    assert_eq!(code(&isles(here, &["check", "--no-such-option"])), 2);
}

#[test]
fn explain_and_schema_need_no_spec() {
    let directory = tempfile::tempdir().expect("a directory");
    let here = directory.path();
    assert!(out(&isles(here, &["explain", "isl030"])).contains("witness"));
    assert!(out(&isles(here, &["explain"])).lines().count() > 30);
    assert_eq!(code(&isles(here, &["explain", "ISL999"])), 2);
    let schema = json(&isles(here, &["schema"]));
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["properties"]["pattern"]["enum"][1], "read-replicas");
}
