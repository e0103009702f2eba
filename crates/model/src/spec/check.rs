//! Asks whether a spec makes sense: one function a rule, and a rule for every promise that could not be kept.

mod app;
mod not_yet;
mod promises;
mod regions;

use super::{
    codes::Code,
    fill::Written,
    finding::{Finding, Place},
    tree::{Node, Value},
};
use crate::Topology;

/// Holds a topology against every rule. `root` is where it was read from: rules ask it what was written, and where.
pub(super) fn rules(root: &Node, topology: &Topology, findings: &mut Vec<Finding>) {
    let mut check = Check { root, topology, findings };
    regions::rules(&mut check);
    promises::rules(&mut check);
    app::rules(&mut check);
    not_yet::rules(&mut check);
}

struct Check<'a> {
    root: &'a Node,
    topology: &'a Topology,
    findings: &'a mut Vec<Finding>,
}

impl<'a> Check<'a> {
    fn add(&mut self, code: Code, at: Place, message: String, help: impl Into<String>) {
        self.findings.push(Finding::new(code, at, message, help));
    }

    /// The value written under a path of keys, if it is there.
    fn written(&self, path: &[&str]) -> Written<'a> {
        path.iter().fold(Written(Some(self.root)), |value, key| value.get(key))
    }

    /// Whether a key is given and not refused for its form.
    fn given(&self, path: &[&str]) -> bool {
        self.written(path).0.is_some_and(|node| node.value != Value::Refused)
    }

    /// Where a path is written: the value itself, or the key of a list or map; where it is left out, the place of the
    /// nearest part above that is there.
    fn at(&self, path: &[&str]) -> Place {
        let mut node = self.root;
        let mut place = Place { end: node.at.start, ..node.at };
        for key in path {
            let Some(entry) = node.entry(key) else { return place };
            place = match entry.node.value {
                Value::List(_) | Value::Map(_) | Value::Null => entry.key_at,
                Value::Flag(_) | Value::Number(_) | Value::Text(_) | Value::Refused => entry.node.at,
            };
            node = &entry.node;
        }
        place
    }
}
