//! Says how one table is altered into another of the same name.

use std::collections::BTreeMap;

use super::{
    diff::{Hints, Phase, Step},
    dump::Entry,
    text::{leading_name, split_closing, split_list, split_word, statements},
};
use crate::link::literal;

/// A table as `pg_dump` writes it.
struct Table<'a> {
    /// `CREATE TABLE` or `CREATE UNLOGGED TABLE`.
    verb: &'a str,
    /// Its name, qualified and quoted as needed.
    name: &'a str,
    columns: BTreeMap<&'a str, Column<'a>>,
    /// By name, the whole clause.
    constraints: BTreeMap<&'a str, &'a str>,
    /// `PARTITION BY …`, `INHERITS (…)`.
    nature: String,
    /// What stands in `WITH (…)`.
    storage: BTreeMap<&'a str, &'a str>,
    /// Statements behind it: owner, replica identity, statistics targets.
    further: Vec<&'a str>,
}

#[derive(PartialEq, Eq)]
struct Column<'a> {
    /// With its collation.
    kind: &'a str,
    default: Option<&'a str>,
    generated: Option<&'a str>,
    not_null: bool,
}

/// The steps from `ours` to `theirs`; none when they differ in the order of columns only.
pub(crate) fn steps(theirs: &Entry, ours: &Entry, hints: &Hints) -> Vec<Step> {
    let (Some(new), Some(old)) = (parse(&theirs.sql), parse(&ours.sql)) else {
        return vec![copy(theirs, "its definition is of a kind that cannot be altered")];
    };
    if (new.verb, &new.nature) != (old.verb, &old.nature) {
        return vec![copy(theirs, "its nature changed")];
    }
    let mut change = Change { theirs, name: new.name, steps: Vec::new() };
    for (column, was) in &old.columns {
        match new.columns.get(column) {
            None => change.remove_column(column, was),
            Some(is) if is.generated != was.generated => {
                return vec![copy(theirs, "a generated column changed")];
            }
            Some(is) => change.alter_column(column, was, is),
        }
    }
    for (column, is) in new.columns.iter().filter(|(column, _)| !old.columns.contains_key(*column)) {
        change.add_column(column, is, hints);
    }
    for (constraint, was) in &old.constraints {
        if new.constraints.get(constraint) != Some(was) {
            change.run(Phase::Settle, &format!("DROP CONSTRAINT IF EXISTS {constraint}"));
        }
    }
    for (constraint, is) in &new.constraints {
        if old.constraints.get(constraint) != Some(is) {
            change.run(Phase::Settle, &format!("ADD {is}"));
        }
    }
    change.set_storage(&old.storage, &new.storage);
    change.further(&old.further, &new.further);
    change.steps
}

/// The table is dropped; the next comparison makes it anew, and the subscription copies it.
pub(crate) fn copy(entry: &Entry, because: &str) -> Step {
    let table = parse(&entry.sql).map_or_else(
        || format!("{}.{}", crate::link::ident(&entry.schema), crate::link::ident(&entry.name)),
        |table| table.name.to_owned(),
    );
    Step::CopyTable { because: format!("table {}.{}: {because}", entry.schema, entry.name), table }
}

struct Change<'a> {
    theirs: &'a Entry,
    name: &'a str,
    steps: Vec<Step>,
}

