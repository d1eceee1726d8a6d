//! Waiting, in one place, for whatever happens first.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Waits until one of the descriptors can be read (or was hung up: end-of-file
/// on a pipe is POLLHUP without POLLIN), or the time is over; `None` waits for
/// ever. Says of each whether it is ready. A signal ends the wait early.
///
/// # Errors
/// What poll(2) says, EINTR excepted.
pub fn poll<const N: usize>(
    descriptors: [Option<BorrowedFd<'_>>; N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    let mut entries = descriptors.map(|fd| libc::pollfd {
        // A negative descriptor is passed over (POSIX, poll).
        fd: fd.map_or(-1, |fd| fd.as_raw_fd()),
        events: libc::POLLIN,
        revents: 0,
    });
    // Rounded up, so that a deadline has passed when its wait returns.
    let milliseconds = timeout.map_or(-1, |timeout| {
        let rounded = timeout.as_nanos().div_ceil(1_000_000);
        libc::c_int::try_from(rounded).unwrap_or(libc::c_int::MAX)
    });
    // SAFETY: the pointer and the count describe `entries`, which outlives the
    // call; N is a handful, so the cast cannot truncate.
    let result = unsafe { libc::poll(entries.as_mut_ptr(), N as libc::nfds_t, milliseconds) };
    match super::cerr(result) {
        Ok(_) => Ok(entries.map(|entry| entry.revents != 0)),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok([false; N]),
        Err(error) => Err(error),
    }
}
