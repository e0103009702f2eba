//! Says beforehand what an operator's order would do: to whom the right to write goes, what may be lost, how long
//! writes wait, or why the order is refused.
//!
//! A function of what the agents show of themselves and of the standing orders. It promises nothing: the helm decides
//! when the order is carried out, from what is true then.

use std::{collections::BTreeMap, fmt, time::Duration};

use isles_model::{
    Change, Copy, DatabaseRole, DatabaseState, Epoch, LeaseState, Lsn, Orders, RegionName, Snapshot,
    Successor, Topology, TransferKind, Writes, topology::Commit,
};
use serde::Serialize;

use crate::elect;

/// What a planned move costs beside the way to the other region: gate, sessions, put, promotion.
const SWITCHOVER_BASE: Duration = Duration::from_millis(200);
/// What a forced move costs after the last right has ended.
const FAILOVER_BASE: Duration = Duration::from_millis(500);
/// A copy further behind than this cannot catch up within a planned move, which then is not made.
const LAG_MAX: Duration = Duration::from_secs(5);

/// What an order would do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Foresight {
    /// Who writes now, as far as known.
    pub writer: Option<RegionName>,
    /// Who would write afterwards.
    pub next_writer: Option<RegionName>,
    /// Under which epoch the order is given.
    pub epoch: Epoch,
    /// What may be lost: writes that were acknowledged and that the next writer lacks.
    pub loss: Loss,
    /// How long writes wait, about; `None`: they do not, or it cannot be said.
    pub pause: Option<Duration>,
    /// The same move has been ordered already and is not done yet.
    pub standing: bool,
    /// The orders say so already: nothing would change.
    pub done: bool,
}

/// What may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "loss")]
pub enum Loss {
    /// Nothing that was acknowledged.
    Nothing,
    /// At most about this much of the writer's log.
    UpTo {
        /// Bytes of log that the next writer has not applied, as last known.
        bytes: u64,
        /// Age of the oldest of them; `None` when not known.
        age: Option<Duration>,
    },
    /// Nothing is known of how far the copy is behind.
    Unknown,
}

/// Why an order is refused: carrying it out could lose writes or leave users without an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "refusal")]
pub enum Refusal {
    /// The spec has no such region.
    UnknownRegion {
        /// As typed.
        region: RegionName,
    },
    /// No agent can read the lease store.
    NoLeaseStore {
        /// Two regions and no witness: one region's loss can take the store along.
        no_witness: bool,
    },
    /// The target's agent does not answer.
    Silent {
        /// Which.
        region: RegionName,
    },
    /// It writes already.
    AlreadyWriter {
        /// Which.
        region: RegionName,
    },
    /// The operator has drained it.
    Drained {
        /// Which.
        region: RegionName,
    },
    /// Its database does not answer.
    DatabaseDown {
        /// Which.
        region: RegionName,
    },
    /// Its copy is not complete, or of another history.
    CopyIncomplete {
        /// Which.
        region: RegionName,
    },
    /// It is too far behind for a planned move.
    TooFarBehind {
        /// Which.
        region: RegionName,
        /// By how much.
        lag: Duration,
    },
    /// A forced move while the writer is well.
    WriterIsWell {
        /// Who writes.
        writer: RegionName,
    },
    /// A planned move needs a writer to hand over.
    NoWriter,
    /// Nobody else could serve.
    LastRegion {
        /// Which.
        region: RegionName,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownRegion { region } => write!(f, "the spec has no region {region}"),
            Self::NoLeaseStore { .. } => f.write_str("no agent can read the lease store: it has no quorum"),
            Self::Silent { region } => write!(f, "the agent of {region} does not answer"),
            Self::AlreadyWriter { region } => write!(f, "{region} is the writer already"),
            Self::Drained { region } => write!(f, "{region} is drained"),
            Self::DatabaseDown { region } => write!(f, "the database of {region} does not answer"),
            Self::CopyIncomplete { region } => {
                write!(f, "the copy in {region} is not complete, or not of the present writer")
            }
            Self::TooFarBehind { region, lag } => {
                write!(f, "{region} is {:.1} s behind: writes would wait too long", lag.as_secs_f64())
            }
            Self::WriterIsWell { writer } => {
                write!(f, "{writer} writes and is well: a failover could lose writes")
            }
            Self::NoWriter => f.write_str("no region writes just now, so none can hand over"),
            Self::LastRegion { region } => write!(f, "without {region} no region could take the writes"),
        }
    }
}

