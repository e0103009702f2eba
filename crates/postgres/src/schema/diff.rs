//! Says which statements turn one schema into another, given both as entries of a dump.
//!
//! Pure. Steps that only let more rows in may run while older changes are still on their way ([`Phase::Grow`]);
//! steps that take something away or demand something wait until those have been applied ([`Phase::Settle`]).
//! What it cannot express is [`Step::CopyTable`] or [`Step::Rebuild`]. Whoever runs the steps compares again
//! until none is left, so a step need not foresee what a CASCADE takes with it.

use std::collections::{BTreeMap, BTreeSet};

use super::{drops, dump::Entry, table};

/// When a step may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// At once.
    Grow,
    /// Once all changes made under the old schema are applied.
    Settle,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Run these statements.
    Run {
        /// When.
        phase: Phase,
        /// What for: kind, schema and name of an entry.
        what: String,
        /// The statements.
        sql: String,
        /// The table to copy afresh should they fail.
        table: Option<String>,
    },
    /// Run this statement before the others and outside their transaction: a new enum label cannot be used in
    /// the transaction that adds it.
    Alone {
        /// What for.
        what: String,
        /// The statement.
        sql: String,
    },
    /// Drop this table (quoted, qualified); the next comparison makes it anew and the subscription copies it.
    CopyTable {
        /// Which.
        table: String,
        /// Why.
        because: String,
    },
    /// Copy the whole database afresh.
    Rebuild {
        /// Why.
        because: String,
    },
}

impl Step {
    /// Whether it may run while older changes are on their way.
    pub(crate) fn may_run_early(&self) -> bool {
        matches!(self, Self::Run { phase: Phase::Grow, .. } | Self::Alone { .. })
    }

    /// Whether it makes, changes or drops a table or a type that tables are made of.
    pub(crate) fn touches_tables(&self) -> bool {
        match self {
            Self::Run { what, table, .. } => {
                table.is_some() || ["table ", "type ", "domain "].iter().any(|kind| what.starts_with(kind))
            }
            Self::Alone { .. } | Self::CopyTable { .. } | Self::Rebuild { .. } => true,
        }
    }

    /// Whether it makes a table, whose rows are then still to come.
    pub(crate) fn makes_table(&self) -> bool {
        matches!(self, Self::Run { sql, .. } if sql.starts_with("CREATE TABLE "))
    }

    /// Why there is no step but a copy of the whole database, if so.
    pub(crate) fn impossible(&self) -> Option<&str> {
        match self {
            Self::Rebuild { because } => Some(because),
            Self::Run { .. } | Self::Alone { .. } | Self::CopyTable { .. } => None,
        }
    }
}

/// What a dump does not tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Hints {
    /// Tables (schema, name) whose rows an ALTER rewrote.
    pub(crate) rewritten: BTreeSet<(String, String)>,
    /// The value that rows older than a column have in it: (schema, table, column).
    pub(crate) fillers: BTreeMap<(String, String, String), String>,
}

type Key<'a> = (&'a str, &'a str, &'a str);

fn key(entry: &Entry) -> Key<'_> {
    (&entry.kind, &entry.schema, &entry.name)
}

/// The steps from `ours` to `theirs`, in the order to take them.
pub(crate) fn steps(theirs: &[Entry], ours: &[Entry], hints: &Hints) -> Vec<Step> {
    let wanted: BTreeMap<Key<'_>, &Entry> = theirs.iter().map(|entry| (key(entry), entry)).collect();
    let present: BTreeMap<Key<'_>, &Entry> = ours.iter().map(|entry| (key(entry), entry)).collect();
    let missing_tables: BTreeSet<String> = theirs
        .iter()
        .filter(|entry| entry.kind == "TABLE" && !present.contains_key(&key(entry)))
        .filter_map(drops::relation)
        .collect();
    let (mut first, mut middle, mut last) = (Vec::new(), Vec::new(), Vec::new());
    // What depends on others goes first and in reverse, tables and what they are made of go last.
    for own in ours.iter().rev() {
        match wanted.get(&key(own)) {
            Some(entry) if entry.sql == own.sql => {}
            Some(entry) if replaced_whole(entry, own) => match drops::statement(own) {
                Some(sql) => first.push(run(Phase::Settle, own, sql)),
                None => return vec![cannot(own)],
            },
            Some(_) => {}
            None if drops::goes_with_another(own) => {}
            None => match drops::statement(own) {
                Some(sql) if is_made_of(own) => last.push(run(Phase::Settle, own, sql)),
                Some(sql) => first.push(run(Phase::Settle, own, sql)),
                None => return vec![cannot(own)],
            },
        }
    }
    for entry in in_order(theirs, &missing_tables) {
        let name = (entry.schema.clone(), entry.name.clone());
        match present.get(&key(entry)) {
            None => middle.push(run(phase_of(entry, &missing_tables), entry, entry.sql.clone())),
            Some(_) if entry.kind == "TABLE" && hints.rewritten.contains(&name) => {
                middle.push(table::copy(entry, "its rows were rewritten"));
            }
            Some(own) if own.sql == entry.sql => {}
            Some(own) if replaced_whole(entry, own) => {
                middle.push(run(Phase::Settle, entry, entry.sql.clone()));
            }
            Some(own) => middle.extend(altered(entry, own, hints)),
        }
    }
    [first, middle, last].concat()
}

