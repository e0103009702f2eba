//! Picks the ports of a lab: the ones people remember where they are free, others below the range that the kernel
//! hands out to outgoing connections.
//!
//! Because a part that is killed in a drill must find its port free when it comes back, no port is taken from that
//! range, and each is claimed for the lab's whole life, so that another lab does not pick it meanwhile.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::{linux::net::SocketAddrExt as _, unix::net as unix},
};

use crate::processes::tree;

/// Edges are looked for from here on: 8101, 8102, …
pub const EDGE_FIRST: u16 = 8101;
/// Read gates (the PostgreSQL URL that `isles up` prints) are looked for from here on.
pub const READ_GATE_FIRST: u16 = 5501;
/// Everything else starts somewhere from here …
const INNER_FIRST: u16 = 20_000;
/// … to here, which is below the usual `ip_local_port_range`.
const INNER_LAST: u16 = 32_000;

/// Why no port could be had.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The one that was asked for is taken.
    #[error("port {port} is taken{}", owner.as_ref().map(|owner| format!(" by {owner}")).unwrap_or_default())]
    Taken {
        /// The port.
        port: u16,
        /// Who has it, where this user may know.
        owner: Option<String>,
    },
    /// All of them are taken.
    #[error("no port is free between {first} and {last}")]
    None {
        /// The first that was tried.
        first: u16,
        /// The last.
        last: u16,
    },
}

/// Hands out ports, none twice, and holds the claims on them until it is dropped.
#[derive(Debug)]
pub struct Ports {
    claims: BTreeMap<u16, unix::UnixListener>,
    next_inner: u16,
}

impl Ports {
    /// Starts at a place of its own (`seed`), so that two labs that start at once rarely meet.
    pub fn new(seed: u64) -> Self {
        let span = u64::from(INNER_LAST - INNER_FIRST);
        let offset = u16::try_from(seed % span).expect("a remainder of a u16 is a u16");
        Self { claims: BTreeMap::new(), next_inner: INNER_FIRST + offset }
    }

    /// Exactly this port.
    ///
    /// # Errors
    /// [`PortError::Taken`], with its owner.
    pub fn exactly(&mut self, port: u16) -> Result<u16, PortError> {
        if self.take(port) { Ok(port) } else { Err(PortError::Taken { port, owner: owner_of(port) }) }
    }

    /// The first free port from `first` on.
    ///
    /// # Errors
    /// [`PortError::None`] when the next thousand are taken.
    pub fn from(&mut self, first: u16) -> Result<u16, PortError> {
        let last = first.saturating_add(999);
        (first..=last).find(|port| self.take(*port)).ok_or(PortError::None { first, last })
    }

    /// Any port that people need not remember.
    ///
    /// # Errors
    /// [`PortError::None`] when all of the range is taken.
    pub fn inner(&mut self) -> Result<u16, PortError> {
        for _ in INNER_FIRST..INNER_LAST {
            let port = self.next_inner;
            self.next_inner = if port + 1 >= INNER_LAST { INNER_FIRST } else { port + 1 };
            if self.take(port) {
                return Ok(port);
            }
        }
        Err(PortError::None { first: INNER_FIRST, last: INNER_LAST })
    }

    fn take(&mut self, port: u16) -> bool {
        if self.claims.contains_key(&port) {
            return false;
        }
        let Some(claim) = claim(port) else { return false };
        is_free(port) && self.claims.insert(port, claim).is_none()
    }
}

/// A port of this machine's loopback interface.
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// Claims a port among all labs: a name that the kernel gives to one process at a time, within the same network
/// namespace as the port itself, and takes back when that process ends (unix(7), abstract sockets).
fn claim(port: u16) -> Option<unix::UnixListener> {
    let name = unix::SocketAddr::from_abstract_name(format!("isles-port-{port}")).ok()?;
    unix::UnixListener::bind_addr(&name).ok()
}

fn is_free(port: u16) -> bool {
    // Because a listener on all interfaces does not always clash with one on loopback, both are tried.
    let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
    TcpListener::bind(any).is_ok() && TcpListener::bind(local(port)).is_ok()
}

/// Who listens on a TCP port of this machine: `node (pid 4711)`.
pub fn owner_of(port: u16) -> Option<String> {
    let inode = listening_inode(&fs::read_to_string("/proc/net/tcp").ok()?, port)
        .or_else(|| listening_inode(&fs::read_to_string("/proc/net/tcp6").ok()?, port))?;
    let pid = tree::processes().into_keys().find(|pid| has_socket(*pid, inode))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("{} (pid {pid})", name.trim_end()))
}

/// Whether a process has the socket with this inode open.
pub(crate) fn has_socket(pid: u32, inode: u64) -> bool {
    let wanted = format!("socket:[{inode}]");
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let mut links = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    links.any(|link| link.as_os_str() == wanted.as_str())
}

/// Finds a listening socket (state 0A) in the text of `/proc/net/tcp` (proc_net_tcp in the kernel's documentation).
fn listening_inode(table: &str, port: u16) -> Option<u64> {
    let suffix = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (address, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        (address.ends_with(&suffix) && *state == "0A").then(|| inode.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_refused_with_its_owner() {
        let listener = TcpListener::bind(local(0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = Ports::new(0).exactly(port).unwrap_err().to_string();
        assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
    }

    #[test]
    fn a_port_that_another_lab_has_picked_but_not_opened_yet_is_stepped_over() {
        let mut first = Ports::new(77);
        let port = first.inner().unwrap();
        assert_ne!(Ports::new(77).inner().unwrap(), port);
        drop(first);
        assert_eq!(Ports::new(77).inner().unwrap(), port);
    }

    #[test]
    fn a_taken_port_is_stepped_over() {
        let listener = TcpListener::bind(local(0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut ports = Ports::new(7);
        if port < u16::MAX - 1000 {
            assert!(ports.from(port).unwrap() > port);
        }
        assert_ne!(ports.inner().unwrap(), ports.inner().unwrap());
    }
}
