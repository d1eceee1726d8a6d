//! Between jobs: who the agent is, what the server wants of it, the next job.

use super::space::lack_of_space_after_clearing;
use super::{Agent, End, Event, Mode};
use crate::metrics::State;
use crate::uplink::{self, AgentData, Answer, Ask, Failure};
use crate::{debug, error, info, sys, warning};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A server that cannot be reached is tried again after this at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(180);

/// What the idle agent remembers.
#[derive(Debug, Default)]
pub(super) struct Idle {
    pub(super) announced: Option<Instant>,
    out_of_service: bool,
    lacks_space: bool,
    /// The restricted queues among the agent's, as was said last.
    restricted_to: Vec<String>,
    /// The server has not been told yet that the last job is over.
    pub(super) was_working: bool,
    /// Cycles in a row that failed.
    failures: u32,
    /// The last refusal that was said.
    refusal: Option<String>,
    /// The same of what the server is told, by what could not be done.
    refused: BTreeMap<&'static str, String>,
}

/// Why a cycle came to no job.
pub(super) enum Setback {
    /// The server failed, or refuses.
    Failed(Failure),
    /// The agent was told to stop.
    Stopping,
}

impl From<Failure> for Setback {
    fn from(failure: Failure) -> Setback {
        Setback::Failed(failure)
    }
}

/// What a cycle came to.
enum Cycle {
    Job(String),
    Nothing,
    Over(End),
}

impl Agent {
    /// The agent's life, to its orderly end.
    pub fn live(&mut self) -> End {
        let end = self.go_on();
        // Before it begins anew, that is done already.
        if end != End::Reload {
            self.settle();
        }
        self.events.overseers.farewell(end == End::Reload);
        end
    }

    /// One cycle after the other.
    fn go_on(&mut self) -> End {
        self.take_up_interrupted();
        loop {
            if self.stopping.is_some() {
                if self.idle.was_working && !self.abandoned {
                    self.say_farewell();
                }
                info!("stopped");
                return match self.has_failed {
                    true => End::Failed,
                    false => End::Stopped,
                };
            }
            match self.cycle() {
                Ok(Cycle::Over(end)) => return end,
                Ok(Cycle::Job(document)) => {
                    self.idle.failures = 0;
                    self.idle.refusal = None;
                    let was_run = self.work(document);
                    self.idle.was_working |= was_run;
                    if !was_run {
                        // What hands out such things may have more of them.
                        self.rest(jittered(self.config.polling_interval));
                    } else if self.mode == Mode::Once && self.stopping.is_none() {
                        return End::JobOver;
                    }
                }
                // Its one job was there before it asked.
                Ok(Cycle::Nothing) if self.mode == Mode::Once => return End::JobOver,
                Ok(Cycle::Nothing) => {
                    self.idle.failures = 0;
                    self.idle.refusal = None;
                    self.rest(jittered(self.config.polling_interval));
                }
                Err(Setback::Stopping) => {}
                Err(Setback::Failed(failure)) => {
                    if self.restart_wanted {
                        // Whoever put it offline is not overruled: the state
                        // stays what it is, and the next start reads it.
                        info!("restarting, although the server cannot be told");
                        return End::Restart;
                    }
                    if self.is_to_begin_anew() {
                        return End::Reload;
                    }
                    self.idle.failures = self.idle.failures.saturating_add(1);
                    let pause = self.pause_after(&failure);
                    self.rest(pause);
                }
            }
        }
    }

    /// Two requests when nothing changes: what am I to do, and what is there to
    /// do. The second goes over a connection that has just worked, because the
    /// server gives a job only once.
    fn cycle(&mut self) -> Result<Cycle, Setback> {
        self.restore_directories();
        if let Err(error) = self.lock.keep(&self.config.agent_id) {
            error!("{error}; this one ends");
            return Ok(Cycle::Over(End::Locked));
        }
        // Who it is comes first: so the server knows the agent that it is asked
        // about. Its state is not touched by that.
        if self.announce_due() {
            self.post_identity()?;
        }
        let data = self.agent_data()?;
        self.compare_offline(&data);
        // At the start, `restart` is what the last life was told.
        let first = self.idle.announced.is_none();
        let out_of_service = data.is_out_of_service() || self.offline.is_some();
        self.say_service(out_of_service, &data);
        if (data.is_to_restart() && !first) || self.restart_wanted {
            if out_of_service {
                debug!("the restart waits until the agent is back in service");
            } else {
                self.post_restart(&data);
                return Ok(Cycle::Over(End::Restart));
            }
        }
        // After that, because the next life takes the state `restart` for one that
        // this life was told.
        if self.is_to_begin_anew() {
            return Ok(Cycle::Over(End::Reload));
        }
        let lack = lack_of_space_after_clearing(&self.config);
        self.say_space(lack.as_deref());
        self.say_status(match &lack {
            _ if out_of_service => "out of service",
            Some(lack) => lack,
            None => "idle",
        });
        let state = match out_of_service || lack.is_some() {
            true => State::OutOfService,
            false => State::Idle,
        };
        self.events.telemetry.metrics.state(state);
        self.post_state(&data, lack.as_deref())?;
        self.announce()?;
        if out_of_service || lack.is_some() {
            return Ok(Cycle::Nothing);
        }
        let queues = self.queues(&data);
        match self.ask(Ask::Job(queues))? {
            Answer::Job(Some(document)) => Ok(Cycle::Job(document)),
            _ => Ok(Cycle::Nothing),
        }
    }

