//! Changes the operator's orders in the lease store, and writes down who did it, in one transaction.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use isles_model::{AuditEntry, Epoch, OrderRequest, OrdersAnswer, RegionName};
use serde_json::json;

use super::etcd::{Etcd, EtcdError, Range, Stored, Txn};

/// Audit entries kept; each new one takes the place of the oldest.
pub const AUDIT_ENTRIES_MAX: u64 = 1_000;
/// How often a change is tried again when somebody else changed the orders meanwhile.
const TRIES_MAX: u32 = 5;

/// Why the orders were not changed.
#[derive(Debug, thiserror::Error)]
pub enum OrdersError {
    /// The store did not answer, or not usefully. The change may have been made all the same: ask again.
    #[error("the lease store did not take the order")]
    Store(#[from] EtcdError),
    /// What is stored is of another version of Isles.
    #[error("the standing orders in the lease store are not understood")]
    NotUnderstood,
    /// Others kept changing them.
    #[error("the orders were changed by others {TRIES_MAX} times in a row")]
    Busy,
}

impl Etcd {
    /// Makes a change of the orders if it changes anything, and writes it down with its author.
    ///
    /// # Errors
    /// When the store does not take it, or others are faster again and again.
    pub async fn order(&self, request: &OrderRequest, by: &RegionName) -> Result<OrdersAnswer, OrdersError> {
        for _ in 0..TRIES_MAX {
            let Stored { lease, orders } = self.read().await?;
            let seen = orders.ok_or(OrdersError::NotUnderstood)?;
            let epoch = lease.key.map_or(Epoch::NONE, |key| key.epoch);
            let Some(after) = seen.orders.after(&request.change, epoch) else {
                return Ok(OrdersAnswer { orders: seen.orders, entry: None });
            };
            let entry = AuditEntry {
                // Because the key is never deleted, its number of changes counts the entries too.
                number: seen.changes + 1,
                at_ms: wall_ms(),
                who: request.who.clone(),
                why: request.why.clone(),
                change: request.change.clone(),
                epoch,
                by: by.clone(),
            };
            let value = BASE64.encode(serde_json::to_vec(&after).map_err(EtcdError::from)?);
            let record = BASE64.encode(serde_json::to_vec(&entry).map_err(EtcdError::from)?);
            let mut changes = vec![
                json!({ "request_put": { "key": self.keys.orders, "value": value } }),
                json!({ "request_put": { "key": self.audit_key(entry.number), "value": record } }),
            ];
            if let Some(oldest_kept) = (entry.number + 1).checked_sub(AUDIT_ENTRIES_MAX).filter(|n| *n > 0) {
                changes.push(json!({ "request_delete_range": {
                    "key": self.audit_key(0), "range_end": self.audit_key(oldest_kept),
                } }));
            }
            let body = json!({
                "compare": [{ "key": self.keys.orders, "target": "MOD", "result": "EQUAL",
                              "mod_revision": seen.revision.0.to_string() }],
                "success": changes,
            });
            let answer: Txn = self.call("/v3/kv/txn", &body).await?;
            if answer.succeeded {
                return Ok(OrdersAnswer { orders: after, entry: Some(entry.number) });
            }
        }
        Err(OrdersError::Busy)
    }

    /// The newest audit entries, newest first.
    ///
    /// # Errors
    /// When no member answers, or an entry is not understood.
    pub async fn audit(&self, at_most: u32) -> Result<Vec<AuditEntry>, EtcdError> {
        let body = json!({
            "key": self.audit_key(0), "range_end": self.audit_key(u64::MAX),
            "limit": at_most.to_string(), "sort_order": "DESCEND", "sort_target": "KEY",
        });
        let answer: Range = self.call("/v3/kv/range", &body).await?;
        answer.kvs.iter().map(super::etcd::Pair::value).collect()
    }

    /// Numbers are padded, so that names sort as numbers do.
    fn audit_key(&self, number: u64) -> String {
        BASE64.encode(format!("{}{number:020}", self.keys.audit))
    }
}

fn wall_ms() -> u64 {
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}
