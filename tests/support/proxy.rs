//! A proxy between the agent and its server that fails as it is told to.
//!
//! It understands HTTP/1.1 well enough to know where a request begins and ends,
//! so a test can say which request meets which fault. Bodies pass through in
//! pieces: their size does not matter. Between the client and the proxy
//! connections are kept alive; each request gets its own connection to the
//! server, so that the only faults are those a test asked for.

mod message;
mod rules;

use message::{Framing, Head, HoldBack, pass_body};
use rules::Board;
pub use rules::{Fault, Outcome, Seen};
use std::io::{self, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Bytes that are passed on at a time.
const BUFFER: usize = 64 * 1024;

/// The proxy; it ends, with all its connections, when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    listener: Mutex<TcpListener>,
    hub: Arc<Hub>,
}

/// What the threads of a proxy share.
struct Hub {
    upstream: SocketAddr,
    board: Board,
}

impl Proxy {
    /// Listens on a loopback port for what is meant for `upstream`.
    pub fn start(upstream: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy {
            address: listener.local_addr().unwrap(),
            listener: Mutex::new(listener),
            hub: Arc::new(Hub {
                upstream,
                board: Board::default(),
            }),
        };
        proxy.accept();
        proxy
    }

    /// Where the proxy listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same for a client: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets the next `times` requests of this kind meet a fault. `*` stands for
    /// anything, in the method and in the path; a pattern without a query
    /// matches whatever the query is. Of several rules that match, the oldest
    /// that has not been used up counts.
    pub fn on(&self, method: &str, path: &str, times: usize, fault: Fault) {
        self.hub.board.add_rule(method, path, times, fault);
    }

    /// Forgets all rules.
    pub fn clear(&self) {
        self.hub.board.clear_rules();
    }

    /// Ends the [`Fault::Hang`]s of this moment: their connections are closed.
    pub fn release(&self) {
        self.hub.board.release();
    }

    /// Takes the server off the network, or puts it back. While it is down its
    /// connections are closed, and new ones are refused.
    pub fn set_down(&self, down: bool) {
        if !self.hub.board.set_down(down) {
            return;
        }
        if down {
            self.deafen();
        } else {
            // The deaf socket keeps the port until this one has it.
            *self.listener.lock().unwrap() = TcpListener::bind(self.address).unwrap();
            self.accept();
        }
    }

    /// Blocks until so many requests of this kind have met their outcome: the
    /// server's status is known, or the fault is done.
    ///
    /// # Panics
    /// When they have not by then.
    pub fn wait_for(&self, method: &str, path: &str, count: usize, timeout: Duration) {
        let settled = |seen: &Seen| seen.outcome != Outcome::Pending;
        self.hub.board.wait(method, path, count, timeout, settled);
    }

    /// Blocks until so many requests of this kind have begun to arrive.
    ///
    /// # Panics
    /// When they have not by then.
    pub fn wait_for_arrival(&self, method: &str, path: &str, count: usize, timeout: Duration) {
        self.hub.board.wait(method, path, count, timeout, |_| true);
    }

    /// All requests so far, in the order in which they arrived.
    pub fn seen(&self) -> Vec<Seen> {
        self.hub.board.seen()
    }

    /// Serves whoever connects, until the listener is deafened.
    fn accept(&self) {
        let listener = self.listener.lock().unwrap().try_clone().unwrap();
        let hub = Arc::clone(&self.hub);
        thread::spawn(move || {
            loop {
                match listener.accept() {
                    Ok((client, _)) => {
                        let hub = Arc::clone(&hub);
                        thread::spawn(move || hub.serve(&client));
                    }
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(_) => return,
                }
            }
        });
    }

    /// Stops listening without giving up the port: shutdown(2) on a listening
    /// socket ends its accept(2), and Linux then refuses connections.
    fn deafen(&self) {
        let listener = OwnedFd::from(self.listener.lock().unwrap().try_clone().unwrap());
        let _ = TcpStream::from(listener).shutdown(Shutdown::Both);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.hub.board.end();
        self.deafen();
    }
}

