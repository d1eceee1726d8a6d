//! One connection: request and answer in turn, until it is closed or silent.

use super::body::Body;
use super::http::{NoRequest, Request};
use super::reply::{Fail, Reply};
use super::routes;
use super::script::Exchange;
use super::state::Shared;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// How long a connection may be silent within a request, and how long an answer may wait
/// to be taken.
const STALLED: Duration = Duration::from_secs(60);

/// How long a client may take to notice that it got its last answer.
const PARTING: Duration = Duration::from_secs(2);

/// Answers requests until the connection ends.
pub(super) fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(STALLED))?;
    let mut reader = BufReader::with_capacity(64 * 1024, stream);
    loop {
        stream.set_read_timeout(Some(shared.options.keep_alive))?;
        if reader.fill_buf()?.is_empty() {
            return Ok(());
        }
        stream.set_read_timeout(Some(STALLED))?;
        let answered = serve_one(&mut reader, shared)?;
        let mut out = BufWriter::with_capacity(64 * 1024, stream);
        answered
            .reply
            .send(&mut out, answered.last, answered.bare)?;
        out.flush()?;
        if answered.last {
            return part(stream);
        }
    }
}

/// An answer, and what becomes of the connection.
struct Answered {
    reply: Reply,
    /// Nothing follows it.
    last: bool,
    /// It goes without its body.
    bare: bool,
}

/// Reads one request and finds the answer.
fn serve_one(reader: &mut BufReader<&TcpStream>, shared: &Shared) -> io::Result<Answered> {
    let request = Request::read(reader);
    let framed = request.and_then(|request| {
        let framing = request.framing()?;
        Ok((request, framing))
    });
    let (request, framing) = match framed {
        Ok(framed) => framed,
        Err(NoRequest::Closed) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Err(NoRequest::Refused(status)) => {
            return Ok(Answered {
                reply: Reply::abort(status, "Bad Request"),
                last: true,
                bare: false,
            });
        }
    };
    let at = Instant::now();
    let awaited = request.expects_continue();
    let mut body = Body::new(reader, framing, awaited, shared.options.keep_exchanges);
    let (reply, is_clear) = answer(shared, &request, &mut body);
    // A client that still waits to be asked for its body need not send it, so
    // that nobody knows what it sends next.
    let is_clear = is_clear && !body.is_awaited();
    if is_clear {
        body.discard()?;
    }
    if shared.options.keep_exchanges {
        let exchange = Exchange {
            method: request.method.clone(),
            path: request.target.clone(),
            status: reply.status,
            request_body: String::from_utf8_lossy(&body.into_kept()).into_owned(),
            has_cookie: request.cookie("agent_name").is_some(),
            at,
        };
        shared.update(|state| state.script.exchanges.push(exchange));
    }
    Ok(Answered {
        reply,
        last: request.closes() || !is_clear,
        bare: request.method == "HEAD",
    })
}

/// The script's answer, or else the ordinary one; false with it: where the
/// request ends is not clear.
fn answer(shared: &Shared, request: &Request, body: &mut Body<'_, '_>) -> (Reply, bool) {
    let scripted = shared.update(|state| state.script.next(&request.method, request.path()));
    if let Some(reply) = scripted {
        return (reply, true);
    }
    match routes::answer(shared, request, body) {
        Ok(reply) | Err(Fail::Refused(reply)) => (reply, true),
        Err(Fail::Broken(error)) if error.kind() == io::ErrorKind::InvalidData => {
            (Reply::abort(400, "Bad Request"), false)
        }
        // Perhaps the disk is full. If it was the connection, then reading on
        // will fail too, and nobody is there to be answered.
        Err(Fail::Broken(error)) => (Reply::unhandled(&error), true),
    }
}

/// Closes the connection so that the last answer arrives: a close that leaves
/// something unread may take it back (RFC 9112, section 9.6).
fn part(stream: &TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(PARTING))?;
    let end = Instant::now() + PARTING;
    let mut unread = vec![0; 64 * 1024];
    let mut stream = stream;
    while Instant::now() < end && stream.read(&mut unread)? > 0 {}
    Ok(())
}
