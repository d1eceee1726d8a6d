//! A job's story as its webhook is told it: what began, how it ended, and why.

use super::Agent;
use super::connector;
use super::work::Running;
use crate::child::Stop;
use crate::job::{Entry, JobEvent, PHASES, Phase};
use crate::sys::clock;
use std::time::SystemTime;

/// So many characters of a reason are told.
const LONGEST_DETAIL: usize = 2_000;
/// A device that could not be recovered.
pub(super) const RECOVERY_FAILED: i64 = 46;

/// How far it has been told, and how the job ends.
#[derive(Debug, Default)]
pub(super) struct Story {
    /// So many of the phases, in their order, have been told of.
    told: usize,
    /// Why the command of the phase that runs was stopped.
    stopped: Option<Stop>,
    /// What ended the job before its time.
    ended_by: Option<String>,
}

impl Story {
    /// The command of the phase that runs is stopped.
    pub(super) fn stopped(&mut self, stop: Stop) {
        self.stopped = Some(stop);
    }
}

impl Agent {
    pub(super) fn tell_of_start(&mut self, running: &Running) {
        let place = format!("{}/jobs/{}", self.config.server, running.job.id);
        self.tell_webhook(running, "job_start", place);
    }

    /// The job is over, but for its delivery.
    pub(super) fn tell_of_end(&mut self, running: &mut Running) {
        let why = running.story.ended_by.take();
        self.tell_webhook(running, "job_end", why.unwrap_or("normal_exit".into()));
    }

    /// A phase that is skipped begins and succeeds: whoever listens counts on it.
    /// Those before `phase`, or all that are left.
    pub(super) fn tell_of_skipped(&mut self, running: &mut Running, phase: Option<Phase>) {
        let place = PHASES.iter().position(|one| Some(*one) == phase);
        let end = place.unwrap_or(PHASES.len() - 1);
        for skipped in PHASES.into_iter().take(end).skip(running.story.told) {
            self.tell_webhook(running, &format!("{skipped}_start"), String::new());
            self.tell_webhook(running, &format!("{skipped}_success"), String::new());
        }
        running.story.told = running.story.told.max(end);
    }

    pub(super) fn tell_of_phase(&mut self, running: &mut Running, phase: Phase) {
        self.tell_webhook(running, &format!("{phase}_start"), String::new());
        let at = PHASES.iter().position(|one| *one == phase);
        running.story.told = at.map_or(running.story.told, |at| at + 1);
    }

    /// The user's word ends the job between two phases.
    pub(super) fn tell_of_cancellation(&mut self, running: &mut Running) {
        if running.story.ended_by.is_none() {
            self.tell_webhook(running, "cancelled", Stop::Cancelled.to_string());
            running.story.ended_by = Some("cancelled".into());
        }
    }

    pub(super) fn tell_of_status(&mut self, running: &mut Running, phase: Phase, status: i64) {
        let stop = running.story.stopped.take();
        let mut why = stop.and_then(event_of).map(str::to_owned);
        if let (Some(stop), Some(name)) = (stop, &why) {
            let name = name.clone();
            self.tell_webhook(running, &name, stop.to_string());
        }
        if status == RECOVERY_FAILED {
            self.tell_webhook(running, "recovery_fail", String::new());
            why = Some("recovery_fail".into());
        }
        if status == 0 {
            return self.tell_webhook(running, &format!("{phase}_success"), String::new());
        }
        let fail = format!("{phase}_fail");
        // Only the webhook is told what a connector says.
        let detail = match running.job.webhook {
            Some(_) => connector::fault(running, phase),
            None => String::new(),
        };
        self.tell_webhook(running, &fail, detail);
        let is_the_end = match phase {
            Phase::Test => self.cancelled,
            Phase::Cleanup => false,
            _ => true,
        };
        if is_the_end {
            running.story.ended_by.get_or_insert(why.unwrap_or(fail));
        }
    }

    fn tell_webhook(&mut self, running: &Running, name: &str, detail: String) {
        if running.job.webhook.is_none() {
            return;
        }
        let event = JobEvent {
            name: name.to_owned(),
            timestamp: clock::iso8601(SystemTime::now()),
            // Whole, as half a secret would not be known for one.
            detail: running
                .secrets
                .masked(&detail)
                .chars()
                .take(LONGEST_DETAIL)
                .collect(),
        };
        self.record(running, &Entry::Event(event));
    }
}

/// What the original calls it.
fn event_of(stop: Stop) -> Option<&'static str> {
    match stop {
        Stop::GlobalTimeout(_) => Some("global_timeout"),
        Stop::OutputTimeout(_) => Some("output_timeout"),
        Stop::Cancelled => Some("cancelled"),
        Stop::Interrupted => None,
    }
}
