//! What a proxy's threads and its test know together: the rules, the requests
//! seen, the connections that are open, and whether the server is reachable.

use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// What goes wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is passed on, but only after this time.
    Delay(Duration),
    /// It is passed on without so many of its last bytes, then both
    /// connections are closed.
    CutRequest(usize),
    /// The server handles it, then the client's connection is closed.
    DropReply,
    /// The proxy answers in the server's place.
    Answer {
        status: u16,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    },
    /// The proxy sends these bytes, whatever they are, in the server's place and
    /// closes the connection.
    Garbage(Vec<u8>),
    /// It is read, and nothing follows until the connection is released.
    Hang,
}

impl Fault {
    /// An answer with a status and nothing else.
    pub fn status(status: u16) -> Fault {
        Fault::Answer {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }
}

/// A request, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    /// The target as sent, with its query.
    pub path: String,
    pub outcome: Outcome,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not known yet.
    Pending,
    /// Answered with this status, by the server or in its place.
    Status(u16),
    /// It met a fault and was not answered.
    Fault(Fault),
    /// The client, the server or the network went away.
    Broken,
}

/// The shared state, and the one place where its threads wait.
#[derive(Default)]
pub struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    seen: Vec<Seen>,
    open: HashMap<u64, TcpStream>,
    opened: u64,
    /// Rises when hanging requests are let go.
    releases: u64,
    down: bool,
    ended: bool,
}

struct Rule {
    method: String,
    path: String,
    left: usize,
    fault: Fault,
}

/// A connection that is closed when the server goes down; forgotten with the
/// value.
pub struct Open<'a> {
    board: &'a Board,
    id: u64,
}

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Changes the state, and wakes whoever waits for it.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.notify_all();
        result
    }

    pub fn add_rule(&self, method: &str, path: &str, times: usize, fault: Fault) {
        self.state().rules.push(Rule {
            method: method.to_owned(),
            path: path.to_owned(),
            left: times,
            fault,
        });
    }

    pub fn clear_rules(&self) {
        self.state().rules.clear();
    }

    /// Notes a request and gives its place in the list.
    pub fn arrived(&self, method: &str, path: &str) -> usize {
        self.change(|state| {
            state.seen.push(Seen {
                method: method.to_owned(),
                path: path.to_owned(),
                outcome: Outcome::Pending,
            });
            state.seen.len() - 1
        })
    }

    /// The fault that this request is to meet; uses up one time of its rule.
    pub fn take_fault(&self, at: usize) -> Option<Fault> {
        let mut state = self.state();
        let State { rules, seen, .. } = &mut *state;
        let rule = rules
            .iter_mut()
            .find(|rule| rule.left > 0 && seen[at].is(&rule.method, &rule.path))?;
        rule.left -= 1;
        Some(rule.fault.clone())
    }

    /// Says what became of a request; the first to say so is right.
    pub fn settle(&self, at: usize, outcome: Outcome) {
        self.change(|state| {
            if state.seen[at].outcome == Outcome::Pending {
                state.seen[at].outcome = outcome;
            }
        });
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// Blocks until so many requests match, and panics when the time is over.
    pub fn wait(
        &self,
        method: &str,
        path: &str,
        count: usize,
        timeout: Duration,
        also: impl Fn(&Seen) -> bool,
    ) {
        let matching = |state: &State| {
            let matches = |seen: &&Seen| seen.is(method, path) && also(seen);
            state.seen.iter().filter(matches).count()
        };
        let (state, _) = self
            .changed
            .wait_timeout_while(self.state(), timeout, |state| matching(state) < count)
            .unwrap();
        let (found, seen) = (matching(&state), state.seen.clone());
        // The lock is given back before a panic, else it would be poisoned.
        drop(state);
        assert!(
            found >= count,
            "{found} of {count} requests {method} {path} after {timeout:?}; seen: {seen:#?}"
        );
    }

    /// Blocks for this time, or until the requests that hang are released;
    /// in either case not longer than the network is up.
    pub fn pause(&self, time: Option<Duration>) {
        let deadline = time.map(|time| Instant::now() + time);
        let mut state = self.state();
        let releases = state.releases;
        while !state.down && !state.ended {
            let Some(deadline) = deadline else {
                if state.releases != releases {
                    return;
                }
                state = self.changed.wait(state).unwrap();
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    pub fn release(&self) {
        self.change(|state| state.releases += 1);
    }

    /// Takes note of a connection; `None` when there can be none now.
    pub fn register(&self, stream: &TcpStream) -> Option<Open<'_>> {
        let mut state = self.state();
        if state.down || state.ended {
            return None;
        }
        state.opened += 1;
        let id = state.opened;
        state.open.insert(id, stream.try_clone().ok()?);
        Some(Open { board: self, id })
    }

    /// Says whether that is news; closes every connection when it is bad news.
    pub fn set_down(&self, down: bool) -> bool {
        self.change(|state| {
            if down {
                state.close_all();
            }
            std::mem::replace(&mut state.down, down) != down
        })
    }

    pub fn end(&self) {
        self.change(|state| {
            state.ended = true;
            state.close_all();
        });
    }
}

impl State {
    fn close_all(&mut self) {
        for (_, stream) in self.open.drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.board.state().open.remove(&self.id);
    }
}

impl Seen {
    /// Whether it is of this kind; see `Proxy::on`.
    fn is(&self, method: &str, path: &str) -> bool {
        let bare = self.path.split('?').next().unwrap_or("");
        matches(method, &self.method) && (matches(path, &self.path) || matches(path, bare))
    }
}

/// Whether a text is what a pattern with `*` for anything describes.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            (0..=text.len())
                .filter(|&at| text.is_char_boundary(at))
                .any(|at| matches(rest, &text[at..]))
        }),
    }
}
