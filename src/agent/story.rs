//! A job's story as its webhook is told it: what began, how it ended, and why.

use super::Agent;
use super::connector;
use super::work::Running;
use crate::child::Stop;
use crate::job::{Entry, JobEvent, PHASES, Phase, PhaseProgress};
use crate::sys::clock;
use std::time::SystemTime;

/// So many characters of a reason are told.
const LONGEST_DETAIL: usize = 2_000;
/// A device that could not be recovered.
pub(super) const RECOVERY_FAILED: i64 = 46;
const RECOVERY_FAIL: &str = "recovery_fail";
const CANCELLED: &str = "cancelled";
const JOB_START: &str = "job_start";
const JOB_END: &str = "job_end";

/// How far it has been told.
#[derive(Debug, Default)]
pub(super) struct Story {
    /// The names of the events.
    told: Vec<String>,
    /// Why the command of the phase that runs was stopped.
    stopped: Option<Stop>,
}

impl Story {
    /// The one of a job that an earlier life of the agent began.
    pub(super) fn of_an_earlier_life(events: &[JobEvent]) -> Story {
        Story {
            told: events.iter().map(|event| event.name.clone()).collect(),
            stopped: None,
        }
    }

    /// The command of the phase that runs is stopped.
    pub(super) fn stopped(&mut self, stop: Stop) {
        self.stopped = Some(stop);
    }

    /// Its user's word has been told of.
    pub(super) fn was_cancelled(&self) -> bool {
        self.has(CANCELLED)
    }

    fn has(&self, name: &str) -> bool {
        self.told.iter().any(|told| told == name)
    }

    fn has_begun(&self, phase: Phase) -> bool {
        self.has(&format!("{phase}_start"))
    }

    /// It has been told how the phase ended.
    pub(super) fn has_ended(&self, phase: Phase) -> bool {
        let [begin, success, fail] =
            ["start", "success", "fail"].map(|event| format!("{phase}_{event}"));
        let mut since = self.told.iter().rev().take_while(|told| **told != begin);
        self.has(&begin) && since.any(|told| [&success, &fail, RECOVERY_FAIL].contains(&&told[..]))
    }

    /// So many of the phases, in their order, have been told of.
    fn phases(&self) -> usize {
        let begun = |phase: &Phase| self.has_begun(*phase);
        PHASES.iter().rposition(begun).map_or(0, |last| last + 1)
    }

    /// What the job's end is put down to: what was told last before the cleanup, unless
    /// that went well. A test that fails ends no job, but its user's word in it does.
    fn ended_by(&self) -> &str {
        let is_before = |name: &&String| *name != "cleanup_start";
        let before: Vec<&str> = self
            .told
            .iter()
            .take_while(is_before)
            .map(|name| &name[..])
            .collect();
        match before[..] {
            [.., CANCELLED, "test_fail"] => CANCELLED,
            [.., last] if last == CANCELLED || last.ends_with("_fail") => last,
            _ => "normal_exit",
        }
    }
}

impl Agent {
    pub(super) fn tell_of_start(&mut self, running: &mut Running) {
        let place = format!("{}/jobs/{}", self.config.server, running.job.id);
        self.tell_webhook(running, JOB_START, place);
    }

    /// What an earlier life of the agent had on record of these phases, and could not
    /// tell any more.
    pub(super) fn catch_up(&mut self, running: &mut Running, phases: &[PhaseProgress]) {
        if !running.story.has(JOB_START) {
            self.tell_of_start(running);
        }
        for &PhaseProgress { phase, status, .. } in phases {
            // A cleanup that was cut short begins again.
            if phase != Phase::Cleanup && !running.story.has_begun(phase) {
                self.tell_of_skipped(running, Some(phase));
                self.tell_of_phase(running, phase);
            }
            if let Some(status) = status
                && !running.story.has_ended(phase)
            {
                self.tell_of_status(running, phase, status);
            }
        }
    }

    /// The job is over, but for its delivery.
    pub(super) fn tell_of_end(&mut self, running: &mut Running) {
        // Before a crash of the agent, that may have been told.
        if !running.story.has(JOB_END) {
            let why = running.story.ended_by().to_owned();
            self.tell_webhook(running, JOB_END, why);
        }
    }

