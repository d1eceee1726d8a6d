//! Fetching a job's attachments: on a thread of its own over a connection of its own,
//! so that a job can be cancelled meanwhile.

use super::Event;
use super::api::{Api, Outgoing, percent};
use super::backoff::Backoff;
use super::common::Common;
use super::failure::Failure;
use super::http::{Patience, explain_io};
use crate::archive::Fault;
use crate::job::Attachments;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Attachments that are on their way. They are given up when this is dropped.
#[derive(Debug)]
pub struct Fetching(Arc<GivenUp>);

impl Fetching {
    /// Why the last attempt failed, if one did.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let fault = self.0.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.clone()
    }
}

#[derive(Debug, Default)]
struct GivenUp {
    is_so: Mutex<bool>,
    changed: Condvar,
    /// Of the last attempt.
    fault: Mutex<Option<String>>,
}

impl Drop for Fetching {
    fn drop(&mut self) {
        *self.0.is_so.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }
}

impl GivenUp {
    fn is_so(&self) -> bool {
        *self.is_so.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, cause: &str) {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        *fault = Some(cause.to_owned());
    }

    /// Waits until then; true when nobody wants them any more.
    fn wait_until(&self, until: Instant) -> bool {
        let is_so = self.is_so.lock().unwrap_or_else(PoisonError::into_inner);
        let left = until.saturating_duration_since(Instant::now());
        let waited = self
            .changed
            .wait_timeout_while(is_so, left, |is_so| !*is_so);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Begins to fetch a job's attachments; [`Event::Fetched`] says how it ended. What may
/// succeed later is tried again until it is given up.
///
/// # Errors
/// A sentence, when there is no TLS or no thread to be had.
pub(super) fn start(
    common: Arc<Common>,
    job_id: String,
    attachments: Attachments,
    tell: impl Fn(Event) + Send + 'static,
) -> Result<Fetching, String> {
    let api = Api::new(common)?;
    let given_up = Arc::new(GivenUp::default());
    let fetching = Fetching(Arc::clone(&given_up));
    let work = move || {
        super::leave_signals_to_the_agent();
        let mut backoff = Backoff::default();
        loop {
            let result = match fetch(&api, &job_id, &attachments, &given_up) {
                Ok(()) => Ok(()),
                Err(Failure::Refused { cause, .. }) => Err(cause),
                Err(failure) => {
                    given_up.failed(failure.cause());
                    backoff.note(&Err(failure), LONGEST_PAUSE);
                    let now = Instant::now();
                    if given_up.wait_until(backoff.resting(now).unwrap_or(now)) {
                        return;
                    }
                    continue;
                }
            };
            return tell(Event::Fetched(job_id, result));
        }
    };
    let thread = thread::Builder::new().name("attachments".into());
    match thread.spawn(work) {
        Ok(_) => Ok(fetching),
        Err(error) => Err(format!("cannot start a thread: {error}")),
    }
}

/// `GET /v1/job/<id>/attachments`: unpacks the answer as it comes.
fn fetch(
    api: &Api,
    job_id: &str,
    attachments: &Attachments,
    given_up: &GivenUp,
) -> Result<(), Failure> {
    let action = "fetch a job's attachments";
    let path = format!("/v1/job/{}/attachments", percent(job_id));
    let nothing = Outgoing::Nothing(Patience::LongAnswer);
    let mut reply = api.call(action, "GET", &path, nothing)?;
    let refused = |status, cause| Failure::Refused { status, cause };
    if reply.status == 204 {
        return Err(refused(204, "the server has none".into()));
    }
    let is_page = |kind: &str| kind.starts_with("text/html");
    if reply.header("content-type").is_some_and(is_page) {
        return Err(api.unreadable(action, "it is a page of HTML, not the server's"));
    }
    let mut source = Wanted {
        reader: reply.reader(),
        given_up,
    };
    match attachments.unpack(&mut source) {
        Ok(()) => {
            api.common.faults.over(action);
            Ok(())
        }
        Err(Fault::Source(error)) => Err(api.unreadable(action, &explain_io(&error))),
        Err(fault) => {
            api.common.faults.over(action);
            Err(refused(200, fault.to_string()))
        }
    }
}

/// One attempt, that nobody gives up.
pub(super) fn once(api: &Api, job_id: &str, attachments: &Attachments) -> Result<(), Failure> {
    fetch(api, job_id, attachments, &GivenUp::default())
}

/// Ends when nobody wants it any more.
struct Wanted<'a, R> {
    reader: R,
    given_up: &'a GivenUp,
}

impl<R: Read> Read for Wanted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.given_up.is_so() {
            true => Err(io::Error::from(io::ErrorKind::ConnectionAborted)),
            false => self.reader.read(buffer),
        }
    }
}
