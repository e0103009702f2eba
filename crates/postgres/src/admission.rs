//! Keeps the file that says who may log in, as PostgreSQL reads it when it starts (`@FILE` in `pg_hba.conf`,
//! PostgreSQL, chapter 21.1).
//!
//! A role's right to log in is in the database and comes back with it after a crash. This file does not: it is shut
//! while the database is down, so that one that starts again after its right has gone elsewhere lets nobody in.

use std::{path::Path, time::Duration};

use isles_model::config::DatabaseFiles;
use tokio_postgres::Client;

use crate::error::{DatabaseError, Doing, within};

/// How long PostgreSQL may take to read its settings anew.
const RELOAD_MAX: Duration = Duration::from_secs(2);
/// Between two looks whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Names the one role that may log in, or nobody, in one step: PostgreSQL never reads half of it.
pub(crate) fn write(file: &Path, role: Option<&str>) -> Result<(), DatabaseError> {
    let text = role.map_or_else(
        || DatabaseFiles::NOBODY.to_owned(),
        |role| format!("\"{}\"\n", role.replace('"', "\"\"")),
    );
    let new = file.with_extension("new");
    std::fs::write(&new, text)
        .and_then(|()| std::fs::rename(&new, file))
        .map_err(|source| DatabaseError::Admission { path: file.to_owned(), source })
}

/// Has PostgreSQL read its settings anew. The postmaster tells its sessions while it reads, and takes no new ones
/// meanwhile: what a session has seen holds for every later one.
pub(crate) async fn reload(client: &Client) -> Result<(), DatabaseError> {
    const DOING: &str = "having the settings read anew";
    let before = "SELECT pg_conf_load_time() FROM (SELECT pg_reload_conf()) reloaded";
    let reloaded = async {
        let loaded: std::time::SystemTime =
            client.query_one("SELECT pg_conf_load_time()", &[]).await.doing(DOING)?.get(0);
        client.query_one(before, &[]).await.doing(DOING)?;
        loop {
            let now: std::time::SystemTime =
                client.query_one("SELECT pg_conf_load_time()", &[]).await.doing(DOING)?.get(0);
            if now != loaded {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    within(RELOAD_MAX, DOING, reloaded).await
}
