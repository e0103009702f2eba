//! Draws one world from a seed: how many regions, how far apart, how long the TTL, how kind the network.

use std::{collections::BTreeMap, time::Duration};

use isles_decide::HelmConfig;
use isles_model::{
    RegionName, Topology,
    topology::{
        Commit, Consistency, Database, Engine, HealthCheck, Objectives, Pattern, Quorum, Region, Replicas,
        Routing, RoutingPolicy, Service, WriteRouting,
    },
};

use crate::{
    clock::{MS, Micros},
    follow::BOUNDS,
    mutant::Mutant,
};

const NAMES: [&str; 5] = ["eu-west-1", "us-east-1", "ap-southeast-1", "sa-east-1", "af-south-1"];

/// When faults begin: the first writer is up by then.
pub(crate) const FAULTS_FROM: Micros = 4_000 * MS;

/// When everything is mended: in an ordinary world, in one full of faults, and in one of failovers.
const HEALED_AT: Micros = 16_000 * MS;
const STORM_ENDS_AT: Micros = 64_000 * MS;
const GALE_ENDS_AT: Micros = 124_000 * MS;

/// How much goes wrong in a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// One to five faults of any kind, or a few that are too short to matter.
    Ordinary,
    /// One after the other, most of them at the writer: many failovers for the time that a run takes.
    Storm,
    /// `quorum.failsafe` in a world in which the writer often does not reach the store, and others start again.
    Silence,
    /// False alarms, one after the other: a writer is cut off for a little longer than its right lasts.
    Restless,
    /// The lease store itself is at fault: slow, silent, without members or watches, and writers are lost meanwhile.
    Murk,
    /// One writer after the other is lost for as long as it takes to replace it: failovers as close as they get.
    Gale,
}

impl Weather {
    /// Every one; `WEATHER=n` is the n-th.
    pub(crate) const ALL: [Self; 6] =
        [Self::Ordinary, Self::Storm, Self::Silence, Self::Restless, Self::Murk, Self::Gale];
}

/// One world, before it starts.
pub(crate) struct Setup {
    pub(crate) mutant: Option<Mutant>,
    pub(crate) topology: Topology,
    /// One way, in true time, between two regions.
    pub(crate) one_way: Vec<Vec<Micros>>,
    /// One way to the lease store.
    pub(crate) store_one_way: Vec<Micros>,
    /// The TTL in the configuration of agents that start again.
    pub(crate) later_ttl: Duration,
    /// How long a tenure ends a time of unrest.
    pub(crate) quiet: Duration,
    pub(crate) weather: Weather,
    /// When everything is mended.
    pub(crate) healed_at: Micros,
    /// Only faults that must change no epoch.
    pub(crate) calm: bool,
    /// Share of the messages lost.
    pub(crate) loss: f64,
    /// Share of the messages that take up to two seconds.
    pub(crate) tail: f64,
    /// How long the driver waits for the store before it reports an unknown outcome; else the helm gives up first.
    pub(crate) put_timeout: Option<Micros>,
    /// Between two polls of the store.
    pub(crate) poll_every: Micros,
    /// Whether changes are watched besides.
    pub(crate) watched: bool,
    /// Whether a new writer's followers always copy afresh, as with logical replication; else those whose log is a
    /// part of its log go on.
    pub(crate) copies_afresh: bool,
    /// Between two writes of one region's client.
    pub(crate) client_every: Micros,
    /// The longest way from a gate's check to the row, and from the check to the client.
    pub(crate) gap_max: Micros,
}

impl Setup {
    pub(crate) fn draw(mutant: Option<Mutant>, weather: Weather, rng: &mut fastrand::Rng) -> Self {
        let storm = weather != Weather::Ordinary;
        let silence = weather == Weather::Silence;
        let regions = [2, 2, 3, 3, 3, 5][rng.usize(..6)];
        let calm = rng.u8(..8) == 0 && !storm;
        let nearest = [1, 10][rng.usize(..2)];
        let farthest = [2, 20, 50][rng.usize(..3)].max(nearest + 1);
        let mut one_way = vec![vec![0; regions]; regions];
        for (a, b) in (0..regions).flat_map(|a| (0..a).map(move |b| (a, b))) {
            one_way[a][b] = rng.u64(nearest * MS..farthest * MS);
            one_way[b][a] = one_way[a][b];
        }
        let store_one_way = (0..regions).map(|_| rng.u64(nearest * MS / 2..farthest * MS)).collect();
        let ttl = Duration::from_millis([1_500, 1_500, 2_000, 3_000][rng.usize(..4)]);
        let unkind = !calm && rng.bool();
        Self {
            mutant,
            topology: topology(
                regions,
                regions > 2 || weather == Weather::Gale || rng.u8(..4) > 0,
                ttl,
                rng.bool(),
                commit(rng),
                silence || weather == Weather::Murk && rng.bool() || rng.u8(..3) == 0,
            ),
            later_ttl: Duration::from_millis([1_500, 2_000, 3_000][rng.usize(..3)]),
            quiet: match weather {
                Weather::Restless => ttl * 3,
                _ => Duration::from_millis([2_500, 600_000][rng.usize(..2)]),
            },
            one_way,
            store_one_way,
            weather,
            healed_at: match weather {
                Weather::Ordinary => HEALED_AT,
                Weather::Gale => GALE_ENDS_AT,
                Weather::Storm | Weather::Silence | Weather::Restless | Weather::Murk => STORM_ENDS_AT,
            },
            calm,
            loss: if unkind { rng.f64() * 0.05 } else { 0.0005 },
            tail: if unkind { rng.f64() * 0.03 } else { 0.0 },
            put_timeout: rng.bool().then(|| rng.u64(300 * MS..900 * MS)),
            poll_every: rng.u64(80 * MS..300 * MS),
            watched: rng.u8(..4) > 0,
            copies_afresh: rng.bool(),
            client_every: rng.u64(60 * MS..200 * MS) * if storm { 4 } else { 1 },
            gap_max: 50 * MS,
        }
    }