    /// The queues that are asked for: where some of the agent's are restricted to
    /// owners, only those.
    fn queues(&mut self, data: &AgentData) -> Vec<String> {
        let mut queues = self.config.job_queues.clone();
        queues.retain(|queue| data.restricted_queues.contains(queue));
        if self.idle.restricted_to != queues {
            match queues.is_empty() {
                true => info!("jobs of all queues are taken again"),
                false => info!(
                    "only jobs of restricted queues are taken: {}",
                    queues.join(", ")
                ),
            }
            self.idle.restricted_to.clone_from(&queues);
        }
        match queues.is_empty() {
            true => self.config.job_queues.clone(),
            false => queues,
        }
    }

    fn agent_data(&mut self) -> Result<AgentData, Setback> {
        match self.ask(Ask::AgentData)? {
            Answer::AgentData(data) => Ok(data),
            _ => Ok(AgentData::default()),
        }
    }

    /// Says once that the agent takes no jobs, and once that it does again.
    fn say_service(&mut self, out_of_service: bool, data: &AgentData) {
        if out_of_service == self.idle.out_of_service {
            return;
        }
        self.idle.out_of_service = out_of_service;
        if out_of_service {
            let state = match self.offline {
                Some(_) => "offline",
                None => data.state.as_deref().unwrap_or("offline"),
            };
            let ours = self.offline.as_ref().map(|offline| &offline.comment);
            let comment = ours.unwrap_or(&data.comment);
            info!("this agent is {state} and takes no jobs: {comment}");
        } else {
            info!("this agent is back in service");
        }
    }

    /// Says once that there is no room for a job, and once that there is again.
    fn say_space(&mut self, lack: Option<&str>) {
        if lack.is_some() == self.idle.lacks_space {
            return;
        }
        self.idle.lacks_space = lack.is_some();
        match lack {
            Some(reason) => warning!("{reason}"),
            None => info!("there is room for jobs again"),
        }
    }

    /// Posts something; false where the server refuses it. That is said, and not tried
    /// again before its time: jobs are more important.
    pub(super) fn post(&mut self, ask: Ask, action: &'static str) -> Result<bool, Setback> {
        match self.ask(ask) {
            Err(Setback::Failed(Failure::Refused { cause, .. })) => {
                if self.idle.refused.get(action) != Some(&cause) {
                    warning!("cannot {action}: {cause}; going on without");
                    self.idle.refused.insert(action, cause);
                }
                Ok(false)
            }
            Ok(_) => {
                self.idle.refused.remove(action);
                Ok(true)
            }
            Err(setback) => Err(setback),
        }
    }

    /// Asks the server and waits for the answer. Told to stop, the agent asks nothing
    /// more and waits no longer, but for a job: that may be on its way, and nobody else
    /// would get it.
    fn ask(&mut self, ask: Ask) -> Result<Answer, Setback> {
        if self.stopping.is_some() {
            return Err(Setback::Stopping);
        }
        let must_have = matches!(ask, Ask::Job(_));
        let mut said = false;
        self.uplink.ask(ask);
        loop {
            match self.next(None, None) {
                Event::Uplink(uplink::Event::Answered(answer)) => return Ok(answer?),
                Event::Uplink(other) => self.note(&other),
                Event::Signal(signal) => self.signal(signal),
                _ => {}
            }
            if self.abandoned || (self.stopping.is_some() && !must_have) {
                return Err(Setback::Stopping);
            }
            if self.stopping.is_some() && !said {
                info!("waiting for the server's answer: it may be a job, which it gives only once");
                said = true;
            }
        }
    }

    /// How long to wait after a failure. A refusal is said here, once; the
    /// uplink says everything else.
    fn pause_after(&mut self, failure: &Failure) -> Duration {
        self.say_status("waiting for the server");
        self.events.telemetry.metrics.state(State::WaitingForServer);
        if let Failure::Refused { cause, .. } = failure
            && self.idle.refusal.as_ref() != Some(cause)
        {
            warning!("cannot ask for a job: {cause}; trying again");
            self.idle.refusal = Some(cause.clone());
        }
        let pause = uplink::pause(self.idle.failures, failure.retry_after(), LONGEST_PAUSE);
        match failure {
            // Whoever answers wrongly is not asked more often than who answers well.
            Failure::Transient { .. } => pause.max(jittered(self.config.polling_interval)),
            _ => pause,
        }
    }

    /// Does nothing for a while, or until there is a reason not to.
    fn rest(&mut self, time: Duration) {
        let until = Instant::now().checked_add(time);
        // They may have come in the middle of a cycle.
        while self.stopping.is_none() && !self.may_begin_anew() && !self.may_restart() {
            match self.next(None, until) {
                Event::Deadline => return,
                Event::Signal(signal) => self.signal(signal),
                Event::Uplink(event) => self.note(&event),
                _ => {}
            }
        }
    }

    /// Whether the agent was told to restart, and is not known to be out of service,
    /// which is waited for.
    fn may_restart(&self) -> bool {
        self.restart_wanted && !self.idle.out_of_service
    }
}

/// Up to a tenth more or less, so that a lab's agents do not ask in step.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + sys::random_share() / 5.0)
}
