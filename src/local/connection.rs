//! The connections: one thread each, from the first request to silence.

use super::body::Body;
use super::http::{NoRequest, Request};
use super::reply::{Fail, Reply};
use super::routes;
use super::script::Exchange;
use super::state::Shared;
use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a connection may be silent between two requests (gunicorn's
/// keep-alive as the original runs it).
const IDLE: Duration = Duration::from_secs(10);

/// How long one may be silent within a request, and how long an answer may wait
/// to be taken.
const STALLED: Duration = Duration::from_secs(60);

/// The listener and the connections. All of it ends with this.
#[derive(Debug)]
pub(super) struct Listener {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The connections that are open, so that they can be closed from outside.
type Open = Arc<Mutex<HashMap<u64, TcpStream>>>;

impl Listener {
    /// Listens on a free port of the loopback interface.
    pub(super) fn start(shared: Arc<Shared>) -> io::Result<Listener> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("local".to_owned())
            .spawn(move || accept(&listener, &shared, &stopped))?;
        Ok(Listener {
            address,
            stop,
            thread: Some(thread),
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // A connection wakes the thread that waits for one.
        let woken = TcpStream::connect(self.address);
        if let (Ok(_), Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

/// Accepts connections until told to stop, then ends them all.
fn accept(listener: &TcpListener, shared: &Arc<Shared>, stop: &AtomicBool) {
    let open = Open::default();
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for number in 0.. {
        let accepted = listener.accept();
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let Ok((stream, _)) = accepted else {
            // Out of descriptors: connections that end give some back.
            thread::yield_now();
            continue;
        };
        threads.retain(|thread| !thread.is_finished());
        let Ok(handle) = stream.try_clone() else {
            continue;
        };
        lock(&open).insert(number, handle);
        let (mine, shared) = (Arc::clone(&open), Arc::clone(shared));
        let thread = thread::Builder::new()
            .name("local".to_owned())
            .spawn(move || {
                // Every fault of a connection ends it, and nothing else.
                let _ = serve(&stream, &shared);
                let _ = stream.shutdown(Shutdown::Both);
                lock(&mine).remove(&number);
            });
        match thread {
            Ok(thread) => threads.push(thread),
            Err(_) => drop(lock(&open).remove(&number)),
        }
    }
    for stream in lock(&open).values() {
        let _ = stream.shutdown(Shutdown::Both);
    }
    for thread in threads {
        let _ = thread.join();
    }
}

fn lock(open: &Open) -> std::sync::MutexGuard<'_, HashMap<u64, TcpStream>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers requests until the connection is closed or silent for too long.
fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(STALLED))?;
    let mut reader = BufReader::with_capacity(64 * 1024, stream);
    loop {
        stream.set_read_timeout(Some(IDLE))?;
        if reader.fill_buf()?.is_empty() {
            return Ok(());
        }
        stream.set_read_timeout(Some(STALLED))?;
        let request = Request::read(&mut reader);
        let framed = request.and_then(|request| {
            let framing = request.framing()?;
            Ok((request, framing))
        });
        let (request, framing) = match framed {
            Ok(framed) => framed,
            Err(NoRequest::Closed) => return Ok(()),
            Err(NoRequest::Refused(status)) => {
                let reply = Reply::abort(status, "Bad Request");
                return reply.send(&mut BufWriter::new(stream), true, false);
            }
        };
        let at = Instant::now();
        let awaited = request.expects_continue();
        let mut body = Body::new(&mut reader, framing, awaited, shared.keep_exchanges);
        let reply = answer(shared, &request, &mut body)?;
        // A client that still waits to be asked for its body need not send it,
        // but then nobody knows what it sends next.
        let last = request.closes() || body.is_awaited();
        if !last {
            body.discard()?;
        }
        let kept = body.into_kept();
        if shared.keep_exchanges {
            let exchange = Exchange {
                method: request.method.clone(),
                path: request.target.clone(),
                status: reply.status,
                request_body: String::from_utf8_lossy(&kept).into_owned(),
                has_cookie: request.cookie("agent_name").is_some(),
                at,
            };
            shared.update(|state| state.script.exchanges.push(exchange));
        }
        let mut out = BufWriter::with_capacity(64 * 1024, stream);
        reply.send(&mut out, last, request.method == "HEAD")?;
        out.flush()?;
        if last {
            return Ok(());
        }
    }
}

/// The script's answer, or else the ordinary one.
fn answer(shared: &Shared, request: &Request, body: &mut Body<'_, '_>) -> io::Result<Reply> {
    let scripted = shared.update(|state| state.script.next(&request.method, request.path()));
    if let Some(reply) = scripted {
        body.discard()?;
        return Ok(reply);
    }
    match routes::answer(shared, request, body) {
        Ok(reply) | Err(Fail::Refused(reply)) => Ok(reply),
        Err(Fail::Broken(error)) => Err(error),
    }
}
