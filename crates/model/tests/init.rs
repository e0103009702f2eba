//! Holds what `isles init` makes of projects as they are found: every result loads, and every value names its source.

use std::collections::BTreeMap;

use isles_model::{
    Topology,
    spec::{
        self,
        init::{Directory, FirstSpec, first_spec},
    },
};

const NAMES: [&str; 9] = [
    "Procfile",
    "fly.toml",
    "package.json",
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    "Dockerfile",
    "pnpm-lock.yaml",
];

struct Project(BTreeMap<&'static str, String>);

impl Directory for Project {
    fn name(&self) -> Option<String> {
        Some("My Project".to_owned())
    }

    fn read(&self, file: &str) -> Option<String> {
        self.0.get(file).cloned()
    }
}

/// The first spec of these files, loaded without mistakes or warnings.
fn made(files: &[(&'static str, &str)]) -> (FirstSpec, Topology) {
    let first = first_spec(&Project(files.iter().map(|(file, text)| (*file, (*text).to_owned())).collect()));
    let checked = spec::load("isles.yaml", &first.text)
        .unwrap_or_else(|errors| panic!("{}\n{:?}", first.text, miette::Report::new(errors)));
    assert!(checked.warnings.is_empty(), "{}\n{:?}", first.text, miette::Report::new(checked.warnings));
    (first, checked.topology)
}

#[test]
fn an_empty_directory_gets_a_spec_that_says_what_is_missing() {
    let (first, topology) = made(&[]);
    assert_eq!(topology.name, "my-project");
    assert!(topology.may_fail_over());
    assert!(first.text.contains("NOT FOUND"), "{}", first.text);
    assert_eq!(first.open_questions.len(), 3, "{:?}", first.open_questions);
}

#[test]
fn a_node_project_is_started_as_its_package_says() {
    let (_, topology) =
        made(&[("package.json", r#"{"name": "@org/shop", "scripts": {"start": "node server.js"}}"#)]);
    assert_eq!(
        (topology.name.as_str(), topology.service.command.as_deref()),
        ("shop", Some("node server.js"))
    );
    let package = ("package.json", r#"{"scripts": {"start": "next start -p $PORT"}}"#);
    let (_, topology) = made(&[package, ("pnpm-lock.yaml", "")]);
    assert_eq!(topology.service.command.as_deref(), Some("pnpm start"));
}

#[test]
fn a_procfile_comes_before_everything_else() {
    let (first, topology) = made(&[
        ("Procfile", "release: ./migrate\nweb: bundle exec puma -p $PORT\n"),
        ("package.json", r#"{"scripts": {"start": "node server.js"}}"#),
    ]);
    assert_eq!(topology.service.command.as_deref(), Some("bundle exec puma -p $PORT"));
    assert!(first.text.contains("# Procfile: web"), "{}", first.text);
}

#[test]
fn a_fly_project_keeps_its_name_its_region_and_its_check() {
    let fly = "app = \"shop-prod\"\nprimary_region = 'sin' # near users\n[http_service]\n  internal_port = 8080\n\
               [[http_service.checks]]\n  path = \"/up\"\n";
    let (first, topology) = made(&[("fly.toml", fly)]);
    assert_eq!(topology.name, "shop-prod");
    assert_eq!(topology.region_names().map(ToString::to_string).collect::<Vec<_>>(), ["sin", "fra"]);
    assert_eq!(topology.service.healthcheck.path, "/up");
    assert!(first.text.contains("not on 8080"), "{}", first.text);
}

#[test]
fn a_compose_file_tells_the_app_from_its_database() {
    let compose = "x-base: &base { restart: always }
services:
  db: { image: \"postgres:16-alpine\" }
  cache: { image: redis:7 }
  api:
    <<: *base
    build: .
    image: ghcr.io/example/shop:1.2
    command: [\"node\", \"dist/main.js\", \"--name\", \"my shop\"]
    healthcheck: { test: [\"CMD\", \"curl\", \"-f\", \"http://localhost:3000/health?full=1\"] }
";
    let (_, topology) = made(&[("docker-compose.yml", compose)]);
    assert_eq!(topology.database.version.as_deref(), Some("16"));
    assert_eq!(topology.service.command.as_deref(), Some("node dist/main.js --name 'my shop'"));
    assert_eq!(topology.service.image.as_deref(), Some("ghcr.io/example/shop:1.2"));
    assert_eq!(topology.service.healthcheck.path, "/health?full=1");
}

#[test]
fn a_dockerfile_counts_from_its_last_stage() {
    let dockerfile = "FROM rust AS build\nCMD [\"cargo\", \"test\"]\nFROM debian\n# EXPOSE 1\nEXPOSE 3000/tcp\n\
                      HEALTHCHECK --interval=5s \\\n  CMD wget -qO- http://127.0.0.1:3000/live || exit 1\n\
                      ENTRYPOINT [\"/app/server\"]\nCMD [\"--verbose\"]\n";
    let (first, topology) = made(&[("Dockerfile", dockerfile)]);
    assert_eq!(topology.service.command.as_deref(), Some("/app/server --verbose"));
    assert_eq!(topology.service.healthcheck.path, "/live");
    assert!(first.text.contains("not on 3000 (Dockerfile: EXPOSE)"), "{}", first.text);
}

#[test]
fn what_isles_cannot_use_becomes_a_question() {
    let (first, topology) =
        made(&[("compose.yaml", "services: { db: { image: \"postgres:13\" }, old: { image: mysql } }")]);
    assert_eq!(topology.database.version, None);
    assert!(
        first.open_questions.iter().any(|q| q.contains("PostgreSQL 15 or newer")),
        "{:?}",
        first.open_questions
    );
    assert!(first.open_questions.iter().any(|q| q.contains("mysql")), "{:?}", first.open_questions);
}

#[test]
fn all_sources_together_are_named() {
    let (first, topology) = made(&[
        ("fly.toml", "app = \"shop\"\nprimary_region = \"fra\"\n"),
        ("package.json", r#"{"name": "other", "scripts": {"start": "node app.js"}}"#),
        ("compose.yaml", "services: { db: { image: \"pgvector/pgvector:pg17\" } }"),
        ("Dockerfile", "FROM node\nCMD node x.js\nHEALTHCHECK CMD curl localhost\n"),
    ]);
    assert_eq!(first.sources, ["fly.toml", "package.json", "compose.yaml", "Dockerfile"]);
    assert_eq!((topology.name.as_str(), topology.service.command.as_deref()), ("shop", Some("node app.js")));
    assert_eq!(topology.database.version.as_deref(), Some("17"));
}

proptest::proptest! {
    #[test]
    fn whatever_the_files_hold_the_spec_loads(
        texts in proptest::collection::btree_map(0..NAMES.len(), "(?s).{0,120}", 0..4),
        value in "[ -~\u{80}-\u{2fff}]{0,20}",
    ) {
        let mut files: BTreeMap<&'static str, String> = texts.into_iter().map(|(i, text)| (NAMES[i], text)).collect();
        let _ = spec::load("isles.yaml", &first_spec(&Project(files.clone())).text).expect("any text makes a spec");
        files.insert("Procfile", format!("web: {value}"));
        files.insert("fly.toml", format!("app = \"{value}\"\nprimary_region = \"{value}\"\n[checks.a]\npath = \"/{value}\""));
        files.insert("package.json", serde_json::json!({"name": value, "main": value}).to_string());
        files.insert("compose.yaml", format!("services: {{ a: {{ image: '{value}', healthcheck: {{ test: 'http://x/{value}' }} }} }}"));
        let text = first_spec(&Project(files)).text;
        proptest::prop_assert!(spec::load("isles.yaml", &text).is_ok(), "{}", text);
    }
}
