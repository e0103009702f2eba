//! Every key of `isles.yaml`, what it is for and what it takes. The one place where a key is added.

use super::shape::{Key, KeyKind, Shape, optional, required};

/// The most instances of the app in one region.
const REPLICAS_MAX: u64 = 1000;
/// The most failed probes in a row that may be asked for.
const THRESHOLD_MAX: u64 = 100;

/// The top of the spec.
pub(super) static SPEC: Shape = Shape::Record(&[
    required("name", Shape::Name, "The application's name: one DNS label. The database is called so too."),
    optional("domain", Shape::Host, "The public host name that users know."),
    optional(
        "pattern",
        PATTERN,
        "Who takes traffic and who takes writes; active-active is not in this version. Default: read-replicas.",
    ),
    optional(
        "primary_region",
        Shape::Region,
        "The region that takes writes first. Default: the first one listed.",
    ),
    required(
        "regions",
        REGIONS,
        "Where the application runs, in order of preference: a list of names, or a map.",
    ),
    optional(
        "objectives",
        Shape::Record(OBJECTIVES),
        "What is promised to users; `isles drill` measures it.",
    ),
    required("services", Shape::Map(KeyKind::Name, &Shape::Record(SERVICE)), "The app. One service so far."),
    optional("routing", Shape::Record(ROUTING), "How users' requests find a region."),
    optional("quorum", Shape::Record(QUORUM), "Who decides which region may take writes."),
    required("database", Shape::Record(DATABASE), "The database that Isles replicates and fails over."),
    optional(
        "sessions",
        Shape::Record(SESSIONS),
        "Sessions that follow users from region to region. No effect in this version.",
    ),
    optional(
        "edge_functions",
        Shape::List(&Shape::Record(EDGE_FUNCTION)),
        "Small functions that answer at the edge. No effect in this version.",
    ),
    optional(
        "residency",
        Shape::Map(KeyKind::Variable, &Shape::Free),
        "Where data may be stored and processed. This version refuses it.",
    ),
    optional("observability", Shape::Free, "Alerts and their receivers. No effect in this version."),
    optional("render", Shape::Free, "Details of the cloud. No effect in this version."),
    optional("dns", Shape::Free, "How Isles answers for the domain. No effect in this version."),
]);

const PATTERN: Shape = Shape::Choice(&["active-passive", "read-replicas", "active-active"]);

const REGIONS: Shape = Shape::Either(
    &Shape::List(&Shape::Region),
    &Shape::Map(
        KeyKind::Region,
        &Shape::Record(&[
            optional(
                "provider",
                Shape::Text,
                "Whose region it is: aws, gcp, azure, fly, or custom for your own.",
            ),
            optional(
                "jurisdiction",
                Shape::Name,
                "Whose law holds for its data: eu, us, sg. Known for the clouds.",
            ),
            optional(
                "weight",
                Shape::Count { min: 0, max: 1000 },
                "Its share with `routing.policy: weighted`. No effect in this version.",
            ),
        ]),
    ),
);

const OBJECTIVES: &[Key] = &[
    optional(
        "rto",
        Shape::Duration,
        "Recovery time: from a fault until users read and write again. Default: 15s.",
    ),
    optional("rpo", Shape::Duration, "Recovery point: how much acknowledged writing may be lost."),
    optional("max_staleness", Shape::Duration, "How far behind a replica may answer reads. Default: 2s."),
];

const SERVICE: &[Key] = &[
    optional(
        "command",
        Shape::Text,
        "How the rehearsal starts it: a shell command line that listens on $PORT.",
    ),
    optional("image", Shape::Text, "The container image that the cloud starts."),
    optional("replicas", Shape::Record(REPLICAS), "Instances in each region. Default: 1 to 10."),
    optional("healthcheck", Shape::Record(HEALTHCHECK), "How Isles sees that an instance works."),
    optional("env", Shape::Map(KeyKind::Variable, &Shape::Literal), "Added to its environment."),
];

const REPLICAS: &[Key] = &[
    optional("min", Shape::Count { min: 0, max: REPLICAS_MAX }, "The fewest; the rehearsal starts so many."),
    optional("max", Shape::Count { min: 0, max: REPLICAS_MAX }, "The most."),
];

const HEALTHCHECK: &[Key] = &[
    optional(
        "path",
        Shape::UrlPath,
        "Path of a GET that answers 2xx or 3xx when all is well. Default: /healthz.",
    ),
    optional("interval", Shape::Duration, "Between two probes. Default: 1s."),
    optional("timeout", Shape::Duration, "For one probe. Default: 500ms."),
    optional(
        "unhealthy_threshold",
        Shape::Count { min: 1, max: THRESHOLD_MAX },
        "Failures in a row. Default: 3.",
    ),
    optional("start_period", Shape::Duration, "How long it may take to start. Default: 30s."),
];

const ROUTING: &[Key] = &[
    optional("policy", POLICY, "How DNS chooses a region; no effect in this version. Default: latency."),
    optional(
        "ttl",
        Shape::Duration,
        "How long DNS answers may be kept; no effect in this version. Default: 10s, or a shorter rto.",
    ),
    optional(
        "writes",
        Shape::Choice(&["forward", "reject"]),
        "What a replica does with a write. Default: forward.",
    ),
    optional("consistency", CONSISTENCY, "What a reader may see after a write. Default: read-your-writes."),
    optional(
        "hold_writes",
        Shape::Duration,
        "How long a write waits while there is no writer. Default: 20s.",
    ),
];

const POLICY: Shape = Shape::Choice(&["latency", "geoproximity", "weighted", "failover"]);
const CONSISTENCY: Shape = Shape::Choice(&["eventual", "bounded-staleness", "read-your-writes"]);

const QUORUM: &[Key] = &[
    optional("etcd", Shape::List(&Shape::Endpoint), "An etcd cluster of your own, one URL a member."),
    optional(
        "witness",
        Shape::Region,
        "A region that votes and holds no data: with two regions, the third vote.",
    ),
    optional("lease_ttl", Shape::Duration, "How long the right to write lasts. Default: from the distances."),
    optional(
        "failsafe",
        Shape::Flag,
        "The writer goes on without the lease store while every other region promises not to take over. Default: false.",
    ),
];

const DATABASE: &[Key] = &[
    required("engine", Shape::Choice(&["postgres", "aurora-postgresql"]), "The database engine."),
    optional("version", Shape::Literal, "The major version, 15 or newer. Default: what is installed."),
    optional("commit", COMMIT, "When an acknowledged commit may count on another region. Default: async."),
    optional(
        "exclude_tables",
        Shape::List(&Shape::Text),
        "Tables that stay where they are, beside migration tools'.",
    ),
    optional(
        "conflicts",
        Shape::Free,
        "How concurrent writes are resolved in active-active. No effect in this version.",
    ),
];

const COMMIT: Shape = Shape::Either(
    &Shape::Choice(&["async", "bounded", "remote"]),
    &Shape::Record(&[required(
        "bounded",
        Shape::Duration,
        "The oldest a commit may be that no other region has.",
    )]),
);

const SESSIONS: &[Key] = &[optional("ttl", Shape::Duration, "How long an unused session is kept.")];

const EDGE_FUNCTION: &[Key] = &[
    required("path", Shape::UrlPath, "The path that it answers."),
    required("source", Shape::Text, "The file with its code."),
];
