//! Opens psql on one region's database: to look, or as the superuser.

use std::{os::unix::process::CommandExt as _, process::Command};

use isles_lab::{control::RegionState, postgres::Programs};
use isles_model::{AgentConfig, RegionName};

use crate::{
    cli::Global,
    outcome::{Exit, Failure, Outcome, say},
    running,
};

/// The arguments of `isles psql`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The region.
    region: RegionName,
    /// As the superuser, past the gate. What it writes to a replica is lost or breaks replication.
    #[arg(long)]
    admin: bool,
    /// As the app, through the write gate, which leads to the writer wherever it is.
    #[arg(long, conflicts_with = "admin")]
    write: bool,
    /// Print the connection URL instead. It holds a password.
    #[arg(long, conflicts_with = "admin")]
    url: bool,
    /// Arguments for psql.
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Becomes psql.
pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    running::block_on(async {
        let (_, state) = running::lab(global).await?;
        let region = state.regions.iter().find(|region| region.region == args.region).ok_or_else(|| {
            let names: Vec<&str> = state.regions.iter().map(|region| region.region.as_str()).collect();
            Failure::usage(
                format!("the lab has no region {}", args.region),
                format!("it has: {}", names.join(", ")),
            )
        })?;
        let url = if args.admin { admin(region) } else { through_gate(region, args.write)? };
        if args.url {
            say(&if global.json { serde_json::json!({ "url": url }).to_string() } else { url });
            return Ok(Exit::Done);
        }
        Err(become_psql(&url, &args.rest))
    })
}

fn admin(region: &RegionState) -> String {
    let database = &region.database;
    let host = database.socket_dir.display().to_string().replace('/', "%2F");
    format!("postgres://{}@{host}:{}/{}", database.admin_user, database.port, database.name)
}

fn through_gate(region: &RegionState, write: bool) -> Result<String, Failure> {
    let read = std::fs::read(&region.config).map_err(Failure::new)?;
    let config: AgentConfig = serde_json::from_slice(&read).map_err(Failure::new)?;
    let database = &config.database;
    let (user, password, gate) = if write {
        (&database.app_user, &database.app_password, region.write_gate)
    } else {
        (&database.read_user, &database.read_password, region.read_gate)
    };
    Ok(format!("postgres://{user}:{password}@{gate}/{}", database.name))
}

/// Because a password in an argument could be read by every user, psql gets the URL's parts in its environment.
fn become_psql(url: &str, rest: &[String]) -> Failure {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program =
        Programs::find(&path, None).map_or_else(|_| "psql".into(), |programs| programs.program("psql"));
    let (without, password) = split_password(url);
    let mut command = Command::new(&program);
    command.arg(without).args(rest);
    if let Some(password) = password {
        command.env("PGPASSWORD", password);
    }
    let error = command.exec();
    Failure::with_help(
        error,
        format!("psql was expected at {}; `isles doctor` says how to get it", program.display()),
    )
}

/// A URL without its password, and the password.
fn split_password(url: &str) -> (String, Option<&str>) {
    let parts = url.split_once("://").and_then(|(scheme, rest)| {
        let (who, place) = rest.split_once('@')?;
        let (user, password) = who.split_once(':')?;
        Some((format!("{scheme}://{user}@{place}"), password))
    });
    parts.map_or_else(|| (url.to_owned(), None), |(without, password)| (without, Some(password)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_taken_out_of_the_url() {
        let (url, password) = split_password("postgres://shop:s3cret@127.0.0.1:5501/shop");
        assert_eq!((url.as_str(), password), ("postgres://shop@127.0.0.1:5501/shop", Some("s3cret")));
        let (url, password) = split_password("postgres://isles@%2Ftmp%2Fs:5432/shop");
        assert_eq!((url.as_str(), password), ("postgres://isles@%2Ftmp%2Fs:5432/shop", None));
    }
}
