//! Fills in what a spec leaves out: the one place where defaults are written down.
//!
//! Judges nothing: a value of the wrong form counts as left out, and `check` decides whether the result may be used.

use std::{collections::BTreeMap, time::Duration};

use super::{
    duration,
    objectives::{failover_budget, lease_ttl_min},
    tree::{Node, Value},
};
use crate::{
    RegionName, Topology, rtt,
    topology::{
        Commit, Consistency, Database, Engine, HealthCheck, Objectives, Pattern, Quorum, Region, Replicas,
        Routing, RoutingPolicy, Service, WriteRouting,
    },
};

/// The most regions of one application.
pub const REGIONS_MAX: usize = 32;

const RTO: Duration = Duration::from_secs(15);
const MAX_STALENESS: Duration = Duration::from_secs(2);
const DNS_TTL: Duration = Duration::from_secs(10);
const HOLD_WRITES: Duration = Duration::from_secs(20);
const COMMIT_BOUND: Duration = Duration::from_millis(500);
const PROBE_PATH: &str = "/healthz";
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
const PROBE_THRESHOLD: u32 = 3;
const START_PERIOD: Duration = Duration::from_secs(30);
const REPLICAS: Replicas = Replicas { min: 1, max: 10 };

/// The bookkeeping of migration tools: every region migrates for itself, so these rows must not travel.
const MIGRATION_TABLES: [&str; 18] = [
    "schema_migrations",
    "ar_internal_metadata",
    "_prisma_migrations",
    "knex_migrations",
    "knex_migrations_lock",
    "alembic_version",
    "django_migrations",
    "flyway_schema_history",
    "databasechangelog",
    "databasechangeloglock",
    "goose_db_version",
    "_sqlx_migrations",
    "SequelizeMeta",
    "__drizzle_migrations",
    "refinery_schema_history",
    "pgmigrations",
    "typeorm_metadata",
    "migrations",
];

/// The topology of a spec, right or wrong.
pub(super) fn topology(root: &Node) -> Topology {
    let spec = Written(Some(root));
    let objectives = spec.get("objectives");
    let rto = objectives.get("rto").time(RTO);
    let quorum = spec.get("quorum");
    let mut topology = Topology {
        name: spec.get("name").text().unwrap_or_default(),
        domain: spec.get("domain").text(),
        pattern: spec.get("pattern").choice(Pattern::ReadReplicas),
        regions: regions(spec),
        witness: quorum.get("witness").name(),
        objectives: Objectives {
            rto,
            rpo: objectives.get("rpo").duration(),
            max_staleness: objectives.get("max_staleness").time(MAX_STALENESS),
        },
        service: service(spec.get("services")),
        routing: routing(spec.get("routing"), rto),
        quorum: Quorum {
            etcd: quorum.get("etcd").texts(),
            lease_ttl: Duration::ZERO,
            failsafe: quorum.get("failsafe").flag(false),
        },
        database: database(spec.get("database")),
    };
    // Because these two follow from the distances, which only the topology knows.
    topology.quorum.lease_ttl = quorum.get("lease_ttl").time(lease_ttl_min(&topology));
    let hold_writes = HOLD_WRITES.max(failover_budget(&topology).total());
    topology.routing.hold_writes = spec.get("routing").get("hold_writes").time(hold_writes);
    topology
}

/// The regions in order of preference, the primary first, each once, [`REGIONS_MAX`] at most.
fn regions(spec: Written<'_>) -> Vec<Region> {
    let mut regions: Vec<Region> = Vec::new();
    for (name, details) in region_entries(spec.get("regions")).into_iter().take(REGIONS_MAX) {
        if regions.iter().any(|region| region.name == name) {
            continue;
        }
        let known = rtt::region(name.as_str());
        let known_provider = || known.map(|known| known.provider.to_owned());
        let known_jurisdiction = || known.map(|known| known.jurisdiction.to_owned());
        regions.push(Region {
            provider: details.get("provider").text().or_else(known_provider),
            jurisdiction: details.get("jurisdiction").text().or_else(known_jurisdiction),
            name,
        });
    }
    let primary = spec.get("primary_region").name();
    regions.sort_by_key(|region| Some(&region.name) != primary.as_ref());
    regions
}

