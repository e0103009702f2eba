//! Renames tables and columns here that the writer has renamed, so that their rows stay.

use std::collections::BTreeSet;

use tokio_postgres::Client;
use tracing::warn;

use super::source::Moves;
use crate::{
    error::{DatabaseError, Doing, cause},
    link::ident,
};

type Name = (String, String);

/// Carries renames out. Answers the tables (by their new names) that must be copied afresh: those whose rows the
/// writer rewrote, those whose renaming was refused, and those whose new name another table still has here.
pub(crate) async fn carry(own: &Client, moves: Moves) -> Result<BTreeSet<Name>, DatabaseError> {
    let mut afresh = moves.rewritten;
    for (from, to) in &moves.tables {
        if !is_there(own, from, None).await? {
            continue;
        }
        if is_there(own, to, None).await? {
            // The name was another table's, which is gone or renamed itself.
            afresh.insert(to.clone());
            continue;
        }
        let mut sql = String::from("SET lock_timeout = '3s';");
        if from.0 != to.0 {
            sql.push_str(&format!("ALTER TABLE {} SET SCHEMA {};", quoted(from), ident(&to.0)));
        }
        if from.1 != to.1 {
            let moved = (to.0.clone(), from.1.clone());
            sql.push_str(&format!("ALTER TABLE {} RENAME TO {}", quoted(&moved), ident(&to.1)));
        }
        if let Err(error) = own.batch_execute(&sql).await {
            warn!(table = quoted(to), error = cause(&error), "A renamed table is copied afresh.");
            afresh.insert(to.clone());
        }
    }
    for (table, from, to) in &moves.columns {
        if !is_there(own, table, Some(from)).await? || is_there(own, table, Some(to)).await? {
            afresh.extend(is_there(own, table, Some(from)).await?.then(|| table.clone()));
            continue;
        }
        let (target, from, to) = (quoted(table), ident(from), ident(to));
        let sql = format!("SET lock_timeout = '3s'; ALTER TABLE {target} RENAME COLUMN {from} TO {to}");
        if let Err(error) = own.batch_execute(&sql).await {
            warn!(table = target, error = cause(&error), "A table with a renamed column is copied afresh.");
            afresh.insert(table.clone());
        }
    }
    Ok(afresh)
}

fn quoted(name: &Name) -> String {
    format!("{}.{}", ident(&name.0), ident(&name.1))
}

async fn is_there(own: &Client, table: &Name, column: Option<&str>) -> Result<bool, DatabaseError> {
    let row = own
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = $1 AND c.relname = $2 AND ($3::text IS NULL OR EXISTS (
                 SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = $3 AND NOT a.attisdropped)))",
            &[&table.0, &table.1, &column],
        )
        .await
        .doing("looking for a renamed table")?;
    Ok(row.get(0))
}
