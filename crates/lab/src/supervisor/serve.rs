//! Answers questions to a running lab on its control socket, and carries out what a drill orders.

use std::{io, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use isles_model::RegionName;
use rustix::process::Signal;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::mpsc,
};

use super::{
    keeper::{Handle, Order},
    lab::Lab,
    rigs,
};
use crate::{
    control::{Answer, LINE_BYTES_MAX, Part, PartAction, Request},
    processes::tree,
};

/// How long somebody who has connected may take to ask.
const QUESTION_WAIT_MAX: Duration = Duration::from_secs(5);

/// Opens the control socket, for this user only.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until it is dropped. `down` hears of [`Request::Down`], with its `keep`.
pub(crate) async fn answer_all(listener: UnixListener, lab: Arc<Lab>, down: mpsc::Sender<bool>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(converse(stream, Arc::clone(&lab), down.clone()));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn converse(stream: UnixStream, lab: Arc<Lab>, down: mpsc::Sender<bool>) {
    let own = rustix::process::geteuid().as_raw();
    if !stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0) {
        return;
    }
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut question = BufReader::new(read.take(LINE_BYTES_MAX));
    let asked = tokio::time::timeout(QUESTION_WAIT_MAX, question.read_line(&mut line)).await;
    if !matches!(asked, Ok(Ok(length)) if length > 0) {
        return;
    }
    let answer = match serde_json::from_str(&line) {
        Ok(request) => carry_out(request, &lab, &down).await,
        Err(error) => Answer::Refused { because: format!("the question was not understood: {error}") },
    };
    if let Ok(mut bytes) = serde_json::to_vec(&answer) {
        bytes.push(b'\n');
        let _ = write.write_all(&bytes).await;
    }
}

async fn carry_out(request: Request, lab: &Lab, down: &mpsc::Sender<bool>) -> Answer {
    let done = match request {
        Request::State => return Answer::State(Box::new(lab.state().await)),
        Request::KillRegion { region } => kill_region(lab, &region).await,
        Request::StartRegion { region } => start_region(lab, &region).await,
        Request::StallRegion { region, stalled } => stall_region(lab, &region, stalled).await,
        Request::Part { region, part, action } => act(lab, &region, part, action).await,
        Request::Link { from, to, condition } => lab.links.set(&from, &to, condition).await,
        Request::Clock { region, ahead_ms } => rigs::set_clock(lab, &region, ahead_ms),
        Request::Disk { region, full } => rigs::fill_disk(lab, &region, full),
        Request::Down { keep: true } if lab.blueprint.rigs.small_disks => {
            Err("databases on small disks cannot be kept".to_owned())
        }
        Request::Down { keep } => down.try_send(keep).map_err(|_| "the lab is stopping already".to_owned()),
    };
    done.map_or_else(|because| Answer::Refused { because }, |()| Answer::Done)
}

/// Ends all processes of a region in one go, as a power cut would, and keeps them down.
async fn kill_region(lab: &Lab, region: &RegionName) -> Result<(), String> {
    let parts: Vec<&Handle> = lab.parts_of(region).collect();
    if parts.is_empty() {
        return Err(unknown(lab, region));
    }
    // Because nothing else runs on this thread between the orders and the signals, no keeper starts anything again.
    let heard: Vec<_> = parts.iter().map(|part| part.order(Order::Hold)).collect();
    let pids: Vec<u32> = parts.iter().filter_map(|part| part.state().pid).collect();
    tree::signal_trees(&pids, Signal::KILL);
    for done in heard {
        let _ = done.await;
    }
    Ok(())
}

async fn start_region(lab: &Lab, region: &RegionName) -> Result<(), String> {
    let parts: Vec<&Handle> = lab.parts_of(region).collect();
    if parts.is_empty() {
        return Err(unknown(lab, region));
    }
    let heard: Vec<_> = parts.iter().map(|part| part.order(Order::Start)).collect();
    for done in heard {
        let _ = done.await;
    }
    Ok(())
}

/// Stops or continues all processes of a region in one go, as a machine that is suspended and resumed.
async fn stall_region(lab: &Lab, region: &RegionName, stalled: bool) -> Result<(), String> {
    let parts: Vec<&Handle> = lab.parts_of(region).collect();
    if parts.is_empty() {
        return Err(unknown(lab, region));
    }
    let pids: Vec<u32> = parts.iter().filter_map(|part| part.state().pid).collect();
    tree::signal_trees(&pids, if stalled { Signal::STOP } else { Signal::CONT });
    let order = if stalled { Order::Freeze } else { Order::Thaw };
    let heard: Vec<_> = parts.iter().map(|part| part.order(order)).collect();
    for done in heard {
        let _ = done.await;
    }
    Ok(())
}

async fn act(lab: &Lab, region: &RegionName, part: Part, action: PartAction) -> Result<(), String> {
    let handle = lab.part(region, part).ok_or_else(|| match lab.parts_of(region).next() {
        Some(_) => format!("{region} has no {part}"),
        None => unknown(lab, region),
    })?;
    let order = match action {
        PartAction::Crash => Order::Crash,
        PartAction::Kill => Order::Hold,
        PartAction::Start => Order::Start,
        PartAction::Freeze => Order::Freeze,
        PartAction::Thaw => Order::Thaw,
    };
    handle.order(order).await.map_err(|_| format!("{part} in {region} is not being kept any more"))
}

pub(crate) fn unknown(lab: &Lab, region: &RegionName) -> String {
    let names: Vec<String> = lab.blueprint.places().iter().map(ToString::to_string).collect();
    format!("the lab has no region {region}; it has {}", names.join(", "))
}
