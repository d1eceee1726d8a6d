//! Processes: starting, signalling and reaping them.

use super::User;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this exit status (0 to 255).
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// The status that Testflinger shows for it: a signal is counted down from
    /// 256, so that KILL is 247 and TERM 241.
    #[must_use]
    pub fn status(self) -> i64 {
        match self {
            Exit::Code(code) => i64::from(code),
            Exit::Signal(number) => 256 - i64::from(number),
        }
    }
}

/// What to start: a shell command in a session of its own. The environment may hold
/// secrets: it is not for printing.
pub struct Spawn<'a> {
    /// The command line, for `/bin/sh -c`.
    pub command: &'a str,
    /// Its working directory.
    pub directory: &'a Path,
    /// Its whole environment.
    pub environment: &'a [(OsString, OsString)],
    /// Where its output and errors go, in the order in which they are written.
    pub output: OwnedFd,
    /// As whom it runs, if not as this process does.
    pub user: Option<&'a User>,
    /// Where it writes `0` to be in a control group.
    pub cgroup: Option<File>,
}

/// The shell that runs the phases' commands.
const SHELL: &str = "/bin/sh";

/// Starts a command: stdin is /dev/null, the session is its own, no signal is
/// blocked, caught or ignored, and when memory runs out it goes before the agent
/// ([`super::oom`]). Returns its process id, which is also that of
/// its session.
///
/// # Errors
/// When there is no shell, no process to be had, or the working directory is
/// missing.
pub fn spawn(spawn: Spawn<'_>) -> io::Result<i32> {
    let errors = spawn.output.try_clone()?;
    let mut command = Command::new(SHELL);
    command
        .arg("-c")
        .arg(spawn.command)
        .current_dir(spawn.directory)
        .env_clear()
        .envs(spawn.environment.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(spawn.output)
        .stderr(errors);
    let oom_score = super::oom::of_commands();
    let user = spawn.user.cloned();
    let cgroup = spawn.cgroup;
    // SAFETY: the closure runs between fork and exec; setsid, write, signal, the two
    // of the mask, oom::write and User::become_them are async-signal-safe, and it
    // allocates nothing. A zeroed set is valid.
    unsafe {
        command.pre_exec(move || {
            super::cerr(libc::setsid())?;
            if let Some(cgroup) = &cgroup {
                // It may have been removed; a command is not held up for that.
                libc::write(cgroup.as_raw_fd(), c"0".as_ptr().cast(), 1);
            }
            if let Some(score) = &oom_score {
                super::oom::write(score.as_bytes());
            }
            for number in 1..=64 {
                // Fails for KILL, STOP and the C library's own: nothing to do.
                libc::signal(number, libc::SIG_DFL);
            }
            // After the handlers are gone; std leaves the mask as it is.
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            let keep_no_old = std::ptr::null_mut();
            super::cerr(libc::sigprocmask(
                libc::SIG_SETMASK,
                &raw const none,
                keep_no_old,
            ))?;
            user.as_ref().map_or(Ok(()), User::become_them)
        });
    }
    let child = command.spawn().map_err(|error| {
        let directory = spawn.directory.display();
        io::Error::new(
            error.kind(),
            format!("cannot run {SHELL} in {directory}: {error}"),
        )
    })?;
    // Dropping the handle leaves the process alone: `reap` waits for it.
    i32::try_from(child.id()).map_err(io::Error::other)
}

/// The next child that has ended, adopted orphans included; `None` when there is
/// none at the moment.
#[must_use]
pub fn reap() -> Option<(i32, Exit)> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is where waitpid writes.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid <= 0 {
            return None;
        }
        if libc::WIFEXITED(status) {
            return Some((pid, Exit::Code(libc::WEXITSTATUS(status))));
        }
        if libc::WIFSIGNALED(status) {
            return Some((pid, Exit::Signal(libc::WTERMSIG(status))));
        }
    }
}

/// Sends TERM (`kill` false) or KILL to one process.
///
/// # Errors
/// When it is gone already, or may not be signalled.
pub fn send_signal(pid: i32, kill: bool) -> io::Result<()> {
    if pid <= 1 {
        // 0 and below would reach whole groups, 1 is init.
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let number = if kill { libc::SIGKILL } else { libc::SIGTERM };
    // SAFETY: kill touches no memory.
    super::cerr(unsafe { libc::kill(pid, number) })?;
    Ok(())
}

/// Sends TERM (`kill` false) or KILL to a process group.
///
/// # Errors
/// When there is none of that number, or it may not be signalled.
pub fn signal_group(group: i32, kill: bool) -> io::Result<()> {
    if group <= 1 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let number = if kill { libc::SIGKILL } else { libc::SIGTERM };
    // SAFETY: killpg touches no memory.
    super::cerr(unsafe { libc::killpg(group, number) })?;
    Ok(())
}

/// Whether a process group has a member: unlike a walk over `/proc`, this cannot
/// miss one that forks and exits all the time.
#[must_use]
pub fn group_exists(group: i32) -> bool {
    if group <= 1 {
        return false;
    }
    // SAFETY: kill with signal 0 only looks.
    match super::cerr(unsafe { libc::kill(-group, 0) }) {
        Ok(_) => true,
        // Somebody else's are there as well.
        Err(error) => error.raw_os_error() == Some(libc::EPERM),
    }
}

/// Whether this process has a child, adopted ones and zombies included.
#[must_use]
pub fn has_children() -> bool {
    // SAFETY: a zeroed siginfo is valid, and waitid writes nothing else. With
    // these flags it neither waits nor reaps.
    let result = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        super::cerr(libc::waitid(libc::P_ALL, 0, &raw mut info, flags))
    };
    !matches!(result, Err(error) if error.raw_os_error() == Some(libc::ECHILD))
}

/// Makes this process the parent of every orphan among its descendants, so that
/// daemons that left their session are still found and reaped.
///
/// # Errors
/// Where the kernel (or an emulator) cannot; the agent gets by without.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: this prctl takes plain numbers.
    super::cerr(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) })?;
    Ok(())
}

/// Makes this process known by a name in `ps` and to `pidof`, or by as much of it as
/// the kernel keeps.
pub fn be_called(name: &OsStr) {
    if let Ok(name) = CString::new(name.as_bytes()) {
        // SAFETY: the kernel reads up to the NUL, and 16 bytes at most.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    }
}

/// Makes sure that no descriptor from `first` on, which whoever started this
/// process may have left open, is inherited by its children.
pub fn close_on_exec_from(first: i32) {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    for entry in entries.flatten() {
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(number) = number.filter(|&number: &i32| number >= first) {
            // SAFETY: setting a flag on a descriptor number touches no memory;
            // one that is closed meanwhile gives EBADF.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// The user that this process acts as.
#[must_use]
pub fn effective_user() -> u32 {
    // SAFETY: geteuid cannot fail and touches no memory.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row 6: ended by a signal.
    #[test]
    fn row_06_signals_are_counted_down_from_256() {
        assert_eq!(Exit::Signal(9).status(), 247);
        assert_eq!(Exit::Signal(15).status(), 241);
        assert_eq!(Exit::Signal(1).status(), 255);
        assert_eq!(Exit::Code(0).status(), 0);
        assert_eq!(Exit::Code(255).status(), 255);
    }

    #[test]
    fn nobody_signals_a_group_or_init() {
        for pid in [-1, 0, 1] {
            assert!(send_signal(pid, true).is_err());
        }
    }
}
