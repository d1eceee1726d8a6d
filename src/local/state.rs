//! All that the server knows, behind one lock, and a bell that rings when it
//! changes.

use super::Options;
use super::agents::Agents;
use super::jobs::Jobs;
use super::legacy::{Era, Legacy};
use super::logs::Logs;
use super::script::Script;
use super::token::Tokens;
use crate::job::Phase;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Whom somebody wants to be told of output: the job, the phase, the text.
pub(super) type Observer = Box<dyn Fn(&str, Phase, &str) + Send>;

/// What the server knows.
#[derive(Debug)]
pub(super) struct State {
    pub(super) tokens: Tokens,
    pub(super) agents: Agents,
    pub(super) jobs: Jobs,
    pub(super) logs: Logs,
    /// The jobs that have one.
    pub(super) artifacts: BTreeSet<String>,
    pub(super) script: Script,
    pub(super) era: Era,
    /// What only servers of earlier times keep.
    pub(super) legacy: Legacy,
}

/// What the server's threads share.
pub(super) struct Shared {
    pub(super) options: Options,
    /// Never locked while the state is.
    pub(super) observer: Mutex<Option<Observer>>,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    pub(super) fn new(options: Options, state: State) -> Shared {
        Shared {
            options,
            observer: Mutex::new(None),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the state.
    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    /// Changes the state, and wakes whoever waits for a change.
    pub(super) fn update<T>(&self, update: impl FnOnce(&mut State) -> T) -> T {
        let result = update(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until the state is as wanted. False: it did not get so in time.
    pub(super) fn wait(&self, timeout: Duration, is_so: impl Fn(&State) -> bool) -> bool {
        let end = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if is_so(&state) {
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
