//! Deliberate breakages that the simulation must catch: the test of the test.
//!
//! Each one breaks what surrounds the helm (the driver, the gate, the store, the clock) or what the helm is told,
//! in the way in which a plausible mistake would. The helm's own code has no switch for any of them.

use crate::setup::Weather;

/// A deliberate breakage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The gate's deadline counts from the receipt of the answer, not from the emission of the put.
    DeadlineFromReceipt,
    /// The holder stops exactly a TTL after its last put: no margin for clocks.
    NoMargin,
    /// The store puts without comparing.
    BlindPut,
    /// The store compares the epoch, not the revision.
    PutOnEpoch,
    /// An observer believes that the last change is a quarter of a TTL older than it is.
    EarlyClaim,
    /// An observer times the change from its previous poll, before it can have received it.
    TimedFromOwnPoll,
    /// The gate checks its deadline on the way in only.
    NoCheckOnAcknowledgement,
    /// The gate stays open until a plan shuts it.
    GateWithoutDeadline,
    /// The clock stands still while the process does.
    ClockStopsInStall,
    /// A copy still on its way is reported as complete.
    IncompleteCopyClaims,
    /// A former writer's database is reported as if it had followed the newest epoch.
    DivergedCopyClaims,
    /// A restarted agent takes the newest epoch for its own, whoever has it.
    ReclaimsOthersEpoch,
    /// The driver gives the right back when asked to stop, and tells the helm a little later.
    ReleaseBeforeGateShuts,
    /// An attempt without an answer is taken for stored.
    UnknownTakenForStored,
    /// A late answer is credited to the newest attempt.
    LateAnswerForNewest,
    /// A database that rejoins drops the writes that only it had.
    RejoinListsNothing,
    /// A database follows the new writer without looking whether its own history is a part of the writer's.
    FollowsWithoutRejoin,
    /// The driver trusts the watch alone.
    NeverPolls,
    /// A database that is down for a moment is given up at once.
    NoGrace,
    /// Nobody gives way to a region that holds more.
    NoPatience,
    /// A gate does not come down to a deadline that a shorter TTL has made earlier.
    GateKeepsTheLongerDeadline,
    /// An observer counts the TTL of its own configuration instead of the key's.
    OwnTtlObserved,
    /// A region that was ordered to take the right does not wait for its end.
    ForcedIgnoresLeaseEnd,
    /// An agent that starts again goes on from the change of the key that its last run saw, and forgets its promise.
    PromiseForgottenInRestart,
    /// One region's promise is taken for that of all.
    OnePromiseIsEnough,
    /// A late consent is credited to the newest request.
    PromiseForNewest,
    /// Acknowledgements wait for the new standby alone before the key names it.
    NamedAfterTheOrder,
    /// `ANY 1`: an acknowledgement waits for one of the standbys instead of each.
    AnyOneStandby,
    /// A lost standby is given up before the key says that nobody may take over.
    NobodyLate,
    /// A follower confirms what it has not made durable.
    ConfirmsWhatItReceives,
    /// A region takes over though the key names another one.
    StandbyIgnored,
    /// Acknowledgements are not held, however old the oldest commit that the standby lacks.
    BoundIgnored,
    /// A drained region takes the right.
    DrainedClaims,
    /// A region takes the right during maintenance.
    MaintenanceIgnored,
    /// Late answers about orders are obeyed.
    OlderOrdersObeyed,
    /// The driver asks its own member of the store alone, which answers from what it has when it is cut off.
    SerializableReads,
}