/// A dump attaches partitions before it makes keys, so that each makes its own. Where the parent has its keys
/// already, attaching would make them a second time: there partitions are attached last, with keys that fit.
fn in_order<'a>(theirs: &'a [Entry], missing_tables: &BTreeSet<String>) -> impl Iterator<Item = &'a Entry> {
    let attach_late = |entry: &&Entry| {
        entry.kind == "TABLE ATTACH"
            && drops::altered_table(&entry.sql).is_some_and(|parent| !missing_tables.contains(parent))
    };
    let (late, rest): (Vec<_>, Vec<_>) = theirs.iter().partition(attach_late);
    let (last, first): (Vec<_>, Vec<_>) = rest.into_iter().partition(|entry| entry.kind == "INDEX ATTACH");
    first.into_iter().chain(late).chain(last)
}

/// How an entry that is there is changed in place.
fn altered(theirs: &Entry, ours: &Entry, hints: &Hints) -> Vec<Step> {
    let settle = |sql: String| vec![run(Phase::Settle, theirs, sql)];
    match theirs.kind.as_str() {
        "TABLE" => table::steps(theirs, ours, hints),
        "TYPE" => new_labels(theirs, ours).unwrap_or_else(|| vec![cannot(theirs)]),
        "SEQUENCE" if theirs.sql.starts_with("CREATE SEQUENCE ") => settle(altered_sequence(&theirs.sql)),
        "FUNCTION" | "PROCEDURE" => settle(theirs.sql.replacen("CREATE ", "CREATE OR REPLACE ", 1)),
        "DEFAULT" | "COMMENT" | "SEQUENCE OWNED BY" => settle(theirs.sql.clone()),
        "SCHEMA" => settle(theirs.sql.lines().filter(|l| l.starts_with("ALTER ")).collect()),
        _ => vec![cannot(theirs)],
    }
}

/// Whether an entry that differs is dropped and made anew: it holds no rows.
fn replaced_whole(theirs: &Entry, ours: &Entry) -> bool {
    match theirs.kind.as_str() {
        "VIEW" | "MATERIALIZED VIEW" | "INDEX" | "CONSTRAINT" | "FK CONSTRAINT" | "CHECK CONSTRAINT"
        | "TRIGGER" | "RULE" | "POLICY" | "STATISTICS" | "EVENT TRIGGER" | "ROW SECURITY" | "ACL"
        | "DEFAULT ACL" | "TABLE ATTACH" | "AGGREGATE" => true,
        "SEQUENCE" => theirs.sql.starts_with("ALTER TABLE "),
        // Because a function's result cannot be replaced, only what it does.
        "FUNCTION" | "PROCEDURE" => signature(&theirs.sql) != signature(&ours.sql),
        _ => false,
    }
}

fn signature(sql: &str) -> &str {
    sql.split_once("\n    LANGUAGE ").map_or(sql, |(signature, _)| signature)
}

/// Whether an entry that is no longer wanted must outlive those that use it.
fn is_made_of(entry: &Entry) -> bool {
    matches!(
        entry.kind.as_str(),
        "TABLE"
            | "TYPE"
            | "DOMAIN"
            | "SCHEMA"
            | "EXTENSION"
            | "FUNCTION"
            | "PROCEDURE"
            | "AGGREGATE"
            | "COLLATION"
    ) || (entry.kind == "SEQUENCE" && entry.sql.starts_with("CREATE "))
}

/// What a new entry may do to rows that are on their way: nothing, or refuse them.
fn phase_of(entry: &Entry, missing_tables: &BTreeSet<String>) -> Phase {
    let grows = match entry.kind.as_str() {
        "INDEX" | "CONSTRAINT" | "FK CONSTRAINT" | "CHECK CONSTRAINT" | "TRIGGER" | "RULE" | "POLICY"
        | "VIEW" | "ROW SECURITY" | "DEFAULT" | "TABLE ATTACH" | "INDEX ATTACH" | "SEQUENCE OWNED BY"
        | "COMMENT" | "ACL" | "STATISTICS" => {
            drops::relation(entry).is_some_and(|relation| missing_tables.contains(&relation))
        }
        "MATERIALIZED VIEW" | "EVENT TRIGGER" => false,
        "SEQUENCE" => !entry.sql.starts_with("ALTER "),
        _ => true,
    };
    if grows || drops::relation(entry).is_some_and(|relation| missing_tables.contains(&relation)) {
        Phase::Grow
    } else {
        Phase::Settle
    }
}