impl Hub {
    /// One client's connection, from its first request to its last. An error
    /// here is a connection that broke; its request has been settled.
    fn serve(&self, client: &TcpStream) {
        let Some(_open) = self.board.register(client) else {
            let _ = client.shutdown(Shutdown::Both);
            return;
        };
        let _ = client.set_nodelay(true);
        let mut reader = BufReader::with_capacity(BUFFER, client);
        while let Ok(Some(request)) = Head::read(&mut reader) {
            let request = Request {
                hub: self,
                at: self.board.arrived(request.word(0), request.word(1)),
                head: request,
            };
            if !request.exchange(&mut reader, client).unwrap_or(false) {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
    }
}

/// A request that has arrived, its body still to be read.
struct Request<'a> {
    hub: &'a Hub,
    /// Its place in the list of requests seen.
    at: usize,
    head: Head,
}

type Reader<'a> = BufReader<&'a TcpStream>;

impl Request<'_> {
    /// Serves the request and says whether the connection can take another.
    /// The outcome is settled before the client can know of it.
    fn exchange(&self, reader: &mut Reader<'_>, client: &TcpStream) -> io::Result<bool> {
        let fault = self.hub.board.take_fault(self.at);
        let result = match &fault {
            None => self.forward(reader, client, true),
            Some(Fault::Delay(time)) => {
                self.hub.board.pause(Some(*time));
                self.forward(reader, client, true)
            }
            Some(Fault::DropReply) => self.forward(reader, client, false),
            Some(Fault::CutRequest(bytes)) => self.cut(reader, *bytes),
            Some(Fault::Hang) => self.drain(reader).map(|()| {
                self.settle(Outcome::Fault(Fault::Hang));
                self.hub.board.pause(None);
                false
            }),
            Some(Fault::Garbage(bytes)) => self.drain(reader).and_then(|()| {
                self.settle(Outcome::Fault(Fault::Garbage(Vec::new())));
                (&*client).write_all(bytes)?;
                Ok(false)
            }),
            Some(Fault::Answer {
                status,
                headers,
                body,
            }) => self.drain(reader).and_then(|()| {
                self.settle(Outcome::Status(*status));
                message::answer(client, *status, headers, body)?;
                Ok(!self.head.closes())
            }),
        };
        if result.is_err() {
            self.settle(Outcome::Broken);
        }
        result
    }

    fn settle(&self, outcome: Outcome) {
        self.hub.board.settle(self.at, outcome);
    }

    fn drain(&self, reader: &mut Reader<'_>) -> io::Result<()> {
        pass_body(self.head.request_body(), reader, &mut io::sink())
    }

    /// Sends the request on, but for its last bytes.
    fn cut(&self, reader: &mut Reader<'_>, bytes: usize) -> io::Result<bool> {
        let upstream = TcpStream::connect(self.hub.upstream)?;
        let _open = self.hub.board.register(&upstream).ok_or_else(gone)?;
        let mut writer = HoldBack::new(&upstream, bytes);
        writer.write_all(self.head.bytes())?;
        pass_body(self.head.request_body(), reader, &mut writer)?;
        upstream.shutdown(Shutdown::Both)?;
        self.settle(Outcome::Fault(Fault::CutRequest(bytes)));
        Ok(false)
    }

    /// Sends the request on and the answer back, or only the former. The two
    /// run side by side: a server may answer before it has read everything.
    fn forward(&self, from: &mut Reader<'_>, client: &TcpStream, reply: bool) -> io::Result<bool> {
        let upstream = TcpStream::connect(self.hub.upstream)?;
        let _open = self.hub.board.register(&upstream).ok_or_else(gone)?;
        upstream.set_nodelay(true)?;
        thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let sent = (&upstream)
                    .write_all(self.head.bytes())
                    .and_then(|()| pass_body(self.head.request_body(), from, &mut &upstream));
                if sent.is_err() {
                    // The server may have answered, so it can still be heard.
                    let _ = upstream.shutdown(Shutdown::Write);
                }
                sent
            });
            let answered = self.pass_answer(&upstream, client, reply);
            if answered.is_err() {
                self.settle(Outcome::Broken);
                // Else the sender might wait for either for ever.
                let _ = upstream.shutdown(Shutdown::Both);
                let _ = client.shutdown(Shutdown::Both);
            }
            let sent = sending.join().unwrap();
            Ok(answered? && sent.is_ok())
        })
    }

    fn pass_answer(
        &self,
        upstream: &TcpStream,
        client: &TcpStream,
        reply: bool,
    ) -> io::Result<bool> {
        let mut reader = BufReader::with_capacity(BUFFER, upstream);
        let answer = loop {
            let answer = Head::read(&mut reader)?.ok_or_else(gone)?;
            if !answer.word(1).starts_with('1') {
                break answer;
            }
            if reply {
                (&*client).write_all(answer.bytes())?;
            }
        };
        let body = answer.answer_body(self.head.word(0));
        if !reply {
            pass_body(body, &mut reader, &mut io::sink())?;
            self.settle(Outcome::Fault(Fault::DropReply));
            return Ok(false);
        }
        self.settle(Outcome::Status(answer.word(1).parse().unwrap_or(0)));
        (&*client).write_all(answer.bytes())?;
        pass_body(body, &mut reader, &mut &*client)?;
        Ok(body != Framing::UntilEnd && !answer.closes() && !self.head.closes())
    }
}

fn gone() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}
