//! Reads a database's schema with its own `pg_dump`, as a list of entries.
//!
//! `pg_dump` knows every kind of object of its server and the order in which they can be created; each of its
//! entries opens with a comment that names it. Nothing else of its format is relied on.

use std::{process::Stdio, time::Duration};

use isles_model::config::DatabaseConfig;
use tokio::{io::AsyncReadExt, process::Command};

use crate::{
    bookkeeping,
    error::{DatabaseError, within},
};

/// How long one dump may take: `pg_dump` asks for each view and function in a round trip of its own.
const DUMP_MAX: Duration = Duration::from_secs(120);
/// The largest schema text read, in bytes; a larger one is refused.
const SCHEMA_BYTES_MAX: u64 = 64 << 20;
/// How much of a complaint is kept, in bytes.
const COMPLAINT_BYTES_MAX: u64 = 8 << 10;

/// One object of a schema, as `pg_dump` writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What it is: `TABLE`, `INDEX`, `FK CONSTRAINT`, …
    pub(crate) kind: String,
    /// Its schema; `-` where it has none.
    pub(crate) schema: String,
    /// Its name, for some kinds behind its table's: `orders orders_pkey`.
    pub(crate) name: String,
    /// The statements that make it.
    pub(crate) sql: String,
}

/// Where to dump from.
#[derive(Debug, Clone)]
pub(crate) enum Source<'a> {
    /// The own database, over its socket.
    Own,
    /// A peer's, over TCP: whose, and where.
    Peer(&'a str, std::net::SocketAddr),
}

/// Runs `pg_dump` and splits what it says.
pub(crate) async fn read(config: &DatabaseConfig, source: Source<'_>) -> Result<Vec<Entry>, DatabaseError> {
    Ok(split(&text(config, source).await?))
}

/// Runs `pg_dump` and gives what it says.
pub(crate) async fn text(config: &DatabaseConfig, source: Source<'_>) -> Result<String, DatabaseError> {
    within(DUMP_MAX, "reading a schema with pg_dump", dump(config, &source)).await
}

async fn dump(config: &DatabaseConfig, source: &Source<'_>) -> Result<String, DatabaseError> {
    let mut command = Command::new(&config.pg_dump);
    command
        .args(["--schema-only", "--no-publications", "--no-subscriptions", "--no-security-labels"])
        .args([
            "--no-tablespaces",
            "--no-password",
            "--lock-wait-timeout=5s",
            "--exclude-schema",
            bookkeeping::SCHEMA,
        ])
        .env_clear()
        .env("PGAPPNAME", "isles schema")
        .env("PGCONNECT_TIMEOUT", "5")
        .env("PGCLIENTENCODING", "UTF8")
        .env("PGDATABASE", &config.name)
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let whom = match source {
        Source::Own => {
            command
                .env("PGHOST", &config.socket_dir)
                .env("PGPORT", config.port.to_string())
                .env("PGUSER", &config.admin_user);
            "the own database"
        }
        Source::Peer(region, address) => {
            command
                .env("PGHOST", address.ip().to_string())
                .env("PGPORT", address.port().to_string())
                .env("PGUSER", &config.replication_user)
                .env("PGPASSWORD", &config.replication_password);
            region
        }
    };
    let failed = |because: String| DatabaseError::Dump { whom: whom.to_owned(), because };
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let (stdout, stderr) =
        (child.stdout.take().expect("piped above"), child.stderr.take().expect("piped above"));
    let (mut text, mut complaint) = (String::new(), String::new());
    let (mut bounded_out, mut bounded_err) =
        (stdout.take(SCHEMA_BYTES_MAX + 1), stderr.take(COMPLAINT_BYTES_MAX));
    let (read, _) =
        tokio::join!(bounded_out.read_to_string(&mut text), bounded_err.read_to_string(&mut complaint));
    read.map_err(|error| failed(error.to_string()))?;
    if text.len() as u64 > SCHEMA_BYTES_MAX {
        return Err(failed(format!("it is larger than {SCHEMA_BYTES_MAX} bytes")));
    }
    let status = child.wait().await.map_err(|error| failed(error.to_string()))?;
    if status.success() {
        Ok(text)
    } else {
        Err(failed(complaint.lines().next().unwrap_or("it said nothing").to_owned()))
    }
}

/// Cuts a dump into its entries.
pub(crate) fn split(text: &str) -> Vec<Entry> {
    let lines: Vec<&str> = text.lines().collect();
    let starts: Vec<(usize, Entry)> = lines
        .windows(3)
        .enumerate()
        .filter(|(_, window)| window[0] == "--" && window[2] == "--")
        .filter_map(|(at, window)| Some((at, header(window[1])?)))
        .collect();
    let ends = starts.iter().skip(1).map(|(at, _)| *at).chain([lines.len()]).collect::<Vec<_>>();
    starts
        .into_iter()
        .zip(ends)
        .map(|((start, entry), end)| Entry { sql: body(&lines[start + 3..end]), ..entry })
        .filter(|entry| !entry.sql.is_empty())
        .collect()
}

/// Parses `-- Name: orders; Type: TABLE; Schema: public; Owner: shop`, from its end: a name may hold anything.
fn header(line: &str) -> Option<Entry> {
    let rest = line.strip_prefix("-- Name: ")?;
    let (rest, _owner) = rest.rsplit_once("; Owner: ")?;
    let (rest, schema) = rest.rsplit_once("; Schema: ")?;
    let (name, kind) = rest.rsplit_once("; Type: ")?;
    Some(Entry { kind: kind.into(), schema: schema.into(), name: name.into(), sql: String::new() })
}

/// An entry's statements without what `pg_dump` says between entries.
fn body(lines: &[&str]) -> String {
    let between = |line: &&str| {
        line.is_empty()
            || line.starts_with("--")
            || line.starts_with("SET default_table")
            || line.starts_with("\\restrict ")
            || line.starts_with("\\unrestrict ")
    };
    let kept = lines.len() - lines.iter().rev().take_while(|line| between(line)).count();
    let first = lines[..kept].iter().take_while(|line| between(line)).count();
    lines[first..kept].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = r"--
-- PostgreSQL database dump
--

\restrict abc

SET statement_timeout = 0;

--
-- Name: mood; Type: TYPE; Schema: public; Owner: app
--

CREATE TYPE public.mood AS ENUM (
    'sad',
    'glad'
);


ALTER TYPE public.mood OWNER TO app;

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: odd; Type: name; Type: TABLE; Schema: public; Owner: app
--

CREATE TABLE public.t (
    id integer
);


--
-- PostgreSQL database dump complete
--

\unrestrict abc
";

    #[test]
    fn a_dump_is_cut_at_its_headers_and_nothing_between_them_is_kept() {
        let entries = split(DUMP);
        assert_eq!(entries.len(), 2);
        assert_eq!((entries[0].kind.as_str(), entries[0].name.as_str()), ("TYPE", "mood"));
        assert!(entries[0].sql.starts_with("CREATE TYPE") && entries[0].sql.ends_with("OWNER TO app;"));
        assert_eq!(entries[1].name, "odd; Type: name");
        assert_eq!(entries[1].sql, "CREATE TABLE public.t (\n    id integer\n);");
    }
}