    /// The same distances under a kind sky: only the drill breaks something.
    pub(crate) fn for_drill(mut self, commit: Commit, healed_at: Micros) -> Self {
        let ttl = Duration::from_millis(1_500);
        self.topology.database.commit = commit;
        self.topology.witness = None;
        self.topology.quorum.lease_ttl = ttl;
        self.topology.quorum.failsafe = false;
        (self.loss, self.tail, self.watched, self.later_ttl) = (0.0, 0.0, true, ttl);
        self.healed_at = healed_at;
        self
    }

    pub(crate) fn regions(&self) -> usize {
        self.topology.regions.len()
    }

    pub(crate) fn name(&self, region: usize) -> &RegionName {
        &self.topology.regions[region].name
    }

    pub(crate) fn index(&self, name: &RegionName) -> usize {
        self.topology.region_names().position(|listed| listed == name).expect("a name of this world")
    }

    pub(crate) fn ttl(&self) -> Duration {
        self.topology.quorum.lease_ttl
    }

    pub(crate) fn ttl_micros(&self) -> Micros {
        u64::try_from(self.ttl().as_micros()).expect("a TTL is short")
    }

    /// The helm's configuration, as the product makes it.
    pub(crate) fn config(&self, region: usize, earlier_runs: u64) -> HelmConfig {
        let rtt = |peer: usize| Duration::from_micros(2 * self.one_way[region][peer]);
        let rtts: BTreeMap<RegionName, Duration> = (0..self.regions())
            .filter(|peer| *peer != region)
            .map(|peer| (self.name(peer).clone(), rtt(peer)))
            .collect();
        let mut topology = self.topology.clone();
        if earlier_runs > 0 && !self.calm {
            topology.quorum.lease_ttl = self.later_ttl;
        }
        let mut config = HelmConfig::new(&topology, self.name(region), rtts);
        config.quiet = self.quiet;
        match self.mutant {
            Some(Mutant::NoMargin) => config.margin = Duration::ZERO,
            Some(Mutant::NoPatience) => config.patience = Duration::ZERO,
            Some(Mutant::NoGrace) => config.database_grace = Duration::ZERO,
            Some(_) | None => {}
        }
        config
    }

    /// From when on, after everything is mended, exactly one gate must be open: the last right runs out, a slow
    /// clock counts a TTL and every turn, agents and databases start, one promotes; twice, as a claim may fail.
    pub(crate) fn settled_at(&self) -> Micros {
        // A restless right lasts twice as long, and a restart may have brought a longer TTL.
        let longest =
            self.ttl_micros().max(u64::try_from(self.later_ttl.as_micros()).expect("a TTL is short"));
        self.healed_at + 5 * longest + 4_000 * MS
    }

    /// The end of the run.
    pub(crate) fn ends_at(&self) -> Micros {
        self.settled_at() + 2_000 * MS
    }
}

fn commit(rng: &mut fastrand::Rng) -> Commit {
    match rng.u8(..6) {
        0 | 1 => Commit::Async,
        2..=4 => Commit::Remote,
        _ => Commit::Bounded(BOUNDS[rng.usize(..BOUNDS.len())]),
    }
}

fn topology(
    regions: usize,
    witness: bool,
    ttl: Duration,
    everywhere: bool,
    commit: Commit,
    failsafe: bool,
) -> Topology {
    let region = |name: &&str| Region { name: name.parse().unwrap(), provider: None, jurisdiction: None };
    Topology {
        name: "shop".to_owned(),
        domain: None,
        pattern: if everywhere { Pattern::ReadReplicas } else { Pattern::ActivePassive },
        regions: NAMES[..regions].iter().map(region).collect(),
        witness: witness.then(|| "eu-central-1".parse().unwrap()),
        objectives: Objectives {
            rto: Duration::from_secs(15),
            rpo: None,
            max_staleness: Duration::from_secs(2),
        },
        service: Service {
            name: "web".to_owned(),
            command: None,
            image: None,
            replicas: Replicas { min: 1, max: 1 },
            healthcheck: HealthCheck {
                path: "/healthz".to_owned(),
                interval: Duration::from_secs(1),
                timeout: Duration::from_millis(500),
                unhealthy_threshold: 3,
                start_period: Duration::from_secs(30),
            },
            env: BTreeMap::new(),
        },
        routing: Routing {
            policy: RoutingPolicy::Latency,
            ttl: Duration::from_secs(30),
            writes: WriteRouting::Forward,
            consistency: Consistency::Eventual,
            hold_writes: Duration::from_secs(20),
        },
        quorum: Quorum { etcd: Vec::new(), lease_ttl: ttl, failsafe },
        database: Database { engine: Engine::Postgres, version: None, commit, exclude_tables: Vec::new() },
    }
}
