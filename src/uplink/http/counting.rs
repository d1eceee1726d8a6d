//! How many requests there are and how long they take, for whoever wants to know.

use super::{NoAnswer, Reply};
use crate::metrics::{Endpoint, Metrics};
use std::io::{self, Read};
use std::time::Instant;

/// A request that is under way.
pub(super) struct Counting<'a> {
    metrics: Option<&'a Metrics>,
    endpoint: Endpoint,
    begun: Instant,
}

impl Counting<'_> {
    pub(super) fn start<'a>(
        metrics: Option<&'a Metrics>,
        method: &str,
        path: &str,
    ) -> Counting<'a> {
        let (endpoint, begun) = (Endpoint::of(method, path), Instant::now());
        if let Some(metrics) = metrics {
            metrics.asking(endpoint, begun);
        }
        Counting {
            metrics,
            endpoint,
            begun,
        }
    }

    /// The head of its answer has come, or will not come.
    pub(super) fn end(self, answer: Result<Reply, NoAnswer>) -> Result<Reply, NoAnswer> {
        if let Some(metrics) = self.metrics {
            let end = match &answer {
                Ok(reply) => Ok(reply.status),
                Err(no_answer) => Err(no_answer.cause.as_str()),
            };
            metrics.asked(self.endpoint, self.begun, Instant::now(), end);
        }
        answer
    }
}

/// What is sent, and counted as it goes.
pub(super) struct CountedReader<'a> {
    reader: &'a mut dyn Read,
    metrics: Option<&'a Metrics>,
}

impl<'a> CountedReader<'a> {
    pub(super) fn of(reader: &'a mut dyn Read, counting: &Counting<'a>) -> CountedReader<'a> {
        let is_counted = counting.endpoint.is_artifact();
        CountedReader {
            reader,
            metrics: counting.metrics.filter(|_| is_counted),
        }
    }
}

impl Read for CountedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if let Some(metrics) = self.metrics {
            metrics.artifacts(count);
        }
        Ok(count)
    }
}
