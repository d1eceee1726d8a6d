//! The job that runs: its delivery, what the world is told of it meanwhile, and
//! what the server wants of it.

mod allocation;

use super::Event;
use super::api::Api;
use super::backoff::Backoff;
use super::delivery::{Delivery, Step};
use super::failure::Failure;
use crate::job::Phase;
use crate::json::Object;
use allocation::Allocation;
use std::time::{Duration, Instant};

/// How often the server is asked whether the job was cancelled.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// However large the answer is.
const LONGEST_CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// Of the time, this part at most goes into reading the answer.
const CHECK_SHARE: u32 = 50;
/// The server forgets an agent that says nothing for seven days; a reservation may
/// last longer.
const HEARTBEAT: Duration = Duration::from_secs(24 * 60 * 60);
/// Between two attempts to announce something.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The next job does not wait longer than this for the rest of a finished one.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// A finished job that could not be delivered in as many attempts is put aside.
const PATIENCE: u32 = 3;

/// When something was read from the server, and for how long.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    took: Duration,
}

impl Reading {
    fn since(begun: Instant) -> Reading {
        Reading {
            at: Instant::now(),
            took: begun.elapsed(),
        }
    }

    /// How long it is good for: the longer it took, the longer.
    fn worth(self) -> Duration {
        (self.took * CHECK_SHARE).min(LONGEST_CHECK_INTERVAL)
    }

    fn is_stale(self) -> bool {
        self.at.elapsed() >= self.worth()
    }
}

/// What a turn came to.
#[derive(Debug)]
pub(super) enum Turn {
    /// Something was done.
    Again,
    /// Nothing to do before this moment, or before there is something new.
    Wait(Option<Instant>),
    /// The server has everything.
    Delivered,
    /// The job is over, and the rest of it has to be sent later.
    Owed,
}

/// The job that runs.
#[derive(Debug)]
pub(super) struct LiveJob {
    pub(super) delivery: Delivery,
    /// The last phase that was posted as the job's state.
    job_state: Option<Phase>,
    /// The last phase that was posted as the agent's state.
    agent_state: Option<Phase>,
    /// When the job's state was last asked for.
    job_read: Option<Reading>,
    /// How often in a row that was in vain.
    check_failures: u32,
    /// How long the server wants to be left in peace about it.
    check_asked: Option<Duration>,
    announcements: Backoff,
    /// When the agent's state was last asked for.
    agent_read: Reading,
    /// When something was last posted of the agent.
    agent_posted: Instant,
    cancelled: bool,
    /// The agent's state is an administrator's and must stay.
    administered: bool,
    /// Why the agent has to be put offline.
    offline: Option<String>,
    /// The server is to hear of the job before its first phase.
    is_to_name_job: bool,
    /// The agent waits for a reading of the job's state.
    check_now: bool,
    /// The agent waits for the job's parent.
    allocation: Option<Allocation>,
}

impl LiveJob {
    /// A job that has just been taken.
    pub(super) fn new(delivery: Delivery) -> LiveJob {
        LiveJob {
            delivery,
            job_state: None,
            agent_state: None,
            job_read: None,
            check_failures: 0,
            check_asked: None,
            announcements: Backoff::default(),
            // It was read before the job was asked for.
            agent_read: Reading::since(Instant::now()),
            agent_posted: Instant::now(),
            cancelled: false,
            administered: false,
            offline: None,
            is_to_name_job: false,
            check_now: false,
            allocation: None,
        }
    }

    /// The agent has to be put offline.
    pub(super) fn put_offline(&mut self, comment: String) {
        self.offline = Some(comment);
    }

    /// It takes a while until the first phase: the server hears of the job before.
    pub(super) fn name_job(&mut self) {
        self.is_to_name_job = true;
    }

    /// The agent waits for a reading of the job's state.
    pub(super) fn check_now(&mut self) {
        self.check_now = true;
    }

    /// The last reading of the job's state was one.
    pub(super) fn reaches_the_server(&self) -> bool {
        self.job_read.is_some() && self.check_failures == 0
    }

