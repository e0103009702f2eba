//! Patroni as its documentation recommends it for two data centres and a witness: three etcd members, a Patroni beside
//! each database, asynchronous replication, `pg_rewind`.

use std::path::Path;

use crate::{
    error::BenchError,
    host::{Host, POSTGRES_BIN, Program},
    network::Network,
    peer::{DATA_HOSTS, Kind, POSTGRES_PORT, Peer},
};

const PATRONI: &str = "/usr/bin/patroni";
const PATRONICTL: &str = "/usr/bin/patronictl";
const ETCD: &str = "/usr/bin/etcd";
const ETCD_CLIENT_PORT: u16 = 2379;
const ETCD_PEER_PORT: u16 = 2380;
const REST_PORT: u16 = 8008;

/// The three times that decide how soon Patroni acts, in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// How long the leader's key lives.
    pub(crate) ttl: u32,
    /// From one round of each Patroni to the next.
    pub(crate) loop_wait: u32,
    /// How long it tries again when etcd or PostgreSQL does not answer.
    pub(crate) retry_timeout: u32,
}

impl Times {
    /// What Patroni's documentation gives as defaults.
    pub(crate) const DEFAULT: Self = Self { ttl: 30, loop_wait: 10, retry_timeout: 10 };
    /// The least that Patroni takes: 20, 1 and 3.
    pub(crate) const TIGHT: Self = Self { ttl: 20, loop_wait: 1, retry_timeout: 3 };
}

/// Starts it.
pub(crate) fn start(dir: &Path, times: Times) -> Result<Peer, BenchError> {
    for program in [PATRONI, PATRONICTL, ETCD] {
        if !Path::new(program).exists() {
            return Err(BenchError::Missing(program.into()));
        }
    }
    let network = Network::build()?;
    let mut hosts = Host::all(&network, dir)?;
    let members: Vec<String> = hosts.iter().map(|host| host.place.address.to_string()).collect();
    for host in &mut hosts {
        host.serve(etcd(host, &members))?;
    }
    for host in hosts.iter_mut().take(DATA_HOSTS) {
        let config = host.write("patroni.yml", &config(host, &members, times))?;
        host.serve(Program { name: "patroni", path: PATRONI.into(), args: vec![config.into()] })?;
    }
    let control = hosts[DATA_HOSTS].write("patronictl.yml", &etcd3(&members))?;
    let switchover = std::array::from_fn(|writer| Program {
        name: "patronictl",
        path: PATRONICTL.into(),
        args: ["-c".into(), control.clone().into_os_string()]
            .into_iter()
            .chain(
                format!(
                    "switchover bench --leader host-{} --candidate host-{} --force",
                    writer + 1,
                    DATA_HOSTS - writer
                )
                .split(' ')
                .map(Into::into),
            )
            .collect(),
    });
    Ok(Peer::new(hosts, network, Kind::Patroni { switchover }, dir.to_owned()))
}

fn etcd(host: &Host, members: &[String]) -> Program {
    let cluster: Vec<String> = (1..)
        .zip(members)
        .map(|(number, member)| format!("etcd-{number}=http://{member}:{ETCD_PEER_PORT}"))
        .collect();
    let (own, number) = (host.place.address, host.place.index + 1);
    let line = format!(
        "{ETCD} --name etcd-{number} --data-dir {} --initial-cluster {} \
         --listen-client-urls http://{own}:{ETCD_CLIENT_PORT} \
         --advertise-client-urls http://{own}:{ETCD_CLIENT_PORT} \
         --listen-peer-urls http://{own}:{ETCD_PEER_PORT} \
         --initial-advertise-peer-urls http://{own}:{ETCD_PEER_PORT}",
        host.dir.join("etcd").display(),
        cluster.join(","),
    );
    Program::of("etcd", &line)
}

/// How the lease store is found (Patroni's documentation, "YAML Configuration Settings").
fn etcd3(members: &[String]) -> String {
    let hosts: Vec<String> = members.iter().map(|member| format!("{member}:{ETCD_CLIENT_PORT}")).collect();
    format!("scope: bench\netcd3:\n  hosts: [{}]\n", hosts.join(", "))
}

fn config(host: &Host, members: &[String], times: Times) -> String {
    let (own, number, dir) = (host.place.address, host.place.index + 1, host.dir.display());
    let Times { ttl, loop_wait, retry_timeout } = times;
    format!(
        "{etcd3}name: host-{number}
restapi:
  listen: {own}:{REST_PORT}
  connect_address: {own}:{REST_PORT}
bootstrap:
  dcs:
    ttl: {ttl}
    loop_wait: {loop_wait}
    retry_timeout: {retry_timeout}
    maximum_lag_on_failover: 1048576
    postgresql:
      use_pg_rewind: true
      parameters:
        shared_buffers: 32MB
        max_wal_size: 512MB
        jit: 'off'
  initdb:
    - encoding: UTF8
    - locale: C.UTF-8
    - data-checksums
    - no-sync
  pg_hba:
    - local all all trust
    - host all all 198.18.77.0/24 trust
    - host replication all 198.18.77.0/24 trust
postgresql:
  listen: {own}:{POSTGRES_PORT}
  connect_address: {own}:{POSTGRES_PORT}
  data_dir: {dir}/data
  bin_dir: {POSTGRES_BIN}
  pgpass: {dir}/pgpass
  authentication:
    superuser: {{ username: postgres }}
    replication: {{ username: replicator }}
  parameters:
    unix_socket_directories: {dir}
watchdog:
  mode: 'off'
",
        etcd3 = etcd3(members),
    )
}
