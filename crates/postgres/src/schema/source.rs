//! Notices that a writer's schema has changed, and what a dump cannot tell of it: renames and rewrites.
//!
//! A dump shows only what is; the writer's own object numbers show that `b` is the column that was called `a`,
//! and that a table's rows were rewritten by an ALTER rather than by statements that replicate.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::{Client, types::PgLsn};

use crate::error::{DatabaseError, Doing};
use isles_model::Lsn;

/// A hash over the definitions of all the app's objects. Values that a healthy database changes by itself (sizes,
/// statistics, freezing) are left out; temporary objects too.
const FINGERPRINT: &str = "
WITH own AS (
  SELECT oid, nspname FROM pg_namespace
  WHERE nspname <> 'isles' AND nspname <> 'information_schema' AND NOT nspname ^@ 'pg_'
), rel AS (
  SELECT c.* FROM pg_class c JOIN own n ON n.oid = c.relnamespace WHERE c.relpersistence <> 't'
), fact (text) AS (
  SELECT concat_ws('.', 'n', oid, nspname) FROM own
  UNION ALL SELECT concat_ws('.', 'ns', xmin) FROM pg_namespace WHERE oid IN (SELECT oid FROM own)
  UNION ALL SELECT concat_ws('.', 'c', oid, relname, relnamespace, relkind, relpersistence, relowner, relacl::text,
                   relreplident, reloptions::text, relrowsecurity, relforcerowsecurity, relispartition) FROM rel
  UNION ALL SELECT concat_ws('.', 'a', attrelid, attnum, xmin) FROM pg_attribute WHERE attrelid IN (SELECT oid FROM rel)
  UNION ALL SELECT concat_ws('.', 'd', oid, xmin) FROM pg_attrdef WHERE adrelid IN (SELECT oid FROM rel)
  UNION ALL SELECT concat_ws('.', 'k', oid, xmin) FROM pg_constraint WHERE connamespace IN (SELECT oid FROM own)
  UNION ALL SELECT concat_ws('.', 'i', indexrelid, indkey::text, indisvalid, indisreplident, indisclustered)
            FROM pg_index WHERE indrelid IN (SELECT oid FROM rel)
  UNION ALL SELECT concat_ws('.', 'h', inhrelid, inhparent, xmin) FROM pg_inherits WHERE inhrelid IN (SELECT oid FROM rel)
  UNION ALL SELECT concat_ws('.', 'g', oid, xmin) FROM pg_trigger WHERE tgrelid IN (SELECT oid FROM rel)
  UNION ALL SELECT concat_ws('.', 'r', oid, xmin) FROM pg_rewrite WHERE ev_class IN (SELECT oid FROM rel)
  UNION ALL SELECT concat_ws('.', 'p', oid, xmin) FROM pg_policy WHERE polrelid IN (SELECT oid FROM rel)
  UNION ALL SELECT concat_ws('.', 's', seqrelid, xmin) FROM pg_sequence WHERE seqrelid IN (SELECT oid FROM rel)
  UNION ALL SELECT concat_ws('.', 'f', oid, xmin) FROM pg_proc WHERE pronamespace IN (SELECT oid FROM own)
  UNION ALL SELECT concat_ws('.', 't', oid, xmin) FROM pg_type WHERE typnamespace IN (SELECT oid FROM own)
  UNION ALL SELECT concat_ws('.', 'o', oid, xmin) FROM pg_operator WHERE oprnamespace IN (SELECT oid FROM own)
  UNION ALL SELECT concat_ws('.', 'x', oid, xmin) FROM pg_statistic_ext WHERE stxnamespace IN (SELECT oid FROM own)
  UNION ALL SELECT concat_ws('.', 'l', oid, xmin) FROM pg_collation WHERE collnamespace IN (SELECT oid FROM own)
  UNION ALL SELECT concat_ws('.', 'e', oid, xmin) FROM pg_enum
  UNION ALL SELECT concat_ws('.', 'z', oid, xmin) FROM pg_extension
  UNION ALL SELECT concat_ws('.', 'v', oid, xmin) FROM pg_event_trigger
  UNION ALL SELECT concat_ws('.', 'b', oid, xmin) FROM pg_default_acl
  UNION ALL SELECT concat_ws('.', 'w', oid, xmin) FROM pg_cast WHERE oid >= 16384
  UNION ALL SELECT concat_ws('.', 'm', objoid, classoid, objsubid, xmin) FROM pg_description WHERE objoid >= 16384
)
SELECT md5(string_agg(text, ' ' ORDER BY text COLLATE \"C\")) FROM fact";

/// The fingerprint of the catalogue that a session sees.
pub(crate) async fn fingerprint(client: &Client) -> Result<String, DatabaseError> {
    let row = client.query_one(FINGERPRINT, &[]).await.doing("fingerprinting the writer's catalogue")?;
    Ok(row.get::<_, Option<String>>(0).unwrap_or_default())
}

/// The end of a writer's log.
pub(crate) async fn log_end(client: &Client) -> Result<Lsn, DatabaseError> {
    let row = client
        .query_one("SELECT pg_current_wal_lsn()", &[])
        .await
        .doing("asking for the writer's log position")?;
    Ok(Lsn(row.get::<_, PgLsn>(0).into()))
}

/// One column of a writer's table, by the numbers that outlive its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) table: u32,
    pub(crate) number: i16,
    pub(crate) schema: String,
    pub(crate) table_name: String,
    pub(crate) name: String,
    /// The file its table's rows are in; an ALTER that rewrites them changes it.
    pub(crate) file_node: u32,
    /// Changes with each ALTER of the column.
    pub(crate) changed_by: String,
    /// What rows older than the column have in it, where the catalogue keeps it; not recorded.
    pub(crate) filler: Option<String>,
}

impl Column {
    /// The filler by the column's place.
    pub(crate) fn keyed_filler(&self) -> Option<((String, String, String), String)> {
        let key = (self.schema.clone(), self.table_name.clone(), self.name.clone());
        Some((key, self.filler.clone()?))
    }
}

/// The columns of a writer's ordinary tables.
pub(crate) async fn columns(writer: &Client) -> Result<Vec<Column>, DatabaseError> {
    read_columns(
        writer,
        "SELECT c.oid, a.attnum, n.nspname::text, c.relname::text, a.attname::text, c.relfilenode, a.xmin::text,
                CASE WHEN a.atthasmissing THEN (a.attmissingval::text::text[])[1] END
         FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND a.attnum > 0 AND NOT a.attisdropped
           AND n.nspname <> 'isles' AND n.nspname <> 'information_schema' AND NOT n.nspname ^@ 'pg_'",
    )
    .await
}

/// The columns as they were when the schema was last carried here.
pub(crate) async fn known_columns(own: &Client) -> Result<Vec<Column>, DatabaseError> {
    read_columns(
        own,
        "SELECT table_oid, column_number, table_schema, table_name, column_name, file_node, changed_by, NULL
         FROM isles.source_column",
    )
    .await
}

async fn read_columns(client: &Client, sql: &str) -> Result<Vec<Column>, DatabaseError> {
    let rows = client.query(sql, &[]).await.doing("reading the writer's columns")?;
    Ok(rows
        .iter()
        .map(|row| Column {
            table: row.get(0),
            number: row.get(1),
            schema: row.get(2),
            table_name: row.get(3),
            name: row.get(4),
            file_node: row.get(5),
            changed_by: row.get(6),
            filler: row.get(7),
        })
        .collect())
}

/// Records the fingerprint that has been carried, once it has.
pub(crate) async fn record_fingerprint(own: &Client, fingerprint: &str) -> Result<(), DatabaseError> {
    own.execute("UPDATE isles.node SET carried = $1", &[&fingerprint])
        .await
        .doing("recording the carried schema")?;
    Ok(())
}

/// Records the columns whose renames and rewrites have been carried.
pub(crate) async fn record_columns(own: &mut Client, columns: &[Column]) -> Result<(), DatabaseError> {
    const DOING: &str = "recording the writer's columns";
    let tables: Vec<u32> = columns.iter().map(|column| column.table).collect();
    let numbers: Vec<i16> = columns.iter().map(|column| column.number).collect();
    let schemas: Vec<&str> = columns.iter().map(|column| column.schema.as_str()).collect();
    let names: Vec<&str> = columns.iter().map(|column| column.table_name.as_str()).collect();
    let column_names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let files: Vec<u32> = columns.iter().map(|column| column.file_node).collect();
    let changes: Vec<&str> = columns.iter().map(|column| column.changed_by.as_str()).collect();
    let change = own.transaction().await.doing(DOING)?;
    change.execute("DELETE FROM isles.source_column", &[]).await.doing(DOING)?;
    change
        .execute(
            "INSERT INTO isles.source_column SELECT * FROM
             unnest($1::oid[], $2::int2[], $3::text[], $4::text[], $5::text[], $6::oid[], $7::text[])",
            &[&tables, &numbers, &schemas, &names, &column_names, &files, &changes],
        )
        .await
        .doing(DOING)?;
    change.commit().await.doing(DOING)
}

/// What happened to the writer's tables that a dump does not tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Moves {
    /// Tables that go by another name now: (schema, name) before and after.
    pub(crate) tables: Vec<((String, String), (String, String))>,
    /// Columns that go by another name now: table (by its new name), before, after.
    pub(crate) columns: Vec<((String, String), String, String)>,
    /// Tables (by their new names) whose rows an ALTER has rewritten, or that were dropped and made again under the same
    /// name: they are copied again.
    pub(crate) rewritten: BTreeSet<(String, String)>,
}

