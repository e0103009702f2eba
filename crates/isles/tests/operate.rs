//! An operator's orders through the real program, against a real lab: moved, refused, drained, written down.
//!
//! Starting a lab takes seconds; so one test asks several things of one.

// Because the helpers below are not tests themselves, the exemption for tests does not reach them.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// Generous, because labs share the machine with other tests.
const DEADLINE: Duration = Duration::from_secs(120);

const SPEC: &str = "name: tiny
pattern: read-replicas
regions: [eu-west-1, eu-central-1, eu-west-2]
services:
  web:
    command: 'python3 -m http.server $PORT --bind 127.0.0.1'
    healthcheck: { path: / }
database: { engine: postgres }
";

/// A directory with a spec, whose lab is taken down at the end whatever happens.
struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn up() -> Self {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        fs::write(dir.path().join("isles.yaml"), SPEC).unwrap();
        fs::create_dir(dir.path().join("tmp")).unwrap();
        let site = Self { dir };
        let up = site.isles(&["up", "--detach", "--quiet"]);
        assert!(up.status.success(), "{}", text(&up));
        site
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isles"));
        command.current_dir(self.dir.path()).env("TMPDIR", self.dir.path().join("tmp")).env("USER", "ada");
        command.env_remove("SUDO_USER").args(args).stdin(Stdio::null());
        command
    }

    fn isles(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.isles(&[&["--json"], args].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{args:?}: {}", text(&output)))
    }

    /// The region that writes by its own word.
    fn writer(&self) -> Option<String> {
        let status = self.json(&["status"]);
        let regions = status["regions"].as_object()?;
        let writes = |value: &Value| value["snapshot"]["plan"]["writes"]["here"].is_object();
        regions.iter().find(|(_, value)| writes(value)).map(|(name, _)| name.clone())
    }

    fn refused(&self, args: &[&str], because: &str) {
        let output = self.isles(args);
        assert_eq!(output.status.code(), Some(3), "{args:?}: {}", text(&output));
        assert!(text(&output).contains(because), "{args:?}: {}", text(&output));
    }

    fn wait_until_well(&self) {
        wait_for("every region is ready", || self.isles(&["--json", "status"]).status.success());
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.command(&["down"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn wait_for(what: &str, mut fact: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !fact() {
        assert!(Instant::now() < until, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_operator_moves_the_writer_drains_a_region_and_finds_it_all_written_down() {
    let site = Site::up();
    site.wait_until_well();
    assert_eq!(site.writer().as_deref(), Some("eu-west-1"));

    // Looking changes nothing, and without a terminal nothing is ordered unasked.
    let dry = site.isles(&["switchover", "eu-west-2", "--dry-run"]);
    assert!(dry.status.success() && text(&dry).contains("eu-west-1 -> eu-west-2"), "{}", text(&dry));
    assert_eq!(site.isles(&["switchover", "eu-west-2"]).status.code(), Some(2), "nobody can be asked");
    assert_eq!(site.json(&["audit"]).as_array().map(Vec::len), Some(0));

    site.refused(&["--yes", "switchover", "eu-west-1"], "eu-west-1 is the writer already");
    site.refused(&["--yes", "failover", "eu-west-2"], "use `isles switchover`");
    site.refused(&["--yes", "switchover", "mars-1"], "the spec has no region mars-1");

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
    site.refused(&["--yes", "switchover", "eu-central-1"], "isles region undrain eu-central-1");
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
