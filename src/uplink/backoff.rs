//! How long to leave alone what has just failed.

use super::failure::Failure;
use crate::sys;
use std::time::{Duration, Instant};

/// Failures in a row, and until when nothing is tried again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// What an attempt came to. The pause grows, up to `longest`, or is what the
    /// server asked for.
    pub(super) fn note(&mut self, result: &Result<(), Failure>, longest: Duration) {
        match result {
            Ok(()) => *self = Backoff::default(),
            Err(failure) => {
                self.failures = self.failures.saturating_add(1);
                let pause = pause(self.failures, failure.retry_after(), longest);
                self.until = Some(Instant::now() + pause);
            }
        }
    }

    /// Nothing is tried for this long.
    pub(super) fn rest(&mut self, time: Duration) {
        self.until = Some(Instant::now() + time);
    }

    /// Failures in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Until when nothing is tried.
    pub(super) fn resting(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }
}

/// How long to wait after this many failures: one second, doubled each time, up
/// to `longest`, between half and all of it. If the server asked for more, then
/// that and up to a tenth: it will have asked all of a lab's agents.
pub(super) fn pause(failures: u32, asked: Option<Duration>, longest: Duration) -> Duration {
    let doubled = Duration::from_secs(1 << failures.saturating_sub(1).min(12));
    let whole = doubled.min(longest);
    let jitter = sys::random_share();
    let asked = asked.unwrap_or_default().mul_f64(1.0 + jitter / 10.0);
    whole.mul_f64(0.5 + jitter / 2.0).max(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_as_long_as_the_server_wants_them() {
        let seconds = Duration::from_secs;
        let longest = seconds(30);
        for (failures, whole) in [(1, 1), (2, 2), (4, 8), (6, 30), (u32::MAX, 30)] {
            let pause = pause(failures, None, longest);
            assert!(pause * 2 >= seconds(whole) && pause <= seconds(whole));
        }
        for _ in 0..100 {
            let pause = pause(1, Some(seconds(60)), longest);
            assert!(pause >= seconds(60) && pause <= seconds(66));
        }
    }
}
