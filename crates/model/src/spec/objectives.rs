//! Works out how long a failover takes at these distances, and so which promises can be kept.
//!
//! Plans with typical round trips; what really happens is measured by `isles drill`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{RegionName, Topology, rtt};

/// The shortest lease there is: below it, a busy machine's own pauses would end leases.
pub const LEASE_TTL_MIN: Duration = Duration::from_millis(1500);
/// A lease outlives so many round trips to a majority: a lost packet or a busy second must not end it.
const LEASE_ROUND_TRIPS: u32 = 10;
/// Added to a lease for the lease store's own work.
const LEASE_ALLOWANCE: Duration = Duration::from_millis(500);
/// What a database may take from the order to write until its first commit.
pub const PROMOTION_ALLOWANCE: Duration = Duration::from_secs(1);
/// The round trip planned with where the distance is not known: half around the world.
pub const RTT_ASSUMED: Duration = Duration::from_millis(200);

/// The steps between a region's loss and the first write in another one, each at its worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverBudget {
    /// The lost writer's lease runs out.
    pub lease: Duration,
    /// The right to write is claimed: a round trip to the lease store's leader, and one of its own to a majority.
    pub claim: Duration,
    /// The database is promoted.
    pub promotion: Duration,
}

impl FailoverBudget {
    /// All steps together.
    pub fn total(&self) -> Duration {
        self.lease + self.claim + self.promotion
    }
}

/// What a failover may take. Means nothing where [`Topology::may_fail_over`] says no.
pub fn failover_budget(topology: &Topology) -> FailoverBudget {
    FailoverBudget {
        lease: topology.quorum.lease_ttl,
        claim: 2 * round_trip_max(topology),
        promotion: PROMOTION_ALLOWANCE,
    }
}

/// The shortest lease that holds at these distances, and the default: ten round trips and half a second, at least
/// 1.5 s.
///
/// The round trip is that to a majority. A compare-and-put counts when a majority of the voters (the regions and the
/// witness) has it; a voter hears from itself at once, so of three voters the *second* smallest round trip decides.
/// It is taken from the worst-placed region, and with any one other voter lost, because a lease must hold in an
/// outage above all.
pub fn lease_ttl_min(topology: &Topology) -> Duration {
    let voters: Vec<&RegionName> = topology.voters().collect();
    let majority = voters.len() / 2 + 1;
    let worst = topology.region_names().map(|from| majority_round_trip(from, &voters, majority)).max();
    (LEASE_ROUND_TRIPS * worst.unwrap_or_default() + LEASE_ALLOWANCE).max(LEASE_TTL_MIN)
}

/// The time for `from` to hear from a majority, itself included, when the nearest other voter is lost.
fn majority_round_trip(from: &RegionName, voters: &[&RegionName], majority: usize) -> Duration {
    let mut trips: Vec<Duration> = voters.iter().map(|voter| round_trip(from, voter)).collect();
    trips.sort_unstable();
    // Because a single voter cannot be lost: there, nobody is left out.
    let spare = usize::from(voters.len() > majority);
    trips.get(majority - 1 + spare).copied().unwrap_or_default()
}

/// The longest round trip between any two places, the witness among them.
pub fn round_trip_max(topology: &Topology) -> Duration {
    let places: Vec<&RegionName> = topology.region_names().chain(&topology.witness).collect();
    let pairs = places.iter().flat_map(|a| places.iter().map(|b| round_trip(a, b)));
    pairs.max().unwrap_or_default()
}

/// The planned round trip between two regions; [`RTT_ASSUMED`] where the catalogue does not know one of them.
pub fn round_trip(a: &RegionName, b: &RegionName) -> Duration {
    let unknown = if a == b { Duration::ZERO } else { RTT_ASSUMED };
    rtt::rtt(a, b).unwrap_or(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(regions: &str, witness: Option<&str>, lease_ms: u64, budget_ms: u64) {
        let quorum = witness.map(|name| format!("quorum: {{ witness: {name} }}\n")).unwrap_or_default();
        let text = format!(
            "name: shop\nregions: [{regions}]\n{quorum}services: {{ web: {{ command: x }} }}\ndatabase: {{ engine: postgres }}\n"
        );
        let topology = crate::spec::load("isles.yaml", &text).expect(&text).topology;
        assert_eq!(lease_ttl_min(&topology), Duration::from_millis(lease_ms), "{text}");
        assert_eq!(topology.quorum.lease_ttl, lease_ttl_min(&topology), "{text}");
        assert_eq!(failover_budget(&topology).total(), Duration::from_millis(budget_ms), "{text}");
    }

    #[test]
    fn the_lease_follows_the_round_trip_to_a_majority_with_one_voter_lost() {
        // Of three voters the second other one: Ireland is lost, Virginia and Singapore are 220 ms apart.
        check("eu-west-1, us-east-1, ap-southeast-1", None, 2700, 2700 + 440 + 1000);
        // The witness is 26 and 92 ms away; ten times 92 and a half second is below the floor.
        check("eu-west-1, us-east-1", Some("eu-central-1"), 1500, 1500 + 184 + 1000);
        // Of five voters the third other one: from Tokyo, with Singapore lost, that is Ireland at 203 ms.
        check(
            "eu-west-1, us-east-1, ap-southeast-1, ap-northeast-1, eu-central-1",
            None,
            2530,
            2530 + 2 * 226 + 1000,
        );
        // Of two regions alone the primary votes by itself, and is asked from Singapore.
        check("eu-west-1", None, 1500, 2500);
        check("eu-west-1, ap-southeast-1", None, 2220, 2220 + 344 + 1000);
    }

    #[test]
    fn of_two_regions_without_a_witness_only_the_primary_votes() {
        let voters = |regions: &str, quorum: &str| {
            let text = format!(
                "name: shop\nregions: [{regions}]\n{quorum}services: {{ web: {{ command: x }} }}\ndatabase: {{ engine: postgres }}\n"
            );
            let topology = crate::spec::load("isles.yaml", &text).expect(&text).topology;
            topology.voters().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let witness = "quorum: { witness: eu-central-1 }\n";
        assert_eq!(voters("eu-west-1, us-east-1", ""), "eu-west-1");
        assert_eq!(voters("eu-west-1, us-east-1", witness), "eu-west-1 us-east-1 eu-central-1");
        assert_eq!(voters("eu-west-1, us-east-1, ap-south-1", ""), "eu-west-1 us-east-1 ap-south-1");
    }
}
