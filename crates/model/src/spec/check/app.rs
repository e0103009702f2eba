//! Rules about the app and its database.

use super::Check;
use crate::spec::{codes::Code, tree::Value};

/// The oldest PostgreSQL that can be replicated so (row filters and column lists came with 15).
const POSTGRES_MAJOR_MIN: u32 = 15;
/// What Isles itself sets for the app. Another value would lead writes around the gate that keeps one writer.
const RESERVED_VARIABLES: [&str; 4] = ["DATABASE_READ_URL", "DATABASE_URL", "ISLES_REGION", "PORT"];

pub(super) fn rules(check: &mut Check<'_>) {
    one_service(check);
    something_to_run(check);
    replicas_make_sense(check);
    variables_are_free(check);
    engine_is_new_enough(check);
}

fn one_service(check: &mut Check<'_>) {
    let services = check.written(&["services"]).0.map(|node| &node.value);
    if !matches!(services, Some(Value::Map(_))) {
        return;
    }
    let names: Vec<&str> = check.written(&["services"]).entries().map(|(name, _)| name).collect();
    match names.as_slice() {
        [_] => {}
        [] => {
            let help = "Add one, as in `services: { web: { command: node server.js } }`.";
            check.add(Code::OneServiceOnly, check.at(&["services"]), "there is no service".to_owned(), help);
        }
        [_, second, ..] => {
            let message = format!("{} services are given; this version runs one", names.len());
            let help =
                "Keep the one that users reach. Start the others beside it, or in a spec of their own.";
            check.add(Code::OneServiceOnly, check.at(&["services", second]), message, help);
        }
    }
}

fn something_to_run(check: &mut Check<'_>) {
    let names: Vec<&str> = check.written(&["services"]).entries().map(|(name, _)| name).collect();
    for name in names {
        let (command, image) = (["services", name, "command"], ["services", name, "image"]);
        let at = check.at(&["services", name]);
        if check.given(&command) || has_unknown_key(check, name) {
            continue;
        }
        if check.given(&image) {
            let message = format!("`{name}` has an image but no command: a rehearsal cannot start it");
            let help = "Add `command:`, the line that starts the app on this machine; it listens on $PORT.";
            check.add(Code::NoCommand, at, message, help);
        } else {
            let help = "Add `command: node server.js` (for rehearsals), `image: …` (for the cloud), or both.";
            check.add(Code::NothingToRun, at, format!("nothing says how `{name}` is started"), help);
        }
    }
}

/// Whether a key of the service is not known: the one that is missing may only be mistyped.
fn has_unknown_key(check: &Check<'_>, service: &str) -> bool {
    let Some(node) = check.written(&["services", service]).0 else { return false };
    let within = node.at.start..=node.at.end;
    check.findings.iter().any(|f| f.code() == Code::UnknownKey && within.contains(&f.place().start))
}

fn replicas_make_sense(check: &mut Check<'_>) {
    let (service, replicas) = (&check.topology.service, check.topology.service.replicas);
    let path = |key| ["services", &service.name, "replicas", key];
    if replicas.min == 0 {
        let message = "a region without an instance cannot take over".to_owned();
        check.add(Code::BadReplicas, check.at(&path("min")), message, "Use 1 or more.");
    }
    if replicas.min > replicas.max {
        let message = format!("at least {} and at most {} cannot both hold", replicas.min, replicas.max);
        check.add(
            Code::BadReplicas,
            check.at(&path("max")),
            message,
            "Make `max` at least as large as `min`.",
        );
    }
}

fn variables_are_free(check: &mut Check<'_>) {
    let name = &check.topology.service.name;
    for variable in RESERVED_VARIABLES {
        let path = ["services", name, "env", variable];
        if check.given(&path) {
            let message = format!("`{variable}` is set by Isles, differently in each region");
            let help = "Remove it here and read it in the app.";
            check.add(Code::ReservedVariable, check.at(&path), message, help);
        }
    }
}

fn engine_is_new_enough(check: &mut Check<'_>) {
    let Some(version) = &check.topology.database.version else { return };
    let at = check.at(&["database", "version"]);
    let help = format!("Use {POSTGRES_MAJOR_MIN} or newer, or remove the key to use what is installed.");
    match version.split('.').next().unwrap_or_default().parse::<u32>() {
        Ok(major) if major >= POSTGRES_MAJOR_MIN => {}
        Ok(_) => check.add(Code::EngineTooOld, at, format!("PostgreSQL {version} is too old"), help),
        Err(_) => check.add(Code::BadValue, at, format!("`{version}` is not a PostgreSQL version"), help),
    }
}
