//! The job that runs: its delivery, what the world is told of it meanwhile, and
//! what the server wants of it.

use super::Event;
use super::api::{Api, Failure};
use super::delivery::{Delivery, Step};
use crate::job::Phase;
use crate::json::Object;
use std::time::{Duration, Instant};

/// How often the server is asked whether the job was cancelled.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// However large the answer is.
const LONGEST_CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// Of the time, this part at most goes into reading the answer.
const CHECK_SHARE: u32 = 50;
/// A finished job that could not be delivered in as many attempts is put aside.
const PATIENCE: u32 = 3;

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
    /// When somebody last tried to read the job's state, and for how long.
    checked: Option<(Instant, Duration)>,
    /// When that last worked.
    job_read: Option<Instant>,
    /// When the agent's state was last read.
    agent_read: Instant,
    cancelled: bool,
    /// The agent's state is an administrator's and must stay.
    administered: bool,
    /// Why the agent has to be put offline.
    offline: Option<String>,
    /// The agent waits for a reading of the job's state.
    check_now: bool,
}

impl LiveJob {
    /// A job that has just been taken.
    pub(super) fn new(delivery: Delivery) -> LiveJob {
        LiveJob {
            delivery,
            job_state: None,
            agent_state: None,
            checked: None,
            job_read: None,
            // It was read before the job was asked for.
            agent_read: Instant::now(),
            cancelled: false,
            administered: false,
            offline: None,
            check_now: false,
        }
    }

    /// The agent has to be put offline.
    pub(super) fn put_offline(&mut self, comment: String) {
        self.offline = Some(comment);
    }

    /// The agent waits for a reading of the job's state.
    pub(super) fn check_now(&mut self) {
        self.check_now = true;
    }

    /// Does one thing. Events go to `tell`.
    pub(super) fn turn(&mut self, api: &Api, tell: &dyn Fn(Event)) -> Turn {
        let now = Instant::now();
        let finished = self.delivery.progress.finished;
        if finished && self.delivery.failures >= PATIENCE {
            return Turn::Owed;
        }
        if let Some(until) = self.delivery.resting(now) {
            if std::mem::take(&mut self.check_now) {
                // The server cannot be asked just now.
                tell(Event::Checked);
            }
            return Turn::Wait(Some(until));
        }
        let check_due = self.check_due();
        if self.check_now || (check_due.is_none_or(|due| due <= now) && !finished) {
            self.check(api, tell);
            return Turn::Again;
        }
        if let Some(result) = self.announce(api, tell, now) {
            match result {
                Ok(()) => self.delivery.succeeded(),
                Err(failure) => self.delivery.failed(&failure),
            }
            return Turn::Again;
        }
        match self.delivery.next(now) {
            Step::Done => Turn::Delivered,
            Step::Wait(until) if finished => Turn::Wait(until),
            Step::Wait(until) => Turn::Wait(until.into_iter().chain(check_due).min()),
            // The artifacts were put off: they are sent beside the next jobs.
            Step::Artifacts if self.delivery.progress.complete => Turn::Owed,
            step => {
                self.delivery.take(step, api);
                Turn::Again
            }
        }
    }

    fn interval(&self) -> Duration {
        let (_, took) = self.checked.unwrap_or((self.agent_read, Duration::ZERO));
        CHECK_INTERVAL
            .max(took * CHECK_SHARE)
            .min(LONGEST_CHECK_INTERVAL)
    }

    fn check_due(&self) -> Option<Instant> {
        self.checked.map(|(at, _)| at + self.interval())
    }

    /// Reads the job's state. Of one's own job only `cancelled` is obeyed: any
    /// other state may be left over from an earlier run under the same id.
    fn check(&mut self, api: &Api, tell: &dyn Fn(Event)) {
        let begun = Instant::now();
        let state = api.job_state(&self.delivery.progress.job_id);
        self.checked = Some((Instant::now(), begun.elapsed()));
        match state {
            Ok(state) => {
                self.job_read = Some(begun);
                if state.as_deref() == Some("cancelled") && !self.cancelled {
                    self.cancelled = true;
                    tell(Event::Cancelled);
                }
            }
            Err(failure) => self.delivery.failed(&failure),
        }
        if std::mem::take(&mut self.check_now) {
            tell(Event::Checked);
        }
    }

    /// Posts a state, if there is one to be posted. A state that was read lately
    /// is not read again; a turn may only read, and post in the next one.
    fn announce(
        &mut self,
        api: &Api,
        tell: &dyn Fn(Event),
        now: Instant,
    ) -> Option<Result<(), Failure>> {
        let phase = self.delivery.current().map(|current| current.phase);
        // A server that cannot say whether the job was cancelled is not told
        // that it is not: the state waits, everything else goes on.
        let is_known = self
            .job_read
            .is_some_and(|read| now < read + self.interval());
        let job_due = phase.filter(|&phase| {
            self.job_state != Some(phase) && !self.cancelled && is_known && phase != Phase::Cleanup
        });
        let agent_due = phase.filter(|&phase| self.agent_state != Some(phase));
        if let Some(phase) = job_due {
            self.job_state = Some(phase);
            let mut body = Object::new();
            body.string("job_state", phase.name());
            let posted = api.post_result(&self.delivery.progress.job_id, body);
            if let Err(Failure::Transient { .. }) = posted {
                self.job_state = None;
                return Some(posted);
            }
            return Some(Ok(()));
        }
        if agent_due.is_none() && self.offline.is_none() {
            return None;
        }
        if !self.administered && self.agent_read + self.interval() <= now {
            return Some(self.read_agent(api, tell));
        }
        if let Some(comment) = self.offline.clone() {
            let mut data = Object::new();
            data.string("state", "offline");
            data.string("comment", &comment);
            let posted = self.post_agent(api, data);
            if posted.is_ok() {
                self.offline = None;
                self.administered = true;
            }
            return Some(posted);
        }
        let phase = agent_due?;
        let mut data = Object::new();
        if self.agent_state.is_none() {
            data.string("job_id", &self.delivery.progress.job_id);
        } else if self.administered {
            self.agent_state = Some(phase);
            return None;
        }
        if !self.administered {
            data.string("state", phase.name());
            data.string("comment", "");
        }
        let posted = self.post_agent(api, data);
        if posted.is_ok() {
            self.agent_state = Some(phase);
        }
        Some(posted)
    }

    /// A refused post is as good as done: it would be refused again.
    fn post_agent(&self, api: &Api, data: Object) -> Result<(), Failure> {
        match api.post_agent(data) {
            Err(Failure::Refused { cause, .. }) => {
                crate::warning!("cannot post this agent's state: {cause}; going on without");
                Ok(())
            }
            other => other,
        }
    }

    /// Looks whether an administrator has spoken meanwhile.
    fn read_agent(&mut self, api: &Api, tell: &dyn Fn(Event)) -> Result<(), Failure> {
        let data = match api.agent_data() {
            Err(Failure::Refused { .. }) => Default::default(),
            other => other?,
        };
        self.agent_read = Instant::now();
        if data.is_out_of_service() || data.is_to_restart() {
            self.administered = true;
            if data.is_to_restart() {
                tell(Event::RestartWanted);
            }
            if data.is_out_of_service() {
                self.offline = None;
            }
        }
        Ok(())
    }
}
