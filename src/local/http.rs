//! The head of an HTTP/1.1 request (RFC 9112), read strictly, and the parts of
//! it that the API looks at.
//!
//! Whatever is ambiguous is refused: this server faces one kind of client, and
//! a test should hear of its mistakes.

use std::io::{self, BufRead, Read as _};

/// How many bytes a request line and its headers may have together.
const MAX_HEAD: u64 = 64 * 1024;

/// The head of a request.
#[derive(Debug)]
pub(super) struct Request {
    /// Such as `POST`.
    pub(super) method: String,
    /// The path and the query, as they stand in the request line.
    pub(super) target: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
}

/// How long the body of a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Until the chunk of length 0 (RFC 9112, section 7.1).
    Chunked,
}

/// What came instead of a request.
#[derive(Debug)]
pub(super) enum NoRequest {
    /// Nothing: the connection was closed, or went silent.
    Closed,
    /// Something that gets this status, after which the connection is closed.
    Refused(u16),
}

impl From<io::Error> for NoRequest {
    fn from(_: io::Error) -> NoRequest {
        NoRequest::Closed
    }
}

const BAD: NoRequest = NoRequest::Refused(400);

impl Request {
    /// Reads the head of the next request.
    pub(super) fn read(reader: &mut impl BufRead) -> Result<Request, NoRequest> {
        let mut left = MAX_HEAD;
        let line = line(reader, &mut left)?;
        let mut words = line.split(' ');
        let (Some(method), Some(target), Some("HTTP/1.1"), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(BAD);
        };
        if !is_token(method) || !target.starts_with('/') {
            return Err(BAD);
        }
        let mut request = Request {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
        };
        loop {
            let line = self::line(reader, &mut left)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or(BAD)?;
            if !is_token(name) {
                return Err(BAD);
            }
            let value = value.trim_matches([' ', '\t']).to_owned();
            request.headers.push((name.to_ascii_lowercase(), value));
        }
        if request.values("host").count() == 1 {
            Ok(request)
        } else {
            Err(BAD)
        }
    }

    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.headers.iter().filter(move |(key, _)| key == name);
        named.map(|(_, value)| value.as_str())
    }

    /// The value of the header with this name, given in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(key, _)| key == name);
        header.map(|(_, value)| value.as_str())
    }

    /// Where the body ends; without a word about it there is none.
    pub(super) fn framing(&self) -> Result<Framing, NoRequest> {
        let mut lengths = self.values("content-length");
        let mut encodings = self.values("transfer-encoding");
        match (
            lengths.next(),
            lengths.next(),
            encodings.next(),
            encodings.next(),
        ) {
            (None, _, None, _) => Ok(Framing::Length(0)),
            (Some(length), None, None, _) if length.bytes().all(|b| b.is_ascii_digit()) => {
                Ok(Framing::Length(length.parse().map_err(|_| BAD)?))
            }
            (None, _, Some(encoding), None) if encoding.eq_ignore_ascii_case("chunked") => {
                Ok(Framing::Chunked)
            }
            _ => Err(BAD),
        }
    }

    /// Whether the client waits for a word before it sends the body.
    pub(super) fn expects_continue(&self) -> bool {
        self.header("expect")
            .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
    }

    /// Whether this is the connection's last request.
    pub(super) fn closes(&self) -> bool {
        self.values("connection")
            .flat_map(|value| value.split(','))
            .any(|option| option.trim().eq_ignore_ascii_case("close"))
    }

    /// The path without the query.
    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The decoded segments of the path. A slash at its end changes nothing.
    pub(super) fn segments(&self) -> Vec<String> {
        let path = self.path();
        let path = path.strip_suffix('/').unwrap_or(path);
        path.split('/').skip(1).map(percent_decoded).collect()
    }

    /// The values of a parameter of the query, in their order.
    pub(super) fn parameters(&self, name: &str) -> Vec<String> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let mut values = Vec::new();
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if percent_decoded(&key.replace('+', " ")) == name {
                values.push(percent_decoded(&value.replace('+', " ")));
            }
        }
        values
    }

    /// The cookie of this name.
    pub(super) fn cookie(&self, name: &str) -> Option<&str> {
        self.values("cookie")
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }
}

/// A line without its end, which must be CRLF; fewer than `left` bytes of it.
fn line(reader: &mut impl BufRead, left: &mut u64) -> Result<String, NoRequest> {
    let mut line = Vec::new();
    let length = reader.by_ref().take(*left).read_until(b'\n', &mut line)?;
    *left -= length as u64;
    match line.strip_suffix(b"\r\n") {
        Some(text) => String::from_utf8(text.to_vec()).map_err(|_| BAD),
        None if *left == 0 => Err(NoRequest::Refused(431)),
        None if line.ends_with(b"\n") => Err(BAD),
        None => Err(NoRequest::Closed),
    }
}

/// What a method or a header's name may be (RFC 9110, section 5.6.2).
fn is_token(text: &str) -> bool {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(is_token)
}

/// Decodes `%XX`; what is not such stays as it is, what is not UTF-8 becomes
/// U+FFFD.
fn percent_decoded(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let hex = hex.filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(value) if byte == b'%' => {
                decoded.push(value);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Request, NoRequest> {
        Request::read(&mut text.as_bytes())
    }

    #[test]
    fn a_head_is_taken_apart() {
        let request = read(
            "GET /v1/job/?queue=a+b&queue=%C3%A9%2&x HTTP/1.1\r\nHost: h\r\n\
             COOKIE: x=1; agent_name=pi-4\r\nConnection: TE, close\r\n\r\n",
        )
        .unwrap();
        assert_eq!(request.segments(), ["v1", "job"]);
        assert_eq!(request.parameters("queue"), ["a b", "é%2"]);
        assert_eq!(request.cookie("agent_name"), Some("pi-4"));
        assert_eq!(request.framing().unwrap(), Framing::Length(0));
        assert!(request.closes() && !request.expects_continue());
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        for head in [
            "GET / HTTP/1.0\r\nHost: h\r\n\r\n",
            "GET /  HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\nHost: h\n\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : h\r\n\r\n",
        ] {
            assert!(matches!(read(head), Err(NoRequest::Refused(400))), "{head}");
        }
        let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(70_000));
        assert!(matches!(read(&long), Err(NoRequest::Refused(431))));
        let cut = "GET / HTTP/1.1\r\nHost: h\r\n";
        assert!(matches!(read(cut), Err(NoRequest::Closed)));
    }

    #[test]
    fn a_body_has_one_length() {
        let framing = |headers: &str| {
            let head = format!("POST / HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
            read(&head).unwrap().framing().ok()
        };
        assert_eq!(framing("Content-Length: 7\r\n"), Some(Framing::Length(7)));
        let chunked = framing("Transfer-Encoding: Chunked\r\n");
        assert_eq!(chunked, Some(Framing::Chunked));
        for headers in [
            "Content-Length: +7\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length: 7\r\nContent-Length: 7\r\n",
            "Content-Length: 7\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
        ] {
            assert_eq!(framing(headers), None, "{headers}");
        }
    }
}