fn region_entries(regions: Written<'_>) -> Vec<(RegionName, Written<'_>)> {
    match regions.0.map(|node| &node.value) {
        Some(Value::List(nodes)) => {
            nodes.iter().filter_map(|node| Some((Written(Some(node)).name()?, Written(None)))).collect()
        }
        Some(Value::Map(entries)) => entries
            .iter()
            .filter_map(|entry| Some((entry.key.parse().ok()?, Written(Some(&entry.node)))))
            .collect(),
        Some(Value::Null | Value::Flag(_) | Value::Number(_) | Value::Text(_) | Value::Refused) | None => {
            Vec::new()
        }
    }
}

fn service(services: Written<'_>) -> Service {
    let (name, service) = services.entries().next().unwrap_or_default();
    let health = service.get("healthcheck");
    let replicas = service.get("replicas");
    let min = replicas.get("min").count().unwrap_or(REPLICAS.min);
    let max = replicas.get("max").count().unwrap_or(REPLICAS.max.max(min));
    let variables = service.get("env").entries();
    Service {
        name: name.to_owned(),
        command: service.get("command").text(),
        image: service.get("image").text(),
        replicas: Replicas { min, max },
        healthcheck: HealthCheck {
            path: health.get("path").text().unwrap_or_else(|| PROBE_PATH.to_owned()),
            interval: health.get("interval").time(PROBE_INTERVAL),
            timeout: health.get("timeout").time(PROBE_TIMEOUT),
            unhealthy_threshold: health.get("unhealthy_threshold").count().unwrap_or(PROBE_THRESHOLD),
            start_period: health.get("start_period").time(START_PERIOD),
        },
        env: variables
            .filter_map(|(key, value)| Some((key.to_owned(), value.literal()?)))
            .collect::<BTreeMap<_, _>>(),
    }
}

fn routing(routing: Written<'_>, rto: Duration) -> Routing {
    Routing {
        policy: routing.get("policy").choice(RoutingPolicy::Latency),
        ttl: routing.get("ttl").time(DNS_TTL.min(rto)),
        writes: routing.get("writes").choice(WriteRouting::Forward),
        consistency: routing.get("consistency").choice(Consistency::ReadYourWrites),
        hold_writes: HOLD_WRITES,
    }
}

fn database(database: Written<'_>) -> Database {
    let mut exclude_tables: Vec<String> = MIGRATION_TABLES.map(str::to_owned).to_vec();
    for table in database.get("exclude_tables").texts() {
        if !exclude_tables.contains(&table) {
            exclude_tables.push(table);
        }
    }
    Database {
        engine: database.get("engine").choice(Engine::Postgres),
        version: database.get("version").literal(),
        commit: commit(database.get("commit")),
        exclude_tables,
    }
}

fn commit(written: Written<'_>) -> Commit {
    match written.text().as_deref() {
        Some("remote") => Commit::Remote,
        Some("bounded") => Commit::Bounded(COMMIT_BOUND),
        Some(_) => Commit::Async,
        None => match written.get("bounded").time(Duration::ZERO) {
            Duration::ZERO => Commit::Async,
            bound => Commit::Bounded(bound),
        },
    }
}

/// A value that may be there and may be of the right form.
#[derive(Clone, Copy, Default)]
pub(super) struct Written<'a>(pub(super) Option<&'a Node>);

impl<'a> Written<'a> {
    pub(super) fn get(self, key: &str) -> Self {
        Self(self.0.and_then(|node| node.get(key)))
    }