    /// Does one thing. Events go to `tell`.
    pub(super) fn turn(&mut self, api: &Api, tell: &dyn Fn(Event), now: Instant) -> Turn {
        let finished = self.delivery.progress.finished;
        let resting = self.delivery.resting(now);
        let is_long = |until: Instant| until.saturating_duration_since(now) > LONGEST_WAIT;
        if finished && (self.delivery.failures() >= PATIENCE || resting.is_some_and(is_long)) {
            return Turn::Owed;
        }
        // A cancellation is looked for whatever else fails.
        let check_due = self.check_due().filter(|_| !finished);
        if self.check_now || (!finished && check_due.is_none_or(|due| due <= now)) {
            self.check(api, tell);
            return Turn::Again;
        }
        // And what cannot be announced holds nothing up.
        let announce_due = self.announcements.resting(now);
        if announce_due.is_none()
            && let Some(result) = self.announce(api, tell, now)
        {
            self.announcements.note(&result, LONGEST_PAUSE);
            return Turn::Again;
        }
        match self.delivery.next(now) {
            Step::Done => Turn::Delivered,
            Step::Wait(Some(until)) if finished && is_long(until) => Turn::Owed,
            Step::Wait(until) => {
                let allocation_due = self.allocation_due(now);
                if allocation_due.is_some_and(|due| due <= now) {
                    self.go_on_with_allocation(api, tell, now);
                    return Turn::Again;
                }
                let others = check_due.into_iter().chain(announce_due);
                let others = others.chain(allocation_due).chain([self.heartbeat_due()]);
                Turn::Wait(until.into_iter().chain(others).min())
            }
            // The artifacts were put off: they are sent beside the next jobs.
            Step::Artifacts if self.delivery.progress.complete => Turn::Owed,
            step => {
                self.delivery.take(step, api, now);
                Turn::Again
            }
        }
    }

    /// When the server is to be asked again whether the job still stands.
    fn check_due(&self) -> Option<Instant> {
        let reading = self.job_read?;
        let interval = match self.check_failures {
            0 => CHECK_INTERVAL.max(reading.worth()),
            // Less and less often.
            failures => CHECK_INTERVAL * (1 << failures.min(4)),
        };
        Some(reading.at + interval.max(self.check_asked.unwrap_or_default()))
    }

    /// Reads the job's state. Of one's own job only `cancelled` is obeyed: any
    /// other state may be left over from an earlier run under the same id.
    fn check(&mut self, api: &Api, tell: &dyn Fn(Event)) {
        let begun = Instant::now();
        let known = api.known(&self.delivery.progress.job_id);
        self.job_read = Some(Reading::since(begun));
        match known {
            Ok(known) => {
                self.check_failures = 0;
                self.check_asked = None;
                self.delivery.learn(&known);
                if known.job_state.as_deref() == Some("cancelled") && !self.cancelled {
                    self.cancelled = true;
                    tell(Event::Cancelled);
                }
            }
            Err(failure) => {
                self.check_failures = self.check_failures.saturating_add(1);
                self.check_asked = failure.retry_after();
                self.delivery.not_learnt(self.check_asked);
            }
        }
        if std::mem::take(&mut self.check_now) {
            tell(Event::Checked);
        }
    }

    /// Looks whether an administrator has spoken meanwhile.
    fn read_agent(&mut self, api: &Api, tell: &dyn Fn(Event)) -> Result<(), Failure> {
        let begun = Instant::now();
        let data = match api.agent_data() {
            // Whom it refuses that has no word to be heeded.
            Err(failure) if !failure.is_refusal() => return Err(failure),
            data => data.unwrap_or_default(),
        };
        self.agent_read = Reading::since(begun);
        if data.is_to_restart() {
            tell(Event::RestartWanted);
        }
        if data.is_out_of_service() && self.offline.take().is_some() {
            tell(Event::OfflineTold);
        }
        self.administered |= data.is_to_restart() || data.is_out_of_service();
        Ok(())
    }

    /// Posts a state, if there is one to be posted. What would be overwritten is
    /// read before: a state that is posted late undoes a cancellation, or an
    /// administrator's word.
    fn announce(
        &mut self,
        api: &Api,
        tell: &dyn Fn(Event),
        now: Instant,
    ) -> Option<Result<(), Failure>> {
        let phase = self.delivery.current().map(|current| current.phase);
        let job_due = phase.filter(|&phase| self.job_state < Some(phase));
        if let Some(phase) = job_due.filter(|&phase| phase != Phase::Cleanup)
            && !self.cancelled
        {
            if self.check_failures == 0 && self.job_read.is_none_or(Reading::is_stale) {
                self.check(api, tell);
            }
            // A server that cannot say whether the job was cancelled is not told
            // that it is not: the state waits, everything else goes on.
            if !self.cancelled && self.check_failures == 0 {
                let posted = self.post_job_state(api, phase.name());
                if posted.is_ok() {
                    self.job_state = Some(phase);
                }
                return Some(posted);
            }
        }
        let agent_due = phase.filter(|&phase| self.agent_state < Some(phase));
        if agent_due.is_none() && self.offline.is_none() {
            let is_due = self.is_to_name_job || self.heartbeat_due() <= now;
            return is_due.then(|| self.beat(api, now));
        }
        let mut read = Ok(());
        if !self.administered && self.agent_read.is_stale() {
            read = self.read_agent(api, tell);
        }
        if let Some(comment) = self.offline.clone() {
            return Some(self.post_offline(api, &comment, tell));
        }
        // Of which a server that cannot say it is told nothing; the state waits.
        if let Err(failure) = read {
            return Some(Err(failure));
        }
        agent_due.and_then(|phase| self.post_agent_state(api, phase))
    }

