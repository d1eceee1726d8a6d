//! Sockets: what the standard library does not tell of them.

use std::net::TcpStream;
use std::os::fd::AsRawFd;

/// Bytes that were written to a connection and that the other side has not
/// acknowledged yet (tcp(7), SIOCOUTQ); 0 where that cannot be found out.
#[must_use]
pub fn unsent(stream: &TcpStream) -> u64 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open, and this request writes one int. For
    // sockets, TIOCOUTQ is the name of SIOCOUTQ.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    match super::cerr(result) {
        Ok(_) => u64::try_from(bytes).unwrap_or(0),
        Err(_) => 0,
    }
}
