//! The port on which the metrics are. All of it is done by the main loop, which never
//! waits for a client: what cannot be done at once is done when poll(2) says so.

use super::Metrics;
use super::client::Client;
use crate::{debug, error, info};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// So many clients at a time; more of them wait in the kernel until one has gone.
const MOST: usize = 8;
/// Until a port is tried again that could not be had: its address may come with the
/// network, and somebody who has it may end.
const RETRY: Duration = Duration::from_secs(30);
/// Until clients are taken again when that failed: there may be no descriptor for one.
const PAUSE: Duration = Duration::from_secs(1);

/// The port and whoever is connected to it.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    socket: Option<TcpListener>,
    /// Until then nothing is tried with the port.
    rests_until: Option<Instant>,
    /// It was said that the port cannot be had.
    said: bool,
    clients: Vec<Client>,
    metrics: Metrics,
}

impl Listener {
    /// Listens, as soon as that is possible.
    #[must_use]
    pub fn start(address: SocketAddr, metrics: Metrics, now: Instant) -> Listener {
        let mut listener = Listener {
            address,
            socket: None,
            rests_until: None,
            said: false,
            clients: Vec::new(),
            metrics,
        };
        listener.open(now);
        listener
    }

    fn open(&mut self, now: Instant) {
        let opened = TcpListener::bind(self.address).and_then(|socket| {
            socket.set_nonblocking(true)?;
            let address = socket.local_addr()?;
            Ok((socket, address))
        });
        match opened {
            Ok((socket, address)) => {
                info!("metrics are at http://{address}/metrics");
                self.socket = Some(socket);
                self.rests_until = None;
            }
            Err(error) => {
                if !self.said {
                    let seconds = RETRY.as_secs();
                    error!(
                        "cannot serve metrics at {}: {error}; going on without, trying again \
                         every {seconds} s",
                        self.address
                    );
                    self.said = true;
                }
                self.rests_until = now.checked_add(RETRY);
            }
        }
    }

    /// What is waited for until it can be read.
    pub fn reading(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let has_room = self.clients.len() < MOST && self.rests_until.is_none();
        let socket = self.socket.as_ref().filter(|_| has_room);
        let clients = self.clients.iter().filter(|client| !client.is_answered());
        let clients = clients.map(Client::as_fd);
        socket.map(AsFd::as_fd).into_iter().chain(clients)
    }

    /// What is waited for until it can be written.
    pub fn writing(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let clients = self.clients.iter().filter(|client| client.is_answered());
        clients.map(Client::as_fd)
    }

    /// The nearest moment at which [`Listener::attend`] has something to do, whatever
    /// poll(2) says.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let clients = self.clients.iter().map(Client::until);
        clients.chain(self.rests_until).min()
    }

    /// Does what can be done at once: one piece for each client.
    pub fn attend(&mut self, now: Instant) {
        let metrics = &self.metrics;
        self.clients
            .retain_mut(|client| client.attend(now, metrics));
        if self.rests_until.is_some_and(|until| until > now) {
            return;
        }
        self.rests_until = None;
        match &self.socket {
            None => self.open(now),
            Some(_) => self.accept(now),
        }
    }

    fn accept(&mut self, now: Instant) {
        while let Some(socket) = self.socket.as_ref().filter(|_| self.clients.len() < MOST) {
            let accepted = socket.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(true)?;
                Ok(stream)
            });
            match accepted {
                Ok(stream) => self.clients.push(Client::new(stream, now)),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return,
                    // It has gone already.
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    _ => {
                        debug!("cannot take a client of the metrics: {error}");
                        self.rests_until = now.checked_add(PAUSE);
                        return;
                    }
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn a_busy_port_is_tried_again_after_a_while() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();
        let now = Instant::now();
        let mut listener = Listener::start(address, Metrics::default(), now);
        assert_eq!(listener.reading().count(), 0);
        assert_eq!(listener.due(), Some(now + RETRY));
        drop(other);
        listener.attend(now + RETRY / 2);
        assert_eq!(listener.reading().count(), 0);
        listener.attend(now + RETRY);
        assert_eq!((listener.reading().count(), listener.due()), (1, None));
    }

    #[test]
    fn who_has_the_answer_and_goes_on_sending_is_dropped() {
        use std::io::Write;
        let now = Instant::now();
        let place = "127.0.0.1:0".parse().unwrap();
        let mut listener = Listener::start(place, Metrics::default(), now);
        let address = listener.socket.as_ref().unwrap().local_addr().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
        while !listener.clients.iter().any(Client::has_its_answer) {
            listener.attend(now);
        }
        let sending = std::thread::spawn(move || while client.write_all(&[0; 1 << 10]).is_ok() {});
        // At the same moment: it is not its time that is over.
        while !listener.clients.is_empty() {
            listener.attend(now);
        }
        sending.join().unwrap();
    }

    #[test]
    fn nobody_is_taken_beyond_the_eighth_until_their_time_is_over() {
        let now = Instant::now();
        let place = "127.0.0.1:0".parse().unwrap();
        let mut listener = Listener::start(place, Metrics::default(), now);
        let address = listener.socket.as_ref().unwrap().local_addr().unwrap();
        // Connected is who is in the kernel's queue.
        let _clients = [(); 12].map(|()| TcpStream::connect(address).unwrap());
        listener.attend(now);
        assert_eq!(listener.clients.len(), 8);
        assert_eq!(
            listener.reading().count(),
            8,
            "and nobody is waited for at the port"
        );
        let late = now + Duration::from_secs(5);
        assert_eq!(listener.due(), Some(late));
        listener.attend(late);
        assert_eq!(listener.clients.len(), 4, "the four that had to wait");
        assert_eq!(listener.reading().count(), 5);
    }
}
