//! Keeps one process running, as a service manager would: starts it again when it ends, unless a drill holds it down.

use std::{
    process::ExitStatus,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use isles_model::RegionName;
use rustix::process::Signal;
use tokio::{
    process::Child,
    sync::{mpsc, oneshot},
};

use crate::{
    control::{Part, PartPhase, PartState},
    processes::{Launch, record::Record, tree},
};

/// The pause before a process that ended is started again …
const RESTART_AFTER_MIN: Duration = Duration::from_millis(200);
/// … doubles with each time it ends soon after its start, up to this.
const RESTART_AFTER_MAX: Duration = Duration::from_secs(5);
/// A process that ran for so long did not end soon after its start.
const STEADY_AFTER: Duration = Duration::from_secs(10);
/// How many orders can wait for one process.
const ORDERS_MAX: usize = 16;

/// What a keeper can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Keep it running.
    Start,
    /// SIGKILL it and keep it down.
    Hold,
    /// SIGKILL it; it comes back.
    Crash,
    /// SIGSTOP.
    Freeze,
    /// SIGCONT.
    Thaw,
    /// End it for good: this signal first, SIGKILL after the time given.
    Stop(Signal, Duration),
}

/// A process that ended by itself.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    /// Its region.
    pub(crate) region: RegionName,
    /// Which.
    pub(crate) part: Part,
    /// How, in words: `exited with code 3`.
    pub(crate) how: String,
}

/// A keeper's other end: cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    /// The process's region.
    pub(crate) region: RegionName,
    /// Which process.
    pub(crate) part: Part,
    state: Arc<Mutex<PartState>>,
    orders: mpsc::Sender<(Order, oneshot::Sender<()>)>,
}

impl Handle {
    /// What the process is doing.
    pub(crate) fn state(&self) -> PartState {
        lock(&self.state).clone()
    }

    /// Queues an order; the receiver hears when it has been carried out.
    pub(crate) fn order(&self, order: Order) -> oneshot::Receiver<()> {
        let (done, heard) = oneshot::channel();
        // Because a full queue or a keeper that has ended drops `done`, the receiver hears of it either way.
        let _ = self.orders.try_send((order, done));
        heard
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What keepers share.
#[derive(Clone)]
pub(crate) struct Common {
    /// Where started processes are written down.
    pub(crate) record: Arc<Mutex<Record>>,
    /// Who hears of processes that ended by themselves.
    pub(crate) ended: mpsc::Sender<Ended>,
}

/// Keeps one process.
pub(crate) struct Keeper {
    region: RegionName,
    part: Part,
    launch: Launch,
    common: Common,
    on_start: Option<Box<dyn Fn(u32) + Send>>,
    state: Arc<Mutex<PartState>>,
    orders: mpsc::Receiver<(Order, oneshot::Sender<()>)>,
}

/// Why a process runs no more.
enum End {
    /// By itself.
    Itself(ExitStatus),
    /// It was told to, and may come back.
    Crashed,
    /// It was told to, and is kept down.
    Held,
    /// It was told to, for good.
    Stopped,
}

impl Keeper {
    /// A keeper that waits for [`Order::Start`]. `on_start` hears each new process number.
    pub(crate) fn new(
        region: &RegionName,
        part: Part,
        launch: Launch,
        common: Common,
        on_start: Option<Box<dyn Fn(u32) + Send>>,
    ) -> (Self, Handle) {
        let (sender, orders) = mpsc::channel(ORDERS_MAX);
        let state =
            PartState { part, pid: None, phase: PartPhase::Waiting, restarts: 0, log: launch.log.clone() };
        let state = Arc::new(Mutex::new(state));
        let handle = Handle { region: region.clone(), part, state: Arc::clone(&state), orders: sender };
        (Self { region: region.clone(), part, launch, common, on_start, state, orders }, handle)
    }

    /// Runs until told to stop for good, or until all handles are gone.
    pub(crate) async fn run(mut self) {
        let mut pause = RESTART_AFTER_MIN;
        let mut wanted = false;
        loop {
            while !wanted {
                let Some((order, done)) = self.orders.recv().await else { return };
                wanted = order == Order::Start;
                if order == Order::Hold {
                    self.show(PartPhase::Held, None);
                }
                let _ = done.send(());
                if matches!(order, Order::Stop(..)) {
                    return;
                }
            }
            let began = Instant::now();
            let end = match self.launch.spawn() {
                Ok(child) => self.watch(child).await,
                Err(error) => {
                    self.tell(format!("could not be started: {error}"));
                    End::Crashed
                }
            };
            pause = if began.elapsed() > STEADY_AFTER { RESTART_AFTER_MIN } else { pause };
            match end {
                End::Stopped => return,
                End::Held => wanted = false,
                End::Crashed => wanted = self.wait_to_restart(pause).await,
                End::Itself(status) => {
                    self.tell(describe(status));
                    wanted = self.wait_to_restart(pause).await;
                }
            }
            pause = (pause * 2).min(RESTART_AFTER_MAX);
        }
    }

    /// Sits out the pause; says whether the process is still wanted.
    async fn wait_to_restart(&mut self, pause: Duration) -> bool {
        self.show(PartPhase::Restarting, None);
        lock(&self.state).restarts += 1;
        let over = tokio::time::sleep(pause);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return true,
                order = self.orders.recv() => match order {
                    Some((Order::Start, done)) => { let _ = done.send(()); return true; }
                    Some((Order::Hold, done)) => {
                        self.show(PartPhase::Held, None);
                        let _ = done.send(());
                        return false;
                    }
                    Some((Order::Crash | Order::Freeze | Order::Thaw, done)) => { let _ = done.send(()); }
                    Some((Order::Stop(..), done)) => {
                        // Because `run` waits for the next order when the process is not wanted, the queue's end stops it.
                        self.orders.close();
                        let _ = done.send(());
                        return false;
                    }
                    None => return false,
                },
            }
        }
    }