impl Mutant {
    /// Every one of them.
    pub(crate) const ALL: [Self; 36] = [
        Self::DeadlineFromReceipt,
        Self::NoMargin,
        Self::BlindPut,
        Self::PutOnEpoch,
        Self::EarlyClaim,
        Self::TimedFromOwnPoll,
        Self::NoCheckOnAcknowledgement,
        Self::GateWithoutDeadline,
        Self::ClockStopsInStall,
        Self::IncompleteCopyClaims,
        Self::DivergedCopyClaims,
        Self::ReclaimsOthersEpoch,
        Self::ReleaseBeforeGateShuts,
        Self::UnknownTakenForStored,
        Self::LateAnswerForNewest,
        Self::RejoinListsNothing,
        Self::FollowsWithoutRejoin,
        Self::NeverPolls,
        Self::NoGrace,
        Self::NoPatience,
        Self::GateKeepsTheLongerDeadline,
        Self::OwnTtlObserved,
        Self::ForcedIgnoresLeaseEnd,
        Self::PromiseForgottenInRestart,
        Self::OnePromiseIsEnough,
        Self::PromiseForNewest,
        Self::NamedAfterTheOrder,
        Self::AnyOneStandby,
        Self::NobodyLate,
        Self::ConfirmsWhatItReceives,
        Self::StandbyIgnored,
        Self::BoundIgnored,
        Self::DrainedClaims,
        Self::MaintenanceIgnored,
        Self::OlderOrdersObeyed,
        Self::SerializableReads,
    ];

    /// The worlds in which it shows.
    pub(crate) fn weather(self) -> Weather {
        match self {
            Self::PromiseForgottenInRestart | Self::OnePromiseIsEnough | Self::PromiseForNewest => {
                Weather::Silence
            }
            Self::GateKeepsTheLongerDeadline => Weather::Restless,
            Self::DrainedClaims | Self::MaintenanceIgnored | Self::OlderOrdersObeyed => Weather::Storm,
            Self::SerializableReads => Weather::Murk,
            _ => Weather::Ordinary,
        }
    }

    /// Where the search for it begins: a rare one is looked for near a seed that shows it, as a search from 0 on takes
    /// most of a minute.
    pub(crate) fn first_seed(self) -> u64 {
        match self {
            Self::PromiseForNewest => 3_200,
            Self::ReleaseBeforeGateShuts => 1_200,
            _ => 0,
        }
    }

    /// The invariants that may be the first to notice it.
    pub(crate) fn breaks(self) -> &'static [&'static str] {
        match self {
            Self::DeadlineFromReceipt
            | Self::NoMargin
            | Self::EarlyClaim
            | Self::TimedFromOwnPoll
            | Self::NoCheckOnAcknowledgement
            | Self::GateWithoutDeadline
            | Self::ClockStopsInStall
            | Self::ReleaseBeforeGateShuts
            | Self::LateAnswerForNewest => &["I1"],
            Self::BlindPut | Self::PutOnEpoch => &["I1", "I2", "I6"],
            Self::UnknownTakenForStored => &["I1", "I2", "I3", "I4", "I5"],
            Self::RejoinListsNothing => &["I3"],
            Self::NoPatience => &["I3", "I5"],
            Self::FollowsWithoutRejoin => &["I4"],
            Self::NeverPolls => &["I4", "I5"],
            Self::NoGrace => &["I5"],
            Self::ReclaimsOthersEpoch => &["I6"],
            Self::GateKeepsTheLongerDeadline
            | Self::OwnTtlObserved
            | Self::ForcedIgnoresLeaseEnd
            | Self::PromiseForgottenInRestart
            | Self::OnePromiseIsEnough
            | Self::PromiseForNewest => &["I1"],
            // With a bound instead of `remote` it is I3 that is broken.
            Self::NamedAfterTheOrder
            | Self::AnyOneStandby
            | Self::NobodyLate
            | Self::ConfirmsWhatItReceives
            | Self::StandbyIgnored => &["I2", "I3"],
            Self::BoundIgnored => &["I3"],
            Self::DrainedClaims | Self::MaintenanceIgnored => &["ORDERS"],
            // An old order to fail over in spite of losses may be obeyed too.
            Self::OlderOrdersObeyed => &["I2", "I3", "ORDERS"],
            Self::SerializableReads => &["READ"],
            Self::IncompleteCopyClaims => &["I7"],
            // Because a gate does not open before its database is promoted, the false holder may just be stuck.
            Self::DivergedCopyClaims => &["I4", "I7"],
        }
    }
}
