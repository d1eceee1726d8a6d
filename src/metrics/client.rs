//! One client: its question, the answer, and its end, within five seconds.

use super::{Metrics, text};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Whoever takes longer is dropped.
const PATIENCE: Duration = Duration::from_secs(5);
/// The head of a request, in bytes; also what is read at once.
const LONGEST_HEAD: usize = 4 << 10;
/// What is read after the answer, in bytes.
const LONGEST_FAREWELL: usize = 4 << 20;

/// A connection and how far it has come.
#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    stage: Stage,
    until: Instant,
}

#[derive(Debug)]
enum Stage {
    /// The head of its request, so far.
    Asks(Vec<u8>),
    /// The answer, and how much of it has been sent.
    IsAnswered(Vec<u8>, usize),
    /// What it still sends is read and forgotten, so many bytes of it: closed before,
    /// the connection would be reset, and the answer lost.
    Leaves(usize),
}

impl Client {
    pub(super) fn new(stream: TcpStream, now: Instant) -> Client {
        Client {
            stream,
            stage: Stage::Asks(Vec::new()),
            until: now + PATIENCE,
        }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Whether it is to be written to.
    pub(super) fn is_answered(&self) -> bool {
        matches!(self.stage, Stage::IsAnswered(..))
    }

    #[cfg(test)]
    pub(super) fn has_its_answer(&self) -> bool {
        matches!(self.stage, Stage::Leaves(_))
    }

    /// Does what can be done at once; false when that was all.
    pub(super) fn attend(&mut self, now: Instant, metrics: &Metrics) -> bool {
        let is_late = self.until <= now;
        !is_late
            && self.go_on(now, metrics).unwrap_or_else(|error| {
                matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
            })
    }

    fn go_on(&mut self, now: Instant, metrics: &Metrics) -> io::Result<bool> {
        if self.is_answered() {
            return self.send();
        }
        let mut buffer = [0; LONGEST_HEAD];
        let count = self.stream.read(&mut buffer)?;
        let piece = buffer.get(..count).unwrap_or_default();
        if let Stage::Asks(head) = &mut self.stage
            && let Some(answer) = listen(head, piece, metrics, now)
        {
            self.stage = Stage::IsAnswered(answer, 0);
            return self.send();
        }
        if let Stage::Leaves(left) = &mut self.stage {
            *left = left.saturating_sub(count);
            return Ok(count > 0 && *left > 0);
        }
        Ok(count > 0)
    }

    fn send(&mut self) -> io::Result<bool> {
        if let Stage::IsAnswered(answer, sent) = &mut self.stage {
            let rest = answer.get(*sent..).unwrap_or_default();
            *sent += self.stream.write(rest)?;
            if *sent >= answer.len() {
                self.stage = Stage::Leaves(LONGEST_FAREWELL);
                self.stream.shutdown(Shutdown::Write)?;
            }
        }
        Ok(true)
    }
}

/// Another piece of the request has come: the answer, if that is enough for one.
fn listen(head: &mut Vec<u8>, piece: &[u8], metrics: &Metrics, now: Instant) -> Option<Vec<u8>> {
    head.extend_from_slice(piece);
    let has = |end: &[u8]| head.windows(end.len()).any(|window| window == end);
    if head.len() > LONGEST_HEAD {
        Some(refuse("431 Request Header Fields Too Large"))
    } else if has(b"\r\n\r\n") || has(b"\n\n") {
        Some(answer(head, metrics, now))
    } else {
        None
    }
}

/// The answer to a request.
fn answer(head: &[u8], metrics: &Metrics, now: Instant) -> Vec<u8> {
    let head = String::from_utf8_lossy(head);
    let line = head.lines().next().unwrap_or_default();
    let words: Vec<_> = line.split(' ').collect();
    let [method, target, version] = words[..] else {
        return refuse("400 Bad Request");
    };
    if !version.starts_with("HTTP/1.") || !target.starts_with('/') {
        return refuse("400 Bad Request");
    }
    let (status, kind, body) = match target.split('?').next() {
        _ if !matches!(method, "GET" | "HEAD") => return refuse("405 Method Not Allowed"),
        Some("/metrics") => ("200 OK", text::CONTENT_TYPE, metrics.text()),
        Some("/healthz") => match metrics.health(now) {
            Ok(()) => ("200 OK", PLAIN, "ok\n".to_owned()),
            Err(reason) => ("503 Service Unavailable", PLAIN, format!("{reason}\n")),
        },
        _ => return refuse("404 Not Found"),
    };
    reply(status, kind, &body, method == "GET")
}

const PLAIN: &str = "text/plain; charset=utf-8";

fn refuse(status: &str) -> Vec<u8> {
    let body = format!("{status}: there are GET /metrics and GET /healthz\n");
    reply(status, PLAIN, &body, true)
}

fn reply(status: &str, kind: &str, body: &str, with_body: bool) -> Vec<u8> {
    // RFC 9110, section 15.5.6: a 405 says what is allowed; it does no harm elsewhere.
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nAllow: GET, HEAD\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    let body = if with_body { body } else { "" };
    (head + body).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_understood_or_refused() {
        let metrics = Metrics::new("a", "");
        let ask = |pieces: &[&[u8]]| {
            let mut head = Vec::new();
            let listen = |piece: &&[u8]| listen(&mut head, piece, &metrics, Instant::now());
            let answer = pieces.iter().find_map(listen)?;
            let answer = String::from_utf8(answer).unwrap();
            Some(answer.lines().next().unwrap().to_owned())
        };
        for (request, wanted) in [
            (
                "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
                "HTTP/1.1 200 OK",
            ),
            ("HEAD /metrics?x HTTP/1.0\n\n", "HTTP/1.1 200 OK"),
            (
                "GET /healthz HTTP/1.1\r\n\r\n",
                "HTTP/1.1 503 Service Unavailable",
            ),
            ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
            (
                "POST /metrics HTTP/1.1\r\n\r\n",
                "HTTP/1.1 405 Method Not Allowed",
            ),
            (
                "GET http://x/metrics HTTP/1.1\r\n\r\n",
                "HTTP/1.1 400 Bad Request",
            ),
            ("GET /metrics\r\n\r\n", "HTTP/1.1 400 Bad Request"),
            ("\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ] {
            assert_eq!(
                ask(&[request.as_bytes()]).as_deref(),
                Some(wanted),
                "{request}"
            );
            for at in 0..request.len() {
                let (one, two) = request.as_bytes().split_at(at);
                assert_eq!(
                    ask(&[one, two]).as_deref(),
                    Some(wanted),
                    "{request} at {at}"
                );
            }
        }
        assert_eq!(ask(&[b"GET /metrics HTTP/1.1\r\n"]), None);
        let garbage = [0xff; 1 << 10].as_slice();
        assert_eq!(ask(&[garbage; 4]), None);
        assert!(ask(&[garbage; 5]).unwrap().contains("431"));
    }

    #[test]
    fn a_head_has_the_length_of_what_it_leaves_out() {
        let ask = |method: &str| {
            let head = format!("{method} /healthz HTTP/1.1\r\n\r\n");
            let answer = answer(head.as_bytes(), &Metrics::default(), Instant::now());
            String::from_utf8(answer).unwrap()
        };
        let (get, head) = (ask("GET"), ask("HEAD"));
        assert_eq!(
            get.strip_prefix(&head),
            Some("the server was not asked yet\n")
        );
        assert!(head.contains("Content-Length: 29\r\n"), "{head}");
    }
}
