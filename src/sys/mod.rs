//! The kernel: the only room with unsafe code.
//!
//! No raw wait status, signal number table or file descriptor leaves it: what
//! comes out are `OwnedFd`s, [`Exit`]s and `io::Error`s. It knows nothing of
//! jobs, phases or servers.
#![allow(
    unsafe_code,
    reason = "this room wraps libc; every block argues for itself"
)]

mod changes;
pub mod clock;
pub mod files;
mod mounts;
pub mod oom;
mod pipe;
mod poll;
mod process;
mod removal;
mod signal;
mod socket;
mod stderr;
mod user;
mod watchdog;

pub use changes::Changes;
pub use mounts::mounted_in;
pub use pipe::{Pipe, Wake, pipe};
pub use poll::poll;
pub use process::{
    Exit, Spawn, be_called, become_subreaper, close_on_exec_from, effective_user, group_exists,
    has_children, reap, send_signal, signal_group, spawn,
};
pub use removal::{remove_all_but, remove_tree};
pub use signal::{Signal, Signals, hold_signals, release_signals};
pub use socket::unsent;
pub use stderr::Stderr;
pub use user::User;
pub use watchdog::open_watchdog;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;

/// Turns libc's -1 into the `io::Error` of `errno`.
fn cerr(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// A number that nobody can guess or repeat; each call gives another one. (The
/// standard library seeds its hash tables from the kernel.)
#[must_use]
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A random part of a whole, from 0 up to 1: jitter.
#[must_use]
pub fn random_share() -> f64 {
    f64::from(u16::try_from(random() & 0xffff).unwrap_or(0)) / 65_536.0
}
