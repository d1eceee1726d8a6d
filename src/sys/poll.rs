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
pub fn poll(
    descriptors: &[Option<BorrowedFd<'_>>],
    timeout: Option<Duration>,
) -> io::Result<Vec<bool>> {
    let entry = |fd: &Option<BorrowedFd<'_>>| libc::pollfd {
        // A negative descriptor is passed over (POSIX, poll).
        fd: fd.as_ref().map_or(-1, AsRawFd::as_raw_fd),
        events: libc::POLLIN,
        revents: 0,
    };
    let mut entries: Vec<_> = descriptors.iter().map(entry).collect();
    // Rounded up, so that a deadline has passed when its wait returns.
    let milliseconds = timeout.map_or(-1, |timeout| {
        let rounded = timeout.as_nanos().div_ceil(1_000_000);
        libc::c_int::try_from(rounded).unwrap_or(libc::c_int::MAX)
    });
    let count = libc::nfds_t::try_from(entries.len()).map_err(io::Error::other)?;
    // SAFETY: the pointer and the count describe `entries`, which outlives the
    // call.
    let result = unsafe { libc::poll(entries.as_mut_ptr(), count, milliseconds) };
    match super::cerr(result) {
        Ok(_) => Ok(entries.iter().map(|entry| entry.revents != 0).collect()),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(vec![false; entries.len()]),
        Err(error) => Err(error),
    }
}
