//! Starts everything at once, waits for each fact that the next step needs, and notes where the time went.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::{select_ok, try_join_all};
use isles_model::{RegionName, Snapshot, topology::HealthCheck};

use super::{
    Settings,
    error::LabError,
    events::{Event, Watcher},
    keeper::Order,
    lab::Lab,
    links,
};
use crate::{
    blueprint::RegionBlueprint,
    control::Part,
    etcd, http,
    postgres::{Cluster, Template},
    processes::unprivileged_account,
    status,
    tail::tail,
};

/// How long the lease store may take to elect a leader.
const LEADER_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long a region may take to be complete, besides the app's own start period.
const REGION_WAIT_MAX: Duration = Duration::from_secs(60);
/// Pause between two looks at something that starts.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How many lines of a log an error shows.
pub(crate) const TAIL_LINES: usize = 12;

/// One start of one lab.
#[derive(Clone)]
pub(crate) struct Start {
    pub(crate) lab: Arc<Lab>,
    pub(crate) watcher: Watcher,
}

impl Start {
    /// Starts all regions and returns when each is ready.
    pub(crate) async fn all(
        self,
        settings: &Settings,
        clusters: Vec<(RegionName, Cluster)>,
    ) -> Result<(), LabError> {
        let regions = try_join_all(self.lab.blueprint.regions.iter().map(|region| self.region(region)));
        let databases = self.databases(settings, clusters);
        let ((), (), (), _) =
            futures_util::future::try_join4(self.lease_store(), databases, self.distances(), regions).await?;
        self.distances_again().await;
        Ok(())
    }

    fn step(&self, region: Option<&RegionName>, what: &str, from: Instant) -> Duration {
        let name = region.map_or_else(|| what.to_owned(), |region| format!("{what} {region}"));
        let after = self.lab.mark(name, from);
        (self.watcher)(&Event::Step { region: region.cloned(), what: what.to_owned(), after });
        after
    }

    fn start(&self, region: &RegionName, part: Part) {
        if let Some(handle) = self.lab.part(region, part) {
            drop(handle.order(Order::Start));
        }
    }

