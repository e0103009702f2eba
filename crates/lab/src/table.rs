//! Draws the table that `isles up` ends with: who writes, where to connect, how far apart the regions are.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use isles_model::{DatabaseRole, RegionName, topology::Pattern};

use crate::{
    control::{LabState, RegionState},
    status,
};

/// What each region's database does now, in the table's words.
pub type Roles = BTreeMap<RegionName, &'static str>;

/// Asks every agent what its database does now.
pub async fn roles(state: &LabState) -> Roles {
    let mut roles = Roles::new();
    for region in &state.regions {
        let role = match status::snapshot(region.control).await {
            Ok(snapshot) => match snapshot.report.database.role {
                DatabaseRole::Writer { .. } => "PRIMARY",
                DatabaseRole::Replica { .. } if state.pattern == Pattern::ActivePassive => "standby",
                DatabaseRole::Replica { .. } => "replica",
                DatabaseRole::Fenced => "fenced",
            },
            Err(_) if region.held => "down",
            Err(_) => "silent",
        };
        roles.insert(region.region.clone(), role);
    }
    roles
}

/// The table. `spec` is the spec's name as the user typed it.
pub fn table(state: &LabState, roles: &Roles, version: &str, spec: &str) -> String {
    let pattern = match state.pattern {
        Pattern::ActivePassive => "active-passive",
        Pattern::ReadReplicas => "read-replicas",
    };
    let witness = state.witness.as_ref().map(|witness| format!(" and a witness ({})", witness.region));
    let mut text = format!(
        "isles {version} · {spec} · {pattern} · {} regions{} on this machine, WAN emulated\n",
        state.regions.len(),
        witness.unwrap_or_default(),
    );
    let width = state.regions.iter().map(|region| region.region.as_str().len()).max().unwrap_or(0);
    let primary = state.regions.first().map(|region| &region.region);
    for region in &state.regions {
        let role = roles.get(&region.region).copied().unwrap_or("-");
        let _ = write!(
            text,
            "  {:width$}  {role:7}  http://{}  postgres://{}/{}",
            region.region, region.edge, region.read_gate, region.database.name
        );
        let _ = write!(text, "{}", ready(region));
        if let Some(distance) = primary.and_then(|primary| distance(state, primary, &region.region)) {
            let _ = write!(text, "{distance}");
        }
        text.push('\n');
    }
    text
}

fn ready(region: &RegionState) -> String {
    match region.ready_after {
        Some(after) => format!("   ready {:>4.1} s", after.as_secs_f64()),
        None => "   not ready  ".to_owned(),
    }
}

/// `   rtt  76 ms asked,  76.4 measured`, for a region that is not the primary.
fn distance(state: &LabState, a: &RegionName, b: &RegionName) -> Option<String> {
    let link = state
        .links
        .iter()
        .find(|link| (&link.from, &link.to) == (a, b) || (&link.to, &link.from) == (a, b))?;
    let measured = link.rtt_measured.map(|rtt| format!(", {:>5.1} measured", ms(rtt)));
    Some(format!("   rtt {:>3.0} ms asked{}", ms(link.rtt_asked), measured.unwrap_or_default()))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Where the time of the start went: one bar a step.
pub fn timing(state: &LabState) -> String {
    const COLUMNS: f64 = 40.0;
    let end = state.timing.iter().map(|(_, _, until)| until.as_secs_f64()).fold(0.001, f64::max);
    let width = state.timing.iter().map(|(what, ..)| what.len()).max().unwrap_or(0);
    let mut text = String::from("where the time went\n");
    for (what, from, until) in &state.timing {
        let column = |time: &Duration| (time.as_secs_f64() / end * COLUMNS).round() as usize;
        let (begin, stop) = (column(from), column(until).max(column(from) + 1));
        let bar = format!("{}{}", " ".repeat(begin), "#".repeat(stop - begin));
        let _ = writeln!(
            text,
            "  {what:width$}  {:>6.2} .. {:>5.2} s  {bar}",
            from.as_secs_f64(),
            until.as_secs_f64()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{DatabaseState, LinkCondition, LinkState, Phase};

    fn region(name: &str, port: u16) -> RegionState {
        let address = crate::ports::local;
        RegionState {
            region: name.parse().unwrap(),
            held: false,
            ready_after: Some(Duration::from_millis(1900)),
            edge: address(port),
            control: address(1),
            instances: vec![],
            write_gate: address(2),
            read_gate: address(port - 2600),
            database: DatabaseState {
                socket_dir: "/s".into(),
                port: 3,
                name: "shop".into(),
                admin_user: "isles".into(),
            },
            config: "/c".into(),
            parts: vec![],
        }
    }

    #[test]
    fn the_table_says_who_writes_where_to_connect_and_how_far_it_is() {
        let regions = vec![region("eu-west-1", 8101), region("us-east-1", 8102)];
        let names: Vec<RegionName> = regions.iter().map(|region| region.region.clone()).collect();
        let link = LinkState {
            from: names[0].clone(),
            to: names[1].clone(),
            rtt_asked: Duration::from_millis(76),
            rtt_measured: Some(Duration::from_micros(76_400)),
            forth: LinkCondition::Healthy,
            back: LinkCondition::Healthy,
        };
        let state = LabState {
            name: "shop".into(),
            spec: "/x/isles.yaml".into(),
            pattern: Pattern::ReadReplicas,
            phase: Phase::Ready,
            pid: 1,
            dir: "/l".into(),
            regions,
            witness: None,
            links: vec![link],
            rigs: crate::control::Rigs::default(),
            timing: vec![],
        };
        let roles = Roles::from([(names[0].clone(), "PRIMARY"), (names[1].clone(), "replica")]);
        let expect = "isles 0.1.0 · isles.yaml · read-replicas · 2 regions on this machine, WAN emulated
  eu-west-1  PRIMARY  http://127.0.0.1:8101  postgres://127.0.0.1:5501/shop   ready  1.9 s
  us-east-1  replica  http://127.0.0.1:8102  postgres://127.0.0.1:5502/shop   ready  1.9 s   rtt  76 ms asked,  76.4 measured
";
        assert_eq!(table(&state, &roles, "0.1.0", "isles.yaml"), expect);
    }
}
