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

const ALLOCATE: &str = "tell the parent of a job that its device is allocated";

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
    pub(in crate::uplink) fn allocation_over(&mut self, api: &Api) {
        self.allocation = None;
        api.common.faults.forget(ALLOCATE);
        self.delivery.allocation_over();
    }

    /// When there is something to be done for it.
    pub(super) fn allocation_due(&self, now: Instant) -> Option<Instant> {
        let allocation = self.allocation.as_ref()?;
        if self.cancelled || allocation.is_over || self.delivery.current().is_some() {
            return None;
        }
        let resting = allocation.posting.resting(now);
        let post_due = (!allocation.is_posted).then(|| resting.unwrap_or(now));
        // A parent that never hears of it may be over as well.
        let is_tried = allocation.is_posted || allocation.posting.failures() > 0;
        let parent = allocation.parent.as_ref().filter(|_| is_tried);
        let look_due = parent.map(|_| match allocation.parent_read {
            Some(reading) => reading.at + INTERVAL.max(reading.worth()),
            None => now,
        });
        post_due.into_iter().chain(look_due).min()
    }

    /// Does it.
    pub(super) fn go_on_with_allocation(&mut self, api: &Api, tell: &dyn Fn(Event), now: Instant) {
        let is_to_post = |one: &Allocation| !one.is_posted && one.posting.resting(now).is_none();
        if self.allocation.as_ref().is_some_and(is_to_post) {
            if self.job_read.is_none_or(Reading::is_stale) {
                self.check(api, tell);
            }
            // A late state undoes a cancellation.
            let posted = match self.cancelled {
                true => return,
                false if self.check_failures > 0 => {
                    Err(Failure::transient("the job's state is not known"))
                }
                false => self.post_allocated(api),
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

    /// However often it is refused: without it, the parent never uses its device.
    fn post_allocated(&self, api: &Api) -> Result<(), Failure> {
        let posted = self.post_state(api, "allocated");
        if let Err(Failure::Refused { cause, .. }) = posted {
            api.common.faults.report(ALLOCATE, &cause, "trying again");
            return Err(Failure::transient(cause));
        }
        if posted.is_ok() {
            api.common.faults.over(ALLOCATE);
        }
        posted
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
    use crate::job::{Progress, Record};
    use crate::local::{Options, Server};
    use crate::uplink::api::tests::api_of;
    use crate::uplink::delivery::Delivery;
    use std::sync::Arc;

    #[test]
    fn what_a_parent_waits_for_is_told_until_it_is_taken() {
        let directory = std::env::temp_dir().join(format!("tfa-allocated-{}", std::process::id()));
        let server = Server::start(Options {
            directory: directory.join("server"),
            keep_exchanges: true,
            ..Options::default()
        })
        .unwrap();
        let api = api_of(&server, &directory);
        let submit = || server.submit("{\"job_queue\": \"q\"}").unwrap();
        let (id, parent) = (submit(), submit());
        let record = Arc::new(Record::create(&directory, &id, "a", "{}").unwrap());
        let progress = Progress {
            job_id: id.clone(),
            ..Progress::default()
        };
        let mut job = LiveJob::new(Delivery::new(record, progress, LONGEST_PAUSE));
        let path = format!("/v1/result/{id}");
        server.answer("POST", &path, 3, 422, "");
        job.allocated(Some(parent.clone()));
        let begun = Instant::now();
        for minute in 0..4 {
            let now = begun + Duration::from_secs(60 * minute);
            assert_ne!(server.job_state(&id).as_deref(), Some("allocated"));
            assert!(job.allocation_due(now).unwrap() <= now);
            job.go_on_with_allocation(&api, &|_| {}, now);
        }
        assert_eq!(server.job_state(&id).as_deref(), Some("allocated"));
        // While that is refused, the parent is looked at all the same.
        job.allocated(Some(parent.clone()));
        server.answer("POST", &path, 1, 422, "");
        let looks = || {
            let exchanges = server.exchanges();
            let of_parent = exchanges.iter().filter(|one| one.path.ends_with(&parent));
            of_parent.count()
        };
        for count in [0, 1] {
            let now = Instant::now();
            assert!(job.allocation_due(now).unwrap() <= now);
            job.go_on_with_allocation(&api, &|_| {}, now);
            assert_eq!(looks(), count);
        }
        drop(server);
        std::fs::remove_dir_all(directory).unwrap();
    }

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
