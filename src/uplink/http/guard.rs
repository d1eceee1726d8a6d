//! The connection below TLS, watched for two things that get lost above it.
//!
//! A server may refuse an upload early, say so, and close the connection: the
//! next write fails, and the client would not read what was said before. And TLS
//! keeps the error of a write that timed out to itself and writes once more.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Whether the server has closed its ear in the middle of the request that is
/// under way. One request at a time.
#[derive(Clone, Debug, Default)]
pub(super) struct Closed(Arc<AtomicBool>);

impl Closed {
    /// A new request begins.
    pub(super) fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// What is written now goes nowhere.
    pub(super) fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Makes guarded connections out of ordinary ones.
#[derive(Debug)]
pub(super) struct Guard(pub(super) Closed);

impl<In: Transport> Connector<In> for Guard {
    type Out = Guarded<In>;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Guarded<In>>, ureq::Error> {
        let closed = self.0.clone();
        Ok(chained.map(|inner| Guarded {
            inner,
            closed,
            broken: false,
            stalled: false,
        }))
    }
}

/// A connection that can still be read when nothing more can be written.
#[derive(Debug)]
pub(super) struct Guarded<T> {
    inner: T,
    closed: Closed,
    /// This connection is the one that closed.
    broken: bool,
    stalled: bool,
}

impl<T: Transport> Transport for Guarded<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        if self.broken {
            return Ok(());
        }
        if self.stalled {
            return Err(ureq::Error::Timeout(timeout.reason));
        }
        let sent = self.inner.transmit_output(amount, timeout);
        match &sent {
            Err(ureq::Error::Io(error)) if is_cut(error) => {
                self.broken = true;
                self.closed.0.store(true, Ordering::Relaxed);
                return Ok(());
            }
            Err(ureq::Error::Timeout(_)) => self.stalled = true,
            _ => {}
        }
        sent
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        !self.broken && !self.stalled && self.inner.is_open()
    }
}

/// Whether the other side is gone, or wants no more.
pub(super) fn is_cut(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}

/// A body on its way. It ends early when nobody listens any more; otherwise it
/// has the length that was announced: the client waits for ever for what is
/// missing of one that is shorter.
pub(super) struct Outgoing<'a> {
    pub(super) reader: &'a mut dyn Read,
    /// Bytes that are to come, if that is known.
    pub(super) left: Option<u64>,
    pub(super) closed: Closed,
}

impl Read for Outgoing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.closed.is_so() {
            return Ok(self.end_early(buffer));
        }
        let read = self.reader.read(buffer)?;
        let Some(left) = self.left else {
            return Ok(read);
        };
        let changed = || io::Error::other("what is sent changes while it is sent");
        if read == 0 && left > 0 && !buffer.is_empty() {
            return Err(changed());
        }
        self.left = Some(left.checked_sub(read as u64).ok_or_else(changed)?);
        Ok(read)
    }
}

impl Outgoing<'_> {
    /// The end of a body in chunks, or zeros as far as was announced. They go
    /// nowhere.
    fn end_early(&mut self, buffer: &mut [u8]) -> usize {
        let left = usize::try_from(self.left.unwrap_or(0)).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        buffer.iter_mut().take(length).for_each(|byte| *byte = 0);
        self.left = self.left.map(|left| left - length as u64);
        length
    }
}
