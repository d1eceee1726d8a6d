//! Sending artifacts.

use super::api::{Api, Outgoing, percent};
use super::failure::Failure;
use crate::info;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU32, Ordering};

/// So many uploads in chunks in a row may be cut off before their length is
/// tried: something on the way may refuse chunks without a word.
const ATTEMPTS: u32 = 3;

/// What is known of the way to the server.
#[derive(Debug, Default)]
pub(super) struct Lengths {
    /// Uploads in chunks that were cut off in a row.
    cut: AtomicU32,
}

impl Lengths {
    /// Whether the length of an upload has to be told.
    fn are_wanted(&self) -> bool {
        self.cut.load(Ordering::Relaxed) >= ATTEMPTS
    }

    /// An upload in chunks came to this.
    fn note<T>(&self, result: &Result<T, Failure>) {
        match result {
            Err(Failure::Unreachable { was_cut: true, .. }) => {
                if self.cut.fetch_add(1, Ordering::Relaxed) + 1 == ATTEMPTS {
                    info!(
                        "{ATTEMPTS} uploads in chunks were cut off: the next one tells its length"
                    );
                }
            }
            // An outage says nothing about chunks.
            Err(Failure::Unreachable { .. }) => {}
            _ => self.cut.store(0, Ordering::Relaxed),
        }
    }

    /// Chunks are refused, but not lengths.
    fn are_needed(&self) {
        if !self.are_wanted() {
            info!("the server wants the length of artifacts: they are packed twice");
            self.cut.store(ATTEMPTS, Ordering::Relaxed);
        }
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
        let lengths = &self.common.lengths;
        if !lengths.are_wanted() {
            let upload = Upload { open, length: None };
            let sent = self.call(action, "POST", &path, Outgoing::Artifacts(upload));
            lengths.note(&sent);
            match sent {
                // Chunks are refused, or the artifacts: the next attempt shows.
                Err(Failure::Refused {
                    status: 400 | 411, ..
                }) => {}
                other => return self.acknowledged(action, other?),
            }
        }
        let length = measure(open).map_err(|error| Failure::transient(error.to_string()))?;
        let upload = Upload {
            open,
            length: Some(length),
        };
        let reply = self.call(action, "POST", &path, Outgoing::Artifacts(upload))?;
        lengths.are_needed();
        self.acknowledged(action, reply)
    }
}
