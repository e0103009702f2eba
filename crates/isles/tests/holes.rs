//! The ways past a gate, each tried on real processes: an agent that hangs or is killed while its database lives, a region
//! that is frozen and wakes, a writer inside the database. Commits wait for another region here, so nothing may be lost.
//!
//! One lab, broken again and again: starting one takes seconds.

// Because the helpers below are not tests themselves, the exemption for tests does not reach them.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use isles_lab::{
    control::{Client, LabState, Part, PartAction, RegionState},
    processes::tree,
};
use isles_model::{AgentConfig, Epoch, EpochSecret};
use serde_json::Value;

/// Generous, because labs share the machine with other tests.
const DEADLINE: Duration = Duration::from_secs(120);

const SPEC: &str = "name: tiny
pattern: read-replicas
regions: [eu-west-1, eu-central-1, eu-west-2]
objectives: { rpo: 0s }
services:
  web:
    command: 'python3 -m http.server $PORT --bind 127.0.0.1'
    healthcheck: { path: / }
database: { engine: postgres, commit: remote }
";

/// A lab that is taken down at the end whatever happens.
struct Site {
    dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Site {
    fn up() -> (Self, LabState) {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        fs::write(dir.path().join("isles.yaml"), SPEC).unwrap();
        fs::create_dir(dir.path().join("tmp")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let site = Self { dir, runtime };
        let up = site.isles(&["--json", "up", "--detach"]);
        assert!(up.status.success(), "{}", text(&up));
        let state = serde_json::from_slice(&up.stdout).unwrap();
        (site, state)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isles"));
        command.current_dir(self.dir.path()).env("TMPDIR", self.dir.path().join("tmp"));
        command.args(args).stdin(Stdio::null());
        command
    }

    fn isles(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn status(&self) -> Value {
        serde_json::from_slice(&self.isles(&["--json", "status"]).stdout).unwrap_or_default()
    }

    /// The region that writes by its own word, its epoch, and who alone may take over from it.
    fn writer(&self, but: &str) -> Option<(String, Epoch, Option<String>)> {
        let status = self.status();
        status["regions"].as_object()?.iter().filter(|(name, _)| *name != but).find_map(|(name, value)| {
            let snapshot = &value["snapshot"];
            let epoch = snapshot["plan"]["writes"]["here"]["epoch"].as_u64()?;
            let named = snapshot["lease"][0]["successor"]["only"]["region"].as_str().map(str::to_owned);
            Some((name.clone(), Epoch(epoch), named))
        })
    }

    /// Waits until a region other than `but` writes and another protects its commits.
    fn protected_writer(&self, but: &str) -> (String, Epoch) {
        let mut found = None;
        wait_for("a writer's commits are protected", || {
            found = self.writer(but).filter(|(.., named)| named.is_some());
            found.is_some()
        });
        found.map(|(region, epoch, _)| (region, epoch)).unwrap()
    }

    fn wait_until_well(&self) {
        wait_for("every region is ready", || self.isles(&["--json", "status"]).status.success());
    }

    /// Signals the agent alone: the lab's own way would freeze its sentry too, as a frozen machine does.
    fn signal_agent(&self, client: &Client, region: &RegionState, signal: rustix::process::Signal) {
        let state = self.runtime.block_on(client.state()).unwrap();
        let region = state.regions.iter().find(|one| one.region == region.region).unwrap();
        let agent = region.parts.iter().find(|part| part.part == Part::Agent).unwrap();
        tree::send(agent.pid.unwrap(), signal);
    }

    fn part(&self, client: &Client, region: &RegionState, action: PartAction) {
        self.runtime.block_on(client.part(&region.region, Part::Agent, action)).unwrap();
    }

    fn write(&self, sql: &str) -> Output {
        self.isles(&["psql", "eu-west-1", "--write", "--", "-qAtc", sql])
    }

    fn rows(&self, region: &str) -> String {
        text(&self.isles(&[
            "psql",
            region,
            "--admin",
            "--",
            "-Atc",
            "SELECT string_agg(t, ',' ORDER BY t) FROM note",
        ]))
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
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A session of the app's role that goes round the gate, over the database's own socket.
struct Direct {
    psql: Child,
    to: ChildStdin,
    from: mpsc::Receiver<String>,
}

/// How long an acknowledgement is waited for: a commit that waits for another region may wait for ever.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

impl Direct {
    fn open(region: &RegionState, epoch: Epoch) -> Self {
        let config: AgentConfig = serde_json::from_slice(&fs::read(&region.config).unwrap()).unwrap();
        let database = &config.database;
        let mut psql = Command::new("psql")
            .args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-h", &database.socket_dir.display().to_string()])
            .args(["-p", &database.port.to_string(), "-U", &database.app_user, "-d", &database.name])
            .env("PGPASSWORD", EpochSecret::new(&config.peer_secret).app_password(epoch))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (to, out) = (psql.stdin.take().unwrap(), BufReader::new(psql.stdout.take().unwrap()));
        let (lines, from) = mpsc::channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        Self { psql, to, from }
    }

    /// Whether a statement was acknowledged.
    fn says(&mut self, sql: &str) -> bool {
        let sent = writeln!(self.to, "{sql}; \\echo done").and_then(|()| self.to.flush());
        sent.is_ok() && self.from.recv_timeout(ANSWER_WITHIN).is_ok()
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        let _ = self.psql.kill();
        let _ = self.psql.wait();
    }
}

#[test]
fn nobody_is_told_that_a_write_counts_once_the_right_to_write_has_ended() {
    let (site, state) = Site::up();
    let client = Client::new(state.dir.join("control.sock"));
    let named = |name: &str| state.regions.iter().find(|region| region.region.as_str() == name).unwrap();
    site.wait_until_well();
    let made = site.write("CREATE TABLE note (t text PRIMARY KEY)");
    assert!(made.status.success(), "{}", text(&made));
    // Because a new table is carried to replicas a moment later, what is written to it counts as protected only then.
    for region in &state.regions {
        wait_for("every region has the table", || site.rows(region.region.as_str()) == "\n");
    }
    site.wait_until_well();

    // The agent is frozen for longer than its right lasts, while its database lives and a session goes round the gate.
    let (writer, epoch) = site.protected_writer("");
    wait_for("the first note is protected", || site.write("INSERT INTO note VALUES ('1')").status.success());
    let mut direct = Direct::open(named(&writer), epoch);
    assert!(direct.says("INSERT INTO note VALUES ('2')"), "it writes while it may");
    site.signal_agent(&client, named(&writer), rustix::process::Signal::STOP);
    wait_for("another region writes", || site.writer(&writer).is_some());
    assert!(!direct.says("INSERT INTO note VALUES ('zombie 1')"), "an acknowledgement of a lost epoch");
    site.signal_agent(&client, named(&writer), rustix::process::Signal::CONT);
    assert!(!direct.says("INSERT INTO note VALUES ('zombie 2')"));
    site.wait_until_well();
    wait_for("the frozen region follows with the same rows", || site.rows(&writer) == "1,2\n");

    // The agent is killed, and stays so.
    let (writer, epoch) = site.protected_writer("");
    let mut direct = Direct::open(named(&writer), epoch);
    assert!(direct.says("INSERT INTO note VALUES ('3')"));
    site.part(&client, named(&writer), PartAction::Kill);
    wait_for("another region writes", || site.writer(&writer).is_some());
    let through = named(if writer == "eu-west-1" { "eu-west-2" } else { "eu-west-1" });
    assert_ne!(through.region.as_str(), writer);
    site.part(&client, named(&writer), PartAction::Start);
    site.wait_until_well();
    for region in &state.regions {
        let rows = || site.rows(region.region.as_str());
        wait_for("every region has what was acknowledged", || rows().starts_with("1,2,3"));
    }
}
