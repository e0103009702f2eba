//! The table of numbered rows that the writers fill and that is counted at the end.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    error::BenchError,
    session::{Login, SessionError, ask},
};

/// How long one statement may take.
const STATEMENT_WAIT: Duration = Duration::from_secs(5);
/// How long the table may take to be made, and to reach every copy.
const MAKE_WAIT_MAX: Duration = Duration::from_secs(60);
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The row that shows that the table has reached a copy.
const MARK: u64 = 0;

/// The statement of one numbered write.
pub(crate) fn insert(number: u64) -> String {
    format!("INSERT INTO bench_writes (number) VALUES ({number})")
}

/// Makes the table through whichever entry point takes writes, and waits until every copy has it.
pub(crate) async fn make(entries: &[Login], copies: &[Login]) -> Result<(), BenchError> {
    let sql = format!(
        "CREATE TABLE bench_writes (number bigint PRIMARY KEY, at timestamptz NOT NULL DEFAULT now()); {}",
        insert(MARK)
    );
    let until = tokio::time::Instant::now() + MAKE_WAIT_MAX;
    loop {
        let made = on_writer(entries, &sql).await;
        if made.is_some() {
            break;
        }
        if tokio::time::Instant::now() > until {
            return Err(BenchError::NoTable(MAKE_WAIT_MAX));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    for copy in copies {
        while !has_mark(copy).await.unwrap_or(false) {
            if tokio::time::Instant::now() > until {
                return Err(BenchError::NoTable(MAKE_WAIT_MAX));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

/// The numbers that the writer's table holds; `None` when no entry point leads to a writer.
pub(crate) async fn kept(entries: &[Login]) -> Option<BTreeSet<u64>> {
    let rows = on_writer(entries, "SELECT number FROM bench_writes").await?;
    Some(rows.iter().filter_map(|row| row.first()?.parse().ok()).collect())
}

async fn has_mark(copy: &Login) -> Result<bool, SessionError> {
    let rows =
        ask(copy, &format!("SELECT 1 FROM bench_writes WHERE number = {MARK}"), STATEMENT_WAIT).await?;
    Ok(!rows.is_empty())
}

/// Runs statements on the first entry point that is no standby.
async fn on_writer(entries: &[Login], sql: &str) -> Option<Vec<Vec<String>>> {
    for entry in entries {
        let standby = ask(entry, "SELECT pg_is_in_recovery()", STATEMENT_WAIT).await;
        if standby.is_ok_and(|rows| rows == [["f"]])
            && let Ok(rows) = ask(entry, sql, STATEMENT_WAIT).await
        {
            return Some(rows);
        }
    }
    None
}
