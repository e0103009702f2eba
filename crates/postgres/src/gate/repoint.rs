//! Makes a fresh backend like the one a session has lost: its settings, its prepared statements, what it reports.

use std::{collections::BTreeMap, io, time::Duration};

use tokio::time::timeout;

use super::{
    answer::{self, Verdict},
    login::parameter_status,
    message,
    session_state::SessionState,
    talk::Talk,
    upstream::DialError,
};

/// A backend that has not taken a session over within this time is taken for dead.
const RESTORE_WITHIN: Duration = Duration::from_secs(5);

/// Reported settings that a session can set; the others tell of the server (PostgreSQL, chapter 55.2.7).
const SETTABLE: [&str; 8] = [
    "application_name",
    "client_encoding",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "default_transaction_read_only",
    "search_path",
    "standard_conforming_strings",
];

/// Replays `session`; `reported` is brought up to what the backend reports then.
pub(super) async fn restore(
    talk: &mut Talk,
    session: &SessionState,
    reported: &mut BTreeMap<Vec<u8>, Vec<u8>>,
) -> Result<(), DialError> {
    let restoring = async {
        let (replay, ready) = session.replay();
        talk.send(&replay).await.map_err(DialError::Talk)?;
        settle(talk, ready, reported).await?;
        let differing = differing(session.reported(), reported);
        if !differing.is_empty() {
            let query = message::frame(b'Q', &[differing.as_bytes(), &[0]].concat());
            talk.send(&query).await.map_err(DialError::Talk)?;
            settle(talk, 1, reported).await?;
        }
        Ok(())
    };
    timeout(RESTORE_WITHIN, restoring).await.map_err(|late| DialError::Talk(late.into()))?
}

/// What a client has to be told that was told `before` and goes on with a backend that reports `after`.
pub(super) fn news(before: &BTreeMap<Vec<u8>, Vec<u8>>, after: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
    let new = after.iter().filter(|(name, value)| before.get(*name) != Some(value));
    new.flat_map(|(name, value)| parameter_status(name, value)).collect()
}

/// The statement that sets what the client believes to be set and the backend has otherwise: a function set it, or
/// the regions' defaults differ.
fn differing(before: &BTreeMap<Vec<u8>, Vec<u8>>, after: &BTreeMap<Vec<u8>, Vec<u8>>) -> String {
    let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).ok();
    let set = |name: &&str| {
        let value = before.get(name.as_bytes()).filter(|value| after.get(name.as_bytes()) != Some(value));
        let value = crate::link::literal(&text(value?)?);
        Some(format!("pg_catalog.set_config('{name}', {value}, false)"))
    };
    let calls: Vec<String> = SETTABLE.iter().filter_map(set).collect();
    if calls.is_empty() { String::new() } else { format!("SELECT {}", calls.join(", ")) }
}

/// Reads until the database has said so often that it is ready.
async fn settle(
    talk: &mut Talk,
    ready: usize,
    reported: &mut BTreeMap<Vec<u8>, Vec<u8>>,
) -> Result<(), DialError> {
    let mut seen = 0;
    while seen < ready {
        let said = talk.next().await.map_err(DialError::Talk)?;
        match said.kind {
            b'Z' if said.body == b"I" => seen += 1,
            b'Z' | b'G' | b'W' => return Err(DialError::Talk(io::ErrorKind::InvalidData.into())),
            b'E' => {
                return Err(match answer::verdict(&said.body) {
                    Verdict::NotNow(code) if answer::is_shutdown(&code) => DialError::Denied(code),
                    Verdict::NotNow(_) | Verdict::Final => DialError::Unlike,
                });
            }
            b'S' => {
                if let Some((name, rest)) = message::text(&said.body)
                    && let Some((value, _)) = message::text(rest)
                    && reported.contains_key(name)
                {
                    reported.insert(name.to_vec(), value.to_vec());
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn what_a_session_can_set_is_set_and_what_tells_of_the_server_is_told() {
        let before =
            settings(&[("TimeZone", "it's UTC"), ("server_version", "15.1"), ("is_superuser", "off")]);
        let after = settings(&[("TimeZone", "GMT"), ("server_version", "15.2"), ("is_superuser", "off")]);
        let set = differing(&before, &after);
        assert_eq!(set, "SELECT pg_catalog.set_config('TimeZone', 'it''s UTC', false)");
        assert_eq!(differing(&before, &before), "");
        let after = settings(&[("TimeZone", "it's UTC"), ("server_version", "15.2")]);
        assert_eq!(news(&before, &after), parameter_status(b"server_version", b"15.2"));
    }
}
