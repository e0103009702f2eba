//! An operator's orders through the real program, against a real lab: moved, refused, drained, written down.
//!
//! Starting a lab takes seconds; so one test asks several things of one.

#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

mod site;

use site::{ASYNC, Site, text};

fn refused(site: &Site, args: &[&str], because: &str) {
    let output = site.isles(args);
    assert_eq!(output.status.code(), Some(3), "{args:?}: {}", text(&output));
    assert!(text(&output).contains(because), "{args:?}: {}", text(&output));
}

#[test]
fn an_operator_moves_the_writer_drains_a_region_and_finds_it_all_written_down() {
    let site = Site::new(ASYNC);
    let _ = site.up();
    site.wait_until_well();
    assert_eq!(site.writer().as_deref(), Some("eu-west-1"));

    // Looking changes nothing, and without a terminal nothing is ordered unasked.
    let dry = site.isles(&["switchover", "eu-west-2", "--dry-run"]);
    assert!(dry.status.success() && text(&dry).contains("eu-west-1 -> eu-west-2"), "{}", text(&dry));
    assert_eq!(site.isles(&["switchover", "eu-west-2"]).status.code(), Some(2), "nobody can be asked");
    assert_eq!(site.json(&["audit"]).as_array().map(Vec::len), Some(0));

    refused(&site, &["--yes", "switchover", "eu-west-1"], "eu-west-1 is the writer already");
    refused(&site, &["--yes", "failover", "eu-west-2"], "use `isles switchover`");
    refused(&site, &["--yes", "switchover", "mars-1"], "the spec has no region mars-1");

    let moved = site.json(&["--yes", "switchover", "eu-west-2", "--reason", "kernel update"]);
    assert_eq!(moved["outcome"]["ended"], "done", "{moved}");
    assert_eq!(moved["outcome"]["writer"], "eu-west-2");
    assert!(moved["outcome"]["pause_ms_max"].as_u64().unwrap() < 30_000, "{moved}");
    assert_eq!(site.writer().as_deref(), Some("eu-west-2"));
    println!("switchover: {}", moved["outcome"]);

    site.wait_until_well();
    let back = site.json(&["--yes", "failback"]);
    assert_eq!(
        (&back["outcome"]["ended"], &back["outcome"]["writer"]),
        (&"done".into(), &"eu-west-1".into())
    );
    println!("failback: {}", back["outcome"]);

    let drained = site.json(&["--yes", "region", "drain", "eu-central-1"]);
    assert_eq!(drained["outcome"]["ended"], "done", "{drained}");
    refused(&site, &["--yes", "switchover", "eu-central-1"], "isles region undrain eu-central-1");
    let again = site.json(&["--yes", "region", "drain", "eu-central-1"]);
    assert_eq!((&again["ordered"], &again["plan"]["done"]), (&false.into(), &true.into()), "{again}");
    assert!(text(&site.isles(&["status"])).contains("eu-central-1 is drained"));
    assert!(site.isles(&["--yes", "region", "undrain", "eu-central-1"]).status.success());
    assert!(site.isles(&["--yes", "maintenance", "on"]).status.success());
    assert!(text(&site.isles(&["status"])).contains("maintenance is on"));
    assert!(site.isles(&["--yes", "maintenance", "off"]).status.success());

    let audit = site.json(&["audit"]);
    let entries = audit.as_array().unwrap();
    assert_eq!(entries.len(), 6, "{audit}");
    let first = entries.last().unwrap();
    assert_eq!((&first["who"], &first["why"]), (&"ada".into(), &"kernel update".into()));
    assert_eq!(first["change"]["to"], "eu-west-2");
    assert!(text(&site.isles(&["audit"])).contains("undrain eu-central-1"));
}
