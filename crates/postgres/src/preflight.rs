//! Checks that a PostgreSQL is set up so that it can be replicated and fenced, and says exactly what to change.
//!
//! Changes nothing itself: settings are the operator's (or the lab's).

use std::collections::BTreeMap;

use tokio_postgres::Client;

use crate::{
    error::{DatabaseError, Doing},
    run::World,
};

/// The oldest server that can be used: `pg_stat_subscription_stats` and row filters came with it.
const SERVER_MIN: i64 = 150_000;
/// A sender or receiver that stays silent longer than this hides a cut link for too long, in milliseconds.
const SILENCE_MAX_MS: i64 = 30_000;

const SETTINGS: &[&str] = &[
    "server_version_num",
    "wal_level",
    "max_replication_slots",
    "max_wal_senders",
    "max_logical_replication_workers",
    "max_worker_processes",
    "max_slot_wal_keep_size",
    "max_prepared_transactions",
    "wal_sender_timeout",
    "wal_receiver_timeout",
    "fsync",
    "full_page_writes",
];

/// Looks, and shows what is wrong as findings. An error is only that it could not look.
pub(crate) async fn look(cluster: &Client, world: &World) -> Result<(), DatabaseError> {
    let rows = cluster
        .query("SELECT name, setting FROM pg_settings WHERE name = ANY ($1)", &[&SETTINGS])
        .await
        .doing("reading the server's settings")?;
    let settings: BTreeMap<String, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut texts = wrong_settings(&settings, world.config.peers.len());
    let superuser: bool = cluster
        .query_one("SELECT rolsuper FROM pg_roles WHERE rolname = current_user", &[])
        .await
        .doing("reading the own privileges")?
        .get(0);
    if !superuser {
        let admin = &world.config.database.admin_user;
        texts.push((
            "superuser".to_owned(),
            format!("Role {admin} must be a superuser: ALTER ROLE {admin} SUPERUSER."),
        ));
    }
    texts.extend(open_doors(cluster, &world.config.database.replication_user).await?);
    let keys: Vec<String> = texts.iter().map(|(key, _)| format!("preflight/{key}")).collect();
    world.findings.retain("preflight/", &keys);
    for (key, (_, text)) in keys.into_iter().zip(texts) {
        world.findings.set(key, text);
    }
    Ok(())
}

/// What must change in `postgresql.conf`: a key and a sentence each.
fn wrong_settings(settings: &BTreeMap<String, String>, peers: usize) -> Vec<(String, String)> {
    let text = |name: &str| settings.get(name).map_or("", String::as_str);
    let number = |name: &str| text(name).parse::<i64>().unwrap_or_default();
    let peers = i64::try_from(peers).unwrap_or(i64::MAX / 8);
    let mut wrong = Vec::new();
    let mut say = |name: &str, text: String| wrong.push((name.to_owned(), text));
    if number("server_version_num") < SERVER_MIN {
        say("server_version_num", "PostgreSQL 15 or newer is needed: upgrade the server.".to_owned());
    }
    if text("wal_level") != "logical" {
        let now = text("wal_level");
        say("wal_level", format!("Set wal_level = logical and restart PostgreSQL (it is {now})."));
    }
    // A follower holds one slot, and four more while it copies tables; the own following takes workers.
    let needed = [
        ("max_replication_slots", peers * 5 + 2),
        ("max_wal_senders", peers * 5 + 2),
        ("max_logical_replication_workers", 4),
        ("max_worker_processes", 8),
    ];
    for (name, least) in needed {
        let now = number(name);
        if now < least {
            say(name, format!("Set {name} = {least} or more and restart PostgreSQL (it is {now})."));
        }
    }
    if number("max_slot_wal_keep_size") < 0 {
        let text = "Set max_slot_wal_keep_size, for instance to 10GB, and reload PostgreSQL: without it a region that is \
                    away fills this one's disk.";
        say("max_slot_wal_keep_size", text.to_owned());
    }
    if number("max_prepared_transactions") > 0 {
        let text = "Set max_prepared_transactions = 0 and restart PostgreSQL: a prepared transaction outlives the fence.";
        say("max_prepared_transactions", text.to_owned());
    }
    for name in ["wal_sender_timeout", "wal_receiver_timeout"] {
        let now = number(name);
        if !(1..=SILENCE_MAX_MS).contains(&now) {
            say(
                name,
                format!(
                    "Set {name} = 5s and reload PostgreSQL (it is {now} ms): a cut link is noticed by it."
                ),
            );
        }
    }
    for name in ["fsync", "full_page_writes"] {
        if text(name) != "on" {
            say(
                name,
                format!("Set {name} = on and reload PostgreSQL: without it a crash can lose or tear rows."),
            );
        }
    }
    wrong
}

/// Lines of `pg_hba.conf` that let others than the replication role in over TCP, past every gate.
async fn open_doors(
    cluster: &Client,
    replication_user: &str,
) -> Result<Vec<(String, String)>, DatabaseError> {
    let rows = cluster
        .query(
            "SELECT line_number, array_to_string(user_name, ', ') FROM pg_hba_file_rules
             WHERE type LIKE 'host%' AND auth_method <> 'reject' AND user_name <> ARRAY[$1::text] ORDER BY 1",
            &[&replication_user],
        )
        .await
        .doing("reading the access rules")?;
    Ok(rows
        .iter()
        .map(|row| {
            let (line, who): (i32, &str) = (row.get(0), row.get(1));
            let text = format!(
                "Line {line} of pg_hba.conf lets {who} in over TCP, past the gates: remove it, only \
                 {replication_user} needs TCP."
            );
            (format!("hba/{line}"), text)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let good = [
            ("server_version_num", "150020"),
            ("wal_level", "logical"),
            ("max_replication_slots", "20"),
            ("max_wal_senders", "20"),
            ("max_logical_replication_workers", "8"),
            ("max_worker_processes", "16"),
            ("max_slot_wal_keep_size", "1024"),
            ("max_prepared_transactions", "0"),
            ("wal_sender_timeout", "5000"),
            ("wal_receiver_timeout", "5000"),
            ("fsync", "on"),
            ("full_page_writes", "on"),
        ];
        good.iter().chain(pairs).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_well_set_server_has_nothing_to_change() {
        assert_eq!(wrong_settings(&settings(&[]), 2), []);
    }

    #[test]
    fn each_wrong_setting_is_named_with_what_to_set() {
        let wrong =
            wrong_settings(&settings(&[("wal_level", "replica"), ("max_slot_wal_keep_size", "-1")]), 2);
        let keys: Vec<&str> = wrong.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["wal_level", "max_slot_wal_keep_size"]);
        assert_eq!(wrong[0].1, "Set wal_level = logical and restart PostgreSQL (it is replica).");
    }
}
