//! The uplink's thread: it takes what the agent says from the queue, and between that does
//! for the job whatever is next.

use super::api::Api;
use super::arrears::{self, Arrears};
use super::delivery::Delivery;
use super::failure::Failure;
use super::live::{LiveJob, Turn};
use super::share::Sharing;
use super::webhook::Telling;
use super::{ARREARS_PAUSE, Answer, Ask, Command, Event, Queue, Uplink, lock, send};
use crate::job::{Entry, LOG_TYPES};
use crate::sys::Wake;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

/// What the thread works with.
pub(super) struct Thread {
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
    /// The end of this uplink that works.
    pub(super) fn new(api: Api, uplink: &Uplink) -> Thread {
        Thread {
            api,
            queue: Arc::clone(&uplink.queue),
            arrears: Arc::clone(&uplink.arrears),
            job: None,
            telling: None,
            sharing: Sharing::default(),
            settled: false,
            events: uplink.events.clone(),
            wake: uplink.wake.clone(),
        }
    }

    /// Works as long as the process lives.
    pub(super) fn work(&mut self) {
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
                let job_id = &delivery.progress.job_id;
                self.telling = webhook.map(|webhook| Telling::new(webhook, agent_id, job_id));
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
