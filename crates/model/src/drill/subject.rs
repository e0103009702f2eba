//! Whom an act concerns: roles as they are when the drill begins, or regions by name.

use std::fmt;

use crate::RegionName;

/// One region, or some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The region that takes writes when the drill begins.
    Writer,
    /// The region that takes writes at the moment of the act. What is done to it is mended by `heal`.
    Holder,
    /// The n-th of the other data regions in the spec's order, from 1.
    Replica(usize),
    /// The region that votes and holds no data.
    Witness,
    /// Every region that the act does not name otherwise: with a link or an etcd member the witness too.
    Others,
    /// This one.
    Named(RegionName),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Writer => f.pad("writer"),
            Self::Holder => f.pad("holder"),
            Self::Replica(1) => f.pad("replica"),
            Self::Replica(number) => f.pad(&format!("replica-{number}")),
            Self::Witness => f.pad("witness"),
            Self::Others => f.pad("others"),
            Self::Named(region) => f.pad(region.as_str()),
        }
    }
}

/// One subject or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subjects(pub Vec<Subject>);

impl Subjects {
    /// Just this one.
    pub fn one(subject: Subject) -> Self {
        Self(vec![subject])
    }

    /// The same with the region that takes writes just now in the place of `holder`.
    #[must_use]
    pub fn with_holder(&self, holder: &RegionName) -> Self {
        let fixed = |subject: &Subject| match subject {
            Subject::Holder => Subject::Named(holder.clone()),
            other => other.clone(),
        };
        Self(self.0.iter().map(fixed).collect())
    }

    /// Whether the witness could be meant.
    pub fn has_witness(&self) -> bool {
        self.0.contains(&Subject::Witness)
    }

    /// The regions meant; a `holder` that has not been fixed counts as the writer. `replicas`: the other data regions in the spec's order; `taken`: what `others` leaves out
    /// besides the subjects beside it; `whole`: whether `others` includes the witness.
    pub fn resolve(
        &self,
        writer: &RegionName,
        replicas: &[RegionName],
        witness: Option<&RegionName>,
        taken: &[RegionName],
        whole: bool,
    ) -> Vec<RegionName> {
        let mut meant: Vec<RegionName> = Vec::new();
        let mut add = |region: &RegionName| {
            if !meant.contains(region) {
                meant.push(region.clone());
            }
        };
        for subject in &self.0 {
            match subject {
                Subject::Writer | Subject::Holder => add(writer),
                Subject::Replica(number) => {
                    replicas.get(number.saturating_sub(1)).into_iter().for_each(&mut add);
                }
                Subject::Witness => witness.into_iter().for_each(&mut add),
                Subject::Named(region) => add(region),
                Subject::Others => {}
            }
        }
        if self.0.contains(&Subject::Others) {
            let named = meant.clone();
            let all = std::iter::once(writer).chain(replicas).chain(witness.filter(|_| whole));
            let left = all.filter(|region| !taken.contains(region) && !named.contains(region));
            // Because `others` beside nothing means everyone but the writer.
            let alone = named.is_empty() && taken.is_empty();
            meant.extend(left.filter(|region| !alone || *region != writer).cloned());
        }
        meant
    }
}

impl fmt::Display for Subjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, subject) in self.0.iter().enumerate() {
            write!(f, "{}{subject}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
