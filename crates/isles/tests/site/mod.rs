//! A directory with a spec, the real program run in it, and its lab taken down at the end whatever happens.

#![allow(clippy::unwrap_used, reason = "a failure ends the test")]
#![allow(dead_code, reason = "each test uses a part")]

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use isles_lab::control::LabState;
use serde_json::Value;

/// Generous, because labs share the machine with other tests.
const DEADLINE: Duration = Duration::from_secs(120);

/// The smallest app.
pub(crate) const SERVER: &str = "python3 -m http.server $PORT --bind 127.0.0.1";

/// Three near regions; commits wait for nobody.
pub(crate) const ASYNC: &str = "name: tiny
pattern: read-replicas
regions: [eu-west-1, eu-central-1, eu-west-2]
objectives: { rto: 60s }
services:
  web:
    command: 'python3 -m http.server $PORT --bind 127.0.0.1'
    healthcheck: { path: / }
database: { engine: postgres }
";

/// The same; commits wait for another region.
pub(crate) const REMOTE: &str = "name: tiny
pattern: read-replicas
regions: [eu-west-1, eu-central-1, eu-west-2]
objectives: { rpo: 0s }
services:
  web:
    command: 'python3 -m http.server $PORT --bind 127.0.0.1'
    healthcheck: { path: / }
database: { engine: postgres, commit: remote }
";

/// A directory with a spec.
pub(crate) struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    /// A site with this spec.
    pub(crate) fn new(spec: &str) -> Self {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        fs::write(dir.path().join("isles.yaml"), spec).unwrap();
        fs::create_dir(dir.path().join("tmp")).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isles"));
        command.current_dir(self.path()).env("TMPDIR", self.path().join("tmp")).env("USER", "ada");
        command.env_remove("SUDO_USER").args(args).stdin(Stdio::null());
        command
    }

    pub(crate) fn isles(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What a command prints for a program, whatever its exit code.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let output = self.isles(&[&["--json"], args].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{args:?}: {}", text(&output)))
    }

    pub(crate) fn up(&self) -> LabState {
        let output = self.isles(&["--json", "up", "--detach"]);
        assert!(output.status.success(), "{}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_slice(&self.isles(&["--json", "status"]).stdout).unwrap_or_default()
    }

    /// The region that writes by its own word, and what it says of itself.
    pub(crate) fn writer_but(&self, but: &str) -> Option<(String, Value)> {
        let status = self.status();
        let mut regions = status["regions"].as_object()?.iter().filter(|(name, _)| *name != but);
        let (name, region) =
            regions.find(|(_, region)| region["snapshot"]["plan"]["writes"]["here"].is_object())?;
        Some((name.clone(), region["snapshot"].clone()))
    }

    pub(crate) fn writer(&self) -> Option<String> {
        self.writer_but("").map(|(name, _)| name)
    }

    pub(crate) fn wait_until_well(&self) {
        self.wait_for("every region is ready", || self.isles(&["status"]).status.success());
    }

    /// Waits for a fact; shows how the regions are where it waits in vain.
    pub(crate) fn wait_for(&self, what: &str, mut fact: impl FnMut() -> bool) {
        let until = Instant::now() + DEADLINE;
        while !fact() {
            assert!(
                Instant::now() < until,
                "waited in vain until {what}\n{}\n{:#}",
                text(&self.isles(&["status"])),
                self.status()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.command(&["down"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// Everything that a command printed.
pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
