//! HTTP/1.1 messages, as far as a proxy must understand them (RFC 9112).

use std::io::{self, BufRead, ErrorKind, Read, Write};

/// Bytes of a head; a server that sends more is cut off.
const HEAD: u64 = 16 << 20;

/// A first line and the headers after it, as they came.
pub struct Head(Vec<u8>);

/// How a message's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
    /// With the connection.
    UntilEnd,
}

impl Head {
    /// Reads up to the empty line; `None` when the connection ends before.
    pub fn read(reader: &mut impl BufRead) -> io::Result<Option<Head>> {
        let mut bytes = Vec::new();
        let mut reader = reader.take(HEAD);
        loop {
            let start = bytes.len();
            reader.read_until(b'\n', &mut bytes)?;
            match &bytes[start..] {
                b"\r\n" | b"\n" if start > 0 => return Ok(Some(Head(bytes))),
                // Empty lines before a first line are to be passed over.
                b"\r\n" | b"\n" => bytes.clear(),
                line if line.ends_with(b"\n") => {}
                _ if bytes.is_empty() => return Ok(None),
                _ => return Err(ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// A word of the first line: method and target, or version and status.
    pub fn word(&self, at: usize) -> &str {
        let line = self.0.split(|&byte| byte == b'\n').next().unwrap_or(&[]);
        let line = str::from_utf8(line).unwrap_or("");
        line.split_whitespace().nth(at).unwrap_or("")
    }

    pub fn request_body(&self) -> Framing {
        self.framing(Framing::Length(0))
    }

    /// The body of an answer to a request with this method.
    pub fn answer_body(&self, method: &str) -> Framing {
        if method == "HEAD" || matches!(self.word(1), "204" | "304") {
            Framing::Length(0)
        } else {
            self.framing(Framing::UntilEnd)
        }
    }

    /// Whether the connection ends with this message.
    pub fn closes(&self) -> bool {
        self.header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    fn framing(&self, otherwise: Framing) -> Framing {
        if self.header("transfer-encoding").is_some() {
            return Framing::Chunked;
        }
        self.header("content-length")
            .and_then(|value| value.parse().ok())
            .map_or(otherwise, Framing::Length)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.0
            .split(|&byte| byte == b'\n')
            .skip(1)
            .filter_map(|line| str::from_utf8(line).ok()?.split_once(':'))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }
}

/// Passes a body on as it comes, chunk sizes and trailers included.
pub fn pass_body(framing: Framing, from: &mut impl BufRead, to: &mut impl Write) -> io::Result<()> {
    match framing {
        Framing::Length(length) => pass(length, from, to),
        Framing::UntilEnd => io::copy(from, to).map(drop),
        Framing::Chunked => loop {
            let line = pass_line(from, to)?;
            let size = line.split(';').next().unwrap_or("").trim();
            let size = u64::from_str_radix(size, 16)
                .map_err(|_| io::Error::other(format!("not the size of a chunk: {line:?}")))?;
            if size == 0 {
                while !pass_line(from, to)?.trim().is_empty() {}
                return Ok(());
            }
            // The line end after the chunk belongs to it.
            pass(size + 2, from, to)?;
        },
    }
}

fn pass(length: u64, from: &mut impl BufRead, to: &mut impl Write) -> io::Result<()> {
    if io::copy(&mut from.by_ref().take(length), to)? < length {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

fn pass_line(from: &mut impl BufRead, to: &mut impl Write) -> io::Result<String> {
    let mut line = String::new();
    from.by_ref().take(HEAD).read_line(&mut line)?;
    if !line.ends_with('\n') {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    to.write_all(line.as_bytes())?;
    Ok(line)
}

/// Writes an answer of the proxy's own.
pub fn answer(
    mut to: impl Write,
    status: u16,
    headers: &[(String, String)],
    body: &[u8],
) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} Proxy\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    // A status without a body has no length either (RFC 9110, 8.6).
    if status != 204 {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    to.write_all(head.as_bytes())?;
    to.write_all(body)
}

/// A writer that keeps the last bytes to itself.
pub struct HoldBack<W> {
    writer: W,
    bytes: usize,
    held: Vec<u8>,
}

impl<W: Write> HoldBack<W> {
    pub fn new(writer: W, bytes: usize) -> HoldBack<W> {
        let held = Vec::new();
        HoldBack {
            writer,
            bytes,
            held,
        }
    }
}

impl<W: Write> Write for HoldBack<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(buffer);
        let ready = self.held.len().saturating_sub(self.bytes);
        self.writer.write_all(&self.held[..ready])?;
        self.held.drain(..ready);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
