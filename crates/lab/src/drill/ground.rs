//! What a drill needs to know of the running lab before it breaks anything: addresses, roles, distances, the promises.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use isles_model::{
    AgentConfig, DatabaseRole, Epoch, EpochSecret, RegionName, Topology,
    config::{DatabaseConfig, Peer},
};

use super::{
    error::DrillError,
    session::{Login, Way},
};
use crate::{
    control::{Client, LinkState, Phase, Rigs},
    report::Distance,
    status,
};

/// How long the regions may take to be well before a drill, or between two runs.
const WELL_WAIT_MAX: Duration = Duration::from_secs(90);
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One region, as the drill's clients reach it.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) region: RegionName,
    pub(super) edge: SocketAddr,
    pub(super) control: SocketAddr,
    pub(super) write_gate: SocketAddr,
    pub(super) read_gate: SocketAddr,
    pub(super) database: DatabaseConfig,
    /// The other regions, as this one reaches them.
    pub(super) peers: BTreeMap<RegionName, Peer>,
    pub(super) ledger: std::path::PathBuf,
    secret: EpochSecret,
}

impl Place {
    /// As the app writes: `DATABASE_URL`.
    pub(super) fn app_through_gate(&self) -> Login {
        self.login(Way::Gate(self.write_gate), &self.database.app_user, Some(&self.database.app_password))
    }

    /// As the app reads: `DATABASE_READ_URL`.
    pub(super) fn reader_through_gate(&self) -> Login {
        self.login(Way::Gate(self.read_gate), &self.database.read_user, Some(&self.database.read_password))
    }

    /// As the app's role, past every gate, with the credential that a gate has under an epoch.
    pub(super) fn app_past_gates(&self, epoch: Epoch) -> Login {
        self.login(self.socket(), &self.database.app_user, Some(&self.secret.app_password(epoch)))
    }

    /// As the superuser, in the maintenance database, so that the app's own can be dropped meanwhile.
    pub(super) fn admin(&self) -> Login {
        let login = self.login(self.socket(), &self.database.admin_user, None);
        Login { database: "postgres".to_owned(), ..login }
    }

    fn socket(&self) -> Way {
        Way::Socket(self.database.socket_dir.clone(), self.database.port)
    }

    fn login(&self, way: Way, user: &str, password: Option<&String>) -> Login {
        let database = self.database.name.clone();
        Login { way, user: user.to_owned(), password: password.cloned(), database }
    }
}

/// The lab under the drill.
pub(super) struct Ground {
    pub(super) lab: Client,
    pub(super) topology: Topology,
    pub(super) places: Vec<Place>,
    pub(super) rigs: Rigs,
    links: Vec<LinkState>,
}

/// Who writes, once all regions are well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Writer {
    pub(super) region: RegionName,
    pub(super) epoch: Epoch,
}

impl Ground {
    /// Asks a lab that is ready.
    pub(super) async fn survey(lab: &Client) -> Result<Self, DrillError> {
        let asked = lab.state().await;
        let state = asked.map_err(|source| DrillError::Lab { doing: "ask the lab what runs", source })?;
        match &state.phase {
            Phase::Ready => {}
            Phase::Starting => return Err(DrillError::NotReady("it is still starting".into())),
            Phase::Stopping => return Err(DrillError::NotReady("it is stopping".into())),
            Phase::Failed { because, .. } => return Err(DrillError::NotReady(because.clone())),
        }
        let mut topology = None;
        let mut places = Vec::new();
        for region in &state.regions {
            let config = read_config(region)?;
            places.push(Place {
                region: region.region.clone(),
                edge: region.edge,
                control: region.control,
                write_gate: region.write_gate,
                read_gate: region.read_gate,
                database: config.database,
                peers: config.peers,
                secret: EpochSecret::new(&config.peer_secret),
                ledger: config.data_dir.join("ledger.jsonl"),
            });
            topology = Some(config.topology);
        }
        let topology = topology.ok_or_else(|| DrillError::NotReady("it has no regions".into()))?;
        Ok(Self { lab: lab.clone(), topology, places, rigs: state.rigs, links: state.links })
    }

    /// One region.
    pub(super) fn place(&self, region: &RegionName) -> Result<&Place, DrillError> {
        let found = self.places.iter().find(|place| place.region == *region);
        found.ok_or_else(|| DrillError::UnknownRegion(region.clone()))
    }

    /// The distances between data regions, as asked for, and as measured when the lab started.
    pub(super) fn distances(&self) -> Vec<Distance> {
        let known = |region: &RegionName| self.places.iter().any(|place| place.region == *region);
        let data = self.links.iter().filter(|link| known(&link.from) && known(&link.to));
        data.map(|link| Distance {
            from: link.from.clone(),
            to: link.to.clone(),
            asked: link.rtt_asked,
            measured: link.rtt_measured,
        })
        .collect()
    }

    /// All regions in the order a user nearest to `home` would try them.
    pub(super) fn nearest(&self, home: &RegionName) -> Vec<&Place> {
        let far = |place: &Place| {
            let joins = |link: &&LinkState| {
                (link.from == *home && link.to == place.region)
                    || (link.to == *home && link.from == place.region)
            };
            let link = self.links.iter().find(joins).map(|link| link.rtt_asked);
            if place.region == *home { Duration::ZERO } else { link.unwrap_or(Duration::MAX) }
        };
        let mut places: Vec<&Place> = self.places.iter().collect();
        places.sort_by_key(|place| far(place));
        places
    }

    /// The longest round trip between data regions.
    pub(super) fn farthest(&self) -> Duration {
        self.distances().iter().map(|distance| distance.asked).max().unwrap_or_default()
    }

    /// Waits until every region is well and one of them writes.
    pub(super) async fn until_well(&self) -> Result<Writer, DrillError> {
        let until = tokio::time::Instant::now() + WELL_WAIT_MAX;
        loop {
            match self.look().await {
                Ok(writer) => return Ok(writer),
                Err(because) if tokio::time::Instant::now() > until => {
                    return Err(DrillError::Unwell { because, within: WELL_WAIT_MAX });
                }
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// The writer, or what is missing.
    async fn look(&self) -> Result<Writer, String> {
        let mut writer = None;
        let mut epochs = BTreeMap::new();
        for place in &self.places {
            let region = &place.region;
            let seen = status::snapshot(place.control).await.map_err(|error| format!("{region}: {error}"))?;
            if let Some(lacks) = status::lacks(&seen) {
                return Err(format!("{region}: {lacks}"));
            }
            if let DatabaseRole::Writer { epoch } = seen.report.database.role {
                writer = Some(Writer { region: region.clone(), epoch });
            }
            epochs.insert(seen.plan.epoch, region.clone());
        }
        let writer = writer.ok_or("no region takes writes")?;
        if epochs.keys().any(|epoch| *epoch != writer.epoch) {
            return Err("the regions do not agree who writes".to_owned());
        }
        Ok(writer)
    }
}

fn read_config(region: &crate::control::RegionState) -> Result<AgentConfig, DrillError> {
    let failed =
        |source| DrillError::Config { region: region.region.clone(), path: region.config.clone(), source };
    let bytes = std::fs::read(&region.config).map_err(failed)?;
    serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))
}
