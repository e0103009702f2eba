//! Writes a first spec from what a project already says of itself: Procfile, fly.toml, package.json, Compose, Dockerfile.
//!
//! Every value names the file it came from, and what was not found is said rather than guessed in silence. Opens no
//! file itself: it asks a [`Directory`].

mod compose;
mod dockerfile;
mod manifests;

use std::fmt::Write as _;

use super::suggest::slug;

/// The directory of a project, as far as `init` asks.
pub trait Directory {
    /// Its own name, a hint for the application's.
    fn name(&self) -> Option<String>;
    /// The text of one of its files; `None` when it is not there or is no text.
    fn read(&self, file: &str) -> Option<String>;
}

/// A spec to begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstSpec {
    /// The text of `isles.yaml`; [`super::load`] accepts it.
    pub text: String,
    /// The files that it was made from.
    pub sources: Vec<&'static str>,
    /// What a person must look at, one sentence each.
    pub open_questions: Vec<String>,
}

/// Stands in where nothing says how the app starts.
const COMMAND_UNKNOWN: &str = "./start.sh";
/// The name where not even the directory has one.
const NAME_UNKNOWN: &str = "app";
const PROBE_PATH: &str = "/healthz";
/// The oldest PostgreSQL that `check` accepts.
const POSTGRES_MAJOR_MIN: u32 = 15;
/// Where to begin when nothing says where the users are: two regions and a witness, of the provider in use.
const HUBS_AWS: [&str; 3] = ["eu-west-1", "us-east-1", "eu-central-1"];
const HUBS_FLY: [&str; 4] = ["fra", "iad", "lhr", "ord"];

/// A value and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    value: String,
    by: String,
}

/// What the files say; the first to say a thing is believed.
#[derive(Debug, Default)]
struct Found {
    name: Option<Told>,
    command: Option<Told>,
    image: Option<Told>,
    probe_path: Option<Told>,
    port: Option<Told>,
    postgres: Option<Told>,
    fly_region: Option<Told>,
    open_questions: Vec<String>,
    sources: Vec<&'static str>,
}

/// Believes the first who says it. Control characters and blank texts are no value.
fn tell(slot: &mut Option<Told>, value: &str, by: impl Into<String>) {
    let value = value.trim();
    if slot.is_none() && !value.is_empty() && !value.chars().any(char::is_control) {
        *slot = Some(Told { value: value.to_owned(), by: by.into() });
    }
}

