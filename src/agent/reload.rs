//! SIGHUP: the log file is opened again, and the agent begins anew, with the
//! configuration as it is then.

use super::{Agent, Event, start};
use crate::config::Config;
use crate::{error, info, log, sys, uplink};
use std::time::{Duration, Instant};

/// What is under way to the server may take this long to end: a request that is
/// cut off may have been received.
const SETTLING: Duration = Duration::from_secs(5);

impl Agent {
    /// The log file may have been moved away, and the configuration changed. A
    /// broken one changes nothing.
    pub(super) fn hang_up(&mut self) {
        if let Err(error) = log::reopen() {
            error!("cannot open the log again: {error}; the old file stays in use");
        }
        if self.would_start() {
            info!("SIGHUP: the configuration is read anew when the agent is idle");
            self.reload_wanted = true;
        }
    }

    /// Whether the agent was told to begin anew, and nothing is before that: a
    /// restart reads the configuration as well, and what the server does not know
    /// yet must not be forgotten.
    pub(super) fn may_begin_anew(&self) -> bool {
        self.reload_wanted && !self.restart_wanted && self.offline.is_none()
    }

    /// Whether the agent is to begin anew at this moment. If so, there is no way back:
    /// nothing more is begun, and signals wait for its next life.
    pub(super) fn is_to_begin_anew(&mut self) -> bool {
        if !self.may_begin_anew() {
            return false;
        }
        self.reload_wanted = false;
        // It may have been changed since it was looked at.
        if !self.would_start() {
            return false;
        }
        if let Err(error) = sys::hold_signals() {
            error!("cannot begin anew: signals cannot be held back: {error}");
            return false;
        }
        while let Some(signal) = self.events.take_signal() {
            self.signal(signal);
        }
        if self.stopping.is_some() || self.restart_wanted {
            // That cannot fail where holding them did not.
            let _ = sys::release_signals();
            return false;
        }
        info!("beginning anew with the new configuration");
        self.settle();
        true
    }

    /// Whether the configuration of this moment can be started with, as far as
    /// that can be seen beforehand; says why not.
    fn would_start(&self) -> bool {
        let rehearsed = Config::load(&self.config_path)
            .map_err(|error| error.to_string())
            .and_then(|config| {
                start::check(&config)?;
                start::rehearse(&config, &self.config).map_err(|error| error.to_string())
            });
        if let Err(error) = &rehearsed {
            error!("SIGHUP: {error}; the configuration stays as it was");
        }
        rehearsed.is_ok()
    }

    /// Lets what is under way to the server come to its end, and begins nothing
    /// more.
    pub(super) fn settle(&mut self) {
        self.uplink.settle(SETTLING);
        let deadline = Instant::now() + SETTLING;
        while !self.abandoned {
            match self.next(None, Some(deadline)) {
                Event::Uplink(uplink::Event::Settled) | Event::Deadline => return,
                Event::Uplink(event) => self.note(&event),
                Event::Signal(signal) => self.signal(signal),
                _ => {}
            }
        }
    }
}