    /// Starts the members of the lease store and waits until they have a leader.
    async fn lease_store(&self) -> Result<(), LabError> {
        let from = Instant::now();
        let members = self.lab.blueprint.members();
        for member in &members {
            self.start(&member.region, Part::Etcd);
        }
        let looks = members.iter().map(|member| {
            Box::pin(async move {
                while !etcd::has_leader(member.client).await {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Ok::<(), ()>(())
            })
        });
        let led = tokio::time::timeout(LEADER_WAIT_MAX, select_ok(looks)).await;
        if led.is_err() {
            let log = self.lab.blueprint.layout.log(self.lab.blueprint.topology.primary(), Part::Etcd);
            return Err(LabError::NoLeader { within: LEADER_WAIT_MAX, tail: tail(&log, TAIL_LINES) });
        }
        self.step(None, "lease store has a leader", from);
        Ok(())
    }

    /// Prepares the databases and starts them.
    async fn databases(
        &self,
        settings: &Settings,
        clusters: Vec<(RegionName, Cluster)>,
    ) -> Result<(), LabError> {
        let from = Instant::now();
        let template = if clusters.iter().all(|(_, cluster)| cluster.was_kept()) {
            None
        } else {
            let template = self.template(settings).await?;
            self.step(None, "empty database to copy from", from);
            Some(template)
        };
        let each =
            clusters.into_iter().map(|(region, cluster)| self.database(region, cluster, template.clone()));
        try_join_all(each).await?;
        Ok(())
    }

    async fn template(&self, settings: &Settings) -> Result<Template, LabError> {
        let (programs, cache) = (settings.programs.clone(), settings.cache.clone());
        let scratch = self.lab.blueprint.layout.dir.clone();
        let account = unprivileged_account();
        let make = move || Template::ensure(&programs, &cache, &scratch, account.as_ref());
        blocking(make).await?.map_err(LabError::Template)
    }

    async fn database(
        &self,
        region: RegionName,
        cluster: Cluster,
        template: Option<Template>,
    ) -> Result<(), LabError> {
        let from = Instant::now();
        let failed = |source| LabError::Database { region: region.clone(), source };
        let preparing = cluster.clone();
        blocking(move || preparing.prepare(template.as_ref())).await?.map_err(failed)?;
        self.lab.mark(format!("copy of the empty database {region}"), from);
        let from = Instant::now();
        self.start(&region, Part::Postgres);
        cluster.wait_ready().await.map_err(failed)?;
        self.step(Some(&region), "postgres", from);
        Ok(())
    }

    /// Measures the emulated distances, which need nothing but the relays.
    async fn distances(&self) -> Result<(), LabError> {
        for (a, b, rtt, known) in self.lab.blueprint.pairs() {
            if !known {
                let text = format!(
                    "the distance between {a} and {b} is not in the planning table: {} ms are assumed",
                    rtt.as_millis()
                );
                (self.watcher)(&Event::Note { text });
            }
            if let Some(measured) = self.lab.links.measure(&a, &b, rtt).await {
                self.lab.measured(&a, &b, measured);
            }
        }
        Ok(())
    }

    /// Measures again what came out wrong while the machine was busy with starting.
    async fn distances_again(&self) {
        for link in self.lab.state().await.links {
            let wrong = link.rtt_measured.is_none_or(|measured| !links::is_good(measured, link.rtt_asked));
            if wrong
                && let Some(measured) = self.lab.links.measure(&link.from, &link.to, link.rtt_asked).await
            {
                self.lab.measured(&link.from, &link.to, measured);
            }
        }
    }

    /// Starts a region's agent, and its app when there is a writer to write to.
    async fn region(&self, region: &RegionBlueprint) -> Result<(), LabError> {
        let from = Instant::now();
        let name = &region.name;
        self.start(name, Part::Agent);
        self.wait_for(region, REGION_WAIT_MAX, "its agent does not answer", |_| None).await?;
        self.step(Some(name), "agent", from);
        let from = Instant::now();
        let no_writer = |snapshot: &Snapshot| {
            let lacks = || status::lacks(snapshot).unwrap_or_else(|| "there is no writer".to_owned());
            (!status::knows_a_writer(snapshot)).then(lacks)
        };
        self.wait_for(region, REGION_WAIT_MAX, "its agent does not answer", no_writer).await?;
        self.step(Some(name), "writer known", from);
        let from = Instant::now();
        for (index, _) in (0..).zip(&region.instances) {
            self.start(name, Part::App(index));
        }
        self.apps(region).await?;
        self.step(Some(name), "app", from);
        let from = Instant::now();
        self.wait_for(region, REGION_WAIT_MAX, "its agent does not answer", status::lacks).await?;
        let after = self.step(Some(name), "ready", from);
        self.lab.region_ready(name, after);
        Ok(())
    }

    /// Waits until `lacking` finds nothing in the region's snapshot.
    async fn wait_for(
        &self,
        region: &RegionBlueprint,
        within: Duration,
        silent: &str,
        lacking: impl Fn(&Snapshot) -> Option<String>,
    ) -> Result<Snapshot, LabError> {
        let until = Instant::now() + within;
        loop {
            let missing = match status::snapshot(region.listen.control).await {
                Ok(snapshot) => match lacking(&snapshot) {
                    None => return Ok(snapshot),
                    Some(missing) => with_findings(missing, &snapshot),
                },
                Err(_) => silent.to_owned(),
            };
            if Instant::now() > until {
                let log = self.lab.blueprint.layout.log(&region.name, Part::Agent);
                let tail = tail(&log, TAIL_LINES);
                return Err(LabError::NotReady { region: region.name.clone(), within, missing, tail });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until every instance passes its health check, asked directly.
    async fn apps(&self, region: &RegionBlueprint) -> Result<(), LabError> {
        let check = &self.lab.blueprint.topology.service.healthcheck;
        let each = (0..).zip(&region.instances).map(|(index, address)| async move {
            let until = Instant::now() + check.start_period;
            loop {
                let Err(said) = probe(*address, check).await else { return Ok(()) };
                if Instant::now() > until {
                    let part = Part::App(index);
                    let log = self.lab.blueprint.layout.log(&region.name, part);
                    return Err(LabError::Unhealthy {
                        region: region.name.clone(),
                        part,
                        within: check.start_period,
                        path: check.path.clone(),
                        said,
                        tail: tail(&log, TAIL_LINES),
                    });
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        try_join_all(each).await?;
        Ok(())
    }
}

/// One health check: what is wrong, in words.
async fn probe(address: std::net::SocketAddr, check: &HealthCheck) -> Result<(), String> {
    match http::get(address, &check.path, check.timeout).await {
        Ok((200..=399, _)) => Ok(()),
        Ok((status, _)) => Err(format!("answered {status}")),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(" ({cause})"));
            Err(format!("{error}{}", cause.unwrap_or_default()))
        }
    }
}

fn with_findings(missing: String, snapshot: &Snapshot) -> String {
    if snapshot.findings.is_empty() {
        missing
    } else {
        format!("{missing} ({})", snapshot.findings.join("; "))
    }
}

/// Runs file work beside the runtime's thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, LabError> {
    let failed = |error: tokio::task::JoinError| LabError::File {
        path: PathBuf::from("the lab's directory"),
        source: std::io::Error::other(error),
    };
    tokio::task::spawn_blocking(work).await.map_err(failed)
}
