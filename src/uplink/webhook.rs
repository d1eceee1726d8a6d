//! Telling a job's webhook what happens to it, through the server: on a thread of its
//! own over a connection of its own, because the server answers no sooner than the
//! webhook does, which is somebody else's.

use super::api::{Api, Outgoing, percent};
use super::arrears;
use super::backoff::Backoff;
use super::common::Common;
use super::failure::Failure;
use crate::job::{JobEvent, Progress, Record, Webhook};
use crate::json::Object;
use crate::warning;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const ACTION: &str = "tell a job's webhook";
/// Between attempts to reach the server.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// After the end of the job, so many are made: nobody waits for them.
const LAST_ATTEMPTS: u32 = 5;
/// So many webhooks are told at a time, one thread each: they take as long to answer as
/// they like.
const AT_A_TIME: usize = 8;

/// The events of one job, on their way. What has not been sent when this is dropped
/// is still tried for a while.
#[derive(Debug)]
pub(super) struct Telling {
    webhook: Webhook,
    agent_id: String,
    job_id: String,
    state: Arc<State>,
    has_thread: bool,
}

#[derive(Debug, Default)]
struct State {
    post: Mutex<Post>,
    changed: Condvar,
}

/// All events so far, as the body of a request: a newer one takes the place of one
/// that has not been sent.
#[derive(Debug, Default)]
struct Post {
    body: Option<String>,
    /// There will be no more.
    is_last: bool,
    /// Of a job of which the server has everything, with who ran it.
    closing: Option<(Arc<Record>, String)>,
    /// The thread has ended.
    is_over: bool,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Post> {
        self.post.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        post: MutexGuard<'a, Post>,
        time: Duration,
        is_waiting: impl FnMut(&mut Post) -> bool,
    ) -> MutexGuard<'a, Post> {
        let waited = self.changed.wait_timeout_while(post, time, is_waiting);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Telling {
    pub(super) fn new(webhook: Webhook, agent_id: &str, job_id: &str) -> Telling {
        Telling {
            webhook,
            agent_id: agent_id.to_owned(),
            job_id: job_id.to_owned(),
            state: Arc::default(),
            has_thread: false,
        }
    }

    /// Tells what has happened to the job so far.
    pub(super) fn tell(&mut self, progress: &Progress, common: &Arc<Common>) {
        self.state.lock().body = Some(self.body(&progress.events));
        self.state.changed.notify_all();
        if !self.has_thread
            && let Some(slot) = Slot::take(common)
        {
            self.has_thread = true;
            self.start(slot);
        }
    }

    fn body(&self, events: &[JobEvent]) -> String {
        let events = events.iter().map(|event| {
            let mut one = Object::new();
            one.string("event_name", &event.name);
            one.string("timestamp", &event.timestamp);
            one.string("detail", &event.detail);
            one
        });
        let mut body = Object::new();
        body.string("agent_id", &self.agent_id);
        body.string("job_queue", &self.webhook.queue);
        body.string("job_status_webhook", &self.webhook.url);
        body.objects("events", events);
        body.finish()
    }

    fn start(&self, slot: Slot) {
        let state = Arc::clone(&self.state);
        let job_id = &self.job_id;
        let path = format!("/v1/job/{}/events", percent(job_id));
        let thread = thread::Builder::new().name("webhook".into());
        let started = thread.spawn(move || {
            super::leave_signals_to_the_agent();
            if let Ok(api) = Api::new(Arc::clone(&slot.0)) {
                work(&api, &path, &state);
            }
            drop(slot);
            loop {
                let mut post = state.lock();
                let Some((record, agent_id)) = post.closing.take() else {
                    post.is_over = true;
                    break;
                };
                drop(post);
                arrears::close(&record, &agent_id);
            }
            state.changed.notify_all();
        });
        if let Err(error) = started {
            warning!(
                "cannot start the thread that tells the webhook of job {job_id}: {error}; it \
                 hears nothing"
            );
            self.state.lock().is_over = true;
        }
    }

    /// Removes the job's record, when the last event has been sent.
    pub(super) fn close_afterwards(&self, record: &Arc<Record>, agent_id: &str) {
        let mut post = self.state.lock();
        if !self.has_thread || post.is_over {
            drop(post);
            arrears::close(record, agent_id);
            return;
        }
        post.closing = Some((Arc::clone(record), agent_id.to_owned()));
        post.is_last = true;
        self.state.changed.notify_all();
    }

    /// Waits for so long until the last event has been sent.
    pub(super) fn finish(self, within: Duration) {
        if !self.has_thread {
            return;
        }
        let mut post = self.state.lock();
        post.is_last = true;
        self.state.changed.notify_all();
        drop(self.state.wait(post, within, |post| !post.is_over));
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        let mut post = self.state.lock();
        post.is_last = true;
        self.state.changed.notify_all();
        if !self.has_thread && post.body.is_some() {
            warning!(
                "the webhook of job {} hears nothing: {AT_A_TIME} others have not answered yet",
                self.job_id
            );
        }
    }
}

/// The right to tell a webhook, as long as it is there.
struct Slot(Arc<Common>);

impl Slot {
    fn take(common: &Arc<Common>) -> Option<Slot> {
        let more = |count: usize| (count < AT_A_TIME).then_some(count + 1);
        let taken = common
            .tellings
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.ok().map(|_| Slot(Arc::clone(common)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.tellings.fetch_sub(1, Ordering::Relaxed);
    }
}

fn work(api: &Api, path: &str, state: &State) {
    let mut backoff = Backoff::default();
    let mut last_attempts = 0;
    loop {
        let post = state.lock();
        let is_idle = |post: &mut Post| post.body.is_none() && !post.is_last;
        let mut post = state.wait(post, Duration::MAX, is_idle);
        let Some(body) = post.body.take() else {
            return;
        };
        last_attempts += u32::from(post.is_last);
        drop(post);
        let sent = api.relay(ACTION, path, &body);
        let is_unreachable = sent.is_err();
        backoff.note(&sent, LONGEST_PAUSE);
        if is_unreachable {
            let mut post = state.lock();
            // A newer one tells the same, and more.
            post.body.get_or_insert(body);
            if last_attempts >= LAST_ATTEMPTS {
                return;
            }
            let was_last = post.is_last;
            let now = Instant::now();
            let until = backoff.resting(now).unwrap_or(now);
            let left = until.saturating_duration_since(now);
            drop(state.wait(post, left, |post| post.is_last == was_last));
        }
    }
}

impl Api {
    /// Posts something that the server passes on to somebody else, whose answer is
    /// the answer: whatever it is, it is not sent again. Only while the server cannot
    /// be reached, there is an error.
    pub(super) fn relay(&self, action: &str, path: &str, body: &str) -> Result<(), Failure> {
        let mut outgoing = Outgoing::Relayed(body.to_owned());
        match self.attempt("POST", path, &mut outgoing) {
            Ok(_) => self.common.faults.over(action),
            Err(failure @ Failure::Unreachable { .. }) if !failure.may_have_arrived() => {
                let faults = &self.common.faults;
                faults.report(&self.reach(), failure.cause(), "trying again");
                return Err(failure);
            }
            Err(failure) => {
                let faults = &self.common.faults;
                faults.report(action, failure.cause(), "going on without");
            }
        }
        Ok(())
    }
}
