//! Lays a lab out before anything is started: every port, directory, password and member, per region.

use std::{
    collections::BTreeMap,
    fs, io,
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use isles_model::{
    RegionName, Topology,
    config::{DatabaseConfig, DatabaseFiles, Listen},
    spec::round_trip,
};
use serde::{Deserialize, Serialize};

use crate::{
    control::Rigs,
    etcd::Member,
    layout::Layout,
    ports::{EDGE_FIRST, PortError, Ports, READ_GATE_FIRST, local},
    postgres::{ADMIN_USER, Programs, REPLICATION_USER},
};

/// Why a lab could not be laid out.
#[derive(Debug, thiserror::Error)]
pub enum BlueprintError {
    /// No port.
    #[error("no port for region {region}")]
    Port {
        /// Whose.
        region: RegionName,
        /// The cause.
        source: PortError,
    },
    /// A kept etcd member is known by a port that is taken now.
    #[error("the kept lab needs the port it had")]
    KeptPort(#[source] PortError),
    /// A file of the lab could not be written or read.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// The ports of one region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionPorts {
    edge: u16,
    read_gate: u16,
    write_gate: u16,
    peer_gate: u16,
    control: u16,
    postgres: u16,
    instances: Vec<u16>,
    etcd: MemberPorts,
}

/// The ports of one etcd member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct MemberPorts {
    client: u16,
    peer: u16,
    advertised: u16,
}

/// What must be the same in the next `isles up` after `isles down --keep`.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    regions: BTreeMap<RegionName, RegionPorts>,
    witness: Option<(RegionName, MemberPorts)>,
    data_dirs: BTreeMap<RegionName, PathBuf>,
    secrets: Secrets,
}

/// What nobody else may know, and the token that tells this lab's etcd cluster from others.
#[derive(Clone, Serialize, Deserialize)]
struct Secrets {
    app_password: String,
    read_password: String,
    replication_password: String,
    peer_secret: String,
    etcd_token: String,
}

impl Secrets {
    fn draw() -> io::Result<Self> {
        Ok(Self {
            app_password: secret()?,
            read_password: secret()?,
            replication_password: secret()?,
            peer_secret: secret()?,
            etcd_token: secret()?,
        })
    }
}

/// One region, laid out.
#[derive(Debug, Clone)]
pub struct RegionBlueprint {
    /// Its name.
    pub name: RegionName,
    /// What its agent listens on.
    pub listen: Listen,
    /// Its app instances.
    pub instances: Vec<SocketAddr>,
    /// Its database.
    pub database: DatabaseConfig,
    /// The data directory of its database.
    pub data_dir: PathBuf,
    /// Its member of the lease store, where it votes.
    pub member: Option<Member>,
}

/// A lab, laid out.
pub struct Blueprint {
    /// The claims on its ports.
    pub ports: Ports,
    /// The checked spec.
    pub topology: Topology,
    /// Its directories.
    pub layout: Layout,
    /// In the order of the spec.
    pub regions: Vec<RegionBlueprint>,
    /// The witness's etcd member, where there is a witness.
    pub witness: Option<Member>,
    /// Tells this lab's etcd cluster from others.
    pub etcd_token: String,
    /// Shared by the agents.
    pub peer_secret: String,
    /// The databases of an earlier run are there.
    pub kept: bool,
    /// What it can do besides.
    pub rigs: Rigs,
}

/// What the user asked for besides the spec.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// The first region's edge listens exactly here, the next ones on the ports after it.
    pub edge_port: Option<u16>,
    /// Where a region's database keeps its files, when not in the lab's directory.
    pub data_dirs: BTreeMap<RegionName, PathBuf>,
    /// What it should be able to do besides.
    pub rigs: Rigs,
}