/// Makes a first spec. Always one that loads, however little there is to go by.
pub fn first_spec(directory: &dyn Directory) -> FirstSpec {
    let mut found = Found::default();
    let readers: [(&[&'static str], Reader); 5] = [
        (&["Procfile"], manifests::procfile),
        (&["fly.toml"], manifests::fly),
        (&["package.json"], manifests::package),
        (&["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"], compose::read),
        (&["Dockerfile"], dockerfile::read),
    ];
    for (files, reader) in readers {
        let first = files.iter().find_map(|file| Some((*file, directory.read(file)?)));
        if let Some((file, text)) = first {
            found.sources.push(file);
            reader(&text, file, directory, &mut found);
        }
    }
    if let Some(name) = directory.name() {
        tell(&mut found.name, &slug(&name), "the directory");
    }
    let text = write(&mut found);
    FirstSpec { text, sources: found.sources, open_questions: found.open_questions }
}

type Reader = fn(&str, &'static str, &dyn Directory, &mut Found);

fn write(found: &mut Found) -> String {
    let mut text = String::new();
    let from = if found.sources.is_empty() { "nothing".to_owned() } else { found.sources.join(", ") };
    let _ = writeln!(text, "# Written by `isles init` from {from}. Next: `isles check`, then `isles up`.");
    let name = found.name.as_ref().map(|told| (slug(&told.value), told.by.clone()));
    match name.filter(|(name, _)| !name.is_empty()) {
        Some((name, by)) => line(&mut text, &format!("name: {name}"), &by),
        None => line(&mut text, &format!("name: {NAME_UNKNOWN}"), "nothing here has a name"),
    }
    write_regions(&mut text, found);
    text.push_str("objectives: { rto: 15s, max_staleness: 2s }\n");
    text.push_str("services:\n  web:\n");
    write_service(&mut text, found);
    text.push_str("database:\n  engine: postgres\n");
    write_version(&mut text, found);
    text
}

fn write_regions(text: &mut String, found: &mut Found) {
    let (primary, hubs): (&str, &[&str]) = match &found.fly_region {
        Some(told) => (&told.value, &HUBS_FLY),
        None => (HUBS_AWS[0], &HUBS_AWS),
    };
    let mut others = hubs.iter().filter(|hub| **hub != primary);
    let (Some(second), Some(witness)) = (others.next(), others.next()) else { return };
    let why = match &found.fly_region {
        Some(told) => format!("the first is the primary ({}); the second is a guess", told.by),
        None => "a guess: nothing here says where the users are. The first is the primary".to_owned(),
    };
    line(text, &format!("regions: [{primary}, {second}]"), &why);
    line(
        text,
        &format!("quorum: {{ witness: {witness} }}"),
        "a third vote for automatic failover; holds no data",
    );
    let question = format!("Are {primary} and {second} near your users? `regions` is a guess.");
    found.open_questions.push(question);
}

fn write_service(text: &mut String, found: &mut Found) {
    let port =
        found.port.as_ref().map(|port| format!(", not on {} ({})", port.value, port.by)).unwrap_or_default();
    match &found.command {
        Some(told) => {
            let why = format!("{}; must listen on $PORT{port}", told.by);
            line(text, &format!("    command: {}", quoted(&told.value)), &why);
        }
        None => {
            let why = format!("NOT FOUND: write the line that starts the app; it listens on $PORT{port}");
            line(text, &format!("    command: {COMMAND_UNKNOWN}"), &why);
            found
                .open_questions
                .push("How is the app started? Nothing here says so; see `command`.".to_owned());
        }
    }
    match &found.image {
        Some(told) => line(text, &format!("    image: {}", quoted(&told.value)), &told.by),
        None => {
            text.push_str("    # image: ghcr.io/example/app:1.0.0   # not found; only the cloud needs it\n");
        }
    }
    match &found.probe_path {
        Some(told) => line(text, &format!("    healthcheck: {{ path: {} }}", quoted(&told.value)), &told.by),
        None => {
            let why = "a guess: a path that answers 2xx when the app works";
            line(text, &format!("    healthcheck: {{ path: {PROBE_PATH} }}"), why);
            found
                .open_questions
                .push(format!("Does the app answer GET {PROBE_PATH}? See `healthcheck.path`."));
        }
    }
}

fn write_version(text: &mut String, found: &mut Found) {
    let Some(told) = &found.postgres else {
        text.push_str(
            "  # version: \"16\"   # no version was found here; without the key, what is installed is used\n",
        );
        return;
    };
    match told.value.parse::<u32>() {
        Ok(major) if major >= POSTGRES_MAJOR_MIN => line(text, &format!("  version: \"{major}\""), &told.by),
        Ok(_) | Err(_) => {
            let _ = writeln!(
                text,
                "  # version: {} has {}; Isles needs {POSTGRES_MAJOR_MIN} or newer",
                told.by, told.value
            );
            let question = format!(
                "Can the app run on PostgreSQL {POSTGRES_MAJOR_MIN} or newer? {} has {}.",
                told.by, told.value
            );
            found.open_questions.push(question);
        }
    }
}

fn line(text: &mut String, setting: &str, comment: &str) {
    let _ = writeln!(text, "{setting:<40} # {comment}");
}

/// A YAML scalar for a text: as it is where that is safe, in quotes elsewhere (a JSON string is a YAML one).
fn quoted(text: &str) -> String {
    let safe = |b: u8| {
        b.is_ascii_alphanumeric() || matches!(b, b' ' | b'.' | b'/' | b'_' | b'-' | b'=' | b':' | b'@')
    };
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'/');
    let word = matches!(text.to_ascii_lowercase().as_str(), "true" | "false" | "null");
    let plain =
        first && !word && text.bytes().all(safe) && !text.contains(": ") && !text.ends_with([':', ' ']);
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

/// The path of the first URL in a probe's command line.
fn url_path(command: &str) -> Option<String> {
    let (_, after) = command.split_once("://")?;
    let url: String =
        after.chars().take_while(|c| c.is_ascii_graphic() && !"\"'`|;)>&\\".contains(*c)).collect();
    let path = url.find('/').map_or("/", |slash| &url[slash..]);
    Some(path.to_owned())
}