impl Refusal {
    /// What to do instead.
    pub fn remedy(&self) -> String {
        match self {
            Self::UnknownRegion { .. } => "name one of the spec's regions".into(),
            Self::NoLeaseStore { no_witness: false } => {
                "start the etcd members again: a majority must run before the right to write can move".into()
            }
            Self::NoLeaseStore { no_witness: true } => {
                "two regions without a witness: start the lost region's etcd again, or add `quorum.witness` to the \
                 spec before the next time"
                    .into()
            }
            Self::Silent { region } => format!("start the agent of {region}, or choose another region"),
            Self::AlreadyWriter { .. } => "nothing needs to be done".into(),
            Self::Drained { region } => format!("isles region undrain {region}"),
            Self::DatabaseDown { region } => format!("start the database of {region}, or choose another region"),
            Self::CopyIncomplete { .. } => "wait until `isles status` shows it as a replica, or choose another".into(),
            Self::TooFarBehind { region, .. } => {
                format!("wait until `isles status` shows {region} in step, or choose another region")
            }
            Self::WriterIsWell { .. } => "use `isles switchover`, which loses nothing".into(),
            Self::NoWriter => "use `isles failover REGION`, or `isles status` to see why nobody writes".into(),
            Self::LastRegion { .. } => "undrain or repair another region first".into(),
        }
    }
}

/// What is known when an order is given.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The spec, checked.
    pub topology: &'a Topology,
    /// What the agents that answer show of themselves.
    pub shown: &'a BTreeMap<RegionName, Snapshot>,
    /// The standing orders; `None` when no agent could read them.
    pub orders: Option<&'a Orders>,
}

/// What the order would do.
///
/// # Errors
/// Why it must not be given.
pub fn foresee(known: Known<'_>, change: &Change) -> Result<Foresight, Refusal> {
    if let Some(region) =
        change.region().filter(|region| !known.topology.region_names().any(|r| r == *region))
    {
        return Err(Refusal::UnknownRegion { region: region.clone() });
    }
    let no_witness = !known.topology.may_fail_over();
    let orders = known.orders.ok_or(Refusal::NoLeaseStore { no_witness })?;
    let epoch = known.epoch();
    let after = orders.after(change, epoch);
    let plain = Foresight {
        writer: known.writer(),
        next_writer: known.writer(),
        epoch,
        loss: Loss::Nothing,
        pause: None,
        standing: false,
        done: after.is_none(),
    };
    match change {
        Change::Undrain { .. } | Change::Maintenance { .. } => Ok(plain),
        Change::Drain { .. } if plain.done => Ok(plain),
        Change::Drain { region } => known.drain(orders, region, plain),
        Change::Transfer { to, kind } => {
            known.transfer(orders, to, *kind, &Foresight { standing: plain.done, done: false, ..plain })
        }
    }
}

