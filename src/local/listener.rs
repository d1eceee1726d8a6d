//! The port that is listened on, and the threads behind it.

use super::connection;
use super::state::Shared;
use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long to wait for a connection to end and give back its descriptor when
/// there is none for another one.
const PAUSE: Duration = Duration::from_millis(10);

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
            thread::sleep(PAUSE);
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
                let _ = connection::serve(&stream, &shared);
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

fn lock(open: &Open) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}
