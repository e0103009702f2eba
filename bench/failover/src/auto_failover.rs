//! pg_auto_failover as its documentation recommends it: one monitor and two nodes, of which the second confirms every
//! commit while it is well.

use std::{path::Path, time::Duration};

use crate::{
    error::BenchError,
    host::{Host, POSTGRES_BIN, Program},
    network::Network,
    peer::{DATA_HOSTS, Kind, POSTGRES_PORT, Peer},
    session::{Login, ask},
};

const PG_AUTOCTL: &str = "/usr/bin/pg_autoctl";
/// Where Debian puts the monitor's extension.
const EXTENSION: &str = "/usr/lib/postgresql/15/lib/pgautofailover.so";
/// How long the monitor and each node may take to come up.
const UP_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long one look may take, and the pause between two.
const LOOK_WAIT: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often an option is set at most, and the pause between two tries.
const CONFIGURE_TRIES: u32 = 20;
const CONFIGURE_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// The monitor's times in milliseconds, tuned down (pg_auto_failover's documentation, "Configuring pg_auto_failover").
/// A host counts as lost when its agent has not reported for `node_considered_unhealthy_timeout` and its database has
/// not answered; an agent reports every second.
const MONITOR_TUNED: &str = "pgautofailover.health_check_period = 300
pgautofailover.health_check_timeout = 500
pgautofailover.health_check_max_retries = 1
pgautofailover.health_check_retry_delay = 200
pgautofailover.node_considered_unhealthy_timeout = 1000
pgautofailover.primary_demote_timeout = 1000
";
/// Each node's times in seconds, tuned down.
const NODE_TUNED: &[(&str, u32)] = &[
    ("timeout.network_partition_timeout", 1),
    ("timeout.prepare_promotion_catchup", 1),
    ("timeout.prepare_promotion_walreceiver", 1),
    ("timeout.postgresql_restart_failure_timeout", 1),
    ("timeout.postgresql_restart_failure_max_retries", 1),
];

/// What every database of the comparison is set to, and who is let in.
const SETTINGS: &str = "shared_buffers = 32MB\nmax_wal_size = 512MB\njit = off\n";
const DOORS: &str =
    "local all all trust\nhost all all 198.18.77.0/24 trust\nhost replication all 198.18.77.0/24 trust\n";

/// Starts it.
pub(crate) async fn start(dir: &Path, tuned: bool) -> Result<Peer, BenchError> {
    for program in [PG_AUTOCTL, EXTENSION] {
        if !Path::new(program).exists() {
            return Err(BenchError::Missing(program.into()));
        }
    }
    let network = Network::build()?;
    let mut hosts = Host::all(&network, dir)?;
    let monitor = start_monitor(&mut hosts[DATA_HOSTS], tuned).await?;
    for host in hosts.iter_mut().take(DATA_HOSTS) {
        start_node(host, &monitor, tuned).await?;
    }
    let data = hosts[DATA_HOSTS].dir.join("data");
    let switchover =
        Program::of("switchover", &format!("{PG_AUTOCTL} perform switchover --pgdata {}", data.display()));
    Ok(Peer::new(hosts, network, Kind::AutoFailover { monitor, switchover }, dir.to_owned()))
}

/// Starts the monitor and says how it is asked.
async fn start_monitor(host: &mut Host, tuned: bool) -> Result<Login, BenchError> {
    let data = initdb(host).await?;
    if tuned {
        let settings = format!("{SETTINGS}{MONITOR_TUNED}");
        settle(host, &settings)?;
    } else {
        settle(host, SETTINGS)?;
    }
    host.start(&Program::of(
        "monitor",
        &format!(
            "{PG_AUTOCTL} create monitor --pgdata {data} --pgport {POSTGRES_PORT} --hostname {} \
             --auth trust --no-ssl --run",
            host.place.address
        ),
    ))?;
    host.serve_later(Program::of("monitor", &format!("{PG_AUTOCTL} run --pgdata {data}")));
    let monitor = Login { database: "pg_auto_failover".to_owned(), ..host.superuser(POSTGRES_PORT) };
    until(&monitor, "SELECT 1 FROM pgautofailover.formation", "the monitor").await?;
    Ok(monitor)
}

/// Starts a node and waits until the monitor knows it.
async fn start_node(host: &mut Host, monitor: &Login, tuned: bool) -> Result<(), BenchError> {
    let (number, address) = (host.place.index + 1, host.place.address);
    let data = host.dir.join("data").display().to_string();
    if number == 1 {
        initdb(host).await?;
        settle(host, SETTINGS)?;
    }
    let create = format!(
        "{PG_AUTOCTL} create postgres --pgdata {data} --pgport {POSTGRES_PORT} --hostname {address} \
         --name host-{number} --monitor postgres://autoctl_node@{}/pg_auto_failover?sslmode=disable \
         --auth trust --no-ssl --run",
        monitor.address
    );
    host.start(&Program::of("node", &create))?;
    host.serve_later(Program::of("node", &format!("{PG_AUTOCTL} run --pgdata {data}")));
    let known = format!(
        "SELECT 1 FROM pgautofailover.node WHERE nodename = 'host-{number}' \
         AND reportedstate IN ('single', 'wait_primary', 'primary', 'catchingup', 'secondary')"
    );
    until(monitor, &known, "the node").await?;
    if tuned {
        for (name, value) in NODE_TUNED {
            configure(host, &format!("{PG_AUTOCTL} config set --pgdata {data} {name} {value}")).await?;
        }
        host.run(&Program::of("config", &format!("{PG_AUTOCTL} reload --pgdata {data}"))).await?;
    }
    Ok(())
}

/// Sets an option. A node that has just started still writes the file that options are in; it is read again then.
async fn configure(host: &Host, set: &str) -> Result<(), BenchError> {
    for _ in 1..CONFIGURE_TRIES {
        if host.run(&Program::of("config", set)).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(CONFIGURE_AGAIN_AFTER).await;
    }
    host.run(&Program::of("config", set)).await
}

async fn initdb(host: &Host) -> Result<String, BenchError> {
    let data = host.dir.join("data").display().to_string();
    let line = format!(
        "{POSTGRES_BIN}/initdb --username postgres --encoding UTF8 --locale C.UTF-8 --auth trust --no-sync \
         --data-checksums --pgdata {data}"
    );
    host.run(&Program::of("initdb", &line)).await?;
    Ok(data)
}

/// Adds settings and doors to a cluster that has just been made.
fn settle(host: &Host, settings: &str) -> Result<(), BenchError> {
    let sockets = format!("unix_socket_directories = '{}'\n", host.dir.display());
    for (name, text) in
        [("data/postgresql.conf", format!("{settings}{sockets}")), ("data/pg_hba.conf", DOORS.to_owned())]
    {
        let path = host.dir.join(name);
        let before = std::fs::read_to_string(&path)
            .map_err(|source| BenchError::File { path: path.clone(), source })?;
        host.write(name, &format!("{before}{text}"))?;
    }
    Ok(())
}

/// Waits until a question has an answer.
async fn until(login: &Login, sql: &str, what: &str) -> Result<(), BenchError> {
    let end = tokio::time::Instant::now() + UP_WAIT_MAX;
    while !ask(login, sql, LOOK_WAIT).await.is_ok_and(|rows| !rows.is_empty()) {
        if tokio::time::Instant::now() > end {
            return Err(BenchError::NotReady {
                lacks: format!("{what} does not answer"),
                within: UP_WAIT_MAX,
            });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}