impl Known<'_> {
    fn epoch(&self) -> Epoch {
        self.shown.values().map(|snapshot| snapshot.plan.epoch).max().unwrap_or_default()
    }

    /// Who has the right to write and uses it, by its own word.
    fn writer(&self) -> Option<RegionName> {
        let writes = |snapshot: &&Snapshot| matches!(snapshot.plan.writes, Writes::Here { epoch, .. } if epoch == self.epoch());
        Some(self.shown.values().find(writes)?.report.region.clone())
    }

    /// The last holder of the right, whether or not it is well; and who may follow it unasked; and how much of the
    /// right is left.
    fn holder(&self) -> Option<(RegionName, Successor, Duration)> {
        let keys = self.shown.values().filter_map(|snapshot| snapshot.lease.as_ref());
        let (key, age) = keys.max_by_key(|(key, _)| (key.epoch, key.seq))?;
        let left = match key.state {
            LeaseState::Held => key.ttl.saturating_sub(*age),
            LeaseState::Released { .. } => Duration::ZERO,
        };
        Some((key.holder.clone(), key.successor.clone(), left))
    }

    /// Whether a region could take the right to write, and how far it is behind.
    fn fit(&self, region: &RegionName) -> Result<&Snapshot, Refusal> {
        let region = || region.clone();
        let snapshot = self.shown.get(&region()).ok_or_else(|| Refusal::Silent { region: region() })?;
        let database = &snapshot.report.database;
        if database.state == DatabaseState::Down {
            return Err(Refusal::DatabaseDown { region: region() });
        }
        // A fenced copy of the present or last epoch is a replica whose writer is lost.
        let whole = match &database.role {
            DatabaseRole::Replica { copy: Copy::Complete, .. } => true,
            DatabaseRole::Replica { copy: Copy::Running | Copy::Extending, .. } => false,
            DatabaseRole::Fenced | DatabaseRole::Writer { .. } => database.lineage.epoch > Epoch::NONE,
        };
        if whole { Ok(snapshot) } else { Err(Refusal::CopyIncomplete { region: region() }) }
    }

    fn drain(&self, orders: &Orders, region: &RegionName, plain: Foresight) -> Result<Foresight, Refusal> {
        let others =
            self.topology.region_names().filter(|other| *other != region && !orders.drained.contains(*other));
        let writes = plain.writer.as_ref() == Some(region);
        // Because the writer waits until its heir has everything, only who follows it can be that.
        let may_inherit = |shown: &Snapshot| match &shown.report.database.role {
            DatabaseRole::Replica { writer, epoch, copy: Copy::Complete } => {
                writer == region && *epoch == plain.epoch && !shown.report.draining
            }
            DatabaseRole::Replica { .. } | DatabaseRole::Writer { .. } | DatabaseRole::Fenced => false,
        };
        // The same rule as the helm's. It sees positions of another moment: of two that are level it may take the other.
        let next = others
            .zip(0..)
            .filter_map(|(other, place)| Some((self.fit(other).ok()?, place)))
            .filter(|(shown, _)| !writes || may_inherit(shown))
            .max_by_key(|(shown, place)| elect::rank_of(&shown.report.database, *place))
            .map(|(shown, _)| &shown.report.region);
        let Some(next) = next else { return Err(Refusal::LastRegion { region: region.clone() }) };
        if !writes {
            return Ok(plain);
        }
        let pause = Some(self.switchover_pause(region, next));
        Ok(Foresight { next_writer: Some(next.clone()), pause, ..plain })
    }

    fn transfer(
        &self,
        orders: &Orders,
        to: &RegionName,
        kind: TransferKind,
        plain: &Foresight,
    ) -> Result<Foresight, Refusal> {
        if plain.writer.as_ref() == Some(to) {
            return Err(Refusal::AlreadyWriter { region: to.clone() });
        }
        if orders.drained.contains(to) {
            return Err(Refusal::Drained { region: to.clone() });
        }
        let target = self.fit(to)?;
        let next_writer = Some(to.clone());
        match kind {
            TransferKind::Switchover => {
                // A move that has begun has shut the writer's gate already.
                let from = match plain.writer.clone() {
                    Some(writer) => writer,
                    None if plain.standing => self.holder().ok_or(Refusal::NoWriter)?.0,
                    None => return Err(Refusal::NoWriter),
                };
                let lag = target.report.database.lag.map(|lag| lag.time).unwrap_or_default();
                if lag > LAG_MAX && !plain.standing {
                    return Err(Refusal::TooFarBehind { region: to.clone(), lag });
                }
                let pause = Some(lag + self.switchover_pause(&from, to));
                Ok(Foresight { next_writer, pause, writer: Some(from), ..plain.clone() })
            }
            TransferKind::Failover => {
                if let Some(writer) = plain.writer.clone().filter(|_| !plain.standing) {
                    return Err(Refusal::WriterIsWell { writer });
                }
                let holder = self.holder();
                let left = holder.as_ref().map_or(Duration::ZERO, |(_, _, left)| *left);
                let loss = self.loss(holder.as_ref(), target);
                let writer = holder.map(|(holder, _, _)| holder);
                Ok(Foresight {
                    writer,
                    next_writer,
                    loss,
                    pause: Some(left + FAILOVER_BASE),
                    ..plain.clone()
                })
            }
        }
    }

    fn switchover_pause(&self, from: &RegionName, to: &RegionName) -> Duration {
        let rtt = self.shown.get(from).and_then(|snapshot| snapshot.peers.get(to)?.rtt).unwrap_or_default();
        SWITCHOVER_BASE + rtt * 3
    }

    /// What a target lacks of what the last writer is known to have written.
    fn loss(&self, holder: Option<&(RegionName, Successor, Duration)>, target: &Snapshot) -> Loss {
        let Some((holder, successor, _)) = holder else { return Loss::Unknown };
        let named = matches!(successor, Successor::Only { region } if *region == target.report.region);
        if named && self.topology.database.commit == Commit::Remote {
            return Loss::Nothing;
        }
        let own = &target.report.database;
        let same_history = |epoch: Epoch| own.lineage.epoch == epoch;
        let heard = self.shown.values().filter_map(|snapshot| snapshot.peers.get(holder)?.report.as_ref());
        let direct = self.shown.get(holder).map(|snapshot| &snapshot.report);
        let wrote = heard.chain(direct).filter(|report| report.database.lineage.wrote);
        let end: Option<Lsn> = wrote
            .filter(|report| same_history(report.database.lineage.epoch))
            .map(|report| report.database.position)
            .max();
        let age = own.lag.map(|lag| lag.time);
        match (end, own.lag) {
            (Some(end), lag) => {
                let bytes = end.bytes_since(own.position).max(lag.map_or(0, |lag| lag.bytes));
                Loss::UpTo { bytes, age }
            }
            (None, Some(lag)) => Loss::UpTo { bytes: lag.bytes, age },
            (None, None) => Loss::Unknown,
        }
    }
}
