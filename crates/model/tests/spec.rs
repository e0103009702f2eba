//! Holds what a reader of `isles check` sees: which mistakes are found, where, and in which words.

use std::{collections::BTreeSet, time::Duration};

use isles_model::{
    spec::{self, Checked, Code, Spec},
    topology::{Commit, Consistency, Pattern, RoutingPolicy, WriteRouting},
};

/// The smallest spec of three regions; a test adds what it is about.
const BASE: &str = "name: shop
regions: [eu-west-1, us-east-1, ap-southeast-1]
services: { web: { command: node server.js } }
database: { engine: postgres }
";

const FULL: &str = include_str!("specs/full.yaml");

fn loaded(text: &str) -> Checked {
    spec::load("isles.yaml", text)
        .unwrap_or_else(|errors| panic!("{text}\n{:?}", miette::Report::new(errors)))
}

/// The codes found, each with its line.
fn found(text: &str) -> Vec<(Code, usize)> {
    let pairs = |findings: &spec::Findings| findings.iter().map(|f| (f.code(), f.place().line)).collect();
    match spec::load("isles.yaml", text) {
        Ok(checked) => pairs(&checked.warnings),
        Err(errors) => pairs(&errors),
    }
}

/// A mistake or warning, the spec it is found in, and the line it is shown at.
fn cases() -> Vec<(Code, String, usize)> {
    let base = |more: &str| format!("{BASE}{more}\n");
    let with = |from: &str, to: &str| BASE.replace(from, to);
    let regions = |to: &str| with("regions: [eu-west-1, us-east-1, ap-southeast-1]", to);
    let service = |to: &str| with("{ command: node server.js }", to);
    let database = |to: &str| with("{ engine: postgres }", to);
    vec![
        (Code::NotYaml, "name: [".to_owned(), 1),
        (Code::TooLarge, "#".repeat(spec::SPEC_BYTES_MAX + 1), 1),
        (Code::DuplicateKey, base("name: shop"), 5),
        (Code::YamlFeature, base("objectives: &o { rto: 15s }"), 5),
        (Code::Empty, "# nothing yet\n".to_owned(), 1),
        (Code::UnknownKey, base("rooting: { ttl: 5s }"), 5),
        (Code::WrongType, regions("regions: eu-west-1"), 2),
        (Code::MissingKey, with("database: { engine: postgres }\n", ""), 1),
        (Code::BadDuration, base("objectives: { rto: 15 }"), 5),
        (Code::BadChoice, base("pattern: read-replica"), 5),
        (Code::BadValue, service("{ command: x, healthcheck: { path: healthz } }"), 3),
        (Code::BadName, with("shop", "My_Shop"), 1),
        (Code::NoRegions, regions("regions: []"), 2),
        (Code::OneRegion, regions("regions: [eu-west-1]"), 2),
        (Code::UnknownRegion, regions("regions: [eu-west-1, us-east-1, us-esat-2]"), 2),
        (Code::RegionTwice, regions("regions: [eu-west-1, us-east-1, eu-central-1, eu-west-1]"), 2),
        (Code::PrimaryNotListed, base("primary_region: eu-north-1"), 5),
        (
            Code::DistanceUnknown,
            regions("regions: { eu-west-1: , us-east-1: , lab: { provider: custom } }"),
            2,
        ),
        (Code::NoWitness, regions("regions: [eu-west-1, us-east-1]"), 2),
        (
            Code::NoWitnessForObjective,
            regions("regions: [eu-west-1, us-east-1]") + "objectives: { rto: 15s }\n",
            5,
        ),
        (Code::WitnessHoldsData, base("quorum: { witness: us-east-1 }"), 5),
        (Code::LeaseTooShort, base("quorum: { lease_ttl: 2s }"), 5),
        (Code::BadEndpoint, base("quorum:\n  etcd: [\"etcd-1:2379\"]"), 6),
        (Code::RecoveryTimeTooShort, base("objectives: { rto: 4s }"), 5),
        (Code::RecoveryPointImpossible, base("objectives: { rpo: 0s }"), 5),
        (Code::RecoveryPointMeasured, base("objectives: { rpo: 2s }"), 5),
        (Code::ProbeTooSlow, service("{ command: x, healthcheck: { interval: 10s } }"), 3),
        (Code::TtlAboveRecoveryTime, base("routing: { ttl: 60s }"), 5),
        (Code::ProbesOverlap, service("{ command: x, healthcheck: { timeout: 2s } }"), 3),
        (Code::HoldTooShort, base("routing: { hold_writes: 1s }"), 5),
        (Code::StalenessBelowDistance, base("objectives: { max_staleness: 100ms }"), 5),
        (Code::OneServiceOnly, service("{ command: x }, api: { command: y }"), 3),
        (Code::NothingToRun, service("{ replicas: { min: 1 } }"), 3),
        (Code::BadReplicas, service("{ command: x, replicas: { min: 3, max: 2 } }"), 3),
        (Code::EngineTooOld, database("{ engine: postgres, version: \"14\" }"), 4),
        (Code::CommitCannotWait, database("{ engine: postgres, commit: { bounded: 50ms } }"), 4),
        (Code::PatternNotYet, base("pattern: active-active"), 5),
        (Code::ResidencyNotYet, base("residency: { ru_pd: { store: [ru] } }"), 5),
        (Code::NoCommand, service("{ image: shop }"), 3),
        (Code::ReservedVariable, service("{ command: x, env: { DATABASE_URL: x } }"), 3),
        (Code::NotObeyedYet, base("sessions: { ttl: 24h }"), 5),
    ]
}

