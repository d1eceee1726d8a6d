//! The connection below TLS.
//!
//! The client's own would do but for three things. TLS keeps the error of a
//! write that timed out to itself and writes once more, so that a stall takes
//! several times as long to show. A server that refuses an upload early and
//! closes the connection has said why, and the client would not read that. And
//! megabytes may sit in the kernel when an answer is awaited: as long as they
//! become fewer, the other side lives.

use crate::sys;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Error, Timeout};

/// How often to look whether what was written is being taken.
const LOOK: Duration = Duration::from_secs(5);

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

/// Makes connections.
#[derive(Debug)]
pub(super) struct Sockets(pub(super) Closed);

impl<In: Transport> Connector<In> for Sockets {
    type Out = Either<In, Socket>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        through: Option<In>,
    ) -> Result<Option<Either<In, Socket>>, Error> {
        if let Some(proxy) = through {
            return Ok(Some(Either::A(proxy)));
        }
        let (config, timeout) = (details.config, details.timeout);
        let stream = connect(&details.addrs, limit_of(timeout)?)?;
        let stream = stream.ok_or(Error::Timeout(timeout.reason))?;
        stream.set_nodelay(true)?;
        Ok(Some(Either::B(Socket {
            stream,
            buffers: LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size()),
            closed: self.0.clone(),
            broken: false,
            stalled: None,
        })))
    }
}

/// How long something may take, if that is limited.
fn limit_of(timeout: NextTimeout) -> Result<Option<Duration>, Error> {
    match timeout.after.is_zero() {
        true => Err(Error::Timeout(timeout.reason)),
        false => Ok(timeout.not_zero().map(|limit| *limit)),
    }
}

/// The first of the addresses where somebody is; none when the time is over.
/// Each has an equal part of the time that those before it have left.
fn connect(addresses: &[SocketAddr], limit: Option<Duration>) -> io::Result<Option<TcpStream>> {
    let begun = Instant::now();
    let mut last = Ok(None);
    for (address, others) in addresses.iter().zip((0..addresses.len()).rev()) {
        let share = limit.map(|limit| {
            let left = limit.saturating_sub(begun.elapsed());
            left / u32::try_from(others + 1).unwrap_or(1)
        });
        let connected = match share {
            Some(share) => TcpStream::connect_timeout(address, share.max(SHORTEST)),
            None => TcpStream::connect(address),
        };
        match connected {
            Ok(stream) => return Ok(Some(stream)),
            Err(error) if is_timeout(&error) => last = Ok(None),
            Err(error) => last = Err(error),
        }
    }
    last
}

/// The kernel takes 0 for ever.
const SHORTEST: Duration = Duration::from_millis(1);

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
    )
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

/// A connection that can still be read when nothing more can be written.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    buffers: LazyBuffers,
    closed: Closed,
    /// This connection is the one that closed.
    broken: bool,
    stalled: Option<Timeout>,
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if self.broken {
            return Ok(());
        }
        if let Some(reason) = self.stalled {
            return Err(Error::Timeout(reason));
        }
        let timeout = timeout.for_write();
        let limit = limit_of(timeout)?;
        let bytes = self.buffers.output();
        let bytes = bytes.get(..amount).unwrap_or_default();
        match write(&self.stream, bytes, limit) {
            Ok(()) => Ok(()),
            Err(error) if is_cut(&error) => {
                self.broken = true;
                self.closed.0.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(error) if is_timeout(&error) => {
                self.stalled = Some(timeout.reason);
                Err(Error::Timeout(timeout.reason))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        let limit = limit_of(timeout)?;
        let buffer = self.buffers.input_append_buf();
        let read = match read(&self.stream, buffer, limit) {
            Err(error) if is_timeout(&error) => return Err(Error::Timeout(timeout.reason)),
            other => other?,
        };
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    /// A connection that waits for the next request has nothing to say: a byte
    /// or an end means that it is over.
    fn is_open(&mut self) -> bool {
        let is_silent = || -> io::Result<bool> {
            self.stream.set_nonblocking(true)?;
            let peeked = self.stream.peek(&mut [0]);
            self.stream.set_nonblocking(false)?;
            Ok(peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock))
        };
        !self.broken && self.stalled.is_none() && is_silent().unwrap_or(false)
    }
}

/// Writes all of it within the time: a trickle of bytes ends here, too.
fn write(mut stream: &TcpStream, bytes: &[u8], limit: Option<Duration>) -> io::Result<()> {
    let begun = Instant::now();
    let mut rest = bytes;
    while !rest.is_empty() {
        let left = limit.map(|limit| limit.saturating_sub(begun.elapsed()).max(SHORTEST));
        stream.set_write_timeout(left)?;
        match stream.write(rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if limit.is_some_and(|limit| begun.elapsed() >= limit) && !rest.is_empty() {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

/// Reads what comes first, within the time since anything moved.
fn read(mut stream: &TcpStream, buffer: &mut [u8], limit: Option<Duration>) -> io::Result<usize> {
    let mut alive = Instant::now();
    let mut unsent = sys::unsent(stream);
    loop {
        let left = limit.map(|limit| limit.saturating_sub(alive.elapsed()).max(SHORTEST));
        let look = (unsent > 0).then_some(LOOK);
        stream.set_read_timeout(left.into_iter().chain(look).min())?;
        match stream.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_timeout(&error) => {
                let now = sys::unsent(stream);
                if now < unsent {
                    (alive, unsent) = (Instant::now(), now);
                }
                if limit.is_some_and(|limit| alive.elapsed() >= limit) {
                    return Err(error);
                }
            }
            other => return other,
        }
    }
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
