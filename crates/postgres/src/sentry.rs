//! Fences a database whose agent has died or hangs: what the sentry, a process of its own, does.
//!
//! The agent's gate dies with it. What is left are sessions that went round the gate and writers inside PostgreSQL; the
//! sentry ends them when the agent's right to write has run out and nobody has prolonged it. It asks PostgreSQL first;
//! where PostgreSQL does not answer, it stops the server.
//!
//! It hears from the agent by a pipe, one line at a time: first the [`Ward`] as JSON, then `until NANOSECONDS` (of the
//! boot clock) whenever the right has grown, `none` when the database is fenced, `bye` before the agent ends. A pipe that
//! ends without `bye` is an agent that has died.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use isles_model::{Moment, config::DatabaseConfig, ids::Clock};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, Lines},
    time::sleep,
};
use tokio_postgres::{Client, Config, NoTls};
use tracing::{info, warn};

use crate::{
    error::{DatabaseError, Doing, within},
    link::{MAINTENANCE_DATABASE, ident},
};

/// How long fencing by SQL may take before the server is stopped.
pub const FENCE_MAX: Duration = Duration::from_secs(1);
/// An agent that is alive has this long beyond its deadline: it fences by itself, and better.
const GRACE: Duration = Duration::from_millis(150);
/// The longest time between two looks at the clock: timers may stand still while a machine sleeps.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Between two looks for sessions that are left.
const AGAIN_AFTER: Duration = Duration::from_millis(5);
/// Pause between two attempts to learn where the server's files are.
const LEARN_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What a sentry guards. Holds no secret: on the socket the superuser needs none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ward {
    socket_dir: PathBuf,
    port: u16,
    admin_user: String,
    app_user: String,
    /// Roles whose sessions stay: they cannot write.
    readers: Vec<String>,
}

impl Ward {
    /// The database of a region.
    pub fn of(config: &DatabaseConfig) -> Self {
        Self {
            socket_dir: config.socket_dir.clone(),
            port: config.port,
            admin_user: config.admin_user.clone(),
            app_user: config.app_user.clone(),
            readers: vec![config.read_user.clone(), config.replication_user.clone()],
        }
    }
}

/// What the agent last said.
enum Heard {
    Until(Moment),
    Nothing,
    Bye,
}

/// Guards until the agent says goodbye, or has died and been stood in for.
///
/// # Errors
/// When the first line does not say what to guard.
pub async fn guard(pipe: impl AsyncBufRead + Unpin, clock: Clock) -> io::Result<()> {
    let mut lines = pipe.lines();
    let first = lines.next_line().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let ward: Ward = serde_json::from_str(&first)?;
    let mut sentry = Sentry { ward, clock, until: None, died: None, data: None };
    while sentry.goes_on(&mut lines).await {}
    Ok(())
}

struct Sentry {
    ward: Ward,
    clock: Clock,
    /// The end of the right that was last heard of.
    until: Option<Moment>,
    /// When the agent's end of the pipe was found closed.
    died: Option<Moment>,
    /// The server's data directory, once known.
    data: Option<PathBuf>,
}

impl Sentry {
    async fn goes_on(&mut self, lines: &mut Lines<impl AsyncBufRead + Unpin>) -> bool {
        if let Some(until) = self.until {
            let grace = if self.died.is_some() { Duration::ZERO } else { GRACE };
            if until.plus(grace) <= (self.clock)() {
                self.stand_in().await;
                self.until = None;
            }
        }
        if self.died.is_some() && self.until.is_none() {
            return false;
        }
        tokio::select! {
            line = lines.next_line(), if self.died.is_none() => return self.hear(line),
            () = learn(&self.ward, &mut self.data), if self.data.is_none() && self.until.is_some() => {}
            () = sleep(LOOK_EVERY), if self.until.is_some() => {}
        }
        true
    }

