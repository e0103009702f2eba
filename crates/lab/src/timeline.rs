//! Tells what happened around a fault, in order: what the agents said of themselves, what the clients saw, what the
//! drill did.
//!
//! Pure: it is given what was watched.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use isles_model::{
    DatabaseRole, DatabaseState, Epoch, LeaseKey, LeaseState, Moment, RegionName, Snapshot, Writes,
};
use serde::{Deserialize, Serialize};

use crate::drill::history::{Fault, History, Reader};

/// The most changes that are kept of one agent in one run; a flapping agent's later ones are left out.
const CHANGES_MAX: usize = 20_000;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Milliseconds since the fault; negative: before it.
    pub at_ms: i64,
    /// What happened: a constant phrase.
    pub event: String,
    /// Where, if it happened in one region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<RegionName>,
}

/// What the timeline needs of an agent's snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The newest epoch it has seen.
    pub epoch: Epoch,
    /// It knows where writes go.
    pub knows_a_writer: bool,
    /// Its database answers.
    pub database_up: bool,
    /// The epoch that its database takes writes under.
    pub writer: Option<Epoch>,
    /// It follows a writer.
    pub replica: bool,
    /// The regions that it sends no users to.
    pub out: BTreeSet<RegionName>,
    /// It lacks nothing.
    pub well: bool,
}

impl View {
    /// Reduces a snapshot; `well`: the region lacks nothing.
    pub fn of(seen: &Snapshot, well: bool) -> Self {
        let role = &seen.report.database.role;
        Self {
            epoch: seen.plan.epoch,
            knows_a_writer: match &seen.plan.writes {
                Writes::Here { .. } | Writes::At { .. } => true,
                Writes::Nowhere { .. } => false,
            },
            database_up: seen.report.database.state == DatabaseState::Up,
            writer: match role {
                DatabaseRole::Writer { epoch } => Some(*epoch),
                DatabaseRole::Fenced | DatabaseRole::Replica { .. } => None,
            },
            replica: matches!(role, DatabaseRole::Replica { .. }),
            out: seen.plan.serve.iter().filter(|one| !one.app).map(|one| one.region.clone()).collect(),
            well,
        }
    }
}

/// What was watched of all agents.
#[derive(Debug, Default)]
pub struct Watched {
    /// By region: each view that differs from the one before, and when it was first seen. `None`: the agent was silent.
    changes: BTreeMap<RegionName, Vec<(Moment, Option<View>)>>,
    /// By epoch: when the key was last seen to change while held, and when it was first seen given back.
    leases: BTreeMap<Epoch, Lease>,
    /// The longest time-to-live that a key was seen with.
    longest_ttl: Option<Duration>,
}

#[derive(Debug, Clone)]
struct Lease {
    holder: RegionName,
    first: Moment,
    renewed: Option<Moment>,
    released: Option<Moment>,
}

impl Watched {
    /// Notes what an agent says, or that it says nothing.
    pub fn see(&mut self, region: &RegionName, at: Moment, view: Option<View>) {
        let changes = self.changes.entry(region.clone()).or_default();
        if changes.len() < CHANGES_MAX && changes.last().is_none_or(|(_, last)| *last != view) {
            changes.push((at, view));
        }
    }

    /// Notes the lease key as an agent saw it, and when it last changed.
    pub fn lease(&mut self, key: &LeaseKey, changed: Moment) {
        self.longest_ttl = self.longest_ttl.max(Some(key.ttl));
        let new = Lease { holder: key.holder.clone(), first: changed, renewed: None, released: None };
        let lease = self.leases.entry(key.epoch).or_insert(new);
        lease.first = lease.first.min(changed);
        match key.state {
            LeaseState::Held => lease.renewed = Some(lease.renewed.map_or(changed, |at| at.max(changed))),
            LeaseState::Released { .. } => {
                lease.released = Some(lease.released.map_or(changed, |at| at.min(changed)));
            }
        }
    }

    /// The first moment from `from` on at which a region's view passes the test.
    pub fn first(&self, region: &RegionName, from: Moment, test: impl Fn(&View) -> bool) -> Option<Moment> {
        let changes = self.changes.get(region)?;
        let start = changes.partition_point(|(at, _)| *at < from);
        // What was seen last before `from` still holds then.
        let standing = start.checked_sub(1).and_then(|before| changes.get(before));
        if standing.and_then(|(_, view)| view.as_ref()).is_some_and(&test) {
            return Some(from);
        }
        let later = changes.get(start..).unwrap_or_default().iter();
        later.filter(|(_, view)| view.as_ref().is_some_and(&test)).map(|(at, _)| *at).next()
    }

