//! Reads Procfile, fly.toml and package.json.

use super::{Directory, Found, tell};
use crate::{rtt, spec::suggest::slug};

/// `web: COMMAND` (Heroku, "The Procfile").
pub(super) fn procfile(text: &str, file: &'static str, _: &dyn Directory, found: &mut Found) {
    let command = text.lines().find_map(|line| line.trim().strip_prefix("web:"));
    if let Some(command) = command {
        tell(&mut found.command, command, format!("{file}: web"));
    }
}

/// `app`, `primary_region`, the checks' `path` and the port (Fly.io, "fly.toml reference").
pub(super) fn fly(text: &str, file: &'static str, _: &dyn Directory, found: &mut Found) {
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line.split(']').next().unwrap_or_default().trim_start_matches('[').trim();
            continue;
        }
        let Some((key, value)) = line.split_once('=').map(|(key, rest)| (key.trim(), toml_value(rest)))
        else {
            continue;
        };
        let checks = section == "checks" || section.ends_with(".checks") || section.starts_with("checks.");
        match (section, key) {
            ("", "app") => tell(&mut found.name, &slug(value), format!("{file}: app")),
            ("", "primary_region") => match rtt::region(value) {
                Some(known) => tell(&mut found.fly_region, known.name, format!("{file}: primary_region")),
                None => found
                    .open_questions
                    .push(format!("{file} names a primary region that Isles does not know.")),
            },
            ("http_service", "internal_port") => {
                tell(&mut found.port, value, format!("{file}: internal_port"));
            }
            (_, "path") if checks && value.starts_with('/') => {
                tell_path(found, value, format!("{file}: {section}.path"));
            }
            _ => {}
        }
    }
}

/// A TOML value of one line: the text between quotes, or the bare word before a comment.
fn toml_value(rest: &str) -> &str {
    let rest = rest.trim();
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
    match quote {
        Some(quote) => rest[1..].split(quote).next().unwrap_or_default(),
        None => rest.split('#').next().unwrap_or_default().trim(),
    }
}

/// `name` and `scripts.start`, through the package manager whose lock file is there (npm, "package.json").
pub(super) fn package(text: &str, file: &'static str, directory: &dyn Directory, found: &mut Found) {
    let Ok(package) = serde_json::from_str::<serde_json::Value>(text) else {
        found.open_questions.push(format!("{file} could not be read as JSON."));
        return;
    };
    if let Some(name) = package["name"].as_str() {
        let unscoped = name.rsplit('/').next().unwrap_or(name);
        tell(&mut found.name, &slug(unscoped), format!("{file}: name"));
    }
    if let Some(start) = package["scripts"]["start"].as_str() {
        let command = if start.starts_with("node ") { start } else { package_manager(directory) };
        tell(&mut found.command, command, format!("{file}: scripts.start"));
    } else if let Some(main) = package["main"].as_str().filter(|main| !main.contains(char::is_whitespace)) {
        tell(&mut found.command, &format!("node {main}"), format!("{file}: main"));
    }
}

fn package_manager(directory: &dyn Directory) -> &'static str {
    let has = |file| directory.read(file).is_some();
    if has("pnpm-lock.yaml") {
        "pnpm start"
    } else if has("yarn.lock") {
        "yarn start"
    } else if has("bun.lock") {
        "bun run start"
    } else {
        "npm start"
    }
}

/// Believes a path that a spec would take.
pub(super) fn tell_path(found: &mut Found, path: &str, by: String) {
    if path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic()) {
        tell(&mut found.probe_path, path, by);
    }
}
