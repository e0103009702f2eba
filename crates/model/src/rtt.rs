//! Says how far apart two cloud regions are, so that time-outs and promises can be planned before anything runs.
//!
//! Measures nothing: these are planning figures, replaced at run time by an agent's own probes.

mod catalogue;
mod measured;

use std::time::Duration;

pub use catalogue::{KNOWN_REGIONS, KnownRegion};

use crate::RegionName;

/// What a round trip costs besides distance: last miles, queues, serialisation. Fitted to published matrices.
const RTT_BASE_MS: f64 = 11.5;
/// What each 1000 km of great circle adds to a round trip. Light in glass alone needs 10; cables are not straight.
const RTT_MS_PER_1000_KM: f64 = 14.8;
/// Two regions this close to a pair of measured ones are as far apart as those are.
const SAME_PLACE_KM_MAX: f64 = 120.0;
/// The Earth's mean radius (IUGG).
const EARTH_RADIUS_KM: f64 = 6_371.0;
/// How many names are offered for one that is not known.
const NEAREST_NAMES_MAX: usize = 3;
/// How alike (Jaro-Winkler, 0 to 1) a name must be to be offered.
const LIKENESS_MIN: f64 = 0.75;

/// What is known of a region, by its provider's name for it.
pub fn region(name: &str) -> Option<&'static KnownRegion> {
    KNOWN_REGIONS.iter().find(|known| known.name == name)
}

/// The expected round trip between two regions: from a table of typical figures where the pair, or a pair of
/// neighbours in the same cities, is in it, and from the distance elsewhere (right within 13 % for half of all pairs).
/// `None` when either name is unknown; zero between a region and itself.
pub fn rtt(a: &RegionName, b: &RegionName) -> Option<Duration> {
    if a == b {
        return Some(Duration::ZERO);
    }
    let (a, b) = (region(a.as_str())?, region(b.as_str())?);
    let planned = measured(a.name, b.name).or_else(|| measured(stand_in(a), stand_in(b)));
    Some(planned.unwrap_or_else(|| by_distance(distance_km(a, b))))
}

/// Known names that look most like one that is not known, best first; at most three, none when nothing is near.
pub fn nearest_names(unknown: &str) -> Vec<&'static str> {
    let mut near: Vec<(f64, &'static str)> = KNOWN_REGIONS
        .iter()
        .map(|known| (strsim::jaro_winkler(&unknown.to_ascii_lowercase(), known.name), known.name))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    near.into_iter().take(NEAREST_NAMES_MAX).map(|(_, name)| name).collect()
}

/// The great circle between two regions (haversine).
pub fn distance_km(a: &KnownRegion, b: &KnownRegion) -> f64 {
    let half = |degrees: f64| (degrees.to_radians() / 2.0).sin().powi(2);
    let parallel = a.latitude.to_radians().cos() * b.latitude.to_radians().cos();
    let chord = half(b.latitude - a.latitude) + parallel * half(b.longitude - a.longitude);
    2.0 * EARTH_RADIUS_KM * chord.sqrt().min(1.0).asin()
}

fn measured(a: &str, b: &str) -> Option<Duration> {
    let pair = |row: &&(&str, &str, u64)| (row.0, row.1) == (a, b) || (row.0, row.1) == (b, a);
    measured::MEASURED_MS.iter().find(pair).map(|row| Duration::from_millis(row.2))
}

/// The region with measured figures that stands in the same place, or the region itself.
fn stand_in(region: &'static KnownRegion) -> &'static str {
    KNOWN_REGIONS
        .iter()
        .filter(|known| known.provider == "aws" && distance_km(known, region) <= SAME_PLACE_KM_MAX)
        .find(|known| measured::MEASURED_MS.iter().any(|row| row.0 == known.name || row.1 == known.name))
        .map_or(region.name, |known| known.name)
}

fn by_distance(km: f64) -> Duration {
    let ms = RTT_BASE_MS + RTT_MS_PER_1000_KM * km / 1000.0;
    Duration::from_micros((ms * 10.0).round() as u64 * 100)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn check(a: &str, b: &str, ms: impl std::ops::RangeBounds<f64> + std::fmt::Debug) {
        let between = |a: &str, b: &str| rtt(&a.parse().unwrap(), &b.parse().unwrap()).unwrap();
        let there = between(a, b).as_secs_f64() * 1000.0;
        assert!(ms.contains(&there), "{a} - {b}: {there} ms, not in {ms:?}");
        assert_eq!(between(a, b), between(b, a), "{a} - {b} differs from the way back");
    }

    #[test]
    fn a_round_trip_comes_from_the_table_then_from_neighbours_then_from_the_map() {
        check("eu-west-1", "us-east-1", 76.0..=76.0);
        check("eu-west-1", "ap-southeast-1", 172.0..=172.0);
        check("ap-southeast-1", "us-east-1", 220.0..=220.0);
        check("northeurope", "us-east4", 76.0..=76.0);
        check("fra", "iad", 92.0..=92.0);
        check("europe-west4", "asia-southeast1", 150.0..190.0);
        check("eu-west-1", "eu-west-1", 0.0..=0.0);
        check("eu-west-1", "northeurope", 11.0..13.0);
    }

    #[test]
    fn no_pair_is_quicker_than_light_in_glass() {
        for (a, b, ms) in measured::MEASURED_MS {
            let (a, b) = (region(a).expect(a), region(b).expect(b));
            let floor = distance_km(a, b) / 100.0;
            assert!(*ms as f64 >= floor, "{} - {}: {ms} ms, light needs {floor:.1}", a.name, b.name);
        }
    }

    #[test]
    fn every_known_region_can_be_named_in_a_spec_and_is_listed_once() {
        let mut seen = BTreeSet::new();
        for known in KNOWN_REGIONS {
            assert!(known.name.parse::<RegionName>().is_ok(), "{}", known.name);
            assert!(seen.insert(known.name), "{} is listed twice", known.name);
            assert!(known.latitude.abs() <= 90.0 && known.longitude.abs() <= 180.0, "{}", known.name);
        }
    }

    #[test]
    fn an_unknown_region_has_no_round_trip_but_near_names() {
        let name = "eu-wset-1".parse().unwrap();
        assert_eq!(rtt(&name, &"eu-west-1".parse().unwrap()), None);
        assert_eq!(nearest_names("eu-wset-1").first(), Some(&"eu-west-1"));
        assert_eq!(nearest_names("EU-West-1").first(), Some(&"eu-west-1"));
        assert!(nearest_names("zzzzzz").is_empty());
    }
}
