//! What Patroni and pg_auto_failover have in common: two hosts with data, a witness, streaming replication.

use std::{path::PathBuf, time::Duration};

use rustix::process::Signal;

use crate::{
    case::Case,
    contender::{Contender, Inside},
    error::BenchError,
    host::{Host, Program},
    network::{HOSTS, Network, Port},
    session::{Login, ask},
};

/// PostgreSQL's port on every host with data.
pub(crate) const POSTGRES_PORT: u16 = 5432;
/// The hosts with data; the third is the witness.
pub(crate) const DATA_HOSTS: usize = 2;
/// How long a host may take to say how it is.
const LOOK_WAIT: Duration = Duration::from_secs(2);

/// How a peer is asked, beyond its databases.
pub(crate) enum Kind {
    /// Patroni: the switchover command, once for each host that may write now.
    Patroni {
        /// `patronictl switchover`.
        switchover: [Program; DATA_HOSTS],
    },
    /// pg_auto_failover.
    AutoFailover {
        /// The monitor's database.
        monitor: Login,
        /// `pg_autoctl perform switchover`.
        switchover: Program,
    },
}

/// A peer, running.
pub(crate) struct Peer {
    hosts: [Host; HOSTS],
    network: Network,
    kind: Kind,
    writer: usize,
    dir: PathBuf,
}

impl Peer {
    /// A peer whose processes have been started.
    pub(crate) fn new(hosts: [Host; HOSTS], network: Network, kind: Kind, dir: PathBuf) -> Self {
        Self { hosts, network, kind, writer: 0, dir }
    }

    fn data_hosts(&self) -> &[Host] {
        &self.hosts[..DATA_HOSTS]
    }

    fn logins(&self) -> Vec<Login> {
        self.data_hosts().iter().map(|host| host.superuser(POSTGRES_PORT)).collect()
    }

    /// The host that writes, if exactly one does and the other one follows it.
    async fn databases(&self) -> Result<usize, String> {
        let mut writers = Vec::new();
        let mut followers = 0;
        for (index, login) in self.logins().iter().enumerate() {
            let sql = "SELECT pg_is_in_recovery(), \
                       (SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming')";
            let rows = ask(login, sql, LOOK_WAIT).await;
            let rows = rows.map_err(|error| format!("the database of host {}: {error}", index + 1))?;
            let Some([standby, streams]) = rows.first().map(Vec::as_slice) else { continue };
            if standby == "f" {
                writers.push(index);
                followers += streams.parse::<usize>().unwrap_or(0);
            }
        }
        match writers[..] {
            [writer] if followers >= DATA_HOSTS - 1 => Ok(writer),
            [_] => Err("the other host does not follow the writer".to_owned()),
            [] => Err("no host takes writes".to_owned()),
            _ => Err("both hosts take writes".to_owned()),
        }
    }

    fn freeze(&self, signal: Signal) {
        self.hosts[self.writer].signal(signal);
    }
}

impl Contender for Peer {
    async fn survey(&mut self) -> Result<(), String> {
        let writer = self.databases().await?;
        if let Kind::AutoFailover { monitor, .. } = &self.kind {
            let sql = "SELECT nodename FROM pgautofailover.node \
                       WHERE reportedstate <> goalstate OR reportedstate NOT IN ('primary', 'secondary')";
            let unsettled = ask(monitor, sql, LOOK_WAIT).await;
            let unsettled = unsettled.map_err(|error| format!("the monitor: {error}"))?;
            if let Some([name]) = unsettled.first().map(Vec::as_slice) {
                return Err(format!("the monitor has other plans for {name}"));
            }
        }
        self.writer = writer;
        Ok(())
    }

    fn outside(&self) -> Vec<Login> {
        self.logins()
    }

    fn inside(&self) -> Inside {
        let host = &self.hosts[self.writer];
        Inside { login: host.superuser(POSTGRES_PORT), namespace: Some(host.place.namespace.clone()) }
    }

    fn copies(&self) -> Vec<Login> {
        self.logins()
    }

    async fn inject(&mut self, case: Case) -> Result<(), BenchError> {
        let host = &self.hosts[self.writer];
        match case {
            Case::Database => host.kill_postgres(),
            Case::Killed => host.signal(Signal::KILL),
            Case::Stopped => self.freeze(Signal::STOP),
            Case::Network => self.network.set(&host.place, Port::Silent).await?,
            Case::Planned => match &self.kind {
                Kind::Patroni { switchover } => {
                    self.hosts[DATA_HOSTS].run(&switchover[self.writer]).await?;
                }
                Kind::AutoFailover { switchover, .. } => self.hosts[DATA_HOSTS].run(switchover).await?,
            },
        }
        Ok(())
    }

    async fn heal(&mut self, case: Case) -> Result<(), BenchError> {
        let host = &self.hosts[self.writer];
        match case {
            Case::Killed => {
                host.kill();
                host.boot()?;
            }
            Case::Stopped => self.freeze(Signal::CONT),
            Case::Network => self.network.set(&host.place, Port::Open).await?,
            Case::Database | Case::Planned => {}
        }
        Ok(())
    }

    fn logs(&self) -> PathBuf {
        self.dir.clone()
    }

    async fn stop(self) {
        for host in &self.hosts {
            host.kill();
        }
        drop(self.network);
    }
}
