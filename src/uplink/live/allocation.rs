//! A device that is allocated: its job waits for its parent.

use super::{LONGEST_PAUSE, LiveJob, Reading};
use crate::uplink::Event;
use crate::uplink::api::Api;
use crate::uplink::backoff::Backoff;
use crate::uplink::failure::Failure;
use crate::uplink::reading::Known;
use std::time::{Duration, Instant};

/// How often it is looked at, however quick the answer is.
const INTERVAL: Duration = Duration::from_secs(10);

/// What becomes of the wait.
#[derive(Debug)]
pub(super) struct Allocation {
    /// None: only a cancellation ends it.
    parent: Option<String>,
    /// The server knows that the device is allocated.
    is_posted: bool,
    posting: Backoff,
    parent_read: Option<Reading>,
    /// The agent has been told that it is over.
    is_over: bool,
}

impl LiveJob {
    /// The device is allocated, as soon as all that is known of it has arrived.
    pub(in crate::uplink) fn allocated(&mut self, parent: Option<String>) {
        self.allocation = Some(Allocation {
            parent,
            is_posted: false,
            posting: Backoff::default(),
            parent_read: None,
            is_over: false,
        });
    }

    /// Nobody waits any more.
    pub(in crate::uplink) fn allocation_over(&mut self) {
        self.allocation = None;
        self.delivery.allocation_over();
    }

    /// When there is something to be done for it.
    pub(super) fn allocation_due(&self, now: Instant) -> Option<Instant> {
        let allocation = self.allocation.as_ref()?;
        if self.cancelled || allocation.is_over || self.delivery.current().is_some() {
            return None;
        }
        if !allocation.is_posted {
            return Some(allocation.posting.resting(now).unwrap_or(now));
        }
        allocation.parent.as_ref()?;
        Some(match allocation.parent_read {
            Some(reading) => reading.at + INTERVAL.max(reading.worth()),
            None => now,
        })
    }

    /// Does it.
    pub(super) fn go_on_with_allocation(&mut self, api: &Api, tell: &dyn Fn(Event)) {
        let is_posted = self.allocation.as_ref().is_some_and(|one| one.is_posted);
        if !is_posted {
            if self.job_read.is_none_or(Reading::is_stale) {
                self.check(api, tell);
            }
            // A late state undoes a cancellation.
            let posted = match self.cancelled {
                true => return,
                false if self.check_failures > 0 => {
                    Err(Failure::transient("the job's state is not known"))
                }
                false => self.post_job_state(api, "allocated"),
            };
            if let Some(allocation) = &mut self.allocation {
                allocation.is_posted = posted.is_ok();
                allocation.posting.note(&posted, LONGEST_PAUSE);
            }
            return;
        }
        let Some(allocation) = &mut self.allocation else {
            return;
        };
        let parent = allocation.parent.as_deref().unwrap_or_default();
        let begun = Instant::now();
        let known = api.known(parent);
        allocation.parent_read = Some(Reading::since(begun));
        if let Some(why) = over(known) {
            allocation.is_over = true;
            tell(Event::ParentOver(why));
        }
    }
}

/// Why nobody needs the device any more, if that is so.
fn over(parent: Result<Known, Failure>) -> Option<String> {
    match parent {
        Ok(known) if !known.is_known => Some("unknown to the server".into()),
        Ok(known) => {
            let state = known.job_state.unwrap_or_default();
            matches!(&state[..], "complete" | "completed" | "cancelled").then_some(state)
        }
        // The name is none that a job can have. Anything else comes from whoever stands
        // before the server, and passes.
        Err(Failure::Refused { status: 400, cause }) => {
            Some(format!("none that the server can know: {cause}"))
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_over_when_it_has_ended_or_is_not_known() {
        let over = |is_known, state: &str| {
            let known = Known {
                is_known,
                job_state: Some(state.to_owned()),
                ..Known::default()
            };
            super::over(Ok(known))
        };
        for state in ["complete", "completed", "cancelled"] {
            assert_eq!(over(true, state).as_deref(), Some(state));
        }
        for state in ["provision", "allocated", "waiting", ""] {
            assert_eq!(over(true, state), None);
        }
        assert!(over(false, "").is_some());
        assert_eq!(super::over(Err(Failure::transient("x"))), None);
        let refused = |status| {
            let cause = format!("the server answered {status}");
            super::over(Err(Failure::Refused { status, cause }))
        };
        let why = "none that the server can know: the server answered 400";
        assert_eq!(refused(400).as_deref(), Some(why));
        for status in [404, 405, 410, 422] {
            assert_eq!(refused(status), None, "{status}");
        }
    }
}
