//! Carries the rows of tables that do not replicate: migration tools' bookkeeping.
//!
//! A promoted region whose schema is new but whose bookkeeping is empty would run every migration again.

use futures_util::{SinkExt, StreamExt, pin_mut};
use tokio_postgres::Client;

use crate::{
    error::{DatabaseError, Doing},
    findings::Findings,
    link::{Link, ident},
    publish::is_excluded,
};

/// The largest table carried whole, in bytes of COPY text; a larger one is left alone with a finding.
const TABLE_BYTES_MAX: usize = 16 << 20;

/// Tables and their plain columns, in dependency-free order.
const TABLES: &str = "
SELECT n.nspname::text, c.relname::text,
       (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''),
       coalesce(pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid)
                + pg_stat_get_tuples_deleted(c.oid), 0)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname <> 'isles' AND NOT n.nspname ^@ 'pg_'
ORDER BY 1, 2";

/// How often each excluded table of the writer's was changed: cheap to ask, and enough to know when to copy again.
pub(crate) async fn changes(
    writer: &Client,
    exclude: &[String],
) -> Result<Vec<(String, i64)>, DatabaseError> {
    let rows = writer.query(TABLES, &[]).await.doing("reading tables that do not replicate")?;
    Ok(rows
        .iter()
        .filter(|row| is_excluded(exclude, row.get(0), row.get(1)))
        .map(|row| (format!("{}.{}", row.get::<_, &str>(0), row.get::<_, &str>(1)), row.get(3)))
        .collect())
}

/// Replaces the contents of each excluded table with the writer's.
pub(crate) async fn copy(
    own: &mut Link,
    writer: &Client,
    exclude: &[String],
    findings: &Findings,
) -> Result<(), DatabaseError> {
    const DOING: &str = "carrying the rows of a table that does not replicate";
    let rows = writer.query(TABLES, &[]).await.doing(DOING)?;
    for row in rows.iter().filter(|row| is_excluded(exclude, row.get(0), row.get(1))) {
        let (schema, name): (&str, &str) = (row.get(0), row.get(1));
        let Some(columns) = row.get::<_, Option<Vec<String>>>(2) else { continue };
        let columns: Vec<String> = columns.iter().map(|column| ident(column)).collect();
        let target = format!("{}.{} ({})", ident(schema), ident(name), columns.join(", "));
        let key = format!("excluded/{schema}.{name}");
        let Some(text) = read(writer, &target).await? else {
            findings.set(
                key,
                format!(
                    "Table {schema}.{name} does not replicate and is too large to be carried with the schema."
                ),
            );
            continue;
        };
        findings.clear(&key);
        let change = own.transaction().await.doing(DOING)?;
        let clear = format!(
            "SET LOCAL session_replication_role = replica; SET LOCAL lock_timeout = '3s';
             DELETE FROM ONLY {}.{}",
            ident(schema),
            ident(name)
        );
        change.batch_execute(&clear).await.doing(DOING)?;
        let sink = change.copy_in(&format!("COPY {target} FROM STDIN")).await.doing(DOING)?;
        pin_mut!(sink);
        sink.send(text).await.doing(DOING)?;
        sink.finish().await.doing(DOING)?;
        change.commit().await.doing(DOING)?;
    }
    Ok(())
}

async fn read(writer: &Client, target: &str) -> Result<Option<bytes::Bytes>, DatabaseError> {
    const DOING: &str = "reading a table that does not replicate";
    let stream = writer.copy_out(&format!("COPY {target} TO STDOUT")).await.doing(DOING)?;
    pin_mut!(stream);
    let mut text = bytes::BytesMut::new();
    while let Some(chunk) = stream.next().await {
        text.extend_from_slice(&chunk.doing(DOING)?);
        if text.len() > TABLE_BYTES_MAX {
            return Ok(None);
        }
    }
    Ok(Some(text.freeze()))
}
