//! Signals as bytes in a pipe, so that the main loop can poll for them.

use super::{Pipe, pipe};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// The signals that mean something to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: stop.
    Stop,
    /// SIGINT: somebody pressed Ctrl-C.
    Interrupt,
    /// SIGHUP.
    HangUp,
    /// SIGUSR1: restart when idle.
    Restart,
    /// SIGCHLD: a child may have ended.
    Child,
}

/// The writing end, for the handler; -1 until there is one.
static PIPE: AtomicI32 = AtomicI32::new(-1);
/// A forked child runs the handlers until it execs; its signals are not ours.
static OWNER: AtomicI32 = AtomicI32::new(0);

extern "C" fn handler(number: libc::c_int) {
    // SAFETY: getpid, write and the errno location are async-signal-safe; the
    // buffer is one byte on this stack; errno is put back as it was.
    unsafe {
        if libc::getpid() != OWNER.load(Ordering::Relaxed) {
            return;
        }
        let errno = libc::__errno_location();
        let saved = *errno;
        let byte = number.to_le_bytes()[0];
        libc::write(PIPE.load(Ordering::Relaxed), (&raw const byte).cast(), 1);
        *errno = saved;
    }
}

/// The signals of this process, from [`Signals::catch`] on.
#[derive(Debug)]
pub struct Signals {
    pipe: Pipe,
    // Held open for the handler.
    _write: OwnedFd,
}

impl Signals {
    /// Catches the signals of [`Signal`] for the rest of the process's life.
    /// SIGHUP stays ignored where it was (nohup). None of them stays blocked,
    /// whatever was inherited: who started the agent must be able to stop it. A file
    /// that grows beyond a limit (RLIMIT_FSIZE) is an error, as a full disk is.
    ///
    /// # Errors
    /// When there is no descriptor left for the pipe.
    pub fn catch() -> io::Result<Signals> {
        let (pipe, write) = pipe()?;
        super::pipe::set_nonblocking(&write)?;
        PIPE.store(write.as_raw_fd(), Ordering::Relaxed);
        // SAFETY: getpid cannot fail and touches no memory.
        OWNER.store(unsafe { libc::getpid() }, Ordering::Relaxed);
        // SAFETY: to ignore a signal touches no memory. Commands have the default.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        for number in [
            libc::SIGTERM,
            libc::SIGINT,
            libc::SIGHUP,
            libc::SIGUSR1,
            libc::SIGCHLD,
        ] {
            if number == libc::SIGHUP && is_ignored(number)? {
                continue;
            }
            // SAFETY: a zeroed sigaction is valid; the handler is
            // async-signal-safe (see there) and lives as long as the program.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = handler as *const () as libc::sighandler_t;
                action.sa_flags = libc::SA_RESTART | libc::SA_NOCLDSTOP;
                libc::sigemptyset(&raw mut action.sa_mask);
                super::cerr(libc::sigaction(
                    number,
                    &raw const action,
                    std::ptr::null_mut(),
                ))?;
                // The emptied mask of the action, with this one signal in it.
                libc::sigaddset(&raw mut action.sa_mask, number);
                let unblocked = &raw const action.sa_mask;
                super::cerr(libc::sigprocmask(
                    libc::SIG_UNBLOCK,
                    unblocked,
                    std::ptr::null_mut(),
                ))?;
            }
        }
        Ok(Signals {
            pipe,
            _write: write,
        })
    }

    /// What becomes readable when a signal has come.
    #[must_use]
    pub fn pipe(&self) -> &Pipe {
        &self.pipe
    }

    /// The next signal that has come, if there is one.
    pub fn take(&mut self) -> Option<Signal> {
        let mut byte = [0];
        while let Ok(Some(1)) = self.pipe.read(&mut byte) {
            match libc::c_int::from(byte[0]) {
                libc::SIGTERM => return Some(Signal::Stop),
                libc::SIGINT => return Some(Signal::Interrupt),
                libc::SIGHUP => return Some(Signal::HangUp),
                libc::SIGUSR1 => return Some(Signal::Restart),
                libc::SIGCHLD => return Some(Signal::Child),
                _ => {}
            }
        }
        None
    }
}

/// Holds back the signals of [`Signal`] until the program that this one becomes
/// catches them: none of them may end it before.
///
/// # Errors
/// What sigprocmask(2) says.
pub fn hold_signals() -> io::Result<()> {
    change_mask(libc::SIG_BLOCK)
}

/// Lets through what was held back, in a program that will not catch it.
///
/// # Errors
/// What sigprocmask(2) says.
pub fn release_signals() -> io::Result<()> {
    change_mask(libc::SIG_UNBLOCK)
}

fn change_mask(how: libc::c_int) -> io::Result<()> {
    // SAFETY: a zeroed set is valid; the calls touch nothing but it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for number in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1] {
            libc::sigaddset(&raw mut set, number);
        }
        let keep_no_old = std::ptr::null_mut();
        super::cerr(libc::sigprocmask(how, &raw const set, keep_no_old))?;
    }
    Ok(())
}

fn is_ignored(number: libc::c_int) -> io::Result<bool> {
    // SAFETY: a null new action only reads the old one into zeroed memory of
    // the right type.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        super::cerr(libc::sigaction(number, std::ptr::null(), &raw mut action))?;
        Ok(action.sa_sigaction == libc::SIG_IGN)
    }
}
