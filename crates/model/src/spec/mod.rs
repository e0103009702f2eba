//! The spec, `isles.yaml`: read, checked as a whole, and turned into a [`Topology`].
//!
//! Every mistake is reported at once, with its line, what is wrong and how to mend it. Opens no file: it is given text.

mod check;
mod codes;
mod duration;
mod fill;
mod finding;
pub mod init;
mod keys;
mod objectives;
mod places;
mod read;
mod reference;
mod scalar;
mod schema;
mod shape;
pub(crate) mod suggest;
mod tree;

use std::sync::Arc;

pub use codes::{Code, UnknownCode};
pub use duration::{DURATION_MAX, parse as parse_duration, show as show_duration};
pub use fill::REGIONS_MAX;
pub use finding::{FINDINGS_MAX, Finding, Findings, Place, SpecErrors};
pub use objectives::{
    FailoverBudget, LEASE_TTL_MIN, PROMOTION_ALLOWANCE, RTT_ASSUMED, failover_budget, lease_ttl_min,
    round_trip, round_trip_max,
};
pub use reference::reference;
pub use schema::schema;
pub use tree::{SPEC_BYTES_MAX, SPEC_DEPTH_MAX, SPEC_VALUES_MAX};

use crate::Topology;
use finding::Source;
use tree::Node;

/// A spec as written: every key known, every value of the right form. Whether it makes sense, [`Spec::check`] says.
#[derive(Debug, Clone)]
pub struct Spec {
    source: Source,
    root: Node,
}

/// A spec that can be run.
#[derive(Debug, Clone)]
pub struct Checked {
    /// As written; holds the parts that the topology leaves out, see [`Spec::part`].
    pub spec: Spec,
    /// What to run, every default explicit.
    pub topology: Topology,
    /// What is weak, or without effect so far. Never stands in the way.
    pub warnings: Findings,
}

/// Reads and checks a spec; mistakes of form and of sense are reported together. `name` is the file's, for messages.
///
/// # Errors
/// Everything that is wrong, in the order of the lines, with the warnings among it.
pub fn load(name: &str, text: &str) -> Result<Checked, SpecErrors> {
    let (spec, findings) = Spec::read(name, text);
    match spec {
        Ok(spec) => spec.check_after(findings),
        Err(source) => Err(Findings::new(&source, findings)),
    }
}

impl Spec {
    /// Reads a spec; `name` is the file's, for messages.
    ///
    /// # Errors
    /// Everything that is not YAML 1.2, not a known key or not a value of the right form.
    pub fn parse(name: &str, text: &str) -> Result<Self, SpecErrors> {
        match Self::read(name, text) {
            (Ok(spec), findings) if findings.is_empty() => Ok(spec),
            (Ok(Self { source, .. }) | Err(source), findings) => Err(Findings::new(&source, findings)),
        }
    }

    /// Checks that the spec makes sense and that its promises can be kept.
    ///
    /// # Errors
    /// Every rule that it breaks, with the warnings.
    pub fn check(&self) -> Result<Checked, SpecErrors> {
        self.clone().check_after(Vec::new())
    }

    /// A top-level part as it is written (`sessions`, `render`, …), for those who read what no topology holds.
    pub fn part(&self, key: &str) -> Option<serde_json::Value> {
        self.root.get(key).map(Node::to_json)
    }

    /// The spec, or only its source when it is no YAML; and every mistake of form.
    fn read(name: &str, text: &str) -> (Result<Self, Source>, Vec<Finding>) {
        let source = Source { name: Arc::from(name), text: Arc::from(text) };
        let mut findings = Vec::new();
        let Some(root) = tree::read(text, &mut findings) else { return (Err(source), findings) };
        read::conform(&root, &keys::SPEC, "", &mut findings);
        (Ok(Self { source, root }), findings)
    }

    /// Checks, with the mistakes of form already found: their values count as left out.
    fn check_after(self, mut findings: Vec<Finding>) -> Result<Checked, SpecErrors> {
        let topology = fill::topology(&self.root);
        check::rules(&self.root, &topology, &mut findings);
        let findings = Findings::new(&self.source, findings);
        if findings.errors() > 0 {
            return Err(findings);
        }
        Ok(Checked { topology, warnings: findings, spec: self })
    }
}
