//! The one place where the agent waits.
//!
//! Descriptors, signals, ended children, the uplink's news and the nearest
//! deadline become one [`Event`] at a time. Nothing is decided here.

use super::overseers::Overseers;
use super::telemetry::Telemetry;
use crate::sys::{self, Changes, Exit, Pipe, Signal, Signals};
use crate::uplink;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// So many of the dead are seen to before anything else has its turn: a job that makes
/// them all the while would keep its own limits from being looked at.
const REAPED: usize = 64;

/// What happened first.
#[derive(Debug)]
pub(super) enum Event {
    /// A signal came.
    Signal(Signal),
    /// The uplink has news.
    Uplink(uplink::Event),
    /// The awaited process ended.
    Ended(Exit),
    /// The pipe can be read, or is at its end.
    Output,
    /// Something in the watched directory has changed.
    Changed,
    /// The deadline has come.
    Deadline,
}

/// Everything that can happen to the agent.
#[derive(Debug)]
pub(super) struct Events {
    signals: Signals,
    wake: Pipe,
    inbox: Receiver<uplink::Event>,
    awaited: Option<i32>,
    changes: Option<Changes>,
    /// Some have come that were not told yet.
    has_changed: bool,
    /// Output was told although the deadline had come: that is next.
    is_overdue: bool,
    /// Pipes that something which a phase left behind still writes to: read, so
    /// that it is neither stopped nor killed by a full or broken pipe.
    leftovers: Vec<Pipe>,
    /// Those who have to hear that the main loop turns.
    pub(super) overseers: Overseers,
    /// What is counted, and those who look at it.
    pub(super) telemetry: Telemetry,
}

impl Events {
    pub(super) fn new(signals: Signals, wake: Pipe, inbox: Receiver<uplink::Event>) -> Events {
        Events {
            signals,
            wake,
            inbox,
            awaited: None,
            changes: None,
            has_changed: false,
            is_overdue: false,
            leftovers: Vec::new(),
            overseers: Overseers::default(),
            telemetry: Telemetry::default(),
        }
    }

    /// The process whose end is an event; all others are only reaped.
    pub(super) fn await_process(&mut self, pid: i32) {
        self.awaited = Some(pid);
    }

    /// Makes what happens in a directory an event, where the kernel can.
    pub(super) fn watch(&mut self, directory: &Path) {
        self.changes = Changes::of(directory).ok();
    }

    /// Ends that.
    pub(super) fn unwatch(&mut self) {
        self.changes = None;
    }

    /// Whether changes are events.
    pub(super) fn is_watching(&self) -> bool {
        self.changes.is_some()
    }

    /// Goes on reading a pipe whose command is over.
    pub(super) fn keep(&mut self, pipe: Pipe) {
        self.leftovers.push(pipe);
    }

    /// Closes the pipes of [`Events::keep`].
    pub(super) fn drop_leftovers(&mut self) {
        self.leftovers.clear();
    }

    /// The next signal that has come already.
    pub(super) fn take_signal(&mut self) -> Option<Signal> {
        self.signals.take()
    }

    /// Waits for whatever comes first. Nothing is taken for silence that was not looked
    /// at, and no deadline that is always over hides the rest: one piece of output, which
    /// is there already, goes before it. A flood of that postpones it no further.
    ///
    /// # Errors
    /// When poll(2) fails.
    pub(super) fn next(
        &mut self,
        pipe: Option<&Pipe>,
        deadline: Option<Instant>,
    ) -> io::Result<Event> {
        let mut has_looked = std::mem::take(&mut self.is_overdue);
        loop {
            self.overseers.feed(Instant::now());
            self.telemetry.tend(Instant::now());
            while let Some(signal) = self.signals.take() {
                if signal != Signal::Child {
                    return Ok(Event::Signal(signal));
                }
            }
            // Without waiting for SIGCHLD: a blocked or lost one costs nothing.
            let mut reaped = 0;
            while reaped < REAPED
                && let Some((pid, exit)) = sys::reap()
            {
                reaped += 1;
                if self.awaited == Some(pid) {
                    self.awaited = None;
                    return Ok(Event::Ended(exit));
                }
                self.telemetry.reaped(pid, exit);
            }
            if let Ok(event) = self.inbox.try_recv() {
                return Ok(Event::Uplink(event));
            }
            let now = Instant::now();
            let has_come = deadline.is_some_and(|deadline| deadline <= now);
            if has_come && has_looked {
                return Ok(Event::Deadline);
            }
            // By turns, so that neither can hide the other.
            if std::mem::take(&mut self.has_changed) {
                return Ok(Event::Changed);
            }
            let others = self.overseers.due().into_iter().chain(self.telemetry.due());
            let nearest = deadline.into_iter().chain(others).min();
            let timeout = match reaped < REAPED {
                true => nearest.map(|nearest| nearest.saturating_duration_since(now)),
                // There are more of them.
                false => Some(Duration::ZERO),
            };
            has_looked = true;
            if self.poll(pipe, timeout)? {
                self.is_overdue = has_come;
                return Ok(Event::Output);
            }
        }
    }

    /// Waits; true when the pipe is ready.
    fn poll(&mut self, pipe: Option<&Pipe>, timeout: Option<Duration>) -> io::Result<bool> {
        let mut descriptors = vec![
            pipe.map(AsFd::as_fd),
            self.changes.as_ref().map(AsFd::as_fd),
            Some(self.wake.as_fd()),
            Some(self.signals.pipe().as_fd()),
        ];
        descriptors.extend(self.leftovers.iter().map(|pipe| Some(pipe.as_fd())));
        let others = descriptors.len();
        descriptors.extend(self.telemetry.reading().map(Some));
        let writing: Vec<_> = self.telemetry.writing().collect();
        let ready = sys::poll(&descriptors, &writing, timeout)?;
        if ready.iter().skip(others).any(|is_ready| *is_ready) {
            self.telemetry.attend(Instant::now());
        }
        let is_ready = |at: usize| ready.get(at).copied().unwrap_or(false);
        if is_ready(2) {
            self.wake.drain();
        }
        let mut at = 3;
        self.leftovers.retain_mut(|pipe| {
            at += 1;
            !is_ready(at) || !is_over(pipe)
        });
        self.has_changed = is_ready(1);
        if self.has_changed && !self.changes.as_mut().is_some_and(Changes::drain) {
            self.changes = None;
        }
        Ok(is_ready(0))
    }
}

/// Reads a piece and forgets it; true at the end.
fn is_over(pipe: &mut Pipe) -> bool {
    let mut buffer = [0; 16 << 10];
    matches!(pipe.read(&mut buffer), Ok(Some(0)) | Err(_))
}
