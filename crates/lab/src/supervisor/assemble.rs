//! Puts a lab together before its processes start: links over the WAN, the agents' configurations, a keeper for
//! each process.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use isles_model::{
    AgentConfig, RegionName,
    config::{EtcdConfig, Peer},
};
use rustix::process::Signal;
use tokio::{net::TcpListener, sync::mpsc};

use super::{
    Settings,
    error::LabError,
    keeper::{Common, Ended, Handle, Keeper},
    lab::{Lab, blueprint_config},
    links::Links,
    rigs,
};
use crate::{
    blueprint::{Blueprint, RegionBlueprint, write_private},
    control::Part,
    crossing::{self, Owners},
    etcd::{self, Store},
    postgres::Cluster,
    processes::{Launch, Leash, make_dir, record::Record, unprivileged_account},
};

/// How many processes may have ended before anybody looks.
const ENDED_MAX: usize = 256;

/// A lab whose processes wait to be started.
pub(crate) struct Assembled {
    pub(crate) lab: Arc<Lab>,
    pub(crate) clusters: Vec<(RegionName, Cluster)>,
    pub(crate) ended: mpsc::Receiver<Ended>,
}

/// Assembles a lab. Its keepers run as tasks of the current runtime, whose thread must live as long as the lab.
pub(crate) async fn assemble(
    settings: &Settings,
    blueprint: Blueprint,
    began: Instant,
) -> Result<Assembled, LabError> {
    make_directories(&blueprint)?;
    let links = Links::start(&blueprint.pairs()).map_err(LabError::Wan)?;
    let owners = Owners::default();
    open_crossings(&blueprint, &links, &owners).await?;
    for region in &blueprint.regions {
        let config = agent_config(&blueprint, region, &links).await?;
        let path = blueprint_config(&blueprint, &region.name);
        write_private(&path, &config).map_err(|source| LabError::File { path, source })?;
    }
    let path = blueprint.layout.process_record();
    let record = Record::create(&path).map_err(|source| LabError::File { path, source })?;
    let (sender, ended) = mpsc::channel(ENDED_MAX);
    let common = Common { record: Arc::new(Mutex::new(record)), ended: sender };
    let clusters = clusters(settings, &blueprint);
    let parts = keepers(settings, &blueprint, &clusters, &common, &owners);
    Ok(Assembled { lab: Lab::new(blueprint, parts, links, began), clusters, ended })
}

fn make_directories(blueprint: &Blueprint) -> Result<(), LabError> {
    let places = blueprint.places().into_iter().map(|place| blueprint.layout.region(&place));
    for place in places {
        for (dir, mode) in [(place.clone(), 0o711), (place.join("log"), 0o711)] {
            make_dir(&dir, mode, None).map_err(|source| LabError::File { path: dir, source })?;
        }
    }
    Ok(())
}

/// Opens, for each etcd member, the address that all others know it by, and a link to it from each of them.
async fn open_crossings(blueprint: &Blueprint, links: &Links, owners: &Owners) -> Result<(), LabError> {
    let members = blueprint.members();
    for to in &members {
        let mut ways = BTreeMap::new();
        for from in members.iter().filter(|from| from.region != to.region) {
            let way = open(links, &from.region, &to.region, to.peer).await?;
            ways.insert(from.region.clone(), way);
        }
        let failed = |source| LabError::Link { from: to.region.clone(), to: to.region.clone(), source };
        let listener = TcpListener::bind(to.advertised).await.map_err(failed)?;
        tokio::spawn(crossing::run(listener, ways, owners.clone()));
    }
    Ok(())
}

async fn open(
    links: &Links,
    from: &RegionName,
    to: &RegionName,
    target: std::net::SocketAddr,
) -> Result<std::net::SocketAddr, LabError> {
    let failed = |source| LabError::Link { from: from.clone(), to: to.clone(), source };
    links.open(from, to, target).await.map_err(failed)
}

/// What an agent is told of its world: other regions only by their end of the WAN.
async fn agent_config(
    blueprint: &Blueprint,
    region: &RegionBlueprint,
    links: &Links,
) -> Result<AgentConfig, LabError> {
    let here = &region.name;
    let mut peers = BTreeMap::new();
    for other in blueprint.regions.iter().filter(|other| other.name != *here) {
        let there = &other.name;
        let rtt = isles_model::spec::round_trip(here, there);
        let peer = Peer {
            control: open(links, here, there, other.listen.control).await?,
            edge: open(links, here, there, other.listen.edge).await?,
            peer_gate: open(links, here, there, other.listen.peer_gate).await?,
            database: open(links, here, there, crate::ports::local(other.database.port)).await?,
            rtt,
        };
        peers.insert(there.clone(), peer);
    }
    let own = region.member.iter().map(|member| format!("http://{}", member.client));
    let mut endpoints: Vec<String> = own.collect();
    for member in blueprint.members().iter().filter(|member| member.region != *here) {
        endpoints.push(format!("http://{}", open(links, here, &member.region, member.client).await?));
    }
    Ok(AgentConfig {
        region: here.clone(),
        topology: blueprint.topology.clone(),
        data_dir: blueprint.layout.region(here).join("agent"),
        listen: region.listen.clone(),
        etcd: EtcdConfig { endpoints, prefix: format!("/isles/{}", blueprint.topology.name), tls: None },
        database: region.database.clone(),
        instances: region.instances.clone(),
        peers,
        peer_secret: blueprint.peer_secret.clone(),
    })
}

