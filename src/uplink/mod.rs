//! The side that talks: the only room with a way to the server.
//!
//! A thread of its own delivers, in order and with patience, what the agent says
//! happened; what it learns comes back as an [`Event`]. It never touches a
//! process and never decides anything, and the agent never waits for it without
//! a deadline. What that thread does: `thread`; how a job's remains are delivered later:
//! `arrears`.

mod agent_data;
mod api;
mod arrears;
mod backoff;
mod common;
mod delivery;
mod era;
mod failure;
mod faults;
mod fetch;
#[doc(hidden)]
pub mod fuzzing;
mod http;
pub mod influx;
mod live;
mod multipart;
mod reading;
mod share;
mod thread;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
mod tls;
mod token;
mod upload;
mod waiting;
mod webhook;

pub use agent_data::{AgentData, DESCRIPTIONS};
pub use failure::Failure;
pub use fetch::Fetching;

use crate::job::{Attachments, Entry, LogType, PerLog, Phase, Progress, Record, Webhook};
use crate::json::Object;
use crate::metrics::Metrics;
use crate::sys::{self, Wake};
use api::Api;
use arrears::Arrears;
use common::Common;
use delivery::Delivery;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use thread::Thread;

/// Between attempts for a job that runs.
const LIVE_PAUSE: Duration = Duration::from_secs(30);
/// Between attempts for what earlier jobs owe.
const ARREARS_PAUSE: Duration = Duration::from_secs(180);

/// Whom to talk to, and as whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server's URL: scheme and authority.
    pub server: String,
    /// Whom to trust and whom to be there.
    pub tls: TlsFiles,
    /// The agent's name there.
    pub agent_id: String,
    /// Where the refresh token is, if there is one.
    pub token_file: PathBuf,
    /// Where its requests are counted.
    pub metrics: Metrics,
}

/// The files of TLS, in PEM form.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Certificates to trust besides the system's.
    pub ca_certificate: Option<PathBuf>,
    /// The certificate to show to the server.
    pub client_certificate: Option<PathBuf>,
    /// Its private key.
    pub client_key: Option<PathBuf>,
}

/// Whether there can be an uplink to this server with these files.
///
/// # Errors
/// A sentence, when TLS is needed and cannot be had.
pub fn check(server: &str, tls: &TlsFiles) -> Result<(), String> {
    http::Http::new(server, tls).map(|_| ())
}

/// A question of the idle agent. It is asked once; when to ask again is the
/// agent's decision.
#[derive(Debug)]
pub enum Ask {
    /// What does the server say of this agent?
    AgentData,
    /// Tell the server this of the agent.
    PostAgent(Object),
    /// Advertise queues or images (the last part of the path, and the body).
    Advertise(&'static str, String),
    /// Is there a job in one of these queues?
    Job(Vec<String>),
}

/// The answer to an [`Ask`].
#[derive(Debug)]
pub enum Answer {
    /// What the server says of this agent.
    AgentData(AgentData),
    /// It was posted.
    Posted,
    /// A job's document, or none.
    Job(Option<String>),
}

/// What the uplink has to say.
#[derive(Debug)]
pub enum Event {
    /// The answer to the last [`Ask`].
    Answered(Result<Answer, Failure>),
    /// The running job was cancelled by its user.
    Cancelled,
    /// The job's state was read, or cannot be read just now.
    Checked,
    /// An administrator wants the agent to restart.
    RestartWanted,
    /// The server knows that the agent is offline.
    OfflineTold,
    /// The server has everything of the job.
    Delivered,
    /// The job's rest is put aside, to be sent later.
    Owed,
    /// The parent of the running job is over: its state, or what is wrong with it.
    ParentOver(String),
    /// A job's attachments are in its workspace, or why they will never be.
    Fetched(String, Result<(), String>),
    /// Nothing is under way any more, or it takes too long.
    Settled,
}

#[derive(Debug)]
enum Command {
    Ask(Ask),
    Job(Box<Delivery>, Option<Webhook>),
    Entry(Entry),
    Offline(String),
    Allocated(Option<String>),
    AllocationOver,
    NameJob,
    CheckNow,
    Settle(Duration),
}

/// What is waiting for the thread.
#[derive(Debug, Default)]
struct Queue {
    commands: VecDeque<Command>,
    /// The phase that runs, and how long its logs are. Not a command: a flood of
    /// output must not become a flood of those.
    output: PerLog<Option<(Phase, u64)>>,
}

/// The agent's end of the uplink.
#[derive(Debug)]
pub struct Uplink {
    queue: Arc<(Mutex<Queue>, Condvar)>,
    arrears: Arc<Arrears>,
    common: Arc<Common>,
    events: Sender<Event>,
    wake: Wake,
}

impl Uplink {
    /// Starts the thread. Its events come out of the receiver; `wake` says that
    /// there are some.
    ///
    /// # Errors
    /// A sentence, when there is no TLS or no thread to be had.
    pub fn start(settings: Settings, wake: Wake) -> Result<(Uplink, Receiver<Event>), String> {
        let common = Arc::new(Common::new(settings));
        let (events, receiver) = mpsc::channel();
        let uplink = Uplink {
            queue: Arc::default(),
            arrears: Arc::default(),
            common: Arc::clone(&common),
            events,
            wake,
        };
        let mut thread = Thread::new(Api::new(common)?, &uplink);
        std::thread::Builder::new()
            .name("uplink".into())
            .spawn(move || {
                leave_signals_to_the_agent();
                thread.work();
            })
            .map_err(|error| format!("cannot start the uplink's thread: {error}"))?;
        Ok((uplink, receiver))
    }

