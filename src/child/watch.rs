//! When a command has to be stopped: a pure reckoning of deadlines.

use std::fmt;
use std::time::{Duration, Instant};

/// How long a command may run and how long it may be silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Seconds in all.
    pub global: Option<u64>,
    /// Seconds without a byte of output.
    pub output: Option<u64>,
}

/// Why a command is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It ran longer than this number of seconds.
    GlobalTimeout(u64),
    /// It was silent for this number of seconds.
    OutputTimeout(u64),
    /// Its job was cancelled.
    Cancelled,
    /// The agent itself was told to stop.
    Interrupted,
}

/// The original's messages (PROTOCOL.md, section 4), which people search for.
impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::GlobalTimeout(limit) => write!(f, "ERROR: Global timeout reached! ({limit}s)"),
            Stop::OutputTimeout(limit) => write!(f, "ERROR: Output timeout reached! ({limit}s)"),
            Stop::Cancelled => f.write_str("Job cancellation was requested, exiting."),
            Stop::Interrupted => f.write_str("ERROR: The agent was told to stop, exiting."),
        }
    }
}

/// The watch over one command. It knows no clock: every moment is given to it.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    limits: Limits,
    started: Instant,
    last_output: Instant,
}

impl Watch {
    /// The watch over a command that starts `now`.
    #[must_use]
    pub fn new(limits: Limits, now: Instant) -> Watch {
        Watch {
            limits,
            started: now,
            last_output: now,
        }
    }

    /// Output has come.
    pub fn output(&mut self, now: Instant) {
        self.last_output = now;
    }

    /// The nearest moment at which [`Watch::due`] may have something to say; a
    /// limit too large for the clock never comes.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let after = |start: Instant, limit: Option<u64>| {
            limit.and_then(|seconds| start.checked_add(Duration::from_secs(seconds)))
        };
        let global = after(self.started, self.limits.global);
        let output = after(self.last_output, self.limits.output);
        global.into_iter().chain(output).min()
    }

    /// Whether the command has to be stopped by now.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Stop> {
        let over = |start: Instant, limit: u64| {
            now.saturating_duration_since(start) >= Duration::from_secs(limit)
        };
        match self.limits {
            Limits {
                global: Some(limit),
                ..
            } if over(self.started, limit) => Some(Stop::GlobalTimeout(limit)),
            Limits {
                output: Some(limit),
                ..
            } if over(self.last_output, limit) => Some(Stop::OutputTimeout(limit)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn output_postpones_one_limit_but_not_the_other() {
        let start = Instant::now();
        let limits = Limits {
            global: Some(14_400),
            output: Some(900),
        };
        let mut watch = Watch::new(limits, start);
        assert_eq!(watch.deadline(), Some(start + seconds(900)));
        assert_eq!(watch.due(start + seconds(899)), None);
        watch.output(start + seconds(899));
        assert_eq!(watch.due(start + seconds(1_798)), None);
        let stop = watch.due(start + seconds(1_799)).unwrap();
        assert_eq!(stop.to_string(), "ERROR: Output timeout reached! (900s)");
        watch.output(start + seconds(14_399));
        let stop = watch.due(start + seconds(14_400)).unwrap();
        assert_eq!(stop.to_string(), "ERROR: Global timeout reached! (14400s)");
    }

    #[test]
    fn no_limit_never_fires_and_a_huge_one_does_not_overflow() {
        let start = Instant::now();
        let none = Watch::new(Limits::default(), start);
        assert_eq!(none.deadline(), None);
        assert_eq!(none.due(start + seconds(1 << 40)), None);
        let huge = Limits {
            global: Some(u64::MAX),
            output: None,
        };
        assert_eq!(Watch::new(huge, start).due(start + seconds(1 << 30)), None);
    }
}
