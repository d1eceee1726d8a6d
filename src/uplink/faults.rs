//! Each fault is said once, and its end once, however often it is met between.

use crate::{info, warning};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The faults that last at the moment, by what cannot be done.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<BTreeMap<String, Fault>>);

/// So many causes of one fault are said: they may change without an end.
const CAUSES: usize = 5;

#[derive(Debug)]
struct Fault {
    since: Instant,
    /// Those that have been said. The first need not be the last: a network that
    /// comes late may lead to a certificate that is not valid yet.
    causes: Vec<String>,
}

impl Faults {
    /// Something cannot be done, for this reason.
    pub(super) fn report(&self, action: &str, cause: &str, next: &str) {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = faults.entry(action.to_owned()).or_insert_with(|| Fault {
            since: Instant::now(),
            causes: Vec::new(),
        });
        if fault.causes.len() < CAUSES && !fault.causes.iter().any(|said| said == cause) {
            fault.causes.push(cause.to_owned());
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
        if let Some(fault) = faults.remove(action) {
            let lasted = duration(fault.since.elapsed());
            info!("can {action} again, after {lasted}");
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