impl Blueprint {
    /// Lays a lab out in its directory, which must exist. Uses what an earlier run kept.
    ///
    /// # Errors
    /// When no port is free, or a file cannot be written.
    pub fn draw(
        topology: Topology,
        layout: Layout,
        programs: &Programs,
        wishes: &Wishes,
    ) -> Result<Self, BlueprintError> {
        let before = read_kept(&layout, &topology);
        let was_kept = before.is_some();
        let secrets = |source| BlueprintError::Write { path: layout.kept(), source };
        let drawn = match &before {
            Some(kept) => kept.secrets.clone(),
            None => Secrets::draw().map_err(secrets)?,
        };
        let mut ports = Ports::new(seed(&drawn.etcd_token));
        let kept = match before {
            Some(kept) => kept.moved_to_free_ports(topology.service.replicas.min, wishes, &mut ports)?,
            None => Kept::new(&topology, &layout, wishes, drawn, &mut ports)?,
        };
        write_private(&layout.kept(), &kept).map_err(secrets)?;
        let regions = topology
            .region_names()
            .filter_map(|name| Some((name, kept.regions.get(name)?)))
            .map(|(name, ports)| region(name, ports, &topology, &layout, programs, &kept))
            .collect();
        let witness = kept.witness.as_ref().map(|(name, ports)| member(name, *ports));
        Ok(Self {
            ports,
            regions,
            witness,
            etcd_token: kept.secrets.etcd_token,
            peer_secret: kept.secrets.peer_secret,
            kept: was_kept,
            rigs: wishes.rigs,
            topology,
            layout,
        })
    }

    /// All members of the lease store.
    pub fn members(&self) -> Vec<Member> {
        self.regions.iter().filter_map(|region| region.member.clone()).chain(self.witness.clone()).collect()
    }

    /// The place whose etcd member should lead: the witness, or else the nearest to all others that is not the primary.
    pub fn favourite(&self) -> &RegionName {
        let primary = self.topology.primary();
        let far =
            |name: &RegionName| self.members().iter().map(|m| round_trip(name, &m.region)).sum::<Duration>();
        let replicas = self.topology.voters().filter(|name| *name != primary);
        let nearest = || replicas.min_by_key(|name| far(name));
        self.witness.as_ref().map(|member| &member.region).or_else(nearest).unwrap_or(primary)
    }

    /// Every region, and the witness.
    pub fn places(&self) -> Vec<RegionName> {
        let witness = self.witness.as_ref().map(|member| &member.region);
        self.topology.region_names().chain(witness).cloned().collect()
    }

    /// Every pair of places that bytes travel between, each once, with the round trip of the planning table and
    /// whether the table knew it.
    pub fn pairs(&self) -> Vec<(RegionName, RegionName, Duration, bool)> {
        let places = self.places();
        let mut pairs = Vec::new();
        for (index, a) in places.iter().enumerate() {
            for b in places.iter().skip(index + 1) {
                let known = isles_model::rtt::rtt(a, b).is_some();
                pairs.push((a.clone(), b.clone(), round_trip(a, b), known));
            }
        }
        pairs
    }
}

impl Kept {
    fn new(
        topology: &Topology,
        layout: &Layout,
        wishes: &Wishes,
        secrets: Secrets,
        ports: &mut Ports,
    ) -> Result<Self, BlueprintError> {
        let mut regions = BTreeMap::new();
        for (index, name) in topology.region_names().enumerate() {
            let failed = |source| BlueprintError::Port { region: name.clone(), source };
            let given = region_ports(ports, topology.service.replicas.min, index, wishes).map_err(failed)?;
            regions.insert(name.clone(), given);
        }
        let witness = match &topology.witness {
            Some(name) if !regions.contains_key(name) => {
                let failed = |source| BlueprintError::Port { region: name.clone(), source };
                Some((name.clone(), member_ports(ports).map_err(failed)?))
            }
            _ => None,
        };
        let data_dir = |name: &RegionName| match wishes.data_dirs.get(name) {
            Some(path) => path.join("isles-pg"),
            None => layout.region(name).join("pg"),
        };
        let data_dirs = regions.keys().map(|name| (name.clone(), data_dir(name))).collect();
        Ok(Self { regions, witness, data_dirs, secrets })
    }

    /// The same ports where they are free; others where nothing depends on them.
    fn moved_to_free_ports(
        mut self,
        instances: u32,
        wishes: &Wishes,
        free: &mut Ports,
    ) -> Result<Self, BlueprintError> {
        let witness = self.witness.iter().map(|(_, ports)| ports.advertised);
        let advertised = self.regions.values().map(|ports| ports.etcd.advertised).chain(witness);
        for port in advertised {
            free.exactly(port).map_err(BlueprintError::KeptPort)?;
        }
        for (index, (region, ports)) in self.regions.iter_mut().enumerate() {
            let failed = |source| BlueprintError::Port { region: region.clone(), source };
            let etcd = ports.etcd;
            *ports = region_ports(free, instances, index, wishes).map_err(failed)?;
            ports.etcd = MemberPorts { advertised: etcd.advertised, ..ports.etcd };
        }
        Ok(self)
    }
}