    /// Watches a running process and carries out orders until it has ended.
    async fn watch(&mut self, mut child: Child) -> End {
        let pid = child.id().unwrap_or_default();
        if let Err(error) = lock(&self.common.record).add(pid) {
            tracing::warn!(%error, "A started process could not be written down.");
        }
        self.show(PartPhase::Running, Some(pid));
        if let Some(on_start) = &self.on_start {
            on_start(pid);
        }
        loop {
            // Because a region is held and then killed at once, orders are looked at before the process's end.
            let (order, done) = tokio::select! {
                biased;
                order = self.orders.recv() => order.unwrap_or_else(|| {
                    (Order::Stop(Signal::KILL, Duration::ZERO), oneshot::channel().0)
                }),
                status = child.wait() => return self.itself(status),
            };
            let end = match order {
                Order::Start => None,
                Order::Freeze => {
                    self.signal(pid, Signal::STOP);
                    self.show(PartPhase::Frozen, Some(pid));
                    None
                }
                Order::Thaw => {
                    self.signal(pid, Signal::CONT);
                    self.show(PartPhase::Running, Some(pid));
                    None
                }
                Order::Hold => Some(End::Held),
                Order::Crash => Some(End::Crashed),
                Order::Stop(signal, grace) => {
                    if !grace.is_zero() {
                        tree::send(pid, signal);
                        tree::send(pid, Signal::CONT);
                        let _ = tokio::time::timeout(grace, child.wait()).await;
                    }
                    Some(End::Stopped)
                }
            };
            if let Some(end) = end {
                if self.is_agent() && !matches!(end, End::Stopped) {
                    tree::send(pid, Signal::KILL);
                    let _ = child.wait().await;
                } else {
                    kill(pid, &mut child).await;
                }
                self.show(PartPhase::Held, None);
                let _ = done.send(());
                return end;
            }
            let _ = done.send(());
        }
    }

    /// An agent's sentry is made to outlive it: a fault of the agent's does not reach it. One of the region's does, as
    /// whoever kills or stalls a region signals the whole trees first.
    fn is_agent(&self) -> bool {
        self.part == Part::Agent
    }

    fn signal(&self, pid: u32, signal: Signal) {
        if self.is_agent() {
            tree::send(pid, signal);
        } else {
            tree::signal_trees(&[pid], signal);
        }
    }

    fn itself(&self, status: std::io::Result<ExitStatus>) -> End {
        self.show(PartPhase::Restarting, None);
        status.map_or(End::Crashed, End::Itself)
    }

    fn show(&self, phase: PartPhase, pid: Option<u32>) {
        let mut state = lock(&self.state);
        state.phase = phase;
        state.pid = pid;
    }

    fn tell(&self, how: String) {
        let ended = Ended { region: self.region.clone(), part: self.part, how };
        if self.common.ended.try_send(ended).is_err() {
            tracing::warn!(region = %self.region, part = %self.part, "A process ended and nobody was free to hear of it.");
        }
    }
}

/// Kills a process and everything below it, and reaps it.
async fn kill(pid: u32, child: &mut Child) {
    if child.id().is_some() && !tree::kill_trees(&[pid]).await {
        tracing::warn!(pid, "A killed process has not gone.");
    }
    let _ = child.wait().await;
}

/// How a process ended, in words.
fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
