//! Reads what a Dockerfile's last stage says: how it starts, where it listens, how it is probed.

use super::{Directory, Found, manifests::tell_path, tell, url_path};

/// `ENTRYPOINT`, `CMD`, `EXPOSE` and `HEALTHCHECK` (Docker, "Dockerfile reference"); the last of each counts.
pub(super) fn read(text: &str, file: &'static str, _: &dyn Directory, found: &mut Found) {
    let stage = last_stage(text);
    let last = |name: &str| stage.iter().rev().find(|(word, _)| word == name).map(|(_, rest)| rest.as_str());
    let (entrypoint, cmd) = (last("ENTRYPOINT").and_then(command_line), last("CMD").and_then(command_line));
    match (entrypoint, cmd) {
        (Some(entrypoint), Some(cmd)) => {
            tell(&mut found.command, &format!("{entrypoint} {cmd}"), format!("{file}: ENTRYPOINT and CMD"));
        }
        (Some(entrypoint), None) => tell(&mut found.command, &entrypoint, format!("{file}: ENTRYPOINT")),
        (None, Some(cmd)) => tell(&mut found.command, &cmd, format!("{file}: CMD")),
        (None, None) => {}
    }
    if let Some(port) = last("EXPOSE").map(leading_digits).filter(|port| !port.is_empty()) {
        tell(&mut found.port, port, format!("{file}: EXPOSE"));
    }
    if let Some(path) = last("HEALTHCHECK").and_then(url_path) {
        tell_path(found, &path, format!("{file}: HEALTHCHECK"));
    }
}

/// Instructions and their arguments after the last `FROM`, continued lines joined, comments left out.
fn last_stage(text: &str) -> Vec<(String, String)> {
    let mut stage = Vec::new();
    let mut pending = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some(part) = line.strip_suffix('\\') {
            pending.push_str(part);
            pending.push(' ');
            continue;
        }
        pending.push_str(line);
        let whole = std::mem::take(&mut pending);
        let Some((word, rest)) = whole.split_once(char::is_whitespace) else { continue };
        if word.eq_ignore_ascii_case("FROM") {
            stage.clear();
        }
        stage.push((word.to_ascii_uppercase(), rest.trim().to_owned()));
    }
    stage
}

/// The shell command line of the exec form (a JSON list) or the shell form.
fn command_line(arguments: &str) -> Option<String> {
    match serde_json::from_str::<Vec<String>>(arguments) {
        Ok(words) => shell_line(words.iter().map(String::as_str)),
        Err(_) => Some(arguments.to_owned()),
    }
}

/// Words as one shell command line; a word that the shell would take apart gets quotes. `None` for no words.
pub(super) fn shell_line<'a>(words: impl Iterator<Item = &'a str>) -> Option<String> {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"-_./=:@,+%".contains(&b);
    let word = |word: &str| {
        let plain = !word.is_empty() && word.bytes().all(safe);
        if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    let line = words.map(word).collect::<Vec<_>>().join(" ");
    (!line.is_empty()).then_some(line)
}

fn leading_digits(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    &text[..end]
}
