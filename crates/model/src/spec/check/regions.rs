//! Rules about where an application runs and who may decide which region writes.

use super::Check;
use crate::{
    rtt,
    spec::{
        codes::Code,
        duration::show,
        fill::REGIONS_MAX,
        finding::Place,
        objectives::{RTT_ASSUMED, lease_ttl_min},
        tree::Value,
    },
};

/// The provider of regions that no catalogue knows.
const CUSTOM: &str = "custom";

pub(super) fn rules(check: &mut Check<'_>) {
    number_of_regions(check);
    let mut named = named_regions(check);
    named.truncate(REGIONS_MAX);
    names_are_known(check, &named);
    providers_agree(check, &named);
    each_region_once(check, &named);
    primary_is_listed(check);
    witness_votes_only(check);
    two_regions_need_a_witness(check);
    lease_outlasts_the_distance(check);
}

/// A region's name, where it is written, and whether it is said to be one's own.
type Named = (String, Place, bool);

fn named_regions(check: &Check<'_>) -> Vec<Named> {
    let regions = check.written(&["regions"]);
    match regions.0.map(|node| &node.value) {
        Some(Value::List(nodes)) => {
            let name = |node: &crate::spec::tree::Node| match &node.value {
                Value::Text(text) => Some((text.clone(), node.at, false)),
                _ => None,
            };
            nodes.iter().filter_map(name).collect()
        }
        Some(Value::Map(entries)) => {
            let custom = |name: &str| regions.get(name).get("provider").text().as_deref() == Some(CUSTOM);
            entries.iter().map(|entry| (entry.key.clone(), entry.key_at, custom(&entry.key))).collect()
        }
        _ => Vec::new(),
    }
}

fn number_of_regions(check: &mut Check<'_>) {
    let at = check.at(&["regions"]);
    let listed = match check.written(&["regions"]).0.map(|node| &node.value) {
        Some(Value::List(nodes)) => nodes.len(),
        Some(Value::Map(entries)) => entries.len(),
        _ => return,
    };
    match listed {
        0 => {
            let help = "List at least one, better three: `regions: [eu-west-1, us-east-1, ap-southeast-1]`.";
            check.add(Code::NoRegions, at, "there are no regions".to_owned(), help);
        }
        more if more > REGIONS_MAX => {
            let help = format!("Use at most {REGIONS_MAX}.");
            check.add(Code::BadValue, at, format!("there are {more} regions"), help);
        }
        1 => {
            let help = "Add a second region and a witness, or a second and a third region.";
            check.add(Code::OneRegion, at, "one region alone does not survive its outage".to_owned(), help);
        }
        _ => {}
    }
}

fn names_are_known(check: &mut Check<'_>, named: &[Named]) {
    let witness = check.topology.witness.as_ref().map(ToString::to_string);
    let witness = witness.map(|name| (name, check.at(&["quorum", "witness"]), false));
    let listed = |name: &str| named.iter().any(|(other, _, _)| other == name);
    let witness = witness.filter(|(name, _, _)| !listed(name));
    for (name, at, custom) in named.iter().chain(&witness) {
        if rtt::region(name).is_some() || name.parse::<crate::RegionName>().is_err() {
            continue;
        }
        if *custom {
            let message = format!("the distance to `{name}` is not known");
            let help = format!(
                "Plans assume a round trip of {} to it; an agent measures the real one.",
                show(RTT_ASSUMED)
            );
            check.add(Code::DistanceUnknown, *at, message, help);
            continue;
        }
        let near = rtt::nearest_names(name);
        let guess =
            if near.is_empty() { String::new() } else { format!("Did you mean {}? ", near.join(", ")) };
        let help =
            format!("{guess}For a place of your own write `{name}: {{ provider: {CUSTOM} }}` in a map.");
        check.add(Code::UnknownRegion, *at, format!("no provider has a region `{name}`"), help);
    }
}

fn providers_agree(check: &mut Check<'_>, named: &[Named]) {
    for (name, _, _) in named {
        let path = ["regions", name, "provider"];
        let Some((known, said)) = rtt::region(name).zip(check.written(&path).text()) else { continue };
        if said != known.provider {
            let message = format!("`{name}` is a region of {}, not of {said}", known.provider);
            let help =
                format!("Write `provider: {}`, or leave it out: it is known from the name.", known.provider);
            check.add(Code::BadValue, check.at(&path), message, help);
        }
    }
}

fn each_region_once(check: &mut Check<'_>, named: &[Named]) {
    for (index, (name, at, _)) in named.iter().enumerate() {
        if named[..index].iter().any(|(earlier, _, _)| earlier == name) {
            let message = format!("`{name}` is listed twice");
            check.add(Code::RegionTwice, *at, message, "Remove one of the two.");
        }
    }
}

fn primary_is_listed(check: &mut Check<'_>) {
    let path = ["primary_region"];
    let Some(primary) = check.written(&path).text() else { return };
    let names: Vec<&str> = check.topology.regions.iter().map(|region| region.name.as_str()).collect();
    if !names.is_empty() && !names.contains(&primary.as_str()) {
        let help = format!("Add it to `regions`, or choose one of {}.", names.join(", "));
        check.add(
            Code::PrimaryNotListed,
            check.at(&path),
            format!("`{primary}` is not among the regions"),
            help,
        );
    }
}

fn witness_votes_only(check: &mut Check<'_>) {
    let Some(witness) = &check.topology.witness else { return };
    if check.topology.region_names().any(|name| name == witness) {
        let message = format!("`{witness}` holds data and cannot be the witness too");
        let help =
            "Name a region that is not among `regions`: when one is lost, the witness must be elsewhere.";
        check.add(Code::WitnessHoldsData, check.at(&["quorum", "witness"]), message, help);
    }
}

fn two_regions_need_a_witness(check: &mut Check<'_>) {
    if check.topology.regions.len() != 2 || check.given(&["quorum", "witness"]) {
        return;
    }
    let help = "Add a third vote, as in `quorum: { witness: eu-central-1 }`, or a third region.";
    let because =
        "when one of two regions falls silent, the other cannot know whether it is lost or only cut off";
    if check.written(&["objectives", "rto"]).duration().is_some() {
        let message = format!(
            "this recovery time needs automatic failover, and two regions alone cannot have it: {because}"
        );
        check.add(Code::NoWitnessForObjective, check.at(&["objectives", "rto"]), message, help);
    } else {
        let message = format!("two regions do not fail over by themselves: {because}");
        check.add(Code::NoWitness, check.at(&["regions"]), message, help);
    }
}

fn lease_outlasts_the_distance(check: &mut Check<'_>) {
    let path = ["quorum", "lease_ttl"];
    let Some(written) = check.written(&path).duration() else { return };
    let least = lease_ttl_min(check.topology);
    if written < least {
        let message = format!("a lease of {} would end by itself at these distances", show(written));
        let help = format!("Use {} or more, or remove the key: that is the default.", show(least));
        check.add(Code::LeaseTooShort, check.at(&path), message, help);
    }
}