    /// What an agent said last; `None` when it was silent.
    pub fn last(&self, region: &RegionName) -> Option<&View> {
        self.changes.get(region)?.last()?.1.as_ref()
    }

    /// When each right was first seen, in order.
    pub fn changes(&self) -> Vec<Moment> {
        self.leases.values().map(|lease| lease.first).collect()
    }

    /// The longest time-to-live that the key was seen with; a restless right lasts longer.
    pub fn longest_ttl(&self) -> Option<Duration> {
        self.longest_ttl
    }

    /// The first region, if any, that takes writes under a newer epoch than `before`, and when that was first seen.
    pub fn promoted(&self, before: Epoch) -> Option<(Moment, RegionName)> {
        let newer = |view: &View| view.writer.is_some_and(|epoch| epoch > before);
        let seen = |region: &RegionName| Some((self.first(region, Moment::ZERO, newer)?, region.clone()));
        self.changes.keys().filter_map(seen).min()
    }
}

/// Something that the drill did or noted itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// When.
    pub at: Moment,
    /// What: a constant phrase, or the drill's own line.
    pub event: Cow<'static, str>,
    /// Where.
    pub region: Option<RegionName>,
}

/// What there is to tell.
pub struct Told<'a> {
    /// The fault.
    pub fault: &'a Fault,
    /// The epoch before it.
    pub before: Epoch,
    /// How long a lease lasts after its last renewal.
    pub lease_ttl: Duration,
    /// The regions that it did not strike.
    pub survivors: &'a BTreeSet<RegionName>,
    /// What the clients saw.
    pub history: &'a History,
    /// What the agents said.
    pub watched: &'a Watched,
    /// What the drill did.
    pub marks: &'a [Mark],
}

/// All events in the order of time.
pub fn timeline(told: &Told<'_>) -> Vec<Entry> {
    let mut events: Vec<Event> =
        told.marks.iter().map(|mark| (mark.at, mark.event.clone(), mark.region.clone())).collect();
    events.extend(noticed(told));
    events.extend(lease(told));
    events
        .extend(told.watched.promoted(told.before).map(|(at, region)| (at, "promoted".into(), Some(region))));
    events.extend(writes(told));
    events.extend(reads(told));
    events.sort();
    let entry = |(at, event, region): Event| Entry {
        at_ms: since(at, told.fault.at),
        event: event.into_owned(),
        region,
    };
    events.into_iter().map(entry).collect()
}

