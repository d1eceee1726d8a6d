//! Hardware watchdogs (the kernel's watchdog-api).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// `WDIOC_GETTIMEOUT`: `_IOR('W', 7, int)`, on all machines that the agent is
/// built for. Elsewhere it is a request that nobody knows.
const GET_TIMEOUT: u32 = 0x8004_5707;

/// Opens a watchdog, which arms it, and asks how long it waits before it resets
/// the board; not all say so. A program may stand in for it behind a FIFO. Any
/// other file would take everything and watch over nobody.
///
/// # Errors
/// When it cannot be opened, or is something else.
pub fn open_watchdog(path: &Path) -> io::Result<(File, Option<Duration>)> {
    let device = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let kind = device.metadata()?.file_type();
    if !kind.is_char_device() && !kind.is_fifo() {
        return Err(io::Error::other("neither a device nor a FIFO"));
    }
    let timeout = timeout(&device);
    Ok((device, timeout))
}

fn timeout(device: &File) -> Option<Duration> {
    let mut seconds: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the request writes one int. Its own
    // type differs between C libraries.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), GET_TIMEOUT as _, &raw mut seconds) };
    super::cerr(result).ok()?;
    let seconds = u64::try_from(seconds).ok()?;
    (seconds > 0).then(|| Duration::from_secs(seconds))
}