    fn post_state(&self, api: &Api, state: &str) -> Result<(), Failure> {
        let mut body = Object::new();
        body.string("job_state", state);
        api.post_result(&self.delivery.progress.job_id, body)
    }

    /// A refused state is as good as posted: it would be refused again.
    fn post_job_state(&self, api: &Api, state: &str) -> Result<(), Failure> {
        match self.post_state(api, state) {
            Err(Failure::Refused { cause, .. }) => {
                crate::warning!("cannot post the job's state: {cause}; going on without");
                Ok(())
            }
            other => other,
        }
    }

    /// Refused, it is left to the idle agent, which takes no job before.
    fn post_offline(
        &mut self,
        api: &Api,
        comment: &str,
        tell: &dyn Fn(Event),
    ) -> Result<(), Failure> {
        let mut data = Object::new();
        data.string("state", "offline");
        data.string("comment", comment);
        match api.post_agent(data) {
            Ok(_) => tell(Event::OfflineTold),
            Err(Failure::Refused { .. }) => {}
            Err(failure) => return Err(failure),
        }
        self.agent_posted = Instant::now();
        self.offline = None;
        self.administered = true;
        Ok(())
    }

    /// The phase as the agent's state, unless that is somebody else's; with the
    /// first one, the job.
    fn post_agent_state(&mut self, api: &Api, phase: Phase) -> Option<Result<(), Failure>> {
        let mut data = Object::new();
        let first = self.agent_state.is_none();
        if first {
            data.string("job_id", &self.delivery.progress.job_id);
        }
        if !self.administered {
            data.string("state", phase.name());
            data.string("comment", "");
        }
        let posted = match first || !self.administered {
            true => Some(self.post_agent(api, data)),
            false => None,
        };
        if !matches!(posted, Some(Err(_))) {
            self.agent_state = Some(phase);
        }
        if matches!(posted, Some(Ok(()))) {
            self.agent_posted = Instant::now();
        }
        posted
    }

    /// When the server is to hear of the agent again, if nothing else is told before.
    fn heartbeat_due(&self) -> Instant {
        self.agent_posted + HEARTBEAT
    }

    fn beat(&mut self, api: &Api, now: Instant) -> Result<(), Failure> {
        let mut data = Object::new();
        data.string("job_id", &self.delivery.progress.job_id);
        self.post_agent(api, data)?;
        self.agent_posted = now;
        self.is_to_name_job = false;
        Ok(())
    }

    /// A refused post is as good as done: it would be refused again.
    fn post_agent(&self, api: &Api, data: Object) -> Result<(), Failure> {
        match api.post_agent(data).map(drop) {
            Err(Failure::Refused { cause, .. }) => {
                crate::warning!("cannot post this agent's state: {cause}; going on without");
                Ok(())
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Entry, Progress, Record};
    use crate::local::{Options, Server};
    use crate::uplink::api::tests::api_of;
    use std::sync::Arc;

    #[test]
    fn in_a_job_of_days_the_server_hears_of_the_agent_every_day() {
        let directory = std::env::temp_dir().join(format!("tfa-live-{}", std::process::id()));
        let server = Server::start(Options {
            directory: directory.join("server"),
            keep_exchanges: true,
            ..Options::default()
        })
        .unwrap();
        let api = api_of(&server, &directory);
        let id = server.submit("{\"job_queue\": \"q\"}").unwrap();
        let record = Record::create(&directory, &id, "a", "{}").unwrap();
        let mut progress = Progress::default();
        progress.apply(&Entry::Taken {
            job_id: id.clone(),
            agent_id: "a".into(),
        });
        progress.apply(&Entry::Started(Phase::Reserve));
        let delivery = Delivery::new(Arc::new(record), progress, LONGEST_PAUSE);
        let mut job = LiveJob::new(delivery);
        let begun = Instant::now();
        let mut posts_until = |now: Instant| {
            while matches!(job.turn(&api, &|_| {}, now), Turn::Again) {
                // The state of the job is asked for all the time.
                job.job_read = Some(Reading {
                    at: now,
                    took: Duration::ZERO,
                });
            }
            let exchanges = server.exchanges();
            let posts = exchanges
                .iter()
                .filter(|one| one.path == "/v1/agents/data/a");
            posts.filter(|one| one.method == "POST").count()
        };
        assert_eq!(posts_until(begun), 1, "the state");
        let day = HEARTBEAT + Duration::from_secs(10);
        assert_eq!(posts_until(begun + day / 2), 1);
        assert_eq!(posts_until(begun + day), 2);
        assert_eq!(posts_until(begun + day + day / 2), 2);
        assert_eq!(posts_until(begun + 2 * day), 3);
        drop(server);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