#[test]
fn every_code_is_found_alone_and_at_its_line() {
    for (code, text, line) in cases() {
        assert_eq!(found(&text), [(code, line)], "{text}");
    }
    let covered: BTreeSet<Code> = cases().iter().map(|(code, ..)| *code).collect();
    let all: BTreeSet<Code> = Code::ALL.iter().copied().collect();
    assert_eq!(covered, all, "a code has no case");
}

#[test]
fn the_smallest_spec_gets_every_default_and_a_word_about_its_missing_witness() {
    let text = "name: shop
regions: [eu-west-1, us-east-1]     # the first is the primary
services:
  web:
    command: node server.js
    healthcheck: { path: /healthz }
database: { engine: postgres }
";
    let checked = loaded(text);
    let topology = checked.topology;
    assert_eq!(checked.warnings.iter().map(spec::Finding::code).collect::<Vec<_>>(), [Code::NoWitness]);
    assert_eq!(topology.primary().as_str(), "eu-west-1");
    assert_eq!(topology.pattern, Pattern::ReadReplicas);
    assert_eq!(topology.objectives.rto, Duration::from_secs(15));
    assert_eq!(topology.objectives.rpo, None);
    assert_eq!(topology.quorum.lease_ttl, Duration::from_millis(1500));
    assert_eq!(topology.routing.writes, WriteRouting::Forward);
    assert_eq!(topology.routing.consistency, Consistency::ReadYourWrites);
    assert_eq!(topology.database.commit, Commit::Async);
    assert_eq!(topology.regions[1].jurisdiction.as_deref(), Some("us"));
    assert!(!topology.may_fail_over());
}

#[test]
fn regions_mean_the_same_as_a_list_and_as_a_map() {
    let map = BASE.replace(
        "[eu-west-1, us-east-1, ap-southeast-1]",
        "\n  eu-west-1:\n  us-east-1: {}\n  ap-southeast-1: { jurisdiction: sg }",
    );
    assert_eq!(loaded(&map).topology, loaded(BASE).topology);
}

#[test]
fn the_primary_comes_first_and_the_others_keep_their_order() {
    let topology = loaded(&format!("{BASE}primary_region: ap-southeast-1\n")).topology;
    let names: Vec<_> = topology.region_names().map(ToString::to_string).collect();
    assert_eq!(names, ["ap-southeast-1", "eu-west-1", "us-east-1"]);
}

#[test]
fn a_region_of_another_provider_is_noticed() {
    let text = BASE.replace("[eu-west-1, us", "{ eu-west-1: { provider: gcp }, us").replace("-1]", "-1: }");
    assert_eq!(found(&text.replace("us-east-1,", "us-east-1: ,")), [(Code::BadValue, 2)]);
}

#[test]
fn a_full_spec_is_read_whole() {
    let checked = loaded(FULL);
    let topology = &checked.topology;
    assert_eq!(topology.domain.as_deref(), Some("api.mysite.com"));
    assert_eq!(topology.region_names().map(ToString::to_string).collect::<Vec<_>>()[0], "us-east-1");
    assert_eq!(topology.routing.policy, RoutingPolicy::Latency);
    assert_eq!(topology.quorum.lease_ttl, Duration::from_secs(3));
    assert_eq!(topology.service.env["PAGE_SIZE"], "20");
    assert_eq!(topology.service.env["FLAG"], "no");
    assert_eq!(topology.database.version.as_deref(), Some("16"));
    assert!(topology.database.exclude_tables.iter().any(|table| table == "import_log"));
    assert_eq!(checked.spec.part("sessions"), Some(serde_json::json!({"ttl": "24h"})));
    assert!(checked.warnings.iter().all(|finding| !finding.is_error()));
    let text = serde_json::to_string(topology).unwrap();
    assert_eq!(&serde_json::from_str::<isles_model::Topology>(&text).unwrap(), topology);
}

