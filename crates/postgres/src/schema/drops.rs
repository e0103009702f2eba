//! Says how an entry of a dump is taken away again.

use super::{
    dump::Entry,
    text::{leading_name, name_after, statements},
};
use crate::link::ident;

/// The statement that removes what an entry made; `None` where there is none that is safe.
pub(crate) fn statement(entry: &Entry) -> Option<String> {
    let sql = entry.sql.as_str();
    let plain = || format!("{}.{}", ident(&entry.schema), ident(&entry.name));
    Some(match entry.kind.as_str() {
        "TABLE" => format!("DROP TABLE IF EXISTS {} CASCADE", plain()),
        "VIEW" | "MATERIALIZED VIEW" => format!("DROP {} IF EXISTS {} CASCADE", entry.kind, plain()),
        "INDEX" | "STATISTICS" => format!("DROP {} IF EXISTS {}", entry.kind, plain()),
        // Without CASCADE: columns of these types would go too, with their values.
        "TYPE" | "DOMAIN" | "COLLATION" => format!("DROP {} IF EXISTS {}", entry.kind, plain()),
        "SCHEMA" | "EXTENSION" => format!("DROP {} IF EXISTS {}", entry.kind, ident(&entry.name)),
        "EVENT TRIGGER" => format!("DROP EVENT TRIGGER IF EXISTS {}", ident(&entry.name)),
        "FUNCTION" | "PROCEDURE" | "AGGREGATE" => {
            let (_, rest) = sql.rsplit_once(&format!("\nALTER {} ", entry.kind))?;
            format!("DROP {} IF EXISTS {} CASCADE", entry.kind, rest.rsplit_once(" OWNER TO ")?.0)
        }
        "SEQUENCE" if sql.starts_with("CREATE ") => format!("DROP SEQUENCE IF EXISTS {} CASCADE", plain()),
        "SEQUENCE" => {
            let column = name_after(sql, " ALTER COLUMN ")?;
            format!(
                "ALTER TABLE IF EXISTS {} ALTER COLUMN {column} DROP IDENTITY IF EXISTS",
                altered_table(sql)?
            )
        }
        "SEQUENCE OWNED BY" => {
            format!(
                "ALTER SEQUENCE IF EXISTS {} OWNED BY NONE",
                leading_name(sql.strip_prefix("ALTER SEQUENCE ")?)?
            )
        }
        "CONSTRAINT" | "FK CONSTRAINT" | "CHECK CONSTRAINT" if sql.starts_with("ALTER TABLE ") => {
            let constraint = name_after(sql, "ADD CONSTRAINT ")?;
            format!(
                "ALTER TABLE IF EXISTS {} DROP CONSTRAINT IF EXISTS {constraint} CASCADE",
                altered_table(sql)?
            )
        }
        "DEFAULT" => {
            let column = name_after(sql, " ALTER COLUMN ")?;
            format!("ALTER TABLE IF EXISTS ONLY {} ALTER COLUMN {column} DROP DEFAULT", altered_table(sql)?)
        }
        "TRIGGER" => {
            format!("DROP TRIGGER IF EXISTS {} ON {}", made(sql, " TRIGGER ")?, name_after(sql, " ON ")?)
        }
        "POLICY" => {
            format!("DROP POLICY IF EXISTS {} ON {}", made(sql, " POLICY ")?, name_after(sql, " ON ")?)
        }
        "RULE" => {
            let (_, event) = sql.split_once(" AS\n    ON ").or_else(|| sql.split_once(" AS ON "))?;
            format!("DROP RULE IF EXISTS {} ON {}", made(sql, " RULE ")?, name_after(event, " TO ")?)
        }
        "ROW SECURITY" => format!("ALTER TABLE IF EXISTS {} DISABLE ROW LEVEL SECURITY", altered_table(sql)?),
        "TABLE ATTACH" => {
            let part = name_after(sql, " ATTACH PARTITION ")?;
            format!("ALTER TABLE IF EXISTS {} DETACH PARTITION {part}", altered_table(sql)?)
        }
        "COMMENT" => format!("{} IS NULL", sql.split_once(" IS '")?.0),
        "ACL" | "DEFAULT ACL" => inverse_grants(sql)?,
        _ => return None,
    })
}

/// Whether an entry needs no statement of its own to go: it goes with its table or index.
pub(crate) fn goes_with_another(entry: &Entry) -> bool {
    entry.kind == "INDEX ATTACH"
}

/// The table, view or type that an entry makes or belongs to, quoted as the dump quotes it.
pub(crate) fn relation(entry: &Entry) -> Option<String> {
    let sql = entry.sql.as_str();
    let name = match entry.kind.as_str() {
        "TABLE" => name_after(sql, "TABLE "),
        "TYPE" => name_after(sql, "CREATE TYPE "),
        "INDEX" => name_after(sql, " ON ONLY ").or_else(|| name_after(sql, " ON ")),
        "TRIGGER" | "POLICY" => name_after(sql, " ON "),
        "COMMENT" => name_after(sql, "COMMENT ON TABLE ").or_else(|| {
            let column = name_after(sql, "COMMENT ON COLUMN ")?;
            column.rsplit_once('.').map(|(table, _)| table)
        }),
        "ACL" => name_after(sql, " ON TABLE "),
        "TABLE ATTACH" => name_after(sql, " ATTACH PARTITION "),
        "SEQUENCE OWNED BY" => {
            let column = name_after(sql, " OWNED BY ")?;
            column.rsplit_once('.').map(|(table, _)| table)
        }
        _ => altered_table(sql),
    };
    name.map(ToOwned::to_owned)
}

/// The table that an `ALTER TABLE` is about.
pub(crate) fn altered_table(sql: &str) -> Option<&str> {
    let rest = sql.strip_prefix("ALTER TABLE ")?;
    leading_name(rest.strip_prefix("ONLY ").unwrap_or(rest))
}

fn made<'a>(sql: &'a str, kind: &str) -> Option<&'a str> {
    name_after(sql, kind)
}

/// Takes back what was granted and grants again what was taken from the built-in default.
fn inverse_grants(sql: &str) -> Option<String> {
    let mut inverse = Vec::new();
    for statement in statements(sql) {
        let turned = if let Some((head, rest)) = split_verb(statement, "GRANT ") {
            let (what, to) = rest.rsplit_once(" TO ")?;
            let to = to.trim_end_matches(" WITH GRANT OPTION");
            format!("{head}REVOKE ALL{} FROM {to}", &what[what.find(" ON ")?..])
        } else {
            let (head, rest) = split_verb(statement, "REVOKE ")?;
            let (what, from) = rest.rsplit_once(" FROM ")?;
            format!("{head}GRANT {what} TO {from}")
        };
        inverse.push(turned);
    }
    inverse.reverse();
    Some(inverse.join(";\n"))
}

/// Splits at the verb of a plain or a default grant.
fn split_verb<'a>(statement: &'a str, verb: &str) -> Option<(&'a str, &'a str)> {
    let at = if statement.starts_with(verb) {
        0
    } else if statement.starts_with("ALTER DEFAULT PRIVILEGES ") {
        statement.find(&format!(" {verb}"))? + 1
    } else {
        return None;
    };
    Some((&statement[..at], &statement[at + verb.len()..]))
}