    /// A phase that is skipped begins and succeeds: whoever listens counts on it.
    /// Those before `phase`, or all that are left. Of one an earlier life may have told
    /// the beginning only.
    pub(super) fn tell_of_skipped(&mut self, running: &mut Running, phase: Option<Phase>) {
        let place = PHASES.iter().position(|one| Some(*one) == phase);
        let end = place.unwrap_or(PHASES.len() - 1);
        let begin = running.story.phases();
        let last = begin.checked_sub(1).and_then(|last| PHASES.get(last));
        if let Some(&last) = last
            && last != Phase::Cleanup
            && !running.story.has_ended(last)
        {
            self.tell_of_status(running, last, 0);
        }
        for skipped in PHASES.into_iter().take(end).skip(begin) {
            self.tell_of_phase(running, skipped);
            self.tell_of_status(running, skipped, 0);
        }
    }

    pub(super) fn tell_of_phase(&mut self, running: &mut Running, phase: Phase) {
        self.tell_webhook(running, &format!("{phase}_start"), String::new());
    }

    /// The user's word ends the job between two phases.
    pub(super) fn tell_of_cancellation(&mut self, running: &mut Running) {
        if !running.story.was_cancelled() {
            self.tell_webhook(running, CANCELLED, Stop::Cancelled.to_string());
        }
    }

    /// Why the phase that ends was stopped, if it was.
    pub(super) fn tell_of_stop(&mut self, running: &mut Running) {
        if let Some(stop) = running.story.stopped.take()
            && let Some(name) = event_of(stop)
        {
            self.tell_webhook(running, name, stop.to_string());
        }
    }

    pub(super) fn tell_of_status(&mut self, running: &mut Running, phase: Phase, status: i64) {
        let name = match status {
            0 => return self.tell_webhook(running, &format!("{phase}_success"), String::new()),
            // In place of the other, as the original has it.
            RECOVERY_FAILED => RECOVERY_FAIL.to_owned(),
            _ => format!("{phase}_fail"),
        };
        // Only the webhook is told what a connector says.
        let detail = match running.job.webhook {
            Some(_) => connector::fault(running, phase),
            None => String::new(),
        };
        self.tell_webhook(running, &name, detail);
    }

    fn tell_webhook(&mut self, running: &mut Running, name: &str, detail: String) {
        if running.job.webhook.is_none() {
            return;
        }
        running.story.told.push(name.to_owned());
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
        Stop::Cancelled => Some(CANCELLED),
        Stop::Interrupted => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story(told: &[&str]) -> Story {
        Story {
            told: told.iter().map(|name| (*name).to_owned()).collect(),
            stopped: None,
        }
    }

    #[test]
    fn a_job_ends_by_what_was_told_last_before_its_cleanup() {
        let test_failed = ["job_start", "test_start", "test_fail", "allocate_start"];
        let test_failed = [&test_failed[..], &["allocate_success"]].concat();
        for (told, why) in [
            (&test_failed[..], "normal_exit"),
            (&["job_start"], "normal_exit"),
            (&["test_start", "cancelled", "test_fail"], "cancelled"),
            (&["provision_success", "cancelled"], "cancelled"),
            // The agent ended in it.
            (&["test_start", "test_fail"], "test_fail"),
            (&["global_timeout", "provision_fail"], "provision_fail"),
            (&["provision_start", "recovery_fail"], "recovery_fail"),
        ] {
            assert_eq!(story(told).ended_by(), why, "{told:?}");
            let cleaned = [told, &["cleanup_start", "cleanup_fail"]].concat();
            assert_eq!(story(&cleaned).ended_by(), why, "{cleaned:?}");
        }
    }

    #[test]
    fn the_phases_that_were_told_of_are_counted_in_their_order() {
        assert_eq!(story(&["job_start"]).phases(), 0);
        assert_eq!(
            story(&["setup_start", "setup_success", "test_start"]).phases(),
            4
        );
        assert_eq!(story(&["cleanup_start"]).phases(), PHASES.len());
    }
}
