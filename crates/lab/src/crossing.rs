//! Lets etcd members talk over the emulated WAN although all of them must know a member by one and the same address.
//!
//! A crossing listens on that address. For each connection it asks the kernel which region's process is at the other
//! end, and passes the bytes on through that region's own link. (Every other program takes an address per peer, and so
//! needs no crossing.)

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use isles_model::RegionName;
use tokio::net::{TcpListener, TcpStream};

use crate::{ports, sock_diag};

/// Which process belongs to which region just now.
#[derive(Debug, Clone, Default)]
pub struct Owners(Arc<Mutex<BTreeMap<RegionName, u32>>>);

impl Owners {
    /// A region's etcd runs as this process from now on.
    pub fn set(&self, region: &RegionName, pid: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(region.clone(), pid);
    }

    /// The region whose process holds the socket with this inode.
    fn of(&self, inode: u64) -> Option<RegionName> {
        let owners = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        owners.into_iter().find(|(_, pid)| ports::has_socket(*pid, inode)).map(|(region, _)| region)
    }
}

/// Passes connections on until it is dropped: `links` says where each other region's link to this member begins.
/// Connections of unknown origin are closed.
pub async fn run(listener: TcpListener, links: BTreeMap<RegionName, SocketAddr>, owners: Owners) {
    let links = Arc::new(links);
    loop {
        let Ok((inbound, from)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            continue;
        };
        let (links, owners) = (Arc::clone(&links), owners.clone());
        tokio::spawn(async move {
            let Some(link) = link_for(&inbound, from, &links, &owners) else { return };
            pass(inbound, link).await;
        });
    }
}

fn link_for(
    inbound: &TcpStream,
    from: SocketAddr,
    links: &BTreeMap<RegionName, SocketAddr>,
    owners: &Owners,
) -> Option<SocketAddr> {
    let (SocketAddr::V4(from), SocketAddr::V4(here)) = (from, inbound.local_addr().ok()?) else {
        return None;
    };
    // Because this thread carries every link, it must not read the table of all sockets of the machine.
    let inode = sock_diag::inode_of(from, here).ok()?;
    links.get(&owners.of(inode)?).copied()
}

async fn pass(mut inbound: TcpStream, link: SocketAddr) {
    let Ok(mut outbound) = TcpStream::connect(link).await else { return };
    let _ = (inbound.set_nodelay(true), outbound.set_nodelay(true));
    let _ = tokio::io::copy_bidirectional(&mut inbound, &mut outbound).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_passed_on_through_the_link_of_the_region_it_comes_from() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let link = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = front.local_addr().unwrap();
        let here: RegionName = "here".parse().unwrap();
        let owners = Owners::default();
        owners.set(&"elsewhere".parse().unwrap(), 1);
        owners.set(&here, std::process::id());
        tokio::spawn(run(front, BTreeMap::from([(here, link.local_addr().unwrap())]), owners));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"ping").await.unwrap();
        let (mut arrived, _) = link.accept().await.unwrap();
        let mut four = [0; 4];
        arrived.read_exact(&mut four).await.unwrap();
        assert_eq!(&four, b"ping");
    }
}