    /// Asks; the answer comes as [`Event::Answered`].
    pub fn ask(&self, ask: Ask) {
        self.command(Command::Ask(ask));
    }

    /// A job has been taken, whose webhook is this, if it has one; its entries follow.
    pub fn job(&self, record: Arc<Record>, progress: Progress, webhook: Option<Webhook>) {
        let delivery = Delivery::new(record, progress, LIVE_PAUSE);
        self.command(Command::Job(Box::new(delivery), webhook));
    }

    /// A job of an earlier life has been taken up; its entries follow.
    pub fn job_again(&self, record: Arc<Record>, progress: Progress, webhook: Option<Webhook>) {
        let delivery = Delivery::new(record, progress, LIVE_PAUSE).of_an_earlier_life();
        self.command(Command::Job(Box::new(delivery), webhook));
    }

    /// Something happened to the job; it is in the record already.
    pub fn entry(&self, entry: Entry) {
        self.command(Command::Entry(entry));
    }

    /// This log of the phase that runs has this many bytes.
    pub fn output(&self, phase: Phase, log: LogType, available: u64) {
        let mut queue = lock(&self.queue.0);
        *queue.output.of_mut(log) = Some((phase, available));
        self.queue.1.notify_one();
    }

    /// Fetches the running job's attachments until what this returns is dropped;
    /// [`Event::Fetched`] says how it ended. Whom the agent works for is told before.
    ///
    /// # Errors
    /// A sentence, when that cannot even begin.
    pub fn fetch(&self, job_id: &str, attachments: Attachments) -> Result<Fetching, String> {
        self.command(Command::NameJob);
        let (events, wake) = (self.events.clone(), self.wake.clone());
        let tell = move |event| send(&events, &wake, event);
        fetch::start(Arc::clone(&self.common), job_id.into(), attachments, tell)
    }

    /// Puts the agent offline, with this comment.
    pub fn put_offline(&self, comment: String) {
        self.command(Command::Offline(comment));
    }

    /// The running job's device is allocated to this job, if there is one;
    /// [`Event::ParentOver`] says when that is over.
    pub fn allocated(&self, parent: Option<String>) {
        self.command(Command::Allocated(parent));
    }

    /// Nobody waits for the parent any more.
    pub fn allocation_over(&self) {
        self.command(Command::AllocationOver);
    }

    /// Reads the job's state at once; [`Event::Checked`] says when.
    pub fn check_now(&self) {
        self.command(Command::CheckNow);
    }

    /// Sends what an earlier job owes.
    pub fn owe(&self, record: Record, progress: Progress) {
        let delivery = Delivery::new(Arc::new(record), progress, ARREARS_PAUSE);
        let delivery = delivery.of_an_earlier_life();
        self.arrears.add(delivery, &self.common);
    }

    /// Lets what is under way come to its end, if it does so within this time,
    /// and begins nothing more; [`Event::Settled`] says when.
    pub fn settle(&self, within: Duration) {
        self.command(Command::Settle(within));
    }

    fn command(&self, command: Command) {
        lock(&self.queue.0).commands.push_back(command);
        self.queue.1.notify_one();
    }
}

/// In a thread of this room: a signal is for the main thread, which knows when it
/// can be lost.
fn leave_signals_to_the_agent() {
    // Without that, it would still be caught.
    let _ = sys::hold_signals();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn send(events: &Sender<Event>, wake: &Wake, event: Event) {
    // Fails only when the agent is about to end.
    let _ = events.send(event);
    wake.wake();
}

/// How long to wait after this many failures in a row: growing, with jitter, and
/// not shorter than the server asked for.
#[must_use]
pub fn pause(failures: u32, asked: Option<Duration>, longest: Duration) -> Duration {
    backoff::pause(failures, asked, longest)
}
