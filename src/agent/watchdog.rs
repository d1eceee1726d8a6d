//! The board's watchdog, which resets the board when nobody feeds it.

use crate::sys;
use crate::{error, info};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often one is fed that does not say how long it waits.
const INTERVAL: Duration = Duration::from_secs(5);
/// What a driver takes as the wish to disarm; any other byte is food.
const DISARM: &[u8] = b"V";
const FOOD: &[u8] = b"\0";

/// A watchdog that is to be fed.
#[derive(Debug)]
pub(super) struct Watchdog {
    path: PathBuf,
    /// None while it cannot be opened: a driver may come late, or somebody else
    /// may hold it.
    device: Option<File>,
    interval: Duration,
    due: Instant,
    failed: bool,
}

impl Watchdog {
    /// The device of this name; it is armed by being fed for the first time.
    pub(super) fn new(path: &Path) -> Watchdog {
        Watchdog {
            path: path.to_owned(),
            device: None,
            interval: INTERVAL,
            due: Instant::now(),
            failed: false,
        }
    }

    /// When it has to be fed next.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Feeds it, when that is due. One that fails is said once, and tried again:
    /// an agent without is better than none.
    pub(super) fn feed(&mut self, now: Instant) {
        if self.due > now {
            return;
        }
        match self.feed_now() {
            Ok(()) => self.failed = false,
            Err(error) => {
                self.device = None;
                if !self.failed {
                    let path = self.path.display();
                    error!(
                        "nothing watches over this agent: cannot feed the watchdog {path}: \
                         {error}; trying again"
                    );
                }
                self.failed = true;
            }
        }
        self.due = now + self.interval;
    }

    fn feed_now(&mut self) -> io::Result<()> {
        let mut device = match self.device.take() {
            Some(device) => device,
            None => self.open()?,
        };
        match device.write_all(FOOD) {
            // A program that stands in for a device, and has enough for now.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => other?,
        }
        self.device = Some(device);
        Ok(())
    }

    fn open(&mut self) -> io::Result<File> {
        let (device, timeout) = sys::open_watchdog(&self.path)?;
        // Two may be late, the third is in time.
        self.interval = timeout.map_or(INTERVAL, |timeout| timeout / 3);
        info!(
            "the watchdog {} is fed every {:?}",
            self.path.display(),
            self.interval
        );
        Ok(device)
    }

    /// An orderly end resets no board, unless the driver knows no way out
    /// (`nowayout`).
    pub(super) fn disarm(&mut self) {
        if let Some(mut device) = self.device.take()
            && let Err(error) = device.write_all(DISARM)
        {
            error!(
                "cannot disarm the watchdog {}: {error}; it resets the board unless somebody \
                 feeds it",
                self.path.display()
            );
        }
    }
}