/// Compares the writer's tables now with those last carried.
pub(crate) fn moves(before: &[Column], now: &[Column]) -> Moves {
    let old: BTreeMap<(u32, i16), &Column> = before.iter().map(|c| ((c.table, c.number), c)).collect();
    let known: BTreeSet<u32> = before.iter().map(|c| c.table).collect();
    let present: BTreeSet<u32> = now.iter().map(|c| c.table).collect();
    let gone: BTreeSet<(&str, &str)> = before
        .iter()
        .filter(|column| !present.contains(&column.table))
        .map(|column| (column.schema.as_str(), column.table_name.as_str()))
        .collect();
    let mut moves = Moves::default();
    for column in now.iter().filter(|column| !known.contains(&column.table)) {
        if gone.contains(&(column.schema.as_str(), column.table_name.as_str())) {
            moves.rewritten.insert((column.schema.clone(), column.table_name.clone()));
        }
    }
    let mut seen = BTreeSet::new();
    for column in now.iter().filter(|column| known.contains(&column.table)) {
        let table = (column.schema.clone(), column.table_name.clone());
        let was = old.get(&(column.table, column.number));
        let any = before.iter().find(|c| c.table == column.table).expect("the table is known");
        let was_table = (any.schema.clone(), any.table_name.clone());
        if seen.insert(column.table) && was_table != table {
            moves.tables.push((was_table, table.clone()));
        }
        if let Some(was) = was.filter(|was| was.name != column.name) {
            moves.columns.push((table.clone(), was.name.clone(), column.name.clone()));
        }
        let altered = was.is_none_or(|was| was.changed_by != column.changed_by);
        if altered && any.file_node != column.file_node {
            moves.rewritten.insert(table);
        }
    }
    moves
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(
        table: u32,
        number: i16,
        table_name: &str,
        name: &str,
        file_node: u32,
        changed: &str,
    ) -> Column {
        Column {
            table,
            number,
            schema: "public".into(),
            table_name: table_name.into(),
            name: name.into(),
            file_node,
            changed_by: changed.into(),
            filler: None,
        }
    }

    #[test]
    fn a_rename_is_told_from_a_drop_and_an_add() {
        let before = [column(1, 1, "t", "id", 9, "5"), column(1, 2, "t", "a", 9, "5")];
        let renamed = [column(1, 1, "u", "id", 9, "5"), column(1, 2, "u", "b", 9, "6")];
        let found = moves(&before, &renamed);
        let name = |name: &str| ("public".to_owned(), name.to_owned());
        assert_eq!(found.tables, [(name("t"), name("u"))]);
        assert_eq!(found.columns, [(name("u"), "a".to_owned(), "b".to_owned())]);
        assert!(found.rewritten.is_empty());
        let replaced = [column(1, 1, "t", "id", 9, "5"), column(1, 3, "t", "b", 9, "6")];
        assert_eq!(moves(&before, &replaced), Moves::default());
    }

    #[test]
    fn a_table_made_again_under_the_name_of_a_dropped_one_is_copied_again() {
        let before = [column(1, 1, "t", "id", 9, "5"), column(2, 1, "u", "id", 8, "5")];
        let again = [column(3, 1, "t", "id", 10, "6"), before[1].clone()];
        let found = moves(&before, &again);
        assert_eq!(found.rewritten, [("public".to_owned(), "t".to_owned())].into());
        assert!(found.tables.is_empty());
        let swapped =
            [column(1, 1, "old", "id", 9, "5"), column(3, 1, "t", "id", 10, "6"), before[1].clone()];
        assert!(moves(&before, &swapped).rewritten.is_empty(), "the rename makes room for it");
    }

    #[test]
    fn rows_rewritten_by_an_alter_are_copied_again_and_a_truncate_is_not() {
        let before = [column(1, 1, "t", "id", 9, "5")];
        assert_eq!(moves(&before, &[column(1, 1, "t", "id", 10, "5")]), Moves::default());
        assert_eq!(moves(&before, &[column(1, 1, "t", "id", 10, "6")]).rewritten.len(), 1);
    }
}
