//! The agent's life: start, rest, take a job, run it, stop.
//!
//! The main thread lives here. It owns every process, every timer and every
//! decision; it waits in one place ([`events`]) and never talks to the network.

mod allocate;
mod announce;
mod attachments;
mod chores;
mod connector;
mod device;
mod ending;
mod environment;
mod events;
mod idle;
mod init;
mod lock;
mod offline;
mod overseers;
mod phase;
mod recovery;
mod release;
mod reload;
mod serial;
mod space;
mod start;
mod story;
mod telemetry;
mod user;
mod watchdog;
mod work;

pub use start::{StartError, check, try_out};

use crate::config::Config;
use crate::job::{Progress, Record};
use crate::sys::{Signal, User};
use crate::uplink::{self, Uplink};
use crate::{error, info};
use events::{Event, Events};
use offline::Offline;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// After SIGTERM, cleanup may take this long.
const LAST_CLEANUP: Duration = Duration::from_secs(60);
/// After SIGTERM, the rest of the job may take this long to be sent.
const LAST_DELIVERY: Duration = Duration::from_secs(30);

/// How the agent is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One job after the other, until it is told to stop.
    Daemon,
    /// One job; Ctrl-C cancels it.
    Once,
}

/// Why the agent's life is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to stop, and nothing is left undone.
    Stopped,
    /// It was told to restart.
    Restart,
    /// It is to begin anew, with the configuration as it is now.
    Reload,
    /// Its one job is over.
    JobOver,
    /// Another agent has its id.
    Locked,
    /// It cannot go on.
    Failed,
}

/// What an agent is started with.
#[derive(Debug)]
pub struct Setup {
    /// The configuration.
    pub config: Config,
    /// Where it was read from.
    pub config_path: PathBuf,
    /// The refresh token's file.
    pub token_file: PathBuf,
    /// How it is used.
    pub mode: Mode,
    /// Whether the workspaces of jobs are left where they are.
    pub keep_workspace: bool,
    /// Where the lock is; agents of one id must agree on it.
    pub lock_basedir: PathBuf,
    /// Where its metrics are shown, if anywhere.
    pub metrics: Option<SocketAddr>,
}

/// A started agent.
#[derive(Debug)]
pub struct Agent {
    config: Config,
    config_path: PathBuf,
    mode: Mode,
    keep_workspace: bool,
    uplink: Uplink,
    events: Events,
    /// What every command finds in its environment.
    environment: Vec<(OsString, OsString)>,
    /// As whom commands run, if not as the agent does.
    user: Option<User>,
    /// Since when it is to stop.
    stopping: Option<Instant>,
    /// When the last phase began.
    phase_begun: Instant,
    /// It is to end at once.
    abandoned: bool,
    /// Because it cannot go on.
    has_failed: bool,
    /// It is to restart when idle.
    restart_wanted: bool,
    /// It is to begin anew when idle.
    reload_wanted: bool,
    /// The running job was cancelled.
    cancelled: bool,
    /// Why it is to be offline, until the server says that it is.
    offline: Option<Offline>,
    /// Jobs in whose middle an earlier life ended; to be taken up.
    interrupted: Vec<(Record, Progress)>,
    idle: idle::Idle,
    lock: lock::Lock,
}

impl Agent {
    /// Waits for the next event.
    fn next(&mut self, pipe: Option<&crate::sys::Pipe>, deadline: Option<Instant>) -> Event {
        match self.events.next(pipe, deadline) {
            Ok(event) => event,
            Err(error) => self.cannot_wait(&error),
        }
    }

    /// poll(2) fails only without memory or with a broken descriptor: the
    /// supervisor's restart is the one way out, and the record has the job.
    fn cannot_wait(&mut self, error: &io::Error) -> Event {
        if !self.abandoned {
            error!("cannot wait for events: {error}; the agent ends");
            (self.abandoned, self.has_failed) = (true, true);
            self.stopping.get_or_insert_with(Instant::now);
        }
        Event::Deadline
    }

    /// Remembers what a signal asks for.
    fn signal(&mut self, signal: Signal) {
        match signal {
            Signal::Restart => {
                info!("SIGUSR1: the agent ends when it is idle, to be started again");
                self.restart_wanted = true;
            }
            Signal::HangUp if self.mode == Mode::Daemon => self.hang_up(),
            Signal::Stop | Signal::Interrupt | Signal::HangUp => self.stop(),
            Signal::Child => {}
        }
    }

    fn stop(&mut self) {
        if self.stopping.is_some() {
            info!("told to stop again: everything ends at once");
            self.abandoned = true;
        } else {
            info!("told to stop: what runs is ended, cleaned up and delivered");
            self.stopping = Some(Instant::now());
            self.events.overseers.stopping();
            self.events.telemetry.metrics.stopping();
        }
    }

    /// What the agent does now, for the init that asked to be told.
    fn say_status(&mut self, status: &str) {
        self.events.overseers.status(status);
    }

    /// Remembers what the uplink says besides answers.
    fn note(&mut self, event: &uplink::Event) {
        match event {
            uplink::Event::Cancelled => {
                info!("the job was cancelled");
                self.cancelled = true;
            }
            uplink::Event::RestartWanted if !self.restart_wanted => {
                info!("the server wants a restart: the agent ends when it is idle");
                self.restart_wanted = true;
            }
            uplink::Event::OfflineTold => self.offline_is_told(),
            _ => {}
        }
    }
}
