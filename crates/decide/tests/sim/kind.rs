//! The kinds of faults, and which of them each kind of world draws from.

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Machine and database die; both come back after a reboot.
    RegionCrash,
    AgentCrash,
    DatabaseCrash,
    /// The process stands still; its events queue.
    Stall,
    /// Cut off from everything.
    Isolation,
    /// Cut off from its peers; the store answers.
    PeersCut,
    /// Two regions do not reach each other.
    PairCut,
    /// One of them does not reach the other.
    OneWayCut,
    /// The region does not reach the store.
    StoreRequestsCut,
    /// The store's answers do not reach the region.
    StoreAnswersCut,
    StoreSilent,
    /// The store takes a hundred times longer for every request and every watch event.
    StoreSlow,
    /// A member of the store is lost: the margin of its quorum shrinks, its region goes to another one, and if it led,
    /// the others elect a leader first. Two of three: the store is silent.
    StoreMemberLost,
    WatchGap,
    SlowLinks,
    /// The agent is asked to stop, and is started again.
    Stop,
    AppDown,
    /// The database does not get promoted.
    PromotionHangs,
    /// No fault: somebody asks the writer to hand over to another region.
    HandOver,
    /// Somebody has another region take the right, whatever it may lack.
    ForcedFailover,
    /// A region is drained for a while.
    Drain,
    /// Nobody may take over for a while.
    Maintenance,
}

/// What worlds draw from that are not about the store.
pub(crate) const ALL: [Kind; 20] = [
    Kind::RegionCrash,
    Kind::AgentCrash,
    Kind::DatabaseCrash,
    Kind::Stall,
    Kind::Isolation,
    Kind::PeersCut,
    Kind::PairCut,
    Kind::OneWayCut,
    Kind::StoreRequestsCut,
    Kind::StoreAnswersCut,
    Kind::StoreSilent,
    Kind::WatchGap,
    Kind::SlowLinks,
    Kind::Stop,
    Kind::AppDown,
    Kind::PromotionHangs,
    Kind::HandOver,
    Kind::ForcedFailover,
    Kind::Drain,
    Kind::Maintenance,
];

/// Faults that make another region take over, where one can.
pub(crate) const HARD: [Kind; 7] = [
    Kind::RegionCrash,
    Kind::Isolation,
    Kind::Stall,
    Kind::Stop,
    Kind::StoreRequestsCut,
    Kind::DatabaseCrash,
    Kind::HandOver,
];

/// Faults in which a writer loses its right and is alive.
pub(crate) const RESTLESS: [Kind; 2] = [Kind::Isolation, Kind::Stall];

/// Faults in which a promise, kept or broken, makes the difference.
pub(crate) const SILENT: [Kind; 7] = [
    Kind::StoreRequestsCut,
    Kind::StoreAnswersCut,
    Kind::StoreSilent,
    Kind::AgentCrash,
    Kind::PeersCut,
    Kind::SlowLinks,
    Kind::Stall,
];

/// Faults that must change no epoch while they are short.
pub(crate) const CALM: [Kind; 8] = [
    Kind::AgentCrash,
    Kind::DatabaseCrash,
    Kind::Stall,
    Kind::Isolation,
    Kind::PeersCut,
    Kind::StoreSilent,
    Kind::WatchGap,
    Kind::AppDown,
];

/// Faults of the lease store, as often as a store's members are fewer than its clients.
pub(crate) const STORE: [Kind; 7] = [
    Kind::StoreSlow,
    Kind::StoreSlow,
    Kind::StoreMemberLost,
    Kind::StoreMemberLost,
    Kind::StoreSilent,
    Kind::StoreAnswersCut,
    Kind::WatchGap,
];

impl Kind {
    /// Every kind, with the words in which a campaign counts it. A kind's place is its number.
    pub(crate) const NAMES: [(Self, &'static str); 22] = [
        (Self::RegionCrash, "region crash"),
        (Self::AgentCrash, "agent crash"),
        (Self::DatabaseCrash, "database crash"),
        (Self::Stall, "process stalled"),
        (Self::Isolation, "region cut off"),
        (Self::PeersCut, "cut off from peers"),
        (Self::PairCut, "two regions apart"),
        (Self::OneWayCut, "one direction cut"),
        (Self::StoreRequestsCut, "requests to the store cut"),
        (Self::StoreAnswersCut, "answers of the store cut"),
        (Self::StoreSilent, "store silent"),
        (Self::StoreSlow, "store slow"),
        (Self::StoreMemberLost, "store member lost"),
        (Self::WatchGap, "watch gap"),
        (Self::SlowLinks, "slow links"),
        (Self::Stop, "agent stopped"),
        (Self::AppDown, "app down"),
        (Self::PromotionHangs, "promotion hangs"),
        (Self::HandOver, "switchover asked"),
        (Self::ForcedFailover, "failover forced"),
        (Self::Drain, "region drained"),
        (Self::Maintenance, "maintenance"),
    ];
}