/// `CREATE SEQUENCE` takes the same clauses as `ALTER SEQUENCE`; what it leaves out is said.
fn altered_sequence(sql: &str) -> String {
    let (head, rest) = sql.split_once('\n').unwrap_or((sql, ""));
    let mut clauses = String::new();
    for (clause, otherwise) in [("AS ", "AS bigint"), ("CYCLE", "NO CYCLE")] {
        let said = rest
            .lines()
            .take_while(|line| line.starts_with("    "))
            .any(|line| line.trim().starts_with(clause));
        if !said {
            clauses.push_str(&format!("    {otherwise}\n"));
        }
    }
    format!("{}\n{clauses}{rest}", head.replacen("CREATE ", "ALTER ", 1))
}

/// The labels that an enum has gained; `None` if it is no enum or has lost or moved one.
fn new_labels(theirs: &Entry, ours: &Entry) -> Option<Vec<Step>> {
    let (new, old) = (labels(&theirs.sql)?, labels(&ours.sql)?);
    let kept: Vec<&&str> = new.iter().filter(|label| old.contains(label)).collect();
    if kept.len() != old.len() || kept.iter().zip(&old).any(|(a, b)| *a != b) {
        return None;
    }
    let name = drops::relation(theirs)?;
    let mut steps = Vec::new();
    for (at, label) in new.iter().enumerate().filter(|(_, label)| !old.contains(label)) {
        let place = match at.checked_sub(1) {
            Some(before) => format!("AFTER {}", new[before]),
            None => format!("BEFORE {}", old.first()?),
        };
        let sql = format!("ALTER TYPE {name} ADD VALUE IF NOT EXISTS {label} {place}");
        steps.push(Step::Alone { what: describe(theirs), sql });
    }
    Some(steps)
}

/// The quoted labels of `CREATE TYPE … AS ENUM (…)`.
fn labels(sql: &str) -> Option<Vec<&str>> {
    let (_, list) = sql.split_once(" AS ENUM (")?;
    Some(super::text::split_list(super::text::split_closing(list)?.0))
}

fn run(phase: Phase, entry: &Entry, sql: String) -> Step {
    Step::Run { phase, what: describe(entry), sql, table: None }
}

fn cannot(entry: &Entry) -> Step {
    Step::Rebuild { because: format!("{} changed in a way that cannot be carried over", describe(entry)) }
}

