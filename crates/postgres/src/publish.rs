//! Keeps the writer's publication `isles` equal to the app's tables.
//!
//! A table that could not be updated once it is published (no primary key, no replica identity) is given
//! `REPLICA IDENTITY FULL` first, so that publishing never makes an UPDATE of the app's fail.

use std::collections::BTreeSet;

use tokio_postgres::Client;
use tracing::info;

use crate::{
    error::{DatabaseError, Doing},
    findings::Findings,
    link::ident,
};

/// The name of the publication and of the subscription.
pub(crate) const NAME: &str = "isles";

/// How long a change of a table's identity may wait for the app's transactions; it is tried again a second later.
const LOCK_WAIT: &str = "SET lock_timeout = '300ms'";

/// Every permanent and unlogged table of the app's: top-level ones are published, leaves need an identity.
/// Tables that belong to an extension come with the extension.
const TABLES: &str = "
SELECT n.nspname::text AS schema_name, c.relname::text AS name,
       c.relpersistence = 'u' AS unlogged,
       NOT c.relispartition AND c.relpersistence = 'p' AS is_top,
       c.relkind = 'r' AND c.relpersistence = 'p' AS holds_rows,
       EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
               WHERE p.pubname = 'isles' AND r.prrelid = c.oid) AS published,
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate) AS keyed,
       c.relreplident = 'f' OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid
               AND CASE c.relreplident WHEN 'd' THEN i.indisprimary AND i.indimmediate
                                       WHEN 'i' THEN i.indisreplident ELSE false END) AS identified,
       rn.nspname::text AS root_schema, root.relname::text AS root_name
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class root ON root.oid = CASE WHEN c.relispartition THEN pg_partition_root(c.oid) ELSE c.oid END
JOIN pg_namespace rn ON rn.oid = root.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
  AND n.nspname <> 'isles' AND n.nspname <> 'information_schema' AND NOT n.nspname ^@ 'pg_'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                  AND d.deptype = 'e')
ORDER BY 1, 2";

struct Table {
    qualified: String,
    shown: String,
    unlogged: bool,
    is_top: bool,
    holds_rows: bool,
    published: bool,
    keyed: bool,
    identified: bool,
    excluded: bool,
}

/// Brings the publication up to date. Says what a person should know about tables that replicate badly or not at
/// all. Says whether anything has changed.
pub(crate) async fn keep(
    client: &Client,
    exclude: &[String],
    findings: &Findings,
) -> Result<bool, DatabaseError> {
    client
        .batch_execute(
            "SET lock_timeout = 0;
             DO $$ BEGIN
               IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = 'isles') THEN
                 CREATE PUBLICATION isles;
               END IF;
             END $$",
        )
        .await
        .doing("creating the publication")?;
    let tables = tables(client, exclude).await?;
    identify(client, &tables).await?;
    let wanted = |table: &&Table| table.is_top && !table.excluded;
    let add = names(tables.iter().filter(wanted).filter(|table| !table.published));
    let gone = names(tables.iter().filter(|table| table.published && !wanted(table)));
    let changes = !add.is_empty() || !gone.is_empty();
    for (verb, list) in [("ADD", add), ("DROP", gone)] {
        if !list.is_empty() {
            let change = format!("ALTER PUBLICATION {NAME} {verb} TABLE ONLY {}", list.join(", ONLY "));
            client.batch_execute(&change).await.doing("changing the publication")?;
            info!(tables = list.len(), change = verb, "Changed what is published.");
        }
    }
    report(client, &tables, findings).await?;
    Ok(changes)
}

/// Tells those who follow that there is something new: they listen to the publication's name.
pub(crate) async fn ring(client: &Client) -> Result<(), DatabaseError> {
    client.batch_execute("NOTIFY isles").await.doing("ringing those who follow")
}

/// Listens at a writer for [`ring`].
pub(crate) async fn listen(writer: &Client) -> Result<(), DatabaseError> {
    writer.batch_execute("LISTEN isles").await.doing("listening to the writer")
}

async fn tables(client: &Client, exclude: &[String]) -> Result<Vec<Table>, DatabaseError> {
    let rows = client.query(TABLES, &[]).await.doing("listing the app's tables")?;
    Ok(rows
        .iter()
        .map(|row| {
            let (schema, name): (&str, &str) = (row.get(0), row.get(1));
            Table {
                qualified: format!("{}.{}", ident(schema), ident(name)),
                shown: format!("{schema}.{name}"),
                unlogged: row.get("unlogged"),
                is_top: row.get("is_top"),
                holds_rows: row.get("holds_rows"),
                published: row.get("published"),
                keyed: row.get("keyed"),
                identified: row.get("identified"),
                excluded: is_excluded(exclude, row.get("root_schema"), row.get("root_name")),
            }
        })
        .collect())
}

/// Whether a writer publishes every table it should; asked by those who copy from it.
pub(crate) async fn is_current(writer: &Client, exclude: &[String]) -> Result<bool, DatabaseError> {
    let tables = tables(writer, exclude).await?;
    Ok(tables.iter().all(|table| table.published == (table.is_top && !table.excluded)))
}

/// Whether the spec keeps a table out: by its bare name in any schema, or by `schema.name`.
pub(crate) fn is_excluded(exclude: &[String], schema: &str, name: &str) -> bool {
    exclude.iter().any(|entry| entry == name || entry.split_once('.') == Some((schema, name)))
}

fn names<'a>(tables: impl Iterator<Item = &'a Table>) -> Vec<String> {
    tables.map(|table| table.qualified.clone()).collect()
}

async fn identify(client: &Client, tables: &[Table]) -> Result<(), DatabaseError> {
    for table in tables.iter().filter(|table| table.holds_rows && !table.identified && !table.excluded) {
        let change = format!("{LOCK_WAIT}; ALTER TABLE ONLY {} REPLICA IDENTITY FULL", table.qualified);
        client.batch_execute(&change).await.doing("setting REPLICA IDENTITY FULL")?;
        info!(table = table.shown, "A table without a key is sent with whole old rows.");
    }
    Ok(())
}

async fn report(client: &Client, tables: &[Table], findings: &Findings) -> Result<(), DatabaseError> {
    let mut keep = BTreeSet::new();
    for table in tables {
        let shown = &table.shown;
        let text = if table.unlogged {
            format!(
                "Table {shown} is unlogged: its rows stay in the writer's region. Make it LOGGED to replicate it."
            )
        } else if table.holds_rows && !table.keyed && !table.excluded {
            format!(
                "Table {shown} has no primary key: each UPDATE and DELETE is sent with its whole old row, and \
                 replicas look for that row one by one. Give it a primary key."
            )
        } else {
            continue;
        };
        let key = format!("table/{shown}");
        findings.set(key.clone(), text);
        keep.insert(key);
    }
    findings.retain("table/", &keep.into_iter().collect::<Vec<_>>());
    let large: bool = client
        .query_one("SELECT EXISTS (SELECT FROM pg_largeobject_metadata)", &[])
        .await
        .doing("looking for large objects")?
        .get(0);
    if large {
        findings
            .set("large objects", "The database holds large objects: PostgreSQL does not replicate them.");
    } else {
        findings.clear("large objects");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_excluded;

    #[test]
    fn a_table_is_excluded_by_bare_or_qualified_name() {
        let list = ["schema_migrations".to_owned(), "audit.log".to_owned()];
        assert!(is_excluded(&list, "public", "schema_migrations"));
        assert!(is_excluded(&list, "audit", "log"));
        assert!(!is_excluded(&list, "public", "log"));
    }
}
