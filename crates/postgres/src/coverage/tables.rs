//! Says which tables have to be covered, and which of them a standby has whole.
//!
//! A table is told from an earlier one of the same name, and from itself before an ALTER, by its *shape*: its number at
//! the writer, and for each column number, name and the transaction that changed it last. A replica records them once
//! it has carried them over.

use std::collections::BTreeMap;

use tokio_postgres::{Client, Row};

use crate::{
    error::{DatabaseError, Doing},
    publish,
};

/// The permanent tables of the app's that hold rows, at the writer.
const NEEDED: &str = "
SELECT n.nspname::text, c.relname::text,
       (SELECT string_agg(concat_ws('.', a.attrelid, a.attnum, a.xmin, a.attname), ' ' ORDER BY a.attnum)
        FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
       rn.nspname::text, root.relname::text
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class root ON root.oid = CASE WHEN c.relispartition THEN pg_partition_root(c.oid) ELSE c.oid END
JOIN pg_namespace rn ON rn.oid = root.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p'
  AND n.nspname <> 'isles' AND n.nspname <> 'information_schema' AND NOT n.nspname ^@ 'pg_'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                  AND d.deptype = 'e')";

/// The tables that a replica has whole and applies changes to, with the shapes that it has carried over.
const COVERED: &str = "
SELECT n.nspname::text, c.relname::text,
       (SELECT string_agg(concat_ws('.', k.table_oid, k.column_number, k.changed_by, k.column_name), ' '
                          ORDER BY k.column_number)
        FROM isles.source_column k WHERE k.table_schema = n.nspname AND k.table_name = c.relname)
FROM pg_subscription_rel r
JOIN pg_subscription s ON s.oid = r.srsubid AND s.subname ^@ 'isles_'
JOIN pg_class c ON c.oid = r.srrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE r.srsubstate = 'r'";

/// Schema and name.
pub(super) type Name = (String, String);

/// Tables, with their shapes; one without columns has none.
pub(super) type Tables = BTreeMap<Name, Option<String>>;

/// What has to be covered.
pub(super) async fn needed(own: &Client, exclude: &[String]) -> Result<Tables, DatabaseError> {
    let rows = own.query(NEEDED, &[]).await.doing("listing the tables to be covered")?;
    let kept = |row: &&Row| !publish::is_excluded(exclude, row.get(3), row.get(4));
    Ok(rows.iter().filter(kept).map(table).collect())
}

/// What a standby covers.
pub(super) async fn covered(standby: &Client) -> Result<Tables, DatabaseError> {
    let rows = standby.query(COVERED, &[]).await.doing("asking a standby which tables it has")?;
    Ok(rows.iter().map(table).collect())
}

fn table(row: &Row) -> (Name, Option<String>) {
    ((row.get(0), row.get(1)), row.get(2))
}

/// The first table of one list that is not in another as it is.
pub(super) fn first_beyond<'a>(needed: &'a Tables, known: &Tables) -> Option<&'a Name> {
    needed.iter().find(|(name, shape)| known.get(*name) != Some(*shape)).map(|(name, _)| name)
}
