//! Each fault is said once, and its end once, however often it is met between.

use crate::{info, warning};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The faults that last at the moment, by what cannot be done.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<BTreeMap<String, Instant>>);

impl Faults {
    /// Something cannot be done, for this reason.
    pub(super) fn report(&self, action: &str, cause: &str, next: &str) {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !faults.contains_key(action) {
            faults.insert(action.to_owned(), Instant::now());
            warning!("cannot {action}: {cause}; {next}");
        }
    }

    /// Nobody wants it done any more.
    pub(super) fn forget(&self, action: &str) {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        faults.remove(action);
    }

    /// It can be done.
    pub(super) fn over(&self, action: &str) {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = faults.remove(action) {
            info!("can {action} again, after {}", duration(since.elapsed()));
        }
    }
}

/// A duration for people.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
    }
}
