//! The init that started the agent, where it wants to know how the agent is
//! (sd_notify(3)).

use crate::log::printable;
use crate::sys::clock;
use crate::warning;
use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// What found no room in the init's socket is said again after this.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest status that is shown, in characters: a datagram must hold it.
const SHOWN: usize = 500;

/// An init that listens.
#[derive(Debug)]
pub(super) struct Init {
    socket: UnixDatagram,
    address: SocketAddr,
    /// How often it has to hear that the agent lives.
    interval: Option<Duration>,
    /// When that is due.
    due: Instant,
    /// What the agent does, as an assignment.
    state: String,
    /// The same for people.
    status: String,
    /// When these two are to be said once more.
    untold: Option<Instant>,
}

impl Init {
    /// The one that the environment names.
    pub(super) fn find() -> Option<Init> {
        let name = env::var_os("NOTIFY_SOCKET")?;
        let usable = || {
            let socket = UnixDatagram::unbound()?;
            // Whatever the init does, the agent does not wait for it.
            socket.set_nonblocking(true)?;
            Ok::<_, io::Error>((socket, address(&name)?))
        };
        match usable() {
            Ok((socket, address)) => Some(Init {
                socket,
                address,
                interval: interval(),
                due: Instant::now(),
                state: "READY=1".into(),
                status: String::new(),
                untold: None,
            }),
            Err(error) => {
                warning!("cannot talk to the init at NOTIFY_SOCKET: {error}; going on without");
                None
            }
        }
    }

    /// The agent takes jobs, or will.
    pub(super) fn ready(&mut self, status: &str) {
        self.change("READY=1".into(), status);
    }

    /// What the agent does now.
    pub(super) fn status(&mut self, status: &str) {
        self.change(self.state.clone(), status);
    }

    /// The agent ends.
    pub(super) fn stopping(&mut self) {
        let status = self.status.clone();
        self.change("STOPPING=1".into(), &status);
    }

    /// The agent begins anew, and says then that it is ready.
    pub(super) fn reloading(&mut self) {
        let now = clock::monotonic().as_micros();
        let state = format!("RELOADING=1\nMONOTONIC_USEC={now}");
        self.change(state, "beginning anew");
    }

    fn change(&mut self, state: String, status: &str) {
        // A line of it would be an assignment of its own.
        let status: String = printable(status).chars().take(SHOWN).collect();
        if state != self.state || status != self.status {
            self.state = state;
            self.status = status;
            self.tell(Instant::now());
        }
    }

    fn tell(&mut self, now: Instant) {
        let said = self.send(&format!("{}\nSTATUS={}", self.state, self.status));
        self.untold = (!said).then(|| now + PAUSE);
    }

    /// When [`Init::feed`] has something to say.
    pub(super) fn due(&self) -> Option<Instant> {
        let alive = self.interval.map(|_| self.due);
        alive.into_iter().chain(self.untold).min()
    }

    /// Says that the agent lives, when that is due.
    pub(super) fn feed(&mut self, now: Instant) {
        if self.untold.is_some_and(|at| at <= now) {
            self.tell(now);
        }
        if let Some(interval) = self.interval
            && self.due <= now
        {
            // One that is lost is made good by the next.
            self.send("WATCHDOG=1");
            self.due = now + interval;
        }
    }

    /// False when there was no room for it. An init that is gone needs to know
    /// nothing.
    fn send(&self, message: &str) -> bool {
        let sent = self.socket.send_to_addr(message.as_bytes(), &self.address);
        !matches!(sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// A path, or a name after `@` that is in no file system.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::Error::other(format!(
            "{} is neither a path nor an abstract name",
            name.display()
        ))),
    }
}

/// Half of the time after which the init takes the agent for dead.
fn interval() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let is_meant = match env::var_os("WATCHDOG_PID") {
        Some(_) => number("WATCHDOG_PID") == Some(u64::from(std::process::id())),
        None => true,
    };
    let limit = number("WATCHDOG_USEC").filter(|&limit| is_meant && limit > 0)?;
    Some(Duration::from_micros(limit / 2).max(Duration::from_millis(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_paths_or_abstract_names() {
        let path = address(OsStr::new("/run/systemd/notify")).unwrap();
        assert_eq!(
            path.as_pathname().unwrap().to_str(),
            Some("/run/systemd/notify")
        );
        let name = address(OsStr::new("@a b")).unwrap();
        assert_eq!(name.as_abstract_name(), Some(&b"a b"[..]));
        for wrong in ["", "vsock:2:1", "run/notify"] {
            assert!(address(OsStr::new(wrong)).is_err(), "{wrong}");
        }
        assert!(address(OsStr::new(&format!("/{}", "x".repeat(200)))).is_err());
    }
}
