//! Names the replication slots that followers keep on a writer, and clears away those that nobody will use again.
//!
//! A slot that nobody reads keeps the writer's log from being recycled. The server's `max_slot_wal_keep_size` is
//! the hard bound; this is the tidy one.

use std::{collections::BTreeSet, time::Duration};

use isles_model::{Epoch, RegionName};
use tokio_postgres::Client;
use tracing::{debug, info};

use crate::{
    error::{DatabaseError, Doing, within},
    link::{Link, Purpose},
    run::World,
};

/// Bytes of a region's name that go into a slot's name as they are; longer names end in a hash.
/// `isles_` + 35 + `_e` + 20 digits is 63, the longest name PostgreSQL keeps.
const LABEL_BYTES_MAX: usize = 35;
/// How long a slot's reader may take to let go of it.
const RELEASE_MAX: Duration = Duration::from_secs(3);

/// How long a promotion may wait for the slots it reserves: they wait for open transactions.
const RESERVE_MAX: Duration = Duration::from_millis(400);
/// The same within the server, which takes back a slot that is not ready.
const RESERVE_LIMIT: &str = "SET statement_timeout = '300ms'";

/// The slot by which `region` follows a writer it began to follow in `epoch`.
pub(crate) fn name(region: &RegionName, epoch: Epoch) -> String {
    format!("{}{epoch}", name_prefix(region))
}

/// What all slots of a region's begin with.
pub(crate) fn name_prefix(region: &RegionName) -> String {
    format!("isles_{}_e", label(region))
}

/// A region's name in the letters that slots allow; two regions never share one.
pub(crate) fn label(region: &RegionName) -> String {
    let plain = region.as_str().replace('-', "_");
    if plain.len() <= LABEL_BYTES_MAX {
        return plain;
    }
    let hash = plain.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{}_{hash:016x}", &plain[..LABEL_BYTES_MAX - 17])
}

/// The region label and the epoch in a slot's name; `None` for a slot that is not ours.
fn parse(slot: &str) -> Option<(&str, Epoch)> {
    let (label, epoch) = slot.strip_prefix("isles_")?.rsplit_once("_e")?;
    Some((label, Epoch(epoch.parse().ok()?)))
}

/// Which of a writer's idle slots nobody will use again: those of regions that are no peers, and all but the
/// newest of each peer.
fn stale<'a>(slots: &'a [String], peers: &BTreeSet<String>) -> Vec<&'a str> {
    let newest =
        |label: &str| slots.iter().filter_map(|s| parse(s)).filter(|(l, _)| *l == label).map(|s| s.1).max();
    slots
        .iter()
        .filter(|slot| {
            parse(slot).is_some_and(|(label, epoch)| !peers.contains(label) || newest(label) > Some(epoch))
        })
        .map(String::as_str)
        .collect()
}

/// On a database that is being promoted: makes a slot for every peer, from which it can go on without a copy if
/// it holds just what this region holds. Whatever cannot be made in time is left out: that peer copies.
pub(crate) async fn reserve(world: &World, epoch: Epoch) {
    let made = world.config.peers.keys().map(|peer| async move {
        let slot = name(peer, epoch);
        let make = async {
            let own = Link::own(&world.config.database, Purpose::Reconcile).await?;
            own.batch("reserving a slot", RESERVE_LIMIT).await?;
            drop_slot(&own, &slot).await?;
            own.execute("SELECT pg_create_logical_replication_slot($1::text::name, 'pgoutput')", &[&slot])
                .await
                .doing("reserving a slot")
        };
        if let Err(error) = within(RESERVE_MAX, "reserving a slot", make).await {
            debug!(%peer, error = %error, "No slot is reserved: this peer will copy.");
        }
    });
    futures_util::future::join_all(made).await;
}

/// Whether a slot is reserved on a writer and nobody has read from it.
pub(crate) async fn is_reserved(writer: &Client, slot: &str) -> Result<bool, DatabaseError> {
    let row = writer
        .query_opt(
            "SELECT NOT active AND wal_status <> 'lost' FROM pg_replication_slots WHERE slot_name = $1::text::name",
            &[&slot],
        )
        .await
        .doing("looking for a reserved slot")?;
    Ok(row.is_some_and(|row| row.get(0)))
}

/// On a writer: drops the slots that nobody will use again.
pub(crate) async fn tidy<'a>(
    client: &Client,
    peers: impl Iterator<Item = &'a RegionName>,
) -> Result<(), DatabaseError> {
    let peers: BTreeSet<String> = peers.map(label).collect();
    let rows = client
        .query(
            "SELECT slot_name::text, active FROM pg_replication_slots
             WHERE database = current_database() AND slot_name ^@ 'isles_'",
            &[],
        )
        .await
        .doing("listing replication slots")?;
    let all: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let active: BTreeSet<&str> = rows.iter().filter(|row| row.get(1)).map(|row| row.get(0)).collect();
    for slot in stale(&all, &peers) {
        if !active.contains(slot) {
            drop_slot(client, slot).await?;
            info!(slot, "Dropped a replication slot that nobody uses any more.");
        }
    }
    Ok(())
}

/// Drops a slot if it is there, ending its reader first. Works for a superuser and, over TCP, for the role that
/// owns the reader.
pub(crate) async fn drop_slot(client: &Client, slot: &str) -> Result<(), DatabaseError> {
    let attempt = async {
        loop {
            let Some(row) = client
                .query_opt(
                    "SELECT pg_terminate_backend(active_pid) IS NOT NULL FROM pg_replication_slots
                     WHERE slot_name = $1::text::name",
                    &[&slot],
                )
                .await
                .doing("releasing a replication slot")?
            else {
                return Ok(());
            };
            let busy: bool = row.get(0);
            if !busy {
                let dropped =
                    client.execute("SELECT pg_drop_replication_slot($1::text::name)", &[&slot]).await;
                match dropped {
                    Ok(_) => return Ok(()),
                    Err(error) if error.code() == Some(&tokio_postgres::error::SqlState::OBJECT_IN_USE) => {}
                    Err(source) => {
                        return Err(DatabaseError::Query { doing: "dropping a replication slot", source });
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(RELEASE_MAX, "dropping a replication slot", attempt).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str) -> RegionName {
        name.parse().unwrap()
    }

    #[test]
    fn slot_names_fit_and_tell_regions_apart() {
        assert_eq!(name(&region("us-east-1"), Epoch(7)), "isles_us_east_1_e7");
        let long = "a".repeat(63);
        let slot = name(&region(&long), Epoch(u64::MAX));
        assert!(slot.len() <= 63, "{}", slot.len());
        assert_ne!(slot, name(&region(&format!("{}b", &long[..62])), Epoch(u64::MAX)));
        assert_eq!(parse("isles_us_east_1_e7"), Some(("us_east_1", Epoch(7))));
        assert_eq!(parse("somebody_elses"), None);
    }

    #[test]
    fn only_slots_that_nobody_will_use_again_are_stale() {
        let slots: Vec<String> = ["isles_a_e1", "isles_a_e3", "isles_b_e2", "isles_gone_e3", "pg_1_sync_2_3"]
            .map(Into::into)
            .into();
        let peers = ["a", "b"].map(String::from).into();
        assert_eq!(stale(&slots, &peers), ["isles_a_e1", "isles_gone_e3"]);
    }
}
