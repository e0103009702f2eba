//! The lease store's leader leaves the region that writes, in a real cluster of three.

#![allow(clippy::unwrap_used)] // Because a test that cannot go on has to fail.

mod etcd;

use std::{sync::Arc, time::Duration};

use etcd::{Member, PATIENCE};
use isles_agent::lease::keep_leader_away;
use isles_model::{Epoch, Moment, Plan, RegionName, Writes};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const REGIONS: [&str; 3] = ["eu-west-1", "us-east-1", "ap-southeast-1"];

/// Whether the member itself leads.
async fn leads(member: &Member) -> bool {
    member.store().leads().await.unwrap_or(false)
}

#[tokio::test]
async fn the_leader_moves_to_the_nearest_other_region_while_its_own_writes() {
    let members = Member::start_cluster(&REGIONS).await;
    let leader = tokio::time::timeout(PATIENCE, async {
        loop {
            for (index, member) in members.iter().enumerate() {
                if leads(member).await {
                    return index;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    let region: RegionName = REGIONS[leader].parse().unwrap();
    let others: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
    let nearest: Vec<RegionName> = others.iter().map(|index| REGIONS[*index].parse().unwrap()).collect();
    let writes = Writes::Here { epoch: Epoch(1), until: Moment::ZERO };
    let (_plans, plan) = watch::channel(Plan { writes, ..Plan::starting() });
    let stop = CancellationToken::new();
    let store = Arc::new(members[leader].store());
    let care = tokio::spawn(keep_leader_away(store, region, nearest, plan, stop.clone()));

    let moved = async {
        while !leads(&members[others[0]]).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, moved).await.expect("the nearest other member leads");
    stop.cancel();
    care.await.unwrap();
}
