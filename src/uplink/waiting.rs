//! What waits to be sent of a log that still grows.

use crate::job::Phase;
use std::time::{Duration, Instant};

/// Lines that are printed together travel together.
pub(super) const GATHER: Duration = Duration::from_millis(80);
/// Between the fragments of one log. With [`GATHER`] no line waits longer than
/// half a second, and the server stores no more than a few fragments a second.
pub(super) const FRAGMENT_INTERVAL: Duration = Duration::from_millis(380);

/// What waits of one log of the phase that runs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waiting {
    /// The phase, and how many bytes the log has.
    available: Option<(Phase, u64)>,
    /// Since when some of them wait.
    since: Option<Instant>,
    /// When something of it was last sent.
    last_fragment: Option<Instant>,
}

impl Waiting {
    /// The log of this phase has so many bytes now.
    pub(super) fn grown(&mut self, phase: Phase, available: u64, now: Instant) {
        if self.available.is_none_or(|(known, _)| known != phase) {
            // The beginning of a phase does not wait for the end of the last one's pause.
            (self.since, self.last_fragment) = (None, None);
        }
        self.available = Some((phase, available));
        self.since.get_or_insert(now);
    }

    /// The server has so many bytes of it, by a fragment that was begun then.
    pub(super) fn sent(&mut self, phase: Phase, bytes: u64, begun: Instant) {
        self.last_fragment = Some(begun);
        // What was printed since waits from then on.
        self.since = (bytes < self.available(phase)).then_some(begun);
    }

    /// Bytes of a phase's log, as long as it runs.
    pub(super) fn available(&self, phase: Phase) -> u64 {
        let known = self.available.filter(|(known, _)| *known == phase);
        known.map_or(0, |(_, available)| available)
    }

    /// When the next fragment is due, if something waits; there is this time between
    /// two of them.
    pub(super) fn due(&self, interval: Duration) -> Option<Instant> {
        let gathered = self.since? + GATHER;
        let rested = self.last_fragment.map(|last| last + interval);
        Some(rested.map_or(gathered, |rested| rested.max(gathered)))
    }
}
