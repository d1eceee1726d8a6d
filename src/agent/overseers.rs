//! Who watches over the agent: the init that started it, and the board's
//! watchdog. Both are told that it lives in the one place where it waits, so that
//! they hear of it only as long as its main loop turns.

use super::init::Init;
use super::watchdog::Watchdog;
use std::path::Path;
use std::time::Instant;

/// Those that there are.
#[derive(Debug, Default)]
pub(super) struct Overseers {
    init: Option<Init>,
    watchdog: Option<Watchdog>,
}

impl Overseers {
    /// Tells them that the agent has started.
    pub(super) fn start(watchdog: Option<&Path>) -> Overseers {
        let mut overseers = Overseers {
            init: Init::find(),
            watchdog: watchdog.map(Watchdog::new),
        };
        if let Some(init) = &mut overseers.init {
            init.ready("starting");
        }
        overseers.feed(Instant::now());
        overseers
    }

    /// The nearest moment at which [`Overseers::feed`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        let init = self.init.as_ref().and_then(Init::due);
        let watchdog = self.watchdog.as_ref().map(Watchdog::due);
        init.into_iter().chain(watchdog).min()
    }

    /// Tells those who have to hear it by now that the agent lives.
    pub(super) fn feed(&mut self, now: Instant) {
        if let Some(init) = &mut self.init {
            init.feed(now);
        }
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.feed(now);
        }
    }

    /// What the agent does now, for people.
    pub(super) fn status(&mut self, status: &str) {
        if let Some(init) = &mut self.init {
            init.status(status);
        }
    }

    /// The agent is about to end, and needs some time for that.
    pub(super) fn stopping(&mut self) {
        if let Some(init) = &mut self.init {
            init.stopping();
        }
    }

    /// The agent ends in order, or begins anew: nobody is to take it for dead.
    pub(super) fn farewell(&mut self, begins_anew: bool) {
        match &mut self.init {
            Some(init) if begins_anew => init.reloading(),
            Some(init) => init.stopping(),
            None => {}
        }
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.disarm();
        }
    }
}
