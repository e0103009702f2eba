//! Takes a lab down, in the order that loses least: apps, agents, databases, lease store.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use rustix::process::Signal;

use super::{keeper::Order, lab::Lab};
use crate::{
    control::Part,
    processes::{record, tree},
};

/// How long an app may take to end after SIGTERM.
const APP_GRACE: Duration = Duration::from_secs(6);
/// How long an agent may take to give the right to write back.
const AGENT_GRACE: Duration = Duration::from_secs(3);
/// How long PostgreSQL may take to shut down fast (SIGINT; PostgreSQL, chapter 19.5).
const POSTGRES_GRACE: Duration = Duration::from_secs(20);
/// How long etcd may take.
const ETCD_GRACE: Duration = Duration::from_secs(3);

/// Ends every process. Databases that are kept are shut down properly, the others at once.
pub(crate) async fn stop(lab: &Arc<Lab>, keep: bool) {
    stop_parts(lab, |part| matches!(part, Part::App(_)), Order::Stop(Signal::TERM, APP_GRACE)).await;
    stop_parts(lab, |part| part == Part::Agent, Order::Stop(Signal::TERM, AGENT_GRACE)).await;
    let (postgres, etcd) = if keep {
        (Order::Stop(Signal::INT, POSTGRES_GRACE), Order::Stop(Signal::TERM, ETCD_GRACE))
    } else {
        (Order::Stop(Signal::KILL, Duration::ZERO), Order::Stop(Signal::KILL, Duration::ZERO))
    };
    stop_parts(lab, |part| part == Part::Postgres, postgres).await;
    stop_parts(lab, |part| part == Part::Etcd, etcd).await;
    // Because a drill may have left something behind that no keeper knows of.
    tree::kill_trees(&record::survivors(&lab.blueprint.layout.process_record())).await;
    kill_orphans().await;
}

/// Ends processes that lost their parent and were handed to this one: nobody else will.
pub(crate) async fn kill_orphans() {
    let own = std::process::id();
    let left: Vec<u32> = tree::below(&[own], &tree::processes()).iter().map(|process| process.pid).collect();
    tree::kill_trees(&left).await;
    for pid in left {
        tree::reap(pid);
    }
}

async fn stop_parts(lab: &Lab, which: impl Fn(Part) -> bool, order: Order) {
    let heard = lab.parts.iter().filter(|handle| which(handle.part)).map(|handle| handle.order(order));
    let heard: Vec<_> = heard.collect();
    join_all(heard).await;
}
