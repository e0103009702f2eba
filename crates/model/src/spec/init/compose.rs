//! Reads a Compose file: which of its services is the app, how it starts and is probed, which PostgreSQL it uses.

use super::{Directory, Found, dockerfile::shell_line, manifests::tell_path, tell, url_path};
use crate::spec::{
    fill::Written,
    suggest::slug,
    tree::{self, Node, Value},
};

/// Images that an app uses rather than is.
const BACKING: [&str; 14] = [
    "postgres",
    "postgis",
    "pgvector",
    "timescale",
    "mysql",
    "mariadb",
    "mongo",
    "redis",
    "valkey",
    "memcached",
    "rabbitmq",
    "nginx",
    "adminer",
    "pgadmin",
];
/// Databases that Isles does not run.
const OTHER_DATABASES: [&str; 3] = ["mysql", "mariadb", "mongo"];
/// Images with PostgreSQL in them.
const POSTGRES: [&str; 4] = ["postgres", "postgis", "pgvector", "timescale"];

/// `services` with `image`, `build`, `command`, `healthcheck.test` (the Compose specification, chapter "Services").
pub(super) fn read(text: &str, file: &'static str, _: &dyn Directory, found: &mut Found) {
    // Because a Compose file may use YAML that a spec may not, what is refused counts as absent.
    let Some(root) = tree::read(text, &mut Vec::new()) else {
        found.open_questions.push(format!("{file} could not be read."));
        return;
    };
    let root = Written(Some(&root));
    if let Some(name) = root.get("name").text() {
        tell(&mut found.name, &slug(&name), format!("{file}: name"));
    }
    let services: Vec<(&str, Written<'_>)> = root.get("services").entries().collect();
    for (_, service) in &services {
        backing(*service, file, found);
    }
    let apps = services.iter().filter(|(_, service)| backing_image(*service, &BACKING).is_none());
    let built = apps.clone().find(|(_, service)| service.get("build").0.is_some());
    if let Some((name, service)) = built.or_else(|| apps.clone().next()) {
        app(name, *service, file, found);
    }
    if apps.count() > 1 {
        let question =
            format!("{file} has several services; Isles runs the one that users reach. Is it the right one?");
        found.open_questions.push(question);
    }
}

fn app(name: &str, service: Written<'_>, file: &str, found: &mut Found) {
    let name = slug(name);
    if let Some(command) = words(service.get("command")) {
        tell(&mut found.command, &command, format!("{file}: {name}.command"));
    }
    if let Some(image) = service.get("image").text().filter(|image| !image.contains('$')) {
        tell(&mut found.image, &image, format!("{file}: {name}.image"));
    }
    if let Some(path) = words(service.get("healthcheck").get("test")).and_then(|test| url_path(&test)) {
        tell_path(found, &path, format!("{file}: {name}.healthcheck"));
    }
}

fn backing(service: Written<'_>, file: &str, found: &mut Found) {
    if let Some((image, tag)) = backing_image(service, &POSTGRES) {
        let digits = tag.trim_start_matches(|c: char| !c.is_ascii_digit());
        let major: String = digits.chars().take_while(char::is_ascii_digit).collect();
        tell(&mut found.postgres, &major, format!("{file}: image {}", slug(&image)));
    } else if let Some((image, _)) = backing_image(service, &OTHER_DATABASES) {
        let image = slug(&image);
        found.open_questions.push(format!("{file} uses {image}; Isles replicates PostgreSQL only."));
    }
}

/// A service's image, without registry, and its tag, when it is one of `names`.
fn backing_image(service: Written<'_>, names: &[&str]) -> Option<(String, String)> {
    let image = service.get("image").text()?;
    let last = image.rsplit('/').next().unwrap_or(&image);
    let (name, tag) = last.split_once(':').unwrap_or((last, ""));
    names.iter().any(|known| name.starts_with(known)).then(|| (name.to_owned(), tag.to_owned()))
}

/// A command line given as a text or as a list of words.
fn words(value: Written<'_>) -> Option<String> {
    match value.0.map(|node| &node.value) {
        Some(Value::List(nodes)) => {
            let words: Vec<String> =
                nodes.iter().filter_map(|node: &Node| Written(Some(node)).literal()).collect();
            shell_line(words.iter().map(String::as_str))
        }
        _ => value.text(),
    }
}
