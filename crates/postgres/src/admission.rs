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

/// Names the one role that may log in, or nobody, in one step: PostgreSQL never reads half of it. A file that names
/// nobody lies ready from the time when somebody was named: it can be put in place on a full disk.
pub(crate) fn write(file: &Path, role: Option<&str>) -> Result<(), DatabaseError> {
    let (new, ready) = (file.with_extension("new"), file.with_extension("nobody"));
    let written = match role {
        Some(role) => {
            let text = format!("\"{}\"\n", role.replace('"', "\"\""));
            std::fs::write(&ready, DatabaseFiles::NOBODY)
                .and_then(|()| std::fs::write(&new, text))
                .and_then(|()| std::fs::rename(&new, file))
        }
        None => std::fs::write(&new, DatabaseFiles::NOBODY)
            .and_then(|()| std::fs::rename(&new, file))
            .or_else(|full| {
                let nobody = |text: String| text == DatabaseFiles::NOBODY;
                if std::fs::read_to_string(file).is_ok_and(nobody) {
                    return Ok(());
                }
                if std::fs::read_to_string(&ready).is_ok_and(nobody) {
                    return std::fs::rename(&ready, file);
                }
                Err(full)
            }),
    };
    written.map_err(|source| DatabaseError::Admission { path: file.to_owned(), source })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_named_even_where_nothing_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("admitted");
        write(&file, Some("app")).unwrap();
        // Nothing can be written in place of the file that a new text goes to first.
        std::fs::create_dir(file.with_extension("new")).unwrap();
        write(&file, None).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), DatabaseFiles::NOBODY);
        write(&file, None).unwrap();
        assert!(write(&file, Some("app")).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), DatabaseFiles::NOBODY);
    }
}