    pub(super) fn entries(self) -> impl Iterator<Item = (&'a str, Self)> {
        let entries: &'a [_] = match self.0.map(|node| &node.value) {
            Some(Value::Map(entries)) => entries,
            _ => &[],
        };
        entries.iter().map(|entry| (entry.key.as_str(), Self(Some(&entry.node))))
    }

    pub(super) fn text(self) -> Option<String> {
        match self.0.map(|node| &node.value) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    /// A text, number or truth value as written.
    pub(super) fn literal(self) -> Option<String> {
        match self.0.map(|node| &node.value) {
            Some(Value::Text(text) | Value::Number(text)) => Some(text.clone()),
            Some(Value::Flag(flag)) => Some(flag.to_string()),
            _ => None,
        }
    }

    fn name(self) -> Option<RegionName> {
        self.text()?.parse().ok()
    }

    fn texts(self) -> Vec<String> {
        match self.0.map(|node| &node.value) {
            Some(Value::List(nodes)) => nodes.iter().filter_map(|node| Self(Some(node)).text()).collect(),
            _ => Vec::new(),
        }
    }

    pub(super) fn duration(self) -> Option<Duration> {
        duration::parse(&self.text()?)
    }

    fn time(self, default: Duration) -> Duration {
        self.duration().unwrap_or(default)
    }

    fn count(self) -> Option<u32> {
        match self.0.map(|node| &node.value) {
            Some(Value::Number(number)) => number.parse().ok(),
            _ => None,
        }
    }

    fn flag(self, default: bool) -> bool {
        match self.0.map(|node| &node.value) {
            Some(Value::Flag(flag)) => *flag,
            _ => default,
        }
    }

    /// One of an enum's words, as serde names them.
    fn choice<T: serde::de::DeserializeOwned>(self, default: T) -> T {
        self.text().and_then(|text| serde_json::from_value(text.into()).ok()).unwrap_or(default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{keys::SPEC, shape::Shape};

    const SMALLEST: &str = "name: shop
regions: [eu-west-1]
services: { web: { command: x } }
database: { engine: postgres }
";

    /// What a key is for, as editors show it.
    fn about(path: &[&str]) -> &'static str {
        let mut shape = &SPEC;
        let mut about = "";
        for name in path {
            let Shape::Record(keys) = shape else { panic!("{path:?}: no key above has keys") };
            let key = keys.iter().find(|key| key.name == *name).expect("the key is described");
            about = key.about;
            shape = match &key.shape {
                Shape::Map(_, of) => of,
                other => other,
            };
        }
        about
    }

    #[test]
    fn the_defaults_are_those_that_editors_show() {
        let topology = crate::spec::load("isles.yaml", SMALLEST).expect("it is right").topology;
        let (objectives, routing, probe) =
            (topology.objectives, topology.routing, topology.service.healthcheck);
        let word = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let show = duration::show;
        let health = |key| ["services", "healthcheck", key];
        let cases: [(&[&str], String); 14] = [
            (&["pattern"], word(serde_json::json!(topology.pattern))),
            (&["objectives", "rto"], show(objectives.rto)),
            (&["objectives", "max_staleness"], show(objectives.max_staleness)),
            (&health("path"), probe.path),
            (&health("interval"), show(probe.interval)),
            (&health("timeout"), show(probe.timeout)),
            (&health("unhealthy_threshold"), probe.unhealthy_threshold.to_string()),
            (&health("start_period"), show(probe.start_period)),
            (&["routing", "policy"], word(serde_json::json!(routing.policy))),
            (&["routing", "ttl"], show(routing.ttl)),
            (&["routing", "writes"], word(serde_json::json!(routing.writes))),
            (&["routing", "consistency"], word(serde_json::json!(routing.consistency))),
            (&["routing", "hold_writes"], show(routing.hold_writes)),
            (&["database", "commit"], word(serde_json::json!(topology.database.commit))),
        ];
        for (path, default) in cases {
            assert!(about(path).contains(&format!("Default: {default}")), "{path:?}: {default}");
        }
    }

    #[test]
    fn the_bookkeeping_of_migration_tools_stays_at_home_and_the_users_tables_are_added() {
        let text =
            SMALLEST.replace("postgres }", "postgres, exclude_tables: [import_log, knex_migrations] }");
        let tables =
            crate::spec::load("isles.yaml", &text).expect("it is right").topology.database.exclude_tables;
        assert_eq!(tables.len(), MIGRATION_TABLES.len() + 1);
        assert_eq!(tables.last().map(String::as_str), Some("import_log"));
    }
}
