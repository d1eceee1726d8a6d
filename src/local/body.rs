//! The body of a request: bytes from the connection up to its end, and never
//! more of them in memory than asked for.

use super::http::Framing;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::net::TcpStream;

/// How much of a request's body an [`Exchange`](super::Exchange) keeps.
const KEPT: usize = 64 * 1024;

/// How long the line before a chunk, or one after the last, may be.
const MAX_CHUNK_LINE: u64 = 4 * 1024;

/// A body that is being read.
#[derive(Debug)]
pub(super) struct Body<'a, 'c> {
    reader: &'a mut BufReader<&'c TcpStream>,
    state: State,
    /// The client waits for `100 Continue`.
    awaited: bool,
    /// The first bytes of what was read, if they are wanted.
    kept: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes are left of a body of known length.
    Length(u64),
    /// So many bytes are left of a chunk.
    Chunk(u64),
    /// The line that starts a chunk comes next.
    ChunkStart,
    End,
}

impl<'a, 'c> Body<'a, 'c> {
    /// The body that follows the head just read.
    pub(super) fn new(
        reader: &'a mut BufReader<&'c TcpStream>,
        framing: Framing,
        awaited: bool,
        keep: bool,
    ) -> Body<'a, 'c> {
        let state = match framing {
            Framing::Length(0) => State::End,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkStart,
        };
        Body {
            reader,
            state,
            awaited: awaited && state != State::End,
            kept: keep.then(Vec::new),
        }
    }

    /// Reads all of it; `None` when that is more than `limit` bytes.
    pub(super) fn whole(&mut self, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        if let State::Length(length) = self.state {
            bytes.reserve_exact(usize::try_from(length.min(limit)).unwrap_or(0));
        }
        let length = self.by_ref().take(limit + 1).read_to_end(&mut bytes)?;
        if length as u64 <= limit {
            return Ok(Some(bytes));
        }
        self.discard()?;
        Ok(None)
    }

    /// Reads what is left and forgets it, so that the next request can follow.
    pub(super) fn discard(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink()).map(|_| ())
    }

    /// Whether the client still waits to be asked for it.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited
    }

    /// The first bytes of what was read.
    pub(super) fn into_kept(self) -> Vec<u8> {
        self.kept.unwrap_or_default()
    }

    /// Reads the line that starts a chunk, and the lines after the last one.
    fn start_chunk(&mut self) -> io::Result<()> {
        let line = self.line()?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        if digits.starts_with('+') {
            return Err(broken("a chunk without a length"));
        }
        let length = u64::from_str_radix(digits, 16);
        let length = length.map_err(|_| broken("a chunk without a length"))?;
        if length > 0 {
            self.state = State::Chunk(length);
            return Ok(());
        }
        // Trailers are of no interest, but they have to end.
        for _ in 0..64 {
            if self.line()?.is_empty() {
                self.state = State::End;
                return Ok(());
            }
        }
        Err(broken("too many trailers"))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let mut reader = self.reader.by_ref().take(MAX_CHUNK_LINE);
        reader.read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = line.strip_suffix(b"\r\n").map(String::from_utf8_lossy);
        let text = text.ok_or_else(|| broken("a line of a chunked body that does not end"))?;
        Ok(text.into_owned())
    }

    fn read_some(&mut self, buffer: &mut [u8], left: u64) -> io::Result<usize> {
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        let length = match buffer.get_mut(..most) {
            Some(part) => self.reader.read(part)?,
            None => 0,
        };
        if length == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(length)
    }
}

impl Read for Body<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.awaited {
            self.awaited = false;
            self.reader
                .get_mut()
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if self.state == State::ChunkStart {
            self.start_chunk()?;
        }
        let length = match self.state {
            State::Length(left) => {
                let length = self.read_some(buffer, left)?;
                self.state = match left - length as u64 {
                    0 => State::End,
                    left => State::Length(left),
                };
                length
            }
            State::Chunk(left) => {
                let length = self.read_some(buffer, left)?;
                self.state = State::Chunk(left - length as u64);
                if left == length as u64 {
                    if !self.line()?.is_empty() {
                        return Err(broken("a chunk longer than it said"));
                    }
                    self.state = State::ChunkStart;
                }
                length
            }
            State::ChunkStart | State::End => 0,
        };
        if let Some(kept) = &mut self.kept {
            let read = buffer.iter().take(length);
            kept.extend(read.take(KEPT.saturating_sub(kept.len())));
        }
        Ok(length)
    }
}

/// What is wrong with the body, and not with the connection.
fn broken(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Shutdown, TcpListener};

    /// What is read of a body that arrives as these bytes, and what is left.
    fn read(sent: &[u8], framing: Framing) -> io::Result<(String, String)> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(&stream);
        let mut text = String::new();
        Body::new(&mut reader, framing, false, false).read_to_string(&mut text)?;
        let mut rest = String::new();
        reader.read_to_string(&mut rest)?;
        Ok((text, rest))
    }

    #[test]
    fn chunks_become_one_body() {
        let sent = b"5\r\nhello\r\n00A;x=y\r\n, 10 bytes\r\n0\r\nT: x\r\n\r\nGET";
        let (text, rest) = read(sent, Framing::Chunked).unwrap();
        assert_eq!((text.as_str(), rest.as_str()), ("hello, 10 bytes", "GET"));
        let (text, rest) = read(b"helloGET", Framing::Length(5)).unwrap();
        assert_eq!((text.as_str(), rest.as_str()), ("hello", "GET"));
    }

    #[test]
    fn a_body_cut_short_is_an_error() {
        assert!(read(b"hell", Framing::Length(5)).is_err());
        for sent in ["", "5\r\nhell", "5\r\nhello\r\n", "5\r\nhello\r\n0\r\n"] {
            assert!(read(sent.as_bytes(), Framing::Chunked).is_err(), "{sent}");
        }
        for sent in ["\r\n", "-1\r\n", "x\r\n", "5\nhello\r\n0\r\n\r\n"] {
            assert!(read(sent.as_bytes(), Framing::Chunked).is_err(), "{sent}");
        }
    }
}
