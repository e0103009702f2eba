//! The drills that come with Isles: the texts of `drills/`.

/// Every one by its name, with its text.
pub const CATALOGUE: [(&str, &str); 19] = [
    ("region-outage", include_str!("../../../../drills/region-outage.drill")),
    ("database-crash", include_str!("../../../../drills/database-crash.drill")),
    ("database-loss", include_str!("../../../../drills/database-loss.drill")),
    ("partition", include_str!("../../../../drills/partition.drill")),
    ("partition-one-way", include_str!("../../../../drills/partition-one-way.drill")),
    ("partition-partial", include_str!("../../../../drills/partition-partial.drill")),
    ("partition-minority-writer", include_str!("../../../../drills/partition-minority-writer.drill")),
    ("slow-link", include_str!("../../../../drills/slow-link.drill")),
    ("stall", include_str!("../../../../drills/stall.drill")),
    ("stall-short", include_str!("../../../../drills/stall-short.drill")),
    ("clock-skew", include_str!("../../../../drills/clock-skew.drill")),
    ("disk-full", include_str!("../../../../drills/disk-full.drill")),
    ("agent", include_str!("../../../../drills/agent.drill")),
    ("agent-loss", include_str!("../../../../drills/agent-loss.drill")),
    ("etcd", include_str!("../../../../drills/etcd.drill")),
    ("quorum", include_str!("../../../../drills/quorum.drill")),
    ("switchover", include_str!("../../../../drills/switchover.drill")),
    ("failback", include_str!("../../../../drills/failback.drill")),
    ("drain", include_str!("../../../../drills/drain.drill")),
];

/// The text of the drill of this name.
pub fn built_in(name: &str) -> Option<&'static str> {
    CATALOGUE.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}
