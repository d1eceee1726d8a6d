//! The serial log of the phase that runs: when it is looked at.

use crate::child::Tail;
use std::time::{Duration, Instant};

/// Between two looks where changes are not told.
const INTERVAL: Duration = Duration::from_millis(500);
/// What is written in a row is read together.
const GATHER: Duration = Duration::from_millis(100);

/// What a device connector writes down of the serial line.
#[derive(Debug)]
pub(super) struct Serial {
    pub(super) tail: Tail,
    /// When to look, if there is a reason.
    next: Option<Instant>,
}

impl Serial {
    /// It may be there already.
    pub(super) fn new(tail: Tail, now: Instant) -> Serial {
        Serial {
            tail,
            next: Some(now),
        }
    }

    /// Something in the workspace has changed.
    pub(super) fn changed(&mut self, now: Instant) {
        self.next.get_or_insert(now + GATHER);
    }

    /// When the next look is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.next
    }

    /// Looks, if it is time to; how many bytes are kept now, if there are more.
    pub(super) fn look(&mut self, now: Instant, changes_are_told: bool) -> Option<u64> {
        if self.next.is_none_or(|next| next > now) {
            return None;
        }
        let grown = self.tail.look();
        self.next = match (self.tail.is_behind(), changes_are_told) {
            (true, _) => Some(now),
            (false, true) => None,
            (false, false) => Some(now + INTERVAL),
        };
        grown
    }
}
