//! Makes the three roles of an application: its own, its reader, and the one that streams between regions.
//!
//! Compares before it changes. Passwords reach the server only as SCRAM verifiers (RFC 5802).

use isles_model::config::DatabaseConfig;
use tokio_postgres::Client;

use crate::{
    error::{DatabaseError, Doing},
    link::{ident, literal},
    verifier::Verifier,
};

/// Creates the roles that are missing and sets the passwords that differ. The app's role starts without LOGIN and
/// without a password: both are the fence's business, and what the app calls its password is the gate's.
pub(crate) async fn ensure(client: &Client, config: &DatabaseConfig) -> Result<(), DatabaseError> {
    ensure_role(client, &config.app_user, None, "NOLOGIN").await?;
    ensure_role(client, &config.read_user, Some(&config.read_password), "LOGIN").await?;
    let replication = Some(config.replication_password.as_str());
    ensure_role(client, &config.replication_user, replication, "LOGIN REPLICATION").await?;
    for reader in [&config.read_user, &config.replication_user] {
        let member: bool = client
            .query_one("SELECT pg_has_role($1::text::name, 'pg_read_all_data', 'member')", &[reader])
            .await
            .doing("checking a role's grants")?
            .get(0);
        if !member {
            let grant = format!("GRANT pg_read_all_data TO {}", ident(reader));
            client.batch_execute(&grant).await.doing("granting pg_read_all_data")?;
        }
    }
    ensure_read_only(client, &config.read_user).await
}

/// Whether one of them is a superuser, whom no fence could hold.
pub(crate) async fn any_superuser(client: &Client, config: &DatabaseConfig) -> Result<bool, DatabaseError> {
    let names = [&config.app_user, &config.read_user, &config.replication_user];
    let row = client
        .query_one(
            "SELECT coalesce(bool_or(rolsuper), false) FROM pg_roles WHERE rolname = ANY ($1)",
            &[&&names[..]],
        )
        .await
        .doing("looking the roles up")?;
    Ok(row.get(0))
}

async fn ensure_role(
    client: &Client,
    name: &str,
    password: Option<&str>,
    attributes: &str,
) -> Result<(), DatabaseError> {
    let row = client
        .query_opt("SELECT rolpassword, rolreplication, rolsuper FROM pg_authid WHERE rolname = $1", &[&name])
        .await
        .doing("looking a role up")?;
    let verifier = |password| literal(&Verifier::of_password(password).to_string());
    let statement = match (row, password) {
        (None, None) => format!("CREATE ROLE {} {attributes}", ident(name)),
        (None, Some(password)) => {
            format!("CREATE ROLE {} {attributes} PASSWORD {}", ident(name), verifier(password))
        }
        (Some(row), _) if row.get::<_, bool>(2) => {
            return Err(DatabaseError::Refused(format!(
                "role {name} is a superuser: no fence could hold it"
            )));
        }
        (Some(_), None) => return Ok(()),
        (Some(row), Some(password)) => {
            let stored = row.get::<_, Option<&str>>(0).and_then(Verifier::parse);
            let replication = attributes.contains("REPLICATION");
            if stored.is_some_and(|stored| stored.is_of(password)) && (!replication || row.get::<_, bool>(1))
            {
                return Ok(());
            }
            format!("ALTER ROLE {} {attributes} PASSWORD {}", ident(name), verifier(password))
        }
    };
    client.batch_execute(&statement).await.doing("setting a role up")
}

async fn ensure_read_only(client: &Client, reader: &str) -> Result<(), DatabaseError> {
    let set: bool = client
        .query_one(
            "SELECT coalesce('default_transaction_read_only=on' = ANY (s.setconfig), false)
             FROM pg_roles r LEFT JOIN pg_db_role_setting s ON s.setrole = r.oid AND s.setdatabase = 0
             WHERE r.rolname = $1",
            &[&reader],
        )
        .await
        .doing("checking the read role's settings")?
        .get(0);
    if set {
        return Ok(());
    }
    let statement = format!("ALTER ROLE {} SET default_transaction_read_only = on", ident(reader));
    client.batch_execute(&statement).await.doing("making the read role read-only")
}