impl Change<'_> {
    fn run(&mut self, phase: Phase, action: &str) {
        self.statement(phase, format!("ALTER TABLE ONLY {} {action}", self.name));
    }

    fn statement(&mut self, phase: Phase, sql: String) {
        let what = format!("table {}.{}", self.theirs.schema, self.theirs.name);
        self.steps.push(Step::Run { phase, what, sql, table: Some(self.name.to_owned()) });
    }

    /// Rows made after the column went come without it, so it must not insist on a value; rows made before may
    /// still be on their way, so it stays until they have come.
    fn remove_column(&mut self, column: &str, was: &Column<'_>) {
        if was.not_null && was.default.is_none() {
            self.run(Phase::Grow, &format!("ALTER COLUMN {column} DROP NOT NULL"));
        }
        self.run(Phase::Settle, &format!("DROP COLUMN IF EXISTS {column}"));
    }

    /// Rows that were there when the writer added the column have the value that its catalogue keeps for them;
    /// the default of today and NOT NULL follow when rows without the column have all come.
    fn add_column(&mut self, column: &str, is: &Column<'_>, hints: &Hints) {
        let key = (self.theirs.schema.clone(), self.theirs.name.clone(), unquoted(column));
        let filler = match (is.generated, hints.fillers.get(&key)) {
            (Some(expression), _) => format!(" GENERATED ALWAYS AS {expression}"),
            (None, Some(value)) => format!(" DEFAULT {}::{}", literal(value), without_collation(is.kind)),
            (None, None) => String::new(),
        };
        self.run(Phase::Grow, &format!("ADD COLUMN IF NOT EXISTS {column} {}{filler}", is.kind));
    }

    fn alter_column(&mut self, column: &str, was: &Column<'_>, is: &Column<'_>) {
        if was.not_null && !is.not_null {
            self.run(Phase::Grow, &format!("ALTER COLUMN {column} DROP NOT NULL"));
        }
        let retyped = was.kind != is.kind;
        if retyped && was.default.is_some() {
            self.run(Phase::Settle, &format!("ALTER COLUMN {column} DROP DEFAULT"));
        }
        if retyped {
            let kind = is.kind;
            let plain = without_collation(kind);
            self.run(Phase::Settle, &format!("ALTER COLUMN {column} TYPE {kind} USING {column}::{plain}"));
        }
        match is.default {
            Some(default) if retyped || was.default != is.default => {
                self.run(Phase::Settle, &format!("ALTER COLUMN {column} SET DEFAULT {default}"));
            }
            None if !retyped && was.default.is_some() && is.generated.is_none() => {
                self.run(Phase::Settle, &format!("ALTER COLUMN {column} DROP DEFAULT"));
            }
            Some(_) | None => {}
        }
        if is.not_null && !was.not_null {
            self.run(Phase::Settle, &format!("ALTER COLUMN {column} SET NOT NULL"));
        }
    }

    fn set_storage(&mut self, old: &BTreeMap<&str, &str>, new: &BTreeMap<&str, &str>) {
        for key in old.keys().filter(|key| !new.contains_key(*key)) {
            self.run(Phase::Settle, &format!("RESET ({key})"));
        }
        for (key, value) in new.iter().filter(|(key, value)| old.get(*key) != Some(value)) {
            self.run(Phase::Settle, &format!("SET ({key}={value})"));
        }
    }

    fn further(&mut self, old: &[&str], new: &[&str]) {
        for statement in new.iter().filter(|statement| !old.contains(statement)) {
            self.statement(Phase::Settle, (*statement).to_owned());
        }
        let identity = |list: &[&str]| list.iter().any(|statement| statement.contains(" REPLICA IDENTITY "));
        if identity(old) && !identity(new) {
            self.run(Phase::Settle, "REPLICA IDENTITY DEFAULT");
        }
    }
}

fn parse(sql: &str) -> Option<Table<'_>> {
    let at = sql.find("TABLE ")? + "TABLE ".len();
    let (verb, rest) = (sql[..at].trim(), &sql[at..]);
    let name = leading_name(rest)?;
    let (items, rest) = split_closing(rest[name.len()..].strip_prefix(" (")?)?;
    let (definition, further) = split_word(rest, ";")?;
    let mut table = Table {
        verb,
        name,
        columns: BTreeMap::new(),
        constraints: BTreeMap::new(),
        nature: String::new(),
        storage: BTreeMap::new(),
        further: statements(further),
    };
    for item in split_list(items) {
        if let Some(named) = item.strip_prefix("CONSTRAINT ") {
            table.constraints.insert(leading_name(named)?, item);
        } else {
            let column = leading_name(item)?;
            table.columns.insert(column, parse_column(&item[column.len()..]));
        }
    }
    for line in definition.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.strip_prefix("WITH (").and_then(|options| options.strip_suffix(')')) {
            Some(options) => {
                table.storage = split_list(options).into_iter().filter_map(|o| o.split_once('=')).collect();
            }
            None => table.nature.push_str(line),
        }
    }
    Some(table)
}

fn parse_column(text: &str) -> Column<'_> {
    let text = text.trim();
    let (text, not_null) = text.strip_suffix(" NOT NULL").map_or((text, false), |text| (text, true));
    if let Some((kind, expression)) = split_word(text, " GENERATED ALWAYS AS ") {
        return Column { kind, default: None, generated: Some(expression), not_null };
    }
    match split_word(text, " DEFAULT ") {
        Some((kind, default)) => Column { kind, default: Some(default), generated: None, not_null },
        None => Column { kind: text, default: None, generated: None, not_null },
    }
}

fn without_collation(kind: &str) -> &str {
    split_word(kind, " COLLATE ").map_or(kind, |(plain, _)| plain)
}

fn unquoted(name: &str) -> String {
    let inner = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
    inner.map_or_else(|| name.to_owned(), |inner| inner.replace("\"\"", "\""))
}
