//! What is answered to a request, and how it is written down.

use crate::json::{Object, escape_into};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

/// A part of an answer's body.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    /// This text.
    Text(String),
    /// So many bytes of a file, which are never in memory all at once.
    File {
        /// The open file.
        file: Arc<File>,
        /// Where the bytes start.
        offset: u64,
        /// How many they are.
        length: u64,
    },
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    content_type: &'static str,
    headers: Vec<(String, String)>,
    body: Vec<Piece>,
}

/// Why there is no ordinary answer. An endpoint leaves early by either way
/// with `?`.
#[derive(Debug)]
pub(super) enum Fail {
    /// The API says no.
    Refused(Reply),
    /// The connection is of no more use.
    Broken(io::Error),
}

impl From<io::Error> for Fail {
    fn from(error: io::Error) -> Fail {
        Fail::Broken(error)
    }
}

impl From<Reply> for Fail {
    fn from(reply: Reply) -> Fail {
        Fail::Refused(reply)
    }
}

/// What an endpoint returns.
pub(super) type Outcome = Result<Reply, Fail>;

const TEXT: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

impl Reply {
    /// A text, as most refusals of the original are.
    pub(super) fn text(status: u16, text: &str) -> Reply {
        Reply::pieces(status, TEXT, vec![Piece::Text(text.to_owned())])
    }

    /// `OK`.
    pub(super) fn ok() -> Reply {
        Reply::text(200, "OK")
    }

    /// A JSON text.
    pub(super) fn json(status: u16, text: String) -> Reply {
        Reply::pieces(status, JSON, vec![Piece::Text(text)])
    }

    /// A JSON text in pieces.
    pub(super) fn json_pieces(body: Vec<Piece>) -> Reply {
        Reply::pieces(200, JSON, body)
    }

    /// 204: there is none of what was asked for.
    pub(super) fn nothing() -> Reply {
        Reply::pieces(204, JSON, Vec::new())
    }

    /// A refusal with a reason.
    pub(super) fn abort(status: u16, message: &str) -> Reply {
        let mut object = Object::new();
        object.object("detail", Object::new());
        object.string("message", message);
        Reply::json(status, object.finish())
    }

    /// 422: the request's JSON breaks these rules.
    pub(super) fn invalid(fields: Object) -> Reply {
        let mut detail = Object::new();
        detail.object("json", fields);
        let mut object = Object::new();
        object.object("detail", detail);
        object.string("message", "Validation error");
        Reply::json(422, object.finish())
    }

    /// An answer that somebody made up.
    pub(super) fn scripted(status: u16, body: &str) -> Reply {
        if status == 204 {
            Reply::nothing()
        } else if body.starts_with(['{', '[']) {
            Reply::json(status, body.to_owned())
        } else {
            Reply::text(status, body)
        }
    }

    /// What the original says when something in it broke.
    pub(super) fn unhandled(error: &impl std::fmt::Display) -> Reply {
        Reply::text(500, &format!("Unhandled Exception: {error}\n"))
    }

    /// A file.
    pub(super) fn file(path: &Path, content_type: &'static str) -> io::Result<Reply> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let piece = Piece::File {
            file: Arc::new(file),
            offset: 0,
            length,
        };
        Ok(Reply::pieces(200, content_type, vec![piece]))
    }

    fn pieces(status: u16, content_type: &'static str, body: Vec<Piece>) -> Reply {
        Reply {
            status,
            content_type,
            headers: Vec::new(),
            body,
        }
    }

    /// Adds a header. An agent's name may be in it, which may be anything: no
    /// control character gets through to begin a header of its own.
    pub(super) fn with(mut self, name: &str, value: &str) -> Reply {
        let value = value.replace(char::is_control, "");
        self.headers.push((name.to_owned(), value));
        self
    }

    /// The body as a text.
    pub(super) fn into_text(self) -> io::Result<String> {
        let mut bytes = Vec::new();
        for piece in &self.body {
            piece.write(&mut bytes)?;
        }
        String::from_utf8(bytes).map_err(io::Error::other)
    }

    /// Writes it; `bare` leaves out the body, as for HEAD.
    pub(super) fn send(&self, out: &mut impl Write, last: bool, bare: bool) -> io::Result<()> {
        let connection = if last { "close" } else { "keep-alive" };
        let mut head = format!(
            "HTTP/1.1 {} {}\r\nServer: testflinger\r\nConnection: {connection}\r\n\
             Content-Type: {}\r\n",
            self.status,
            phrase(self.status),
            self.content_type,
        );
        if self.status != 204 {
            let length: u64 = self.body.iter().map(Piece::length).sum();
            head.push_str(&format!("Content-Length: {length}\r\n"));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let body: &[Piece] = if bare || self.status == 204 {
            &[]
        } else {
            &self.body
        };
        // A short answer leaves in one piece, in one packet.
        let body = match body.split_first() {
            Some((Piece::Text(text), rest)) => {
                head.push_str(text);
                rest
            }
            _ => body,
        };
        out.write_all(head.as_bytes())?;
        body.iter().try_for_each(|piece| piece.write(out))
    }
}

impl Piece {
    fn length(&self) -> u64 {
        match self {
            Piece::Text(text) => text.len() as u64,
            Piece::File { length, .. } => *length,
        }
    }

    /// Writes it.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Piece::Text(text) => out.write_all(text.as_bytes()),
            Piece::File {
                file,
                offset,
                length,
            } => {
                let mut buffer = vec![0; 64 * 1024];
                let (mut at, end) = (*offset, offset + length);
                while at < end {
                    let most = usize::try_from(end - at).unwrap_or(usize::MAX);
                    let most = most.min(buffer.len());
                    let part = buffer.get_mut(..most).unwrap_or_default();
                    let length = file.read_at(part, at)?;
                    if length == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    out.write_all(part.get(..length).unwrap_or_default())?;
                    at += length as u64;
                }
                Ok(())
            }
        }
    }
}

/// A text as a JSON string.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    escape_into(&mut quoted, text);
    quoted.push('"');
    quoted
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Request Entity Too Large",
        422 => "Unprocessable Entity",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Status",
    }
}