fn describe(entry: &Entry) -> String {
    format!("{} {}.{}", entry.kind.to_lowercase(), entry.schema, entry.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, name: &str, sql: &str) -> Entry {
        Entry { kind: kind.into(), schema: "public".into(), name: name.into(), sql: sql.into() }
    }

    fn check(ours: &[Entry], theirs: &[Entry], expect: &[(Phase, &str)]) {
        let steps = steps(theirs, ours, &Hints::default());
        let found: Vec<(Phase, &str)> = steps
            .iter()
            .map(|step| match step {
                Step::Run { phase, sql, .. } => (*phase, sql.as_str()),
                Step::Alone { sql, .. } => (Phase::Grow, sql.as_str()),
                Step::CopyTable { table, .. } => (Phase::Settle, table.as_str()),
                Step::Rebuild { because } => (Phase::Settle, because.as_str()),
            })
            .collect();
        assert_eq!(found, expect);
    }

    fn table(columns: &str) -> Entry {
        entry(
            "TABLE",
            "t",
            &format!("CREATE TABLE public.t (\n{columns}\n);\n\n\nALTER TABLE public.t OWNER TO app;"),
        )
    }

    #[test]
    fn equal_schemas_need_nothing_and_the_order_of_columns_does_not_matter() {
        check(&[table("    a integer,\n    b text")], &[table("    b text,\n    a integer")], &[]);
    }

    #[test]
    fn a_new_column_comes_at_once_and_its_demands_later() {
        check(
            &[table("    a integer")],
            &[table("    a integer,\n    b text DEFAULT 'x'::text NOT NULL")],
            &[(Phase::Grow, "ALTER TABLE ONLY public.t ADD COLUMN IF NOT EXISTS b text")],
        );
        check(
            &[table("    b text")],
            &[table("    b text DEFAULT 'x'::text NOT NULL")],
            &[
                (Phase::Settle, "ALTER TABLE ONLY public.t ALTER COLUMN b SET DEFAULT 'x'::text"),
                (Phase::Settle, "ALTER TABLE ONLY public.t ALTER COLUMN b SET NOT NULL"),
            ],
        );
    }

    #[test]
    fn older_rows_get_the_value_the_writer_keeps_for_them() {
        let key = ("public".to_owned(), "t".to_owned(), "b".to_owned());
        let hints = Hints { fillers: [(key, "it's".to_owned())].into(), ..Hints::default() };
        let steps = steps(&[table("    a integer,\n    b text")], &[table("    a integer")], &hints);
        let Step::Run { sql, .. } = &steps[0] else { panic!("{steps:?}") };
        assert_eq!(sql, "ALTER TABLE ONLY public.t ADD COLUMN IF NOT EXISTS b text DEFAULT 'it''s'::text");
    }

    #[test]
    fn a_column_that_is_gone_stops_insisting_at_once_and_goes_later() {
        check(
            &[table("    a integer,\n    b text NOT NULL")],
            &[table("    a integer")],
            &[
                (Phase::Grow, "ALTER TABLE ONLY public.t ALTER COLUMN b DROP NOT NULL"),
                (Phase::Settle, "ALTER TABLE ONLY public.t DROP COLUMN IF EXISTS b"),
            ],
        );
    }

    #[test]
    fn an_enum_gains_labels_in_place_and_loses_none() {
        let mood = |labels: &str| {
            entry("TYPE", "mood", &format!("CREATE TYPE public.mood AS ENUM (\n    {labels}\n);"))
        };
        check(
            &[mood("'b'")],
            &[mood("'a',\n    'b',\n    'c'")],
            &[
                (Phase::Grow, "ALTER TYPE public.mood ADD VALUE IF NOT EXISTS 'a' BEFORE 'b'"),
                (Phase::Grow, "ALTER TYPE public.mood ADD VALUE IF NOT EXISTS 'c' AFTER 'b'"),
            ],
        );
        let lost = "type public.mood changed in a way that cannot be carried over";
        check(&[mood("'a',\n    'b'")], &[mood("'b'")], &[(Phase::Settle, lost)]);
    }

    #[test]
    fn a_view_is_made_anew_around_the_change_of_its_table() {
        let view = |sql: &str| entry("VIEW", "v", sql);
        check(
            &[table("    a integer"), view("CREATE VIEW public.v AS SELECT a;")],
            &[table("    a bigint"), view("CREATE VIEW public.v AS SELECT a, 1;")],
            &[
                (Phase::Settle, "DROP VIEW IF EXISTS \"public\".\"v\" CASCADE"),
                (Phase::Settle, "ALTER TABLE ONLY public.t ALTER COLUMN a TYPE bigint USING a::bigint"),
                (Phase::Settle, "CREATE VIEW public.v AS SELECT a, 1;"),
            ],
        );
    }

    #[test]
    fn what_a_new_table_consists_of_comes_with_it() {
        let key = entry(
            "CONSTRAINT",
            "t t_pkey",
            "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY (a);",
        );
        let made = table("    a integer");
        let theirs = [made.clone(), key.clone()];
        check(&[], &theirs, &[(Phase::Grow, &made.sql), (Phase::Grow, &key.sql)]);
        check(std::slice::from_ref(&made), &theirs, &[(Phase::Settle, &key.sql)]);
        let drop = "ALTER TABLE IF EXISTS public.t DROP CONSTRAINT IF EXISTS t_pkey CASCADE";
        check(&theirs, &[made], &[(Phase::Settle, drop)]);
    }

    #[test]
    fn a_sequence_is_altered_in_place() {
        let sequence =
            |rest: &str| entry("SEQUENCE", "s", &format!("CREATE SEQUENCE public.s\n{rest}    CACHE 1;"));
        check(
            &[sequence("    AS integer\n    INCREMENT BY 1\n")],
            &[sequence("    INCREMENT BY 5\n")],
            &[(
                Phase::Settle,
                "ALTER SEQUENCE public.s\n    AS bigint\n    NO CYCLE\n    INCREMENT BY 5\n    CACHE 1;",
            )],
        );
    }

    #[test]
    fn grants_are_taken_back() {
        let acl = entry(
            "ACL",
            "TABLE t",
            "REVOKE ALL ON TABLE public.t FROM app;\nGRANT SELECT(a) ON TABLE public.t TO bob;",
        );
        let expect = "REVOKE ALL ON TABLE public.t FROM bob;\nGRANT ALL ON TABLE public.t TO app";
        check(&[acl], &[], &[(Phase::Settle, expect)]);
    }
}
