//! Waiting, in one place, for whatever happens first.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Waits until one of the descriptors can be read (or was hung up: end-of-file
/// on a pipe is POLLHUP without POLLIN), one of the others can be written to, or
/// the time is over; `None` waits for ever. Says of each of the former, and then
/// of each of the latter, whether it is ready. A signal ends the wait early.
///
/// # Errors
/// What poll(2) says, EINTR excepted.
pub fn poll(
    reading: &[Option<BorrowedFd<'_>>],
    writing: &[BorrowedFd<'_>],
    timeout: Option<Duration>,
) -> io::Result<Vec<bool>> {
    // Only those that there are: poll takes no more entries than the process may
    // have descriptors.
    let entry = |fd: &BorrowedFd<'_>, events| libc::pollfd {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    };
    let readers = reading.iter().flatten();
    let readers = readers.map(|fd| entry(fd, libc::POLLIN));
    let writers = writing.iter().map(|fd| entry(fd, libc::POLLOUT));
    let mut entries: Vec<_> = readers.chain(writers).collect();
    // Rounded up, so that a deadline has passed when its wait returns.
    let milliseconds = timeout.map_or(-1, |timeout| {
        let rounded = timeout.as_nanos().div_ceil(1_000_000);
        libc::c_int::try_from(rounded).unwrap_or(libc::c_int::MAX)
    });
    let count = libc::nfds_t::try_from(entries.len()).map_err(io::Error::other)?;
    // SAFETY: the pointer and the count describe `entries`, which outlives the
    // call.
    let result = unsafe { libc::poll(entries.as_mut_ptr(), count, milliseconds) };
    if let Err(error) = super::cerr(result)
        && error.kind() != io::ErrorKind::Interrupted
    {
        return Err(error);
    }
    let mut ready = entries.iter().map(|entry| result > 0 && entry.revents != 0);
    let all = reading.iter().map(Option::is_some);
    let all = all.chain(writing.iter().map(|_| true));
    let of = |is_there: bool| is_there && ready.next().unwrap_or(false);
    Ok(all.map(of).collect())
}