#[test]
fn a_promise_of_safety_that_cannot_be_kept_is_refused_not_ignored() {
    let text = FULL
        .replace("objectives: {", "objectives: { rpo: 0s,")
        .replace("pattern: read-replicas", "pattern: active-active")
        + "residency: { ru_pd: { store: [ru] } }\n";
    let errors: Vec<Code> = match spec::load("isles.yaml", &text) {
        Ok(_) => panic!("it was accepted"),
        Err(errors) => errors.iter().filter(|f| f.is_error()).map(spec::Finding::code).collect(),
    };
    let expected = [Code::PatternNotYet, Code::RecoveryPointImpossible, Code::ResidencyNotYet];
    assert_eq!(errors, expected);
}

#[test]
fn the_default_lease_is_the_shortest_that_is_accepted() {
    let lease = loaded(BASE).topology.quorum.lease_ttl;
    assert_eq!(lease, Duration::from_millis(2700));
    let written = |ms: u128| format!("{BASE}quorum: {{ lease_ttl: {ms}ms }}\n");
    assert_eq!(found(&written(lease.as_millis())), []);
    assert_eq!(found(&written(lease.as_millis() - 1)), [(Code::LeaseTooShort, 5)]);
}

#[test]
fn parsing_alone_leaves_sense_to_the_check() {
    let text = format!("{BASE}primary_region: eu-north-1\n");
    let spec = Spec::parse("isles.yaml", &text).expect("its form is right");
    assert_eq!(spec.check().expect_err("it makes no sense").errors(), 1);
}

#[test]
fn ten_mistakes_are_shown_at_once_in_the_order_of_the_lines() {
    let text = include_str!("specs/ten_mistakes.yaml");
    let errors = spec::load("isles.yaml", text).expect_err("it has ten mistakes");
    let lines: Vec<usize> = errors.iter().map(|finding| finding.place().line).collect();
    assert!(lines.is_sorted(), "{lines:?}");
    let mut shown = String::new();
    miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor())
        .with_width(100)
        .render_report(&mut shown, &errors)
        .unwrap();
    golden("ten_mistakes.txt", &shown);
    assert_eq!(errors.errors(), 10);
}

#[test]
fn the_schema_is_the_one_that_was_reviewed() {
    golden("schema.json", &(serde_json::to_string_pretty(&spec::schema()).unwrap() + "\n"));
}

#[test]
fn the_reference_in_the_docs_is_the_readers_own() {
    golden("../../../../docs/spec.md", &spec::reference());
}

/// Compares with a file of `tests/golden`; `BLESS=1` writes it.
fn golden(name: &str, actual: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let actual: String = actual.lines().flat_map(|line| [line.trim_end(), "\n"]).collect();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &actual).expect("the golden file can be written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == actual, "{name} differs; BLESS=1 refreshes it. Now:\n{actual}");
}

#[test]
fn a_file_of_mistakes_is_answered_soon_and_shortly() {
    let keys: String = (0..15_000).map(|i| format!("k{i}: 1\n")).collect();
    let names: Vec<String> = (0..9_000).map(|i| format!("eu-wset-{i}")).collect();
    let regions = format!("regions: [{}]\n", names.join(", "));
    for text in [keys, "a: 1\n".repeat(19_000), regions.clone(), regions.replace("eu-", "EU-")] {
        let errors = spec::load("isles.yaml", &text).expect_err("nothing in it is right");
        assert!(errors.errors() <= spec::FINDINGS_MAX);
    }
}

mod any_text {
    use proptest::prelude::*;

    use super::{BASE, FULL};
    use isles_model::spec;

    proptest! {
        #[test]
        fn is_read_or_refused_and_never_breaks_the_reader(text in "(?s).{0,300}") {
            let _ = spec::load("isles.yaml", &text);
        }

        #[test]
        fn made_of_yaml_pieces_is_read_or_refused(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "name", "regions", "services", "quorum", ": ", ":\n  ", "- ", "[", "]", "{", "}", ", ", "\n", "  ",
                    "&a ", "*a", "!!str ", "? ", "| \n", "> ", "'", "\"", "#", "---\n", "...\n", "é", "5s", "0", "~",
                    "eu-west-1", "\t", "%YAML 1.2\n", "<<", "null",
                ]),
                0..60,
            ),
        ) {
            let _ = spec::load("isles.yaml", &pieces.concat());
        }

        #[test]
        fn cut_or_changed_anywhere_still_gets_findings_inside_the_file(at in 0usize..2000, insert in ".{0,3}") {
            for text in [BASE, FULL] {
                let at = text.floor_char_boundary(at % text.len());
                let changed = format!("{}{insert}{}", &text[..at], &text[at..]);
                for text in [&changed[..at], &changed] {
                    if let Err(errors) = spec::load("isles.yaml", text) {
                        prop_assert!(errors.errors() > 0);
                        for finding in errors.iter() {
                            let place = finding.place();
                            prop_assert!(text.get(place.start..place.end).is_some(), "{finding:?}");
                        }
                    }
                }
            }
        }
    }
}
