//! The ways past a gate, each tried on real processes: an agent that hangs or is killed while its database lives, a region
//! that is frozen and wakes, a writer inside the database. Commits wait for another region here, so nothing may be lost.
//!
//! A lab is broken again and again: starting one takes seconds.

#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

mod site;

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::mpsc,
    time::Duration,
};

use isles_lab::{
    control::{Client, LabState, Part, PartAction, RegionState},
    processes::tree,
};
use isles_model::{AgentConfig, Epoch, EpochSecret};
use site::{REMOTE, Site, text};

/// The region other than `but` that writes, its epoch, and who alone may take over from it.
fn writer(site: &Site, but: &str) -> Option<(String, Epoch, Option<String>)> {
    let (name, snapshot) = site.writer_but(but)?;
    let epoch = snapshot["plan"]["writes"]["here"]["epoch"].as_u64()?;
    let named = snapshot["lease"][0]["successor"]["only"]["region"].as_str().map(str::to_owned);
    Some((name, Epoch(epoch), named))
}

/// Waits until a region writes and another protects its commits.
fn protected_writer(site: &Site) -> (String, Epoch) {
    let mut found = None;
    site.wait_for("a writer's commits are protected", || {
        found = writer(site, "").filter(|(.., named)| named.is_some());
        found.is_some()
    });
    found.map(|(region, epoch, _)| (region, epoch)).unwrap()
}

fn write(site: &Site, sql: &str) -> Output {
    site.isles(&["psql", "eu-west-1", "--write", "--", "-qAtc", sql])
}

fn rows(site: &Site, region: &str) -> String {
    let sql = "SELECT string_agg(t, ',' ORDER BY t) FROM note";
    text(&site.isles(&["psql", region, "--admin", "--", "-Atc", sql]))
}

/// The real control of a lab, to break it by.
struct Hand {
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Hand {
    fn of(state: &LabState) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { client: Client::new(state.dir.join("control.sock")), runtime }
    }

    /// Signals the agent alone: the lab's own way would freeze its sentry too, as a frozen machine does.
    fn signal_agent(&self, region: &RegionState, signal: rustix::process::Signal) {
        let state = self.runtime.block_on(self.client.state()).unwrap();
        let region = state.regions.iter().find(|one| one.region == region.region).unwrap();
        let agent = region.parts.iter().find(|part| part.part == Part::Agent).unwrap();
        tree::send(agent.pid.unwrap(), signal);
    }

    fn agent(&self, region: &RegionState, action: PartAction) {
        self.runtime.block_on(self.client.part(&region.region, Part::Agent, action)).unwrap();
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
    let site = Site::new(REMOTE);
    let state = site.up();
    let hand = Hand::of(&state);
    let named = |name: &str| state.regions.iter().find(|region| region.region.as_str() == name).unwrap();
    site.wait_until_well();
    let made = write(&site, "CREATE TABLE note (t text PRIMARY KEY)");
    assert!(made.status.success(), "{}", text(&made));
    for region in &state.regions {
        site.wait_for("every region has the table", || rows(&site, region.region.as_str()) == "\n");
    }
    site.wait_until_well();

    // The agent is frozen for longer than its right lasts, while its database lives and a session goes round the gate.
    let (writer, epoch) = protected_writer(&site);
    site.wait_for("the first note is protected", || {
        write(&site, "INSERT INTO note VALUES ('1')").status.success()
    });
    let mut direct = Direct::open(named(&writer), epoch);
    assert!(direct.says("INSERT INTO note VALUES ('2')"), "it writes while it may");
    hand.signal_agent(named(&writer), rustix::process::Signal::STOP);
    site.wait_for("another region writes", || site.writer_but(&writer).is_some());
    assert!(!direct.says("INSERT INTO note VALUES ('zombie 1')"), "an acknowledgement of a lost epoch");
    hand.signal_agent(named(&writer), rustix::process::Signal::CONT);
    assert!(!direct.says("INSERT INTO note VALUES ('zombie 2')"));
    site.wait_until_well();
    site.wait_for("the frozen region follows with the same rows", || rows(&site, &writer) == "1,2\n");

    // The agent is killed, and stays so.
    let (writer, epoch) = protected_writer(&site);
    let mut direct = Direct::open(named(&writer), epoch);
    assert!(direct.says("INSERT INTO note VALUES ('3')"));
    hand.agent(named(&writer), PartAction::Kill);
    site.wait_for("another region writes", || site.writer_but(&writer).is_some());
    let through = named(if writer == "eu-west-1" { "eu-west-2" } else { "eu-west-1" });
    assert_ne!(through.region.as_str(), writer);
    hand.agent(named(&writer), PartAction::Start);
    site.wait_until_well();
    for region in &state.regions {
        let has = || rows(&site, region.region.as_str()).starts_with("1,2,3");
        site.wait_for("every region has what was acknowledged", has);
    }
}

#[test]
fn a_standby_that_is_lost_with_the_writer_is_passed_over_by_order_alone() {
    let site = Site::new(REMOTE);
    let hand = Hand::of(&site.up());
    let state = hand.runtime.block_on(hand.client.state()).unwrap();
    let named = |name: &str| state.regions.iter().find(|region| region.region.as_str() == name).unwrap();
    site.wait_until_well();
    let (writer, ..) = protected_writer(&site);
    let standby = self::writer(&site, "").and_then(|(.., standby)| standby).unwrap();
    let mut regions = state.regions.iter().map(|region| region.region.to_string());
    let third = regions.find(|name| *name != writer && *name != standby).unwrap();
    for lost in [&standby, &writer] {
        hand.agent(named(lost), PartAction::Kill);
    }
    let refuses =
        || site.status()["regions"][&third]["snapshot"]["plan"]["writes"]["nowhere"]["because"].clone();
    site.wait_for("the third region says why it does not take over", || refuses() == "not_the_standby");
    let plain = site.isles(&["--yes", "switchover", &third]);
    assert_eq!(plain.status.code(), Some(3), "{}", text(&plain));
    let plan = text(&site.isles(&["failover", &third, "--dry-run"]));
    println!("{plan}");

    let forced = site.json(&["--yes", "failover", &third, "--reason", "both are lost"]);
    assert_eq!(
        (&forced["outcome"]["ended"], &forced["outcome"]["writer"]),
        (&"done".into(), &third.clone().into())
    );
    println!("{}", forced["outcome"]);
    for back in [&standby, &writer] {
        hand.agent(named(back), PartAction::Start);
    }
    site.wait_until_well();
    assert_eq!(site.writer(), Some(third));
    let audit = site.json(&["audit"]);
    assert_eq!(audit[0]["why"], "both are lost", "{audit}");
}
