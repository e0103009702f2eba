//! Judges a history of appends, reads and swaps against what is left in the end: nothing acknowledged may be missing
//! beyond what the commit mode allows, nothing may be out of order, doubled, made up, or seen by a writer that was none.
//!
//! Pure, and unforgiving where it can know: a try whose outcome is unknown may count or not, everything else is held
//! to its word. A list names every write before it, so its final order judges every answer that anybody got.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Op, Outcome, What};

/// The most violations that are told.
pub const VIOLATIONS_MAX: usize = 200;
/// Around a change of the writer, in microseconds: what an agent said of it may be so much older.
const CHANGE_SLACK_US: u64 = 1_000_000;

/// What is left in the end, as the last writer has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Final {
    /// Every list.
    pub lists: BTreeMap<u64, Vec<u64>>,
    /// Every register.
    pub registers: BTreeMap<u64, u64>,
}

/// What a history is judged by, besides itself.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// No acknowledged write may be lost (`commit: remote`); otherwise a change of the writer may lose some.
    pub none_lost: bool,
    /// When the right to write changed hands, in microseconds of the drill's clock.
    pub changes_us: &'a [u64],
}

impl Terms<'_> {
    /// Whether the writer changed between two moments, as far as can be known.
    fn changed(&self, from_us: u64, until_us: u64) -> bool {
        let around = from_us.saturating_sub(CHANGE_SLACK_US)..=until_us.saturating_add(CHANGE_SLACK_US);
        self.changes_us.iter().any(|at| around.contains(at))
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checked {
    /// Acknowledged writes.
    pub acknowledged: usize,
    /// Acknowledged appends that are gone, by number.
    pub lost: Vec<u64>,
    /// Pairs of acknowledged swaps that both replaced the same number: one of them is gone.
    pub conflicts: usize,
    /// What must not be, in words; at most [`VIOLATIONS_MAX`].
    pub violations: Vec<String>,
}

impl Checked {
    fn tell(&mut self, violation: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(violation);
        }
    }
}

/// Judges a history.
pub fn check(ops: &[Op], last: &Final, terms: &Terms<'_>) -> Checked {
    let mut checked = Checked {
        acknowledged: ops.iter().filter(|op| op.is_ok() && op.writes()).count(),
        ..Checked::default()
    };
    let mut lists: BTreeMap<u64, List<'_>> = BTreeMap::new();
    let mut registers: BTreeMap<u64, Vec<&Op>> = BTreeMap::new();
    for op in ops {
        match &op.what {
            What::Append { list, element, seen } => {
                let list = lists.entry(*list).or_default();
                list.attempts.insert(*element, op);
                list.answers.extend(op.is_ok().then_some((op, seen.as_slice())));
            }
            What::Read { list, seen } => {
                let list = lists.entry(*list).or_default();
                list.answers.extend(op.is_ok().then_some((op, seen.as_slice())));
            }
            What::Swap { register, .. } => registers.entry(*register).or_default().push(op),
        }
    }
    for number in last.lists.keys() {
        lists.entry(*number).or_default();
    }
    let mut kept: Vec<&Op> = Vec::new();
    let mut lost: Vec<&Op> = Vec::new();
    for (number, list) in &lists {
        let order = last.lists.get(number).map_or(&[][..], Vec::as_slice);
        list.check(*number, order, terms, &mut checked);
        for (element, op) in list.attempts.iter().filter(|(_, op)| op.is_ok()) {
            if order.contains(element) { kept.push(op) } else { lost.push(op) }
        }
    }
    for (number, swaps) in &registers {
        check_register(*number, swaps, last.registers.get(number).copied(), terms, &mut checked);
    }
    holes(&kept, &lost, terms, &mut checked);
    checked.lost = lost.iter().filter_map(|op| element(op)).collect();
    checked.lost.sort_unstable();
    checked
}

fn element(op: &Op) -> Option<u64> {
    match op.what {
        What::Append { element, .. } => Some(element),
        What::Read { .. } | What::Swap { .. } => None,
    }
}

/// What concerns one list.
#[derive(Default)]
struct List<'a> {
    /// By element.
    attempts: BTreeMap<u64, &'a Op>,
    /// What acknowledged tries saw.
    answers: Vec<(&'a Op, &'a [u64])>,
}