fn region_ports(
    ports: &mut Ports,
    instances: u32,
    index: usize,
    wishes: &Wishes,
) -> Result<RegionPorts, PortError> {
    let offset = u16::try_from(index).unwrap_or(0);
    let edge = match wishes.edge_port {
        Some(first) => ports.exactly(first.saturating_add(offset))?,
        None => ports.from(EDGE_FIRST + offset)?,
    };
    Ok(RegionPorts {
        edge,
        read_gate: ports.from(READ_GATE_FIRST + offset)?,
        write_gate: ports.inner()?,
        peer_gate: ports.inner()?,
        control: ports.inner()?,
        postgres: ports.inner()?,
        instances: (0..instances).map(|_| ports.inner()).collect::<Result<_, _>>()?,
        etcd: member_ports(ports)?,
    })
}

fn member_ports(ports: &mut Ports) -> Result<MemberPorts, PortError> {
    Ok(MemberPorts { client: ports.inner()?, peer: ports.inner()?, advertised: ports.inner()? })
}

fn member(region: &RegionName, ports: MemberPorts) -> Member {
    Member {
        region: region.clone(),
        client: local(ports.client),
        peer: local(ports.peer),
        advertised: local(ports.advertised),
    }
}

fn region(
    name: &RegionName,
    ports: &RegionPorts,
    topology: &Topology,
    layout: &Layout,
    programs: &Programs,
    kept: &Kept,
) -> RegionBlueprint {
    let dir = layout.region(name);
    let application = topology.name.replace('-', "_");
    let data_dir = kept.data_dirs.get(name).cloned().unwrap_or_else(|| dir.join("pg"));
    RegionBlueprint {
        name: name.clone(),
        listen: Listen {
            edge: local(ports.edge),
            write_gate: local(ports.write_gate),
            read_gate: local(ports.read_gate),
            peer_gate: local(ports.peer_gate),
            control: local(ports.control),
        },
        instances: ports.instances.iter().map(|port| local(*port)).collect(),
        database: DatabaseConfig {
            socket_dir: dir.join("s"),
            port: ports.postgres,
            name: application.clone(),
            admin_user: ADMIN_USER.to_owned(),
            read_user: format!("{application}_read"),
            app_user: application,
            app_password: kept.secrets.app_password.clone(),
            read_password: kept.secrets.read_password.clone(),
            replication_user: REPLICATION_USER.to_owned(),
            replication_password: kept.secrets.replication_password.clone(),
            pg_dump: programs.program("pg_dump"),
            files: Some(DatabaseFiles {
                data_dir: data_dir.clone(),
                pg_waldump: programs.program("pg_waldump"),
                admitted: dir.join("s").join("admitted"),
            }),
        },
        data_dir,
        member: topology.voters().any(|voter| voter == name).then(|| member(name, ports.etcd)),
    }
}

/// What an earlier run kept, if it was of the same regions.
fn read_kept(layout: &Layout, topology: &Topology) -> Option<Kept> {
    let kept: Kept = serde_json::from_slice(&fs::read(layout.kept()).ok()?).ok()?;
    let same_regions = topology.region_names().all(|name| kept.regions.contains_key(name))
        && kept.regions.len() == topology.regions.len()
        && kept.witness.as_ref().map(|(name, _)| name) == topology.witness.as_ref();
    let has_data = topology.region_names().any(|name| layout.region(name).join("etcd").is_dir());
    (same_regions && has_data).then_some(kept)
}

/// Removes the databases of a lab that lie outside its directory.
pub fn remove_data(layout: &Layout) {
    let kept = fs::read(layout.kept()).ok().and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
    for dir in kept.iter().flat_map(|kept| kept.data_dirs.values()) {
        let _ = fs::remove_dir_all(dir);
    }
}

/// Writes JSON that only this user may read.
///
/// # Errors
/// Those of writing.
pub fn write_private(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&serde_json::to_vec_pretty(value)?)
}

/// A number that differs between labs, from a secret that does.
fn seed(token: &str) -> u64 {
    token.get(..15).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0)
}

/// 128 random bits in hexadecimal.
fn secret() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
