//! Keeps the leader of the lease store away from the region that writes.
//!
//! A lost region that had both would cost an election of the store before anyone could claim the right to write.

use std::{sync::Arc, time::Duration};

use isles_model::{Plan, RegionName, Writes};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Chain, Etcd, EtcdError};

/// How often the leader's place is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// While this region writes and its own member leads the store, hands the lead to the nearest other member.
/// `nearest` orders the other regions; members carry their region's name.
pub async fn keep_leader_away(
    store: Arc<Etcd>,
    region: RegionName,
    nearest: Vec<RegionName>,
    plans: watch::Receiver<Plan>,
    stop: CancellationToken,
) {
    let mut turn = tokio::time::interval(LOOK_EVERY);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.is_cancelled() {
        turn.tick().await;
        if !matches!(plans.borrow().writes, Writes::Here { .. }) {
            continue;
        }
        match move_away(&store, &region, &nearest).await {
            Ok(Some(to)) => info!(%region, %to, "Moved the lease store's leader off the writer's region."),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "Could not look after the lease store's leader.");
            }
        }
    }
}

impl Etcd {
    /// Whether the member that answers leads the store.
    ///
    /// # Errors
    /// When no member answers.
    pub async fn leads(&self) -> Result<bool, EtcdError> {
        let status: Status = self.call("/v3/maintenance/status", &json!({})).await?;
        Ok(status.leader == status.header.member_id)
    }
}

async fn move_away(
    store: &Etcd,
    region: &RegionName,
    nearest: &[RegionName],
) -> Result<Option<String>, EtcdError> {
    let status: Status = store.call("/v3/maintenance/status", &json!({})).await?;
    let members: Members = store.call("/v3/cluster/member/list", &json!({})).await?;
    // An answer from another region's member (ours is down) says nothing of our own.
    let ours = |member: &&Member| member.id == status.header.member_id && member.name == region.as_str();
    if status.leader != status.header.member_id || !members.members.iter().any(|member| ours(&member)) {
        return Ok(None);
    }
    let rank = |member: &Member| nearest.iter().position(|name| name.as_str() == member.name);
    let mut others: Vec<&Member> = members.members.iter().filter(|member| !ours(member)).collect();
    others.sort_by_key(|member| rank(member).unwrap_or(usize::MAX));
    let mut refused = None;
    for other in others {
        let moved = store
            .call::<serde_json::Value>(
                "/v3/maintenance/transfer-leadership",
                &json!({ "targetID": other.id }),
            )
            .await;
        match moved {
            Ok(_) => return Ok(Some(other.name.clone())),
            Err(error) => refused = Some(error),
        }
    }
    refused.map_or(Ok(None), Err)
}

#[derive(Deserialize)]
struct Status {
    header: Header,
    #[serde(default)]
    leader: String,
}

#[derive(Deserialize)]
struct Header {
    member_id: String,
}

#[derive(Deserialize)]
struct Members {
    members: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    name: String,
}
