//! The side that talks: the only room with a way to the server.
//!
//! A thread of its own delivers, in order and with patience, what the agent says
//! happened; what it learns comes back as an [`Event`]. It never touches a
//! process and never decides anything, and the agent never waits for it without
//! a deadline. How a job's remains are delivered later: `arrears`.

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
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
mod tls;
mod token;
mod upload;
mod waiting;
mod webhook;

pub use agent_data::{AgentData, DESCRIPTIONS};
pub use failure::Failure;
pub use fetch::Fetching;

use crate::job::{
    Attachments, Entry, LOG_TYPES, LogType, PerLog, Phase, Progress, Record, Webhook,
};
use crate::json::Object;
use crate::metrics::Metrics;
use crate::sys::{self, Wake};
use api::Api;
use arrears::Arrears;
use common::Common;
use delivery::Delivery;
use live::{LiveJob, Turn};
use share::Sharing;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use webhook::Telling;

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
            events: events.clone(),
            wake: wake.clone(),
        };
        let mut thread = Thread {
            api: Api::new(common)?,
            queue: Arc::clone(&uplink.queue),
            arrears: Arc::clone(&uplink.arrears),
            job: None,
            telling: None,
            sharing: Sharing::default(),
            settled: false,
            events,
            wake,
        };
        thread::Builder::new()
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

/// The thread's end.
struct Thread {
    api: Api,
    queue: Arc<(Mutex<Queue>, Condvar)>,
    arrears: Arc<Arrears>,
    job: Option<Box<LiveJob>>,
    /// The webhook of the job that runs, or of the last one.
    telling: Option<Telling>,
    sharing: Sharing,
    /// Nothing more is to be begun.
    settled: bool,
    events: Sender<Event>,
    wake: Wake,
}

impl Thread {
    fn work(&mut self) {
        let mut wait = None;
        loop {
            if let Some(command) = self.next(wait) {
                self.obey(command);
                // There may be more of them, and something to do.
                wait = Some(Instant::now());
                continue;
            }
            wait = self.turn();
        }
    }

    /// The next command, or none when the time is over or output has come.
    fn next(&mut self, wait: Option<Instant>) -> Option<Command> {
        let (mutex, changed) = &*self.queue;
        let mut queue = lock(mutex);
        loop {
            let command = queue.commands.pop_front();
            // Before a job is known, there is nobody to be told of its output.
            let mut is_news = command.is_some();
            if let Some(job) = &mut self.job {
                for log in LOG_TYPES {
                    if let Some((phase, available)) = queue.output.of_mut(log).take() {
                        job.delivery.output(phase, log, available, Instant::now());
                        is_news = true;
                    }
                }
            }
            if is_news {
                return command;
            }
            queue = match wait {
                None => changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    let waited = changed.wait_timeout(queue, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Ask(ask) => {
                let answer = self.ask(ask);
                let is_answered = answer.is_ok();
                self.tell(Event::Answered(answer));
                if is_answered {
                    self.sharing.go_on(&self.api, Instant::now());
                }
            }
            Command::Job(delivery, webhook) => {
                let agent_id = &self.api.common.agent_id;
                self.telling = webhook.map(|webhook| Telling::new(webhook, agent_id));
                // An earlier life may have ended before it could tell of them.
                if let Some(telling) = &mut self.telling
                    && !delivery.progress.events.is_empty()
                {
                    telling.tell(&delivery.progress, &self.api.common);
                }
                self.job = Some(Box::new(LiveJob::new(*delivery)));
            }
            Command::Entry(entry) => {
                if let Some(job) = &mut self.job {
                    job.delivery.apply(&entry);
                    if let (Entry::Event(_), Some(telling)) = (&entry, &mut self.telling) {
                        telling.tell(&job.delivery.progress, &self.api.common);
                    }
                }
            }
            Command::Offline(comment) => {
                if let Some(job) = &mut self.job {
                    job.put_offline(comment);
                }
            }
            Command::Allocated(parent) => {
                if let Some(job) = &mut self.job {
                    job.allocated(parent);
                }
            }
            Command::AllocationOver => {
                if let Some(job) = &mut self.job {
                    job.allocation_over(&self.api);
                }
            }
            Command::NameJob => {
                if let Some(job) = &mut self.job {
                    job.name_job();
                }
            }
            Command::CheckNow => match &mut self.job {
                Some(job) => job.check_now(),
                None => self.tell(Event::Checked),
            },
            Command::Settle(within) => {
                self.settled = true;
                let begun = Instant::now();
                if let Some(telling) = self.telling.take() {
                    telling.finish(within);
                }
                self.arrears.settle(within.saturating_sub(begun.elapsed()));
                // Nobody waits for longer than that.
                self.sharing.finish(&self.api);
                self.tell(Event::Settled);
            }
        }
    }

    fn ask(&mut self, ask: Ask) -> Result<Answer, Failure> {
        Ok(match ask {
            Ask::AgentData => Answer::AgentData(self.api.agent_data()?),
            Ask::PostAgent(data) => {
                self.api.post_agent(data)?;
                Answer::Posted
            }
            Ask::Advertise(what, body) => {
                self.api.advertise(what, &body)?;
                Answer::Posted
            }
            Ask::Job(queues) => Answer::Job(self.api.take_job(&queues)?),
        })
    }

    /// Does one thing for the job; says until when there is nothing to do.
    fn turn(&mut self) -> Option<Instant> {
        let job = self.job.as_mut().filter(|_| !self.settled)?;
        if job.reaches_the_server() {
            self.sharing.go_on(&self.api, Instant::now());
        }
        let (events, wake) = (&self.events, &self.wake);
        let tell = |event| send(events, wake, event);
        match job.turn(&self.api, &tell, Instant::now()) {
            Turn::Again => Some(Instant::now()),
            Turn::Wait(until) => until,
            Turn::Delivered => {
                self.api.forget_job_state();
                let Delivery {
                    record, progress, ..
                } = &job.delivery;
                match &self.telling {
                    // Who is killed before its webhook was told of its end tells of it in
                    // its next life.
                    Some(telling) => telling.close_afterwards(record, &progress.agent_id),
                    None => arrears::close(record, &progress.agent_id),
                }
                self.job = None;
                self.tell(Event::Delivered);
                None
            }
            Turn::Owed => {
                if let Some(mut job) = self.job.take() {
                    job.delivery.bring_home();
                    let LiveJob { mut delivery, .. } = *job;
                    // While the server was there, it was told beside that.
                    delivery.is_end_told = delivery.progress.complete;
                    self.arrears
                        .add(delivery.slower(ARREARS_PAUSE), &self.api.common);
                }
                self.tell(Event::Owed);
                None
            }
        }
    }

    fn tell(&self, event: Event) {
        send(&self.events, &self.wake, event);
    }
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
