//! Moves sequences past every value the last writer may have given out: `nextval` does not replicate.
//!
//! While a region follows, it mirrors the writer's sequence values about once a second. On promotion each
//! sequence goes past the larger of that mirror and the largest value in the columns it feeds, plus a gap for
//! values given out since, never backwards, and never past its bounds.

use tokio_postgres::{Client, GenericClient};

use crate::{
    error::{DatabaseError, Doing},
    findings::Findings,
    link::ident,
};

/// How many values are skipped after the largest one known: the lost writer may have given them to rows that
/// never arrived. Rows of the ledger can then be put back under their own numbers.
pub(crate) const GAP_STEPS: i128 = 100;
/// The same for a sequence that no column tells about: about a second's worth.
pub(crate) const GAP_STEPS_FREE: i128 = 1_000;

/// The largest table that is read through on promotion for want of an index, in bytes.
const READ_BYTES_MAX: i64 = 8 << 20;

/// A sequence as defined, and what is known of the values it has given out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sequence {
    name: String,
    increment: i64,
    min: i64,
    max: i64,
    cycle: bool,
    /// This region's own last value, if it ever gave one.
    own: Option<i64>,
    /// The writer's, as last mirrored.
    mirrored: Option<i64>,
    /// Columns that take their default from it: table, column.
    feeds: Vec<(String, String)>,
}

/// The value a sequence must have given out last, so that the next one is new; `None`: leave it.
///
/// `unread`: not all of the columns it feeds could be looked into.
fn target(sequence: &Sequence, in_columns: Option<i64>, unread: bool) -> Option<i64> {
    let up = sequence.increment > 0;
    let seen = [sequence.own, sequence.mirrored, in_columns].into_iter().flatten();
    let furthest = if up { seen.max() } else { seen.min() }?;
    // Because a cycling sequence does not promise new values, it only continues.
    if sequence.cycle {
        return Some(sequence.mirrored.unwrap_or(furthest)).filter(|value| Some(*value) != sequence.own);
    }
    let steps = if unread || sequence.feeds.is_empty() { GAP_STEPS_FREE } else { GAP_STEPS };
    let wished = i128::from(furthest) + steps * i128::from(sequence.increment);
    let (min, max) = (i128::from(sequence.min), i128::from(sequence.max));
    let fits = (min..=max).contains(&wished);
    let value = if fits { wished } else { i128::from(furthest).clamp(min, max) };
    let value = i64::try_from(value).expect("clamped to the sequence's own bounds");
    (Some(value) != sequence.own).then_some(value)
}

/// While following: remembers the writer's sequence values.
pub(crate) async fn mirror(own: &Client, writer: &Client) -> Result<(), DatabaseError> {
    let rows = writer
        .query(
            "SELECT schemaname::text, sequencename::text, last_value FROM pg_sequences
             WHERE last_value IS NOT NULL AND schemaname <> 'isles'",
            &[],
        )
        .await
        .doing("reading the writer's sequences")?;
    let schemas: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    let names: Vec<&str> = rows.iter().map(|row| row.get(1)).collect();
    let values: Vec<i64> = rows.iter().map(|row| row.get(2)).collect();
    own.execute(
        "INSERT INTO isles.sequence SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[])
         ON CONFLICT (schema_name, name) DO UPDATE SET last_value = excluded.last_value
         WHERE sequence.last_value <> excluded.last_value",
        &[&schemas, &names, &values],
    )
    .await
    .doing("mirroring the writer's sequences")?;
    Ok(())
}

/// On promotion: moves every sequence.
pub(crate) async fn advance(client: &impl GenericClient, findings: &Findings) -> Result<(), DatabaseError> {
    for sequence in sequences(client).await? {
        let (mut in_columns, mut unread) = (None, false);
        for (table, column) in &sequence.feeds {
            let Some(value) = furthest_in(client, table, column, sequence.increment > 0).await? else {
                unread = true;
                continue;
            };
            in_columns = match (in_columns, value) {
                (Some(a), Some(b)) if sequence.increment > 0 => Some(std::cmp::max::<i64>(a, b)),
                (Some(a), Some(b)) => Some(std::cmp::min(a, b)),
                (a, b) => a.or(b),
            };
        }
        if let Some(value) = target(&sequence, in_columns, unread) {
            client
                .execute("SELECT setval($1::text::regclass, $2)", &[&sequence.name, &value])
                .await
                .doing("moving a sequence")?;
            if value == sequence.max || value == sequence.min {
                findings.set(
                    format!("sequence/{}", sequence.name),
                    format!("Sequence {} has come to the end of its range.", sequence.name),
                );
            }
        }
    }
    Ok(())
}