    fn hear(&mut self, line: io::Result<Option<String>>) -> bool {
        match line.ok().flatten().map(|line| parse(&line)) {
            Some(Heard::Until(until)) => self.until = Some(until),
            Some(Heard::Nothing) => self.until = None,
            Some(Heard::Bye) => return false,
            None => self.died = Some((self.clock)()),
        }
        true
    }

    /// The right has run out, and the agent has not fenced.
    async fn stand_in(&self) {
        let since = self.died.map(|died| (self.clock)().since(died));
        match within(FENCE_MAX, "fencing in place of the agent", fence(&self.ward, since)).await {
            Ok(Fenced::Already) => {}
            Ok(Fenced::ByAnother) => info!("Another agent has taken over; the database is its own to fence."),
            Ok(Fenced::Now { sessions }) => {
                warn!(
                    sessions,
                    agent_died = self.died.is_some(),
                    "Fenced the database in place of the agent."
                );
            }
            Err(error) => {
                warn!(error = %error, "The database could not be asked to fence: it is stopped.");
                match self.data.as_deref().map(|data| stop(data, (self.clock)())) {
                    None => warn!("Where the server's files are is not known; it is left alone."),
                    Some(Ok(true)) => warn!("Stopped the database in place of the agent."),
                    Some(Ok(false)) => info!("The database does not run."),
                    Some(Err(error)) => warn!(error = %error, "The database could not be stopped."),
                }
            }
        }
    }
}

fn parse(line: &str) -> Heard {
    match line.split_once(' ') {
        Some(("until", nanos)) => {
            nanos.parse().map_or(Heard::Nothing, |nanos| Heard::Until(Moment(Duration::from_nanos(nanos))))
        }
        _ if line == "bye" => Heard::Bye,
        _ => Heard::Nothing,
    }
}

/// What fencing came to.
enum Fenced {
    /// There was nothing to do.
    Already,
    /// Another agent works at this database.
    ByAnother,
    /// The door was shut, or sessions were ended.
    Now { sessions: i64 },
}

/// Shuts the door for the app's role and ends every session and process that might write: the app's, others' that are no
/// superusers, and what extensions run inside the server.
async fn fence(ward: &Ward, died_since: Option<Duration>) -> Result<Fenced, DatabaseError> {
    const DOING: &str = "fencing in place of the agent";
    let client = connect(ward).await?;
    if let Some(since) = died_since {
        let another: bool = client
            .query_one(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'isles fence'
                   AND backend_start > clock_timestamp() - $1 * interval '1 millisecond')",
                &[&(since.as_secs_f64() * 1_000.0)],
            )
            .await
            .doing(DOING)?
            .get(0);
        if another {
            return Ok(Fenced::ByAnother);
        }
    }
    let was_open: bool = client
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1 AND rolcanlogin)",
            &[&ward.app_user],
        )
        .await
        .doing(DOING)?
        .get(0);
    if was_open {
        let shut = format!("ALTER ROLE {} NOLOGIN", ident(&ward.app_user));
        client.batch_execute(&shut).await.doing(DOING)?;
    }
    let mut ended = 0;
    loop {
        let left: i64 = client.query_one(END_WRITERS, &[&ward.readers]).await.doing(DOING)?.get(0);
        if left == 0 {
            break;
        }
        ended += left;
        sleep(AGAIN_AFTER).await;
    }
    Ok(if was_open || ended > 0 { Fenced::Now { sessions: ended } } else { Fenced::Already })
}

/// Because sessions of superusers are people's or agents', they stay; so does what belongs to PostgreSQL itself.
const END_WRITERS: &str = "
SELECT count(pg_terminate_backend(a.pid))
FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid
WHERE a.pid <> pg_backend_pid()
  AND (a.backend_type = 'client backend' AND NOT r.rolsuper AND r.rolname <> ALL ($1)
       OR a.backend_type NOT IN ('client backend', 'walsender', 'walreceiver', 'walwriter', 'checkpointer',
         'background writer', 'startup', 'archiver', 'logger', 'autovacuum launcher', 'autovacuum worker',
         'parallel worker', 'standalone backend', 'slotsync worker', 'io worker', 'walsummarizer')
         AND a.backend_type NOT LIKE 'logical replication%')";

