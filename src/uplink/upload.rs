//! Sending artifacts.

use super::api::{Api, Outgoing, percent};
use super::failure::Failure;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU32, Ordering};

/// So many uploads in chunks in a row may fail before their length is tried: a
/// server that refuses chunks may cut the connection before that can be read.
const ATTEMPTS: u32 = 3;

/// What is known of the way to the server.
#[derive(Debug, Default)]
pub(super) struct Lengths {
    /// Uploads in chunks that failed in a row.
    failures: AtomicU32,
}

impl Lengths {
    /// Whether the length of an upload has to be told.
    fn are_wanted(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= ATTEMPTS
    }
}

/// Artifacts to be sent.
pub(super) struct Upload<'a> {
    pub(super) open: &'a mut dyn FnMut() -> io::Result<Box<dyn Read>>,
    /// Bytes, if that is known.
    pub(super) length: Option<u64>,
}

/// How long a stream is.
fn measure(open: &mut dyn FnMut() -> io::Result<Box<dyn Read>>) -> io::Result<u64> {
    io::copy(&mut open()?, &mut io::sink())
}

impl Api {
    /// `POST /v1/result/<id>/artifact`: the stream that `open` gives, each time
    /// the same. Its length is not known before it has been made, so it goes in
    /// chunks; where something on the way refuses those, it is made twice.
    pub(super) fn post_artifacts(
        &self,
        job_id: &str,
        open: &mut dyn FnMut() -> io::Result<Box<dyn Read>>,
    ) -> Result<(), Failure> {
        let path = format!("/v1/result/{}/artifact", percent(job_id));
        let action = "send a job's artifacts";
        let failures = &self.common.lengths.failures;
        if !self.common.lengths.are_wanted() {
            let upload = Upload { open, length: None };
            match self.call(action, "POST", &path, Outgoing::Artifacts(upload)) {
                // Chunks are refused, or the artifacts: the next attempt shows.
                Err(Failure::Refused {
                    status: 400 | 411, ..
                }) => {}
                Err(failure) => {
                    failures.fetch_add(1, Ordering::Relaxed);
                    return Err(failure);
                }
                Ok(reply) => {
                    failures.store(0, Ordering::Relaxed);
                    return self.acknowledged(action, reply);
                }
            }
        }
        let length = measure(open).map_err(|error| Failure::transient(error.to_string()))?;
        let upload = Upload {
            open,
            length: Some(length),
        };
        let reply = self.call(action, "POST", &path, Outgoing::Artifacts(upload))?;
        if !self.common.lengths.are_wanted() {
            crate::info!("the server wants the length of artifacts: they are packed twice");
            failures.store(ATTEMPTS, Ordering::Relaxed);
        }
        self.acknowledged(action, reply)
    }
}