type Event = (Moment, Cow<'static, str>, Option<RegionName>);

/// When every surviving agent had stopped sending users to the struck region, or writes to its writer.
fn noticed(told: &Told<'_>) -> Option<Event> {
    let Fault { region, at, .. } = told.fault;
    let away = |survivor: &RegionName| {
        told.watched.first(survivor, *at, |view| {
            view.out.contains(region) || !view.knows_a_writer || view.epoch > told.before
        })
    };
    let all: Option<Vec<Moment>> = told.survivors.iter().map(away).collect();
    Some((all?.into_iter().max()?, "edges noticed".into(), None))
}

/// The end of the right that was held when the fault struck, and every right claimed after it.
fn lease(told: &Told<'_>) -> Vec<Event> {
    let leases = &told.watched.leases;
    let mut events: Vec<Event> = leases
        .range(told.before.next()..)
        .map(|(_, lease)| (lease.first, "lease claimed".into(), Some(lease.holder.clone())))
        .collect();
    let before = leases.get(&told.before);
    let ended = match before.map(|before| (before.released, before.renewed)) {
        Some((Some(released), _)) => Some((released, "lease given back".into(), None)),
        Some((None, Some(renewed))) if !events.is_empty() => {
            Some((renewed.plus(told.lease_ttl), "lease expired".into(), None))
        }
        Some((None, Some(_) | None)) | None => None,
    };
    events.extend(ended);
    events
}

fn writes(told: &Told<'_>) -> Vec<Event> {
    let back = |region: &RegionName| Some((told.history.writes_back(told.fault, region)?, region.clone()));
    let mut back: Vec<(Duration, RegionName)> = told.survivors.iter().filter_map(back).collect();
    back.sort();
    let event = |index: usize| if index == 0 { "first write acknowledged" } else { "writes back" };
    back.into_iter()
        .enumerate()
        .map(|(index, (after, region))| (told.fault.at.plus(after), event(index).into(), Some(region)))
        .collect()
}

/// When the users nearest to the struck region could read again.
fn reads(told: &Told<'_>) -> Option<Event> {
    let reader = Reader::User(told.fault.region.clone());
    let after = told.history.reads_back(told.fault, &reader)?;
    Some((told.fault.at.plus(after), "reads back for its users".into(), Some(told.fault.region.clone())))
}

fn since(at: Moment, origin: Moment) -> i64 {
    let whole = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    if at >= origin { whole(at.since(origin)) } else { -whole(origin.since(at)) }
}

#[cfg(test)]
mod tests {
    use isles_model::Successor;

    use super::*;
    use crate::drill::history::{Outcome, Read, Write};

    fn ms(milliseconds: u64) -> Moment {
        Moment(Duration::from_millis(milliseconds))
    }

    fn region(name: &str) -> RegionName {
        name.parse().unwrap()
    }

    fn view(writer: Option<u64>, epoch: u64, out: &[&str]) -> Option<View> {
        Some(View {
            epoch: Epoch(epoch),
            knows_a_writer: true,
            database_up: true,
            writer: writer.map(Epoch),
            replica: writer.is_none(),
            out: out.iter().map(|name| region(name)).collect(),
            well: true,
        })
    }

    fn key(epoch: u64, state: LeaseState) -> LeaseKey {
        LeaseKey {
            epoch: Epoch(epoch),
            holder: region("eu"),
            seq: 1,
            state,
            ttl: Duration::from_millis(1500),
            successor: Successor::Any,
            unrest: 0,
        }
    }

    fn outage() -> (Fault, History, Watched) {
        let fault = Fault { region: region("eu"), at: ms(1000), struck: ms(1005) };
        let write = |number, via: &str, begun, ended| Write {
            number,
            via: region(via),
            begun: ms(begun),
            ended: ms(ended),
            outcome: Outcome::Succeeded,
        };
        let history = History {
            writes: vec![write(1, "eu", 990, 995), write(2, "us", 1100, 2620), write(3, "ap", 1100, 2800)],
            reads: vec![Read {
                reader: Reader::User(region("eu")),
                begun: ms(1010),
                ended: ms(1030),
                outcome: Outcome::Succeeded,
            }],
            posts: Vec::new(),
        };
        let mut watched = Watched::default();
        watched.see(&region("eu"), ms(900), view(Some(3), 3, &[]));
        watched.see(&region("eu"), ms(1020), None);
        for (name, noticed) in [("us", 1300), ("ap", 1400)] {
            watched.see(&region(name), ms(900), view(None, 3, &[]));
            watched.see(&region(name), ms(noticed), view(None, 3, &["eu"]));
        }
        watched.see(&region("us"), ms(2600), view(Some(4), 4, &["eu"]));
        watched.lease(&key(3, LeaseState::Held), ms(950));
        watched.lease(&key(3, LeaseState::Held), ms(940));
        watched.lease(&key(4, LeaseState::Held), ms(2500));
        (fault, history, watched)
    }

    fn told(fault: &Fault, history: &History, watched: &Watched) -> Vec<(i64, String)> {
        let survivors = BTreeSet::from([region("us"), region("ap")]);
        let marks =
            [Mark { at: fault.at, event: "region stopped".into(), region: Some(fault.region.clone()) }];
        let lease_ttl = Duration::from_millis(1500);
        let entries = timeline(&Told {
            fault,
            before: Epoch(3),
            lease_ttl,
            survivors: &survivors,
            history,
            watched,
            marks: &marks,
        });
        entries.into_iter().map(|entry| (entry.at_ms, entry.event)).collect()
    }

    #[test]
    fn an_outage_is_told_in_the_order_of_time() {
        let (fault, history, watched) = outage();
        let expect = [
            (0, "region stopped"),
            (30, "reads back for its users"),
            (400, "edges noticed"),
            (1450, "lease expired"),
            (1500, "lease claimed"),
            (1600, "promoted"),
            (1620, "first write acknowledged"),
            (1800, "writes back"),
        ];
        let expect: Vec<(i64, String)> =
            expect.iter().map(|(at, event)| (*at, (*event).to_owned())).collect();
        assert_eq!(told(&fault, &history, &watched), expect);
    }

    #[test]
    fn a_lease_given_back_is_not_called_expired() {
        let (fault, history, mut watched) = outage();
        watched.lease(&key(3, LeaseState::Released { heir: None }), ms(1080));
        let events = told(&fault, &history, &watched);
        assert!(events.contains(&(80, "lease given back".to_owned())), "{events:?}");
        assert!(!events.iter().any(|(_, event)| event == "lease expired"));
    }

    #[test]
    fn what_did_not_happen_is_not_told() {
        let (fault, history, mut watched) = outage();
        watched.leases.remove(&Epoch(4));
        watched.changes.remove(&region("us"));
        let events = told(&fault, &history, &watched);
        for event in ["promoted", "lease claimed", "lease expired", "edges noticed"] {
            assert!(!events.iter().any(|(_, told)| told == event), "{event}: {events:?}");
        }
    }
}
