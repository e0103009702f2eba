//! Asks the kernel for one socket by its two ends (sock_diag(7)): a few microseconds, however many sockets there are.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType,
    netlink::{SOCK_DIAG, SocketAddrNetlink},
};

/// `struct nlmsghdr`, in bytes (netlink(7)).
const HEADER_BYTES: usize = 16;
/// `struct inet_diag_req_v2`, in bytes.
const QUESTION_BYTES: usize = 56;
/// Where `idiag_inode` lies in `struct inet_diag_msg`.
const INODE_AT: usize = 68;
/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `AF_INET` and `IPPROTO_TCP`.
const INET_TCP: [u8; 2] = [2, 6];
/// `INET_DIAG_NOCOOKIE`: whatever the socket's cookie.
const ANY_COOKIE: [u8; 8] = [0xFF; 8];

/// The inode of the TCP socket whose own end is `local` and whose other end is `remote`.
///
/// # Errors
/// When there is no such socket, or the kernel does not answer such questions.
pub(crate) fn inode_of(local: SocketAddrV4, remote: SocketAddrV4) -> io::Result<u64> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(SOCK_DIAG))?;
    let kernel = SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(&socket, &question(local, remote), SendFlags::empty(), &kernel)?;
    let mut answer = [0_u8; 1024];
    // The kernel has answered by the time it has taken the question.
    let (length, _) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::DONTWAIT)?;
    read(answer.get(..length).unwrap_or_default())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the kernel knows no such connection"))
}

fn question(local: SocketAddrV4, remote: SocketAddrV4) -> Vec<u8> {
    let length = (HEADER_BYTES + QUESTION_BYTES) as u32;
    let mut message = Vec::with_capacity(HEADER_BYTES + QUESTION_BYTES);
    message.extend(length.to_ne_bytes());
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence, port
    message.extend(INET_TCP);
    message.extend([0; 2]); // no extensions, padding
    message.extend(u32::MAX.to_ne_bytes()); // in any state
    message.extend(local.port().to_be_bytes());
    message.extend(remote.port().to_be_bytes());
    for ip in [local.ip(), remote.ip()] {
        message.extend(Ipv4Addr::octets(ip));
        message.extend([0; 12]);
    }
    message.extend([0; 4]); // on any interface
    message.extend(ANY_COOKIE);
    message
}

fn read(answer: &[u8]) -> Option<u64> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let inode = answer.get(HEADER_BYTES + INODE_AT..)?.first_chunk::<4>()?;
    (kind == BY_FAMILY).then(|| u64::from(u32::from_ne_bytes(*inode)))
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use super::*;

    fn v4(address: SocketAddr) -> SocketAddrV4 {
        let SocketAddr::V4(address) = address else { panic!("{address}") };
        address
    }

    #[test]
    fn a_connection_is_found_by_its_two_ends() {
        use std::os::fd::AsFd as _;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        for socket in [&near, &far] {
            let ends = (v4(socket.local_addr().unwrap()), v4(socket.peer_addr().unwrap()));
            let inode = rustix::fs::fstat(socket.as_fd()).unwrap().st_ino;
            assert_eq!(inode_of(ends.0, ends.1).unwrap(), inode);
        }
        let nobody = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
        assert!(inode_of(nobody, nobody).is_err());
    }
}