fn clusters(settings: &Settings, blueprint: &Blueprint) -> Vec<(RegionName, Cluster)> {
    let account = unprivileged_account();
    let of = |region: &RegionBlueprint| Cluster {
        programs: settings.programs.clone(),
        data_dir: region.data_dir.clone(),
        access: region.database.clone(),
        account: account.clone(),
        log: blueprint.layout.log(&region.name, Part::Postgres),
    };
    blueprint.regions.iter().map(|region| (region.name.clone(), of(region))).collect()
}

fn keepers(
    settings: &Settings,
    blueprint: &Blueprint,
    clusters: &[(RegionName, Cluster)],
    common: &Common,
    owners: &Owners,
) -> Vec<Handle> {
    let mut handles = Vec::new();
    let mut keep = |region: &RegionName, part, launch, on_start| {
        let (keeper, handle) = Keeper::new(region, part, launch, common.clone(), on_start);
        tokio::spawn(keeper.run());
        handles.push(handle);
    };
    let members = blueprint.members();
    let store = Store {
        etcd: &settings.etcd,
        members: &members,
        token: &blueprint.etcd_token,
        rtt_max: blueprint.pairs().iter().map(|pair| pair.2).max().unwrap_or(Duration::ZERO),
        favourite: blueprint.favourite(),
    };
    for member in &members {
        let (owners, region) = (owners.clone(), member.region.clone());
        let on_start: Box<dyn Fn(u32) + Send> = Box::new(move |pid| owners.set(&region, pid));
        let dir = blueprint.layout.region(&member.region).join("etcd");
        let log = blueprint.layout.log(&member.region, Part::Etcd);
        keep(&member.region, Part::Etcd, etcd::launch(&store, member, &dir, &log), Some(on_start));
    }
    for (region, cluster) in clusters {
        let mut launch = cluster.launch();
        launch.env.extend(rigs::clock_environment(blueprint, region));
        keep(region, Part::Postgres, launch, None);
    }
    for region in &blueprint.regions {
        keep(&region.name, Part::Agent, agent_launch(blueprint, region), None);
        for (index, address) in (0_u32..).zip(&region.instances) {
            let launch = app_launch(blueprint, region, Part::App(index), address.port());
            keep(&region.name, Part::App(index), launch, None);
        }
    }
    handles
}

fn agent_launch(blueprint: &Blueprint, region: &RegionBlueprint) -> Launch {
    let config = blueprint_config(blueprint, &region.name);
    let args = ["agent", "--region", region.name.as_str(), "--config"];
    Launch {
        program: PathBuf::from("/proc/self/exe"),
        args: args.iter().map(OsString::from).chain([config.into()]).collect(),
        env: Vec::new(),
        env_without: &["PG"],
        cwd: blueprint.layout.region(&region.name),
        log: blueprint.layout.log(&region.name, Part::Agent),
        account: None,
        leash: Leash::Signal(Signal::KILL),
    }
}

/// The user's command, as a shell in the spec's directory runs it.
fn app_launch(blueprint: &Blueprint, region: &RegionBlueprint, part: Part, port: u16) -> Launch {
    let service = &blueprint.topology.service;
    let database = &region.database;
    let url = |user: &str, password: &str, gate: std::net::SocketAddr| {
        format!("postgres://{user}:{password}@{gate}/{}", database.name)
    };
    let write = url(&database.app_user, &database.app_password, region.listen.write_gate);
    let read = url(&database.read_user, &database.read_password, region.listen.read_gate);
    let own = [
        ("PORT", port.to_string()),
        ("DATABASE_URL", write),
        ("DATABASE_READ_URL", read),
        ("ISLES_REGION", region.name.to_string()),
    ];
    let from_spec = service.env.iter().map(|(name, value)| (name.clone(), value.clone()));
    Launch {
        program: PathBuf::from("/bin/sh"),
        args: vec!["-c".into(), service.command.clone().unwrap_or_default().into()],
        env: own.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(from_spec).collect(),
        env_without: &[],
        cwd: blueprint.layout.spec.parent().map_or_else(|| PathBuf::from("/"), PathBuf::from),
        log: blueprint.layout.log(&region.name, part),
        account: None,
        leash: Leash::Guard,
    }
}