async fn connect(ward: &Ward) -> Result<Client, DatabaseError> {
    let mut target = Config::new();
    target
        .host_path(&ward.socket_dir)
        .port(ward.port)
        .user(&ward.admin_user)
        .dbname(MAINTENANCE_DATABASE)
        .application_name("isles sentry")
        .options("-c search_path=pg_catalog -c synchronous_commit=local -c log_statement=none");
    let (client, connection) = target
        .connect(NoTls)
        .await
        .map_err(|source| DatabaseError::Connect { whom: "own database".into(), source })?;
    // Ends with the client.
    tokio::spawn(connection);
    Ok(client)
}

/// Asks the server where its files are, while it can still answer.
async fn learn(ward: &Ward, data: &mut Option<PathBuf>) {
    let ask = async {
        let client = connect(ward).await?;
        let row = client.query_one("SHOW data_directory", &[]).await.doing("learning the data directory")?;
        Ok(PathBuf::from(row.get::<_, String>(0)))
    };
    match within(FENCE_MAX, "learning the data directory", ask).await {
        Ok(known) => *data = Some(known),
        Err(_) => sleep(LEARN_AGAIN_AFTER).await,
    }
}

/// Stops the server of a data directory at once (SIGQUIT, PostgreSQL, chapter 19.5); `false`: none runs.
fn stop(data: &Path, now: Moment) -> io::Result<bool> {
    let text = match std::fs::read_to_string(data.join("postmaster.pid")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut lines = text.lines();
    let number = lines.next().and_then(|line| line.trim().parse::<i32>().ok()).filter(|pid| *pid > 1);
    let same_directory = lines.next().is_some_and(|line| Path::new(line.trim()) == data);
    let Some(pid) = number.and_then(Pid::from_raw).filter(|_| same_directory) else { return Ok(false) };
    if !is_postmaster_of(pid, data, now) {
        return Ok(false);
    }
    kill_process(pid, Signal::QUIT)?;
    Ok(true)
}

/// Because a process number may have been given to another program since the file was written, the process must work in
/// the data directory, as a server does, and have begun before now by the machine's own count.
fn is_postmaster_of(pid: Pid, data: &Path, now: Moment) -> bool {
    /// Units of a process's start in `/proc/PID/stat` (proc(5): `sysconf(_SC_CLK_TCK)`, 100 on every Linux).
    const TICKS_A_SECOND: u64 = 100;
    let dir = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let works_there = std::fs::canonicalize(dir.join("cwd")).ok() == std::fs::canonicalize(data).ok();
    let stat = std::fs::read_to_string(dir.join("stat")).unwrap_or_default();
    // The name in brackets may hold anything; field 22 is the 20th after it.
    let began =
        stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19)?.parse::<u64>().ok());
    works_there && began.is_some_and(|ticks| Duration::from_secs(ticks / TICKS_A_SECOND) <= now.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_no_server_of_the_directory_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!stop(dir.path(), Moment::ZERO).unwrap(), "no file");
        let own = std::process::id();
        let file = dir.path().join("postmaster.pid");
        std::fs::write(&file, format!("{own}\n{}\n", dir.path().display())).unwrap();
        let late = Moment(Duration::from_secs(u64::MAX / 4));
        assert!(!stop(dir.path(), late).unwrap(), "this process works elsewhere");
        std::fs::write(&file, format!("{own}\n/elsewhere\n")).unwrap();
        assert!(!stop(dir.path(), late).unwrap(), "another directory's file");
        std::fs::write(&file, "garbage").unwrap();
        assert!(!stop(dir.path(), late).unwrap());
    }
}
