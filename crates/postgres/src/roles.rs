//! Makes the three roles of an application: its own, its reader, and the one that streams between regions.
//!
//! Compares before it changes. Passwords reach the server only as SCRAM verifiers (RFC 5802).

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use isles_model::config::DatabaseConfig;
use sha2::{Digest, Sha256};
use tokio_postgres::Client;

use crate::{
    error::{DatabaseError, Doing},
    link::{ident, literal},
};

/// The most SCRAM iterations accepted from a stored verifier when checking it; more would stall the agent.
const ITERATIONS_MAX: u32 = 1_000_000;

/// Creates the roles that are missing and sets the passwords that differ. The app's role starts without LOGIN.
pub(crate) async fn ensure(client: &Client, config: &DatabaseConfig) -> Result<(), DatabaseError> {
    ensure_role(client, &config.app_user, &config.app_password, "NOLOGIN").await?;
    ensure_role(client, &config.read_user, &config.read_password, "LOGIN").await?;
    ensure_role(client, &config.replication_user, &config.replication_password, "LOGIN REPLICATION").await?;
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

async fn ensure_role(
    client: &Client,
    name: &str,
    password: &str,
    attributes: &str,
) -> Result<(), DatabaseError> {
    let row = client
        .query_opt("SELECT rolpassword, rolreplication, rolsuper FROM pg_authid WHERE rolname = $1", &[&name])
        .await
        .doing("looking a role up")?;
    let verifier = || literal(&postgres_protocol::password::scram_sha_256(password.as_bytes()));
    let statement = match row {
        None => format!("CREATE ROLE {} {attributes} PASSWORD {}", ident(name), verifier()),
        Some(row) if row.get::<_, bool>(2) => {
            return Err(DatabaseError::Refused(format!(
                "role {name} is a superuser: no fence could hold it"
            )));
        }
        Some(row) => {
            let same = row.get::<_, Option<&str>>(0).is_some_and(|stored| is_password(stored, password));
            let replication = attributes.contains("REPLICATION");
            if same && (!replication || row.get::<_, bool>(1)) {
                return Ok(());
            }
            // Because an existing app role's LOGIN is the fence's business, it is left as it is.
            let attributes = if attributes == "NOLOGIN" { "" } else { attributes };
            format!("ALTER ROLE {} {attributes} PASSWORD {}", ident(name), verifier())
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

/// Whether a stored verifier (`SCRAM-SHA-256$iterations:salt$stored:server`; PostgreSQL, chapter 53.8
/// `pg_authid`) is of this password.
fn is_password(verifier: &str, password: &str) -> bool {
    let parts = || {
        let (head, keys) = verifier.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let stored = keys.split_once(':')?.0;
        let iterations = iterations.parse::<u32>().ok().filter(|n| (1..=ITERATIONS_MAX).contains(n))?;
        Some((iterations, STANDARD.decode(salt).ok()?, STANDARD.decode(stored).ok()?))
    };
    parts().is_some_and(|(iterations, salt, stored)| {
        let salted = salted_password(password.as_bytes(), &salt, iterations);
        let client_key = mac(&salted, &[b"Client Key"]);
        Sha256::digest(client_key).as_slice() == stored
    })
}

/// `Hi` of RFC 5802 section 2.2.
fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut block = mac(password, &[salt, &[0, 0, 0, 1]]);
    let mut sum = block;
    for _ in 1..iterations {
        block = mac(password, &[&block]);
        for (to, from) in sum.iter_mut().zip(block) {
            *to ^= from;
        }
    }
    sum
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_knows_its_own_password_only() {
        let verifier = postgres_protocol::password::scram_sha_256(b"correct horse");
        assert!(is_password(&verifier, "correct horse"));
        assert!(!is_password(&verifier, "correct horsf"));
        assert!(!is_password("md5abcdef", "correct horse"));
        assert!(!is_password("SCRAM-SHA-256$99999999:AA==$AA==:AA==", "x"));
    }
}