impl List<'_> {
    fn check(&self, number: u64, order: &[u64], terms: &Terms<'_>, checked: &mut Checked) {
        self.made_up(number, order, u64::MAX, "in the end", checked);
        for (op, seen) in &self.answers {
            let who = format!("client {}", op.client);
            self.made_up(number, seen, op.ended_us, &who, checked);
            contradicts(number, op, seen, order, terms, checked);
        }
        self.out_of_order(number, order, checked);
        self.stale(number, order, checked);
        if terms.none_lost {
            for (element, op) in self.attempts.iter().filter(|(_, op)| op.is_ok()) {
                if !order.contains(element) {
                    checked.tell(format!(
                        "list {number}: {element} was acknowledged to client {} and is gone",
                        op.client
                    ));
                }
            }
        }
    }

    /// Elements that nobody appended, or not yet, or twice.
    fn made_up(&self, number: u64, seen: &[u64], by_us: u64, who: &str, checked: &mut Checked) {
        let mut before = BTreeSet::new();
        for element in seen {
            if !before.insert(element) {
                checked.tell(format!("list {number}: {element} is there twice, {who}"));
            }
            match self.attempts.get(element) {
                None => checked.tell(format!("list {number}: {element} was never appended, {who}")),
                Some(op) if op.outcome == Outcome::Unsent => {
                    checked.tell(format!("list {number}: {element} was never sent and is there, {who}"));
                }
                Some(op) if op.begun_us > by_us => {
                    checked.tell(format!("list {number}: {element} was seen before it was appended, {who}"));
                }
                Some(_) => {}
            }
        }
    }

    /// What was acknowledged before another append began must stand before it.
    fn out_of_order(&self, number: u64, order: &[u64], checked: &mut Checked) {
        let placed: Vec<&&Op> = order.iter().filter_map(|element| self.attempts.get(element)).collect();
        for (index, later) in placed.iter().enumerate() {
            let overtaken =
                placed.iter().skip(index + 1).find(|op| op.is_ok() && op.ended_us < later.begun_us);
            if let (Some(earlier), Some(later)) = (overtaken.and_then(|op| element(op)), element(later)) {
                checked.tell(format!("list {number}: {later} stands before {earlier}, which was acknowledged before {later} began"));
            }
        }
    }

    /// What was acknowledged, and is there in the end, must be seen by whoever asks later: else a former writer answered.
    fn stale(&self, number: u64, order: &[u64], checked: &mut Checked) {
        let kept: Vec<(u64, &&Op)> = order
            .iter()
            .filter_map(|element| Some((*element, self.attempts.get(element)?)))
            .filter(|(_, op)| op.is_ok())
            .collect();
        for (op, seen) in &self.answers {
            let missing =
                kept.iter().find(|(element, kept)| kept.ended_us < op.begun_us && !seen.contains(element));
            if let Some((element, _)) = missing {
                checked.tell(format!(
                    "list {number}: client {} was answered without {element}, which had been acknowledged before it asked",
                    op.client
                ));
            }
        }
    }
}

/// What was seen must be the beginning of the final list, then only what a lost writer took along with it.
fn contradicts(number: u64, op: &Op, seen: &[u64], order: &[u64], terms: &Terms<'_>, checked: &mut Checked) {
    let same = seen.iter().zip(order).take_while(|(one, other)| one == other).count();
    let rest = seen.get(same..).unwrap_or_default();
    if let Some(element) = rest.iter().find(|element| order.contains(element)) {
        checked.tell(format!(
            "list {number}: client {} saw {element} in another order than it is in",
            op.client
        ));
    } else if terms.none_lost && !rest.is_empty() {
        checked.tell(format!("list {number}: client {} saw {rest:?}, which are gone", op.client));
    }
    if element(op).is_some_and(|own| seen.last() != Some(&own)) {
        checked.tell(format!(
            "list {number}: client {} appended and did not find its own number last",
            op.client
        ));
    }
}

fn check_register(number: u64, swaps: &[&Op], last: Option<u64>, terms: &Terms<'_>, checked: &mut Checked) {
    let parts = |op: &Op| match op.what {
        What::Swap { new, old, .. } => Some((new, old)),
        What::Append { .. } | What::Read { .. } => None,
    };
    let by_new: BTreeMap<u64, &Op> = swaps.iter().filter_map(|op| Some((parts(op)?.0, *op))).collect();
    let ok: Vec<(&Op, u64)> =
        swaps.iter().filter(|op| op.is_ok()).filter_map(|op| Some((*op, parts(op)?.1))).collect();
    let mut replaced: BTreeMap<u64, &Op> = BTreeMap::new();
    let ends = last.map(|value| (u64::MAX, u64::MAX, value, "in the end".to_owned()));
    let answers =
        ok.iter().map(|(op, old)| (op.begun_us, op.ended_us, *old, format!("client {}", op.client)));
    for (begun_us, ended_us, value, who) in answers.chain(ends) {
        let writer = by_new.get(&value);
        if value != 0 && writer.is_none_or(|op| op.outcome == Outcome::Unsent || op.begun_us > ended_us) {
            checked.tell(format!("register {number}: {value} was never set, {who}"));
        }
        // The value's writer must have overlapped, or come after, everything that was acknowledged before.
        let written_by_us = match writer {
            Some(op) if op.is_ok() => op.ended_us,
            Some(_) => u64::MAX,
            None => 0,
        };
        let ignored = ok.iter().find(|(op, _)| op.begun_us > written_by_us && op.ended_us < begun_us);
        if let Some((op, _)) =
            ignored.filter(|(op, _)| terms.none_lost || !terms.changed(op.begun_us, begun_us))
        {
            let what = parts(op).map_or(0, |(new, _)| new);
            checked.tell(format!(
                "register {number}: {who} found {value} although {what} had been acknowledged after it"
            ));
        }
    }
    for (op, old) in &ok {
        let Some(other) = replaced.insert(*old, op) else { continue };
        checked.conflicts += 1;
        let (from, until) = (op.begun_us.min(other.begun_us), op.ended_us.max(other.ended_us));
        if terms.none_lost || !terms.changed(from, until) {
            checked.tell(format!(
                "register {number}: clients {} and {} both replaced {old}",
                other.client, op.client
            ));
        }
    }
}

/// A lost write followed by a kept one of the same writer: a hole, which no loss of a writer explains.
fn holes(kept: &[&Op], lost: &[&Op], terms: &Terms<'_>, checked: &mut Checked) {
    for gone in lost {
        let after = kept.iter().filter(|op| op.begun_us > gone.ended_us).min_by_key(|op| op.ended_us);
        let same_writer = after.filter(|op| !terms.changed(gone.begun_us, op.ended_us));
        if let (Some(gone), Some(after)) = (element(gone), same_writer.and_then(|op| element(op))) {
            checked.tell(format!(
                "{gone} is gone and {after} is there, though the same writer acknowledged it later"
            ));
        }
    }
}