/// Reads it from an index, or from a table small enough to be read through at once; `None` otherwise, when the
/// mirror and the wide gap must do: a promotion does not wait for a table to be read.
async fn furthest_in(
    client: &impl GenericClient,
    table: &str,
    column: &str,
    up: bool,
) -> Result<Option<Option<i64>>, DatabaseError> {
    const DOING: &str = "finding the largest value a sequence gave out";
    let cheap: bool = client
        .query_one(
            "SELECT pg_table_size(c.oid) <= $3 OR EXISTS (
               SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
               WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL AND format('%I', a.attname) = $2)
             FROM pg_class c WHERE c.oid = $1::text::regclass",
            &[&table, &column, &READ_BYTES_MAX],
        )
        .await
        .doing(DOING)?
        .get(0);
    if !cheap {
        return Ok(None);
    }
    let aggregate = if up { "max" } else { "min" };
    let sql = format!("SELECT {aggregate}({column})::bigint FROM {table}");
    Ok(Some(client.query_one(&sql, &[]).await.doing(DOING)?.get(0)))
}

/// All sequences but an extension's, with the integer columns that each feeds by ownership, identity or default.
async fn sequences(client: &impl GenericClient) -> Result<Vec<Sequence>, DatabaseError> {
    let rows = client
        .query(
            "SELECT n.nspname::text, c.relname::text, q.seqincrement, q.seqmin, q.seqmax, q.seqcycle,
                    pg_sequence_last_value(c.oid), m.last_value, f.tables, f.columns
             FROM pg_sequence q
             JOIN pg_class c ON c.oid = q.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             LEFT JOIN isles.sequence m ON m.schema_name = n.nspname AND m.name = c.relname
             CROSS JOIN LATERAL (
               SELECT coalesce(array_agg(format('%I.%I', tn.nspname, t.relname)), '{}') AS tables,
                      coalesce(array_agg(format('%I', a.attname)), '{}') AS columns
               FROM (SELECT d.refobjid AS rel, d.refobjsubid AS num FROM pg_depend d
                     WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')
                       AND d.refclassid = 'pg_class'::regclass
                     UNION
                     SELECT e.adrelid, e.adnum FROM pg_depend d JOIN pg_attrdef e ON e.oid = d.objid
                     WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass
                       AND d.refobjid = c.oid) u
               JOIN pg_attribute a ON a.attrelid = u.rel AND a.attnum = u.num
                    AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
               JOIN pg_class t ON t.oid = u.rel AND t.relkind IN ('r', 'p')
               JOIN pg_namespace tn ON tn.oid = t.relnamespace) f
             WHERE n.nspname <> 'isles'
               AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass
                               AND e.objid = c.oid AND e.deptype = 'e')",
            &[],
        )
        .await
        .doing("listing sequences")?;
    Ok(rows
        .iter()
        .map(|row| {
            let (tables, columns): (Vec<String>, Vec<String>) = (row.get(8), row.get(9));
            Sequence {
                name: format!("{}.{}", ident(row.get(0)), ident(row.get(1))),
                increment: row.get(2),
                min: row.get(3),
                max: row.get(4),
                cycle: row.get(5),
                own: row.get(6),
                mirrored: row.get(7),
                feeds: tables.into_iter().zip(columns).collect(),
            }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(sequence: &Sequence, in_columns: Option<i64>) -> Option<i64> {
        super::target(sequence, in_columns, false)
    }

    fn fed(increment: i64, own: Option<i64>, mirrored: Option<i64>) -> Sequence {
        Sequence {
            name: "public.s".into(),
            increment,
            min: if increment > 0 { 1 } else { -1_000_000 },
            max: if increment > 0 { 1_000_000 } else { -1 },
            cycle: false,
            own,
            mirrored,
            feeds: vec![("t".into(), "id".into())],
        }
    }

    #[test]
    fn a_sequence_goes_past_the_largest_value_known_from_anywhere() {
        assert_eq!(target(&fed(1, None, Some(40)), Some(50)), Some(150));
        assert_eq!(target(&fed(1, None, Some(60)), Some(50)), Some(160));
        assert_eq!(target(&fed(10, Some(70), None), Some(50)), Some(1_070));
        assert_eq!(target(&fed(-1, None, Some(-40)), Some(-50)), Some(-150));
        assert_eq!(target(&fed(1, None, None), None), None);
    }

    #[test]
    fn a_sequence_never_leaves_its_bounds() {
        let near = Sequence { max: 100, ..fed(1, None, Some(95)) };
        assert_eq!(target(&near, Some(97)), Some(97));
        let edge = Sequence { max: i64::MAX, ..fed(1, None, Some(i64::MAX - 1)) };
        assert_eq!(target(&edge, None), Some(i64::MAX - 1));
    }

    #[test]
    fn a_cycling_sequence_only_continues() {
        let cycling = Sequence { cycle: true, ..fed(1, Some(3), Some(9)) };
        assert_eq!(target(&cycling, Some(20)), Some(9));
    }

    #[test]
    fn a_sequence_that_feeds_no_column_leaves_a_wider_gap() {
        let free = Sequence { feeds: Vec::new(), ..fed(1, None, Some(40)) };
        assert_eq!(target(&free, None), Some(1_040));
    }
}
