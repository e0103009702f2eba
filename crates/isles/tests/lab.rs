//! Whole labs through the real program: started, broken, lost and taken down, with nothing left behind.
//!
//! Starting a lab takes seconds; so each test asks several things of one.

#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

mod site;

use std::{fs, net::TcpListener, path::PathBuf};

use isles_lab::{
    control::{Client, LabState, Part, PartAction, PartPhase},
    processes::tree,
};
use serde_json::Value;
use site::{ASYNC, SERVER, Site, text};

/// A site whose app is started so.
fn site_of(command: &str) -> Site {
    Site::new(&ASYNC.replace(SERVER, command))
}

/// Nothing is left: no process, no listener, no file but the spec.
fn assert_clean(site: &Site, processes: &[tree::Process], ports: &[u16]) {
    site.wait_for("the lab's processes have gone", || !processes.iter().any(tree::runs));
    for port in ports {
        assert!(TcpListener::bind(("127.0.0.1", *port)).is_ok(), "port {port} is still taken");
    }
    let beside: Vec<PathBuf> =
        fs::read_dir(site.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(beside.len(), 2, "the spec and the empty tmp: {beside:?}");
    let temp: Vec<_> = fs::read_dir(site.path().join("tmp")).unwrap().collect();
    assert!(temp.is_empty(), "{temp:?}");
}

/// The supervisor and everything below it.
fn processes(state: &LabState) -> Vec<tree::Process> {
    let all = tree::processes();
    let mut found = tree::below(&[state.pid], &all);
    found.extend(all.get(&state.pid));
    assert!(found.len() > 12, "three regions are more than {} processes", found.len());
    found
}

fn ports(state: &LabState) -> Vec<u16> {
    let of = |region: &isles_lab::control::RegionState| {
        [region.edge.port(), region.control.port(), region.read_gate.port(), region.database.port]
    };
    state.regions.iter().flat_map(of).collect()
}

#[test]
fn a_lab_comes_up_survives_a_lost_region_and_goes_without_a_trace() {
    let site = Site::new(ASYNC);
    let state = site.up();
    let (seen, taken) = (processes(&state), ports(&state));
    let roles: Value = serde_json::from_slice(&site.isles(&["--json", "up"]).stdout).unwrap();
    assert_eq!(roles["roles"]["eu-west-1"], "PRIMARY", "a second up shows the lab that runs: {roles}");
    for link in &state.links {
        assert!(link.rtt_measured.unwrap() >= link.rtt_asked, "{link:?}");
    }
    let psql = site.isles(&["psql", "eu-west-2", "--", "-Atc", "select 40 + 2"]);
    assert_eq!(text(&psql), "42\n");

    let lost = state.regions[0].region.clone();
    let client = Client::new(state.dir.join("control.sock"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(client.kill_region(&lost)).unwrap();
    let held = runtime.block_on(client.state()).unwrap();
    assert!(held.regions[0].held && held.regions[0].parts.iter().all(|part| part.pid.is_none()));
    site.wait_for("another region writes", || {
        let status = site.status();
        ["eu-central-1", "eu-west-2"].iter().any(|region| {
            status["regions"][*region]["snapshot"]["report"]["database"]["role"]["writer"].is_object()
        })
    });
    runtime.block_on(client.start_region(&lost)).unwrap();
    site.wait_for("the lost region is back as a replica", || {
        let status = site.isles(&["--json", "status"]);
        let role = site.status()["regions"]["eu-west-1"]["snapshot"]["report"]["database"]["role"].clone();
        status.status.success() && role["replica"]["copy"] == "complete"
    });

    runtime.block_on(client.part(&lost, Part::App(0), PartAction::Crash)).unwrap();
    site.wait_for("a crashed app is started again", || {
        let state = runtime.block_on(client.state()).unwrap();
        let app = state.regions[0].parts.iter().find(|part| part.part == Part::App(0)).unwrap();
        app.restarts == 1 && app.phase == PartPhase::Running
    });
    let logs = site.isles(&["logs", "eu-west-1", "agent", "-n", "3"]);
    assert_eq!(String::from_utf8_lossy(&logs.stdout).lines().count(), 3, "{}", text(&logs));

    assert!(site.isles(&["down"]).status.success());
    assert_clean(&site, &seen, &taken);
}

#[test]
fn nothing_outlives_a_supervisor_that_is_killed() {
    let site = site_of(&format!("true && {SERVER}"));
    let state = site.up();
    let seen = processes(&state);
    tree::send(state.pid, rustix::process::Signal::KILL);
    site.wait_for("all of the lab's processes have gone", || !seen.iter().any(tree::runs));
    let status = site.isles(&["status"]);
    assert_eq!(status.status.code(), Some(1));
    assert!(text(&status).contains("no lab of isles.yaml runs"), "{}", text(&status));
    assert!(site.isles(&["down"]).status.success());
    assert_clean(&site, &seen, &ports(&state));
}

#[test]
fn databases_are_kept_for_the_next_up_when_asked() {
    let site = Site::new(ASYNC);
    let _ = site.up();
    let write = [
        "psql",
        "eu-west-1",
        "--write",
        "--",
        "-qc",
        "create table note (id int primary key); insert into note values (7)",
    ];
    let written = site.isles(&write);
    assert!(written.status.success(), "{}", text(&written));
    assert!(site.isles(&["down", "--keep"]).status.success());
    let _ = site.up();
    site.wait_for("the kept row is there again", || {
        text(&site.isles(&["psql", "eu-west-1", "--", "-Atc", "select id from note"])) == "7\n"
    });
    assert!(site.isles(&["down"]).status.success());
    assert_clean(&site, &[], &[]);
}

#[test]
fn an_app_that_ends_at_once_is_shown_with_its_last_words() {
    let site = site_of("echo cannot find module; exit 3");
    let output = site.isles(&["up"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("exited with code 3") && said.contains("cannot find module"), "{said}");
    assert_clean(&site, &[], &[]);
}

#[test]
fn an_app_that_never_becomes_healthy_is_shown_with_its_last_answer() {
    let site = Site::new(ASYNC);
    let spec = site.path().join("isles.yaml");
    let changed =
        fs::read_to_string(&spec).unwrap().replace("{ path: / }", "{ path: /none, start_period: 3s }");
    fs::write(&spec, changed).unwrap();
    let output = site.isles(&["up", "--detach"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("its health check /none") && said.contains("start_period"), "{said}");
    assert_clean(&site, &[], &[]);
}

#[test]
fn a_pinned_port_that_is_taken_is_named_with_its_owner() {
    let site = Site::new(ASYNC);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = site.isles(&["--json", "up", "--edge-port", &port]);
    assert_eq!(output.status.code(), Some(1));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expect = format!("port {port} is taken by lab");
    assert!(said["causes"][0].as_str().unwrap().starts_with(&expect), "{said}");
    assert_clean(&site, &[], &[]);
}

#[test]
fn a_missing_program_is_named_with_the_way_to_get_it() {
    let site = Site::new(ASYNC);
    let output = site.command(&["up"]).env("PATH", "/nonexistent").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    assert!(said.contains("etcd is not installed") && said.contains("apt install"), "{said}");
    assert_clean(&site, &[], &[]);
}

#[test]
fn down_without_a_lab_is_not_an_error() {
    let site = Site::new(ASYNC);
    assert!(site.isles(&["down"]).status.success());
    let psql = site.isles(&["psql", "eu-west-1"]);
    assert_eq!(psql.status.code(), Some(1));
    assert_clean(&site, &[], &[]);
}
