//! A small network inside the machine: three hosts in network namespaces of their own on one bridge, so that a link can
//! go silent without anybody being told.
//!
//! Dropping it takes everything away again, and so does the next start after a run that was killed.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use isles_lab::processes::tree;
use rustix::process::Signal;

use crate::error::BenchError;

/// How many hosts there are: two with data and a witness.
pub(crate) const HOSTS: usize = 3;
/// The bridge, and how the names of namespaces and links begin. A link's name has at most 15 letters.
const NAME: &str = "isles-bench";
/// Where iproute2 keeps namespaces.
const NAMESPACES: &str = "/run/netns";
/// How long killed processes may take to disappear, and the pause between two looks.
const GONE_WAIT_MAX: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A host that does not answer for so long is silent; on this network an answer takes microseconds.
const SILENCE: Duration = Duration::from_millis(50);
/// A port that nobody listens on (discard, RFC 863).
const UNUSED_PORT: u16 = 9;
/// Held by the one comparison that runs.
const LOCK: &str = "/run/isles-bench.lock";

/// The network's addresses are of the block for benchmarks (RFC 2544, C.2.2): 198.18.77.0/24.
fn address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 77, 11 + u8::try_from(host).unwrap_or(0))
}

/// This machine's address on the bridge.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 1);
const OUTSIDE_MAC: &str = "02:00:c6:12:4d:01";

fn mac(host: usize) -> String {
    format!("02:00:c6:12:4d:{:02x}", 0x11 + host)
}

fn link(host: usize) -> String {
    format!("{NAME}-{}", host + 1)
}

/// One host of the network.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Counted from 0.
    pub(crate) index: usize,
    /// Its address.
    pub(crate) address: Ipv4Addr,
    /// Its namespace, as `nsenter --net=` takes it.
    pub(crate) namespace: PathBuf,
}

/// Whether frames pass a host's port of the bridge: the states of bridge(8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    /// Frames vanish in both directions.
    Silent = 0,
    /// Frames pass.
    Open = 3,
}

/// The network while it stands.
pub(crate) struct Network {
    _lock: File,
}

impl Network {
    /// Builds it.
    ///
    /// # Errors
    /// Without root, while another one stands, or when iproute2 fails.
    pub(crate) fn build() -> Result<Self, BenchError> {
        if !rustix::process::geteuid().is_root() {
            return Err(BenchError::NotRoot);
        }
        let failed = |source| BenchError::File { path: LOCK.into(), source };
        let lock = File::options().create(true).truncate(false).write(true).open(LOCK).map_err(failed)?;
        lock.try_lock().map_err(|_| BenchError::Busy)?;
        let network = Self { _lock: lock };
        // What a run that was killed has left.
        take_away();
        ip(&format!("link add {NAME} address {OUTSIDE_MAC} type bridge"))?;
        ip(&format!("addr add {OUTSIDE}/24 dev {NAME}"))?;
        ip(&format!("link set {NAME} up"))?;
        for host in 0..HOSTS {
            add_host(host)?;
        }
        Ok(network)
    }

    /// The hosts.
    pub(crate) fn places(&self) -> [Place; HOSTS] {
        std::array::from_fn(|index| Place {
            index,
            address: address(index),
            namespace: Path::new(NAMESPACES).join(link(index)),
        })
    }

    /// Lets a host's frames pass, or vanish.
    ///
    /// # Errors
    /// When the kernel refuses, or the host still answers although its frames should vanish.
    pub(crate) async fn set(&self, place: &Place, port: Port) -> Result<(), BenchError> {
        // Because iproute2's `ip link set … type bridge_slave state` reports success and sets nothing.
        command("bridge", &format!("link set dev {} state {}", link(place.index), port as u8))?;
        match port {
            Port::Silent => until_silent(place).await,
            Port::Open => Ok(()),
        }
    }
}

/// A refusal is an answer, too: whoever is cut off does not even refuse.
async fn until_silent(place: &Place) -> Result<(), BenchError> {
    let address = (place.address, UNUSED_PORT);
    match tokio::time::timeout(SILENCE, tokio::net::TcpStream::connect(address)).await {
        Err(_) => Ok(()),
        Ok(_) => Err(BenchError::NotCut(place.address)),
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        take_away();
    }
}

fn add_host(host: usize) -> Result<(), BenchError> {
    let link = link(host);
    ip(&format!("netns add {link}"))?;
    ip(&format!("link add {link} type veth peer name eth0 address {} netns {link}", mac(host)))?;
    ip(&format!("link set {link} master {NAME} up"))?;
    ip(&format!("-n {link} addr add {}/24 dev eth0", address(host)))?;
    ip(&format!("-n {link} link set lo up"))?;
    ip(&format!("-n {link} link set eth0 up"))?;
    // Because a neighbour that cannot be asked any more would be reported as unreachable after some seconds, and a
    // lost region reports nothing, everybody knows everybody for good.
    ip(&format!("neigh replace {} lladdr {} dev {NAME} nud permanent", address(host), mac(host)))?;
    let neighbour = |address: Ipv4Addr, mac: &str| {
        ip(&format!("-n {link} neigh replace {address} lladdr {mac} dev eth0 nud permanent"))
    };
    neighbour(OUTSIDE, OUTSIDE_MAC)?;
    (0..HOSTS).filter(|other| *other != host).try_for_each(|other| neighbour(address(other), &mac(other)))
}

/// Ends what runs in the namespaces and removes them with the bridge; what is not there is not missed.
fn take_away() {
    for host in 0..HOSTS {
        let namespace = Path::new(NAMESPACES).join(link(host));
        empty(&namespace);
        // Because a namespace lives until its last process is gone, its link is taken from it first.
        remove_link(&link(host));
        if namespace.exists() {
            let _ = ip(&format!("netns del {}", link(host)));
        }
    }
    remove_link(NAME);
}

/// Kills what runs in a namespace and waits until it is gone, so that nobody writes where files are being removed.
pub(crate) fn empty(namespace: &Path) {
    let until = Instant::now() + GONE_WAIT_MAX;
    loop {
        let left = inhabitants(namespace);
        if left.is_empty() || Instant::now() > until {
            return;
        }
        for pid in left {
            tree::send(pid, Signal::KILL);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn remove_link(name: &str) {
    if Path::new("/sys/class/net").join(name).exists() {
        let _ = ip(&format!("link del {name}"));
    }
}

/// The processes in a namespace; zombies have left it.
pub(crate) fn inhabitants(namespace: &Path) -> Vec<u32> {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(there) = fs::metadata(namespace).map(|file| (file.dev(), file.ino())) else { return Vec::new() };
    let inside = |pid: &u32| {
        let file = fs::metadata(format!("/proc/{pid}/ns/net"));
        file.is_ok_and(|file| (file.dev(), file.ino()) == there)
    };
    tree::processes().into_keys().filter(inside).collect()
}

fn ip(arguments: &str) -> Result<(), BenchError> {
    command("ip", arguments)
}

fn command(program: &str, arguments: &str) -> Result<(), BenchError> {
    let mut command = Command::new(program);
    let program = format!("{program} {arguments}");
    let output = command.args(arguments.split(' ')).stdin(Stdio::null()).output();
    let output = output.map_err(|source| BenchError::Start { program: program.clone(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(BenchError::Failed { program, said })
}
