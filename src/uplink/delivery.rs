//! What the server still has to get of one job, in its order.
//!
//! A delivery walks the job's record: for each phase the output and then the
//! exit status, then the artifacts, then `complete`. It is the same walk while
//! the job runs, after an outage, and after a restart of the agent.

use super::api::Api;
use super::backoff::Backoff;
use super::failure::Failure;
use super::waiting::Waiting;
use crate::job::{
    Artifacts, Entry, LOG_TYPES, LogProgress, LogType, PerLog, Phase, PhaseProgress, Progress,
    Record,
};
use crate::json::{Json, Object};
use crate::warning;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Largest fragment, in bytes of text. JSON makes at most six of one, and the
/// server takes 16 MB; the two buffers are all the memory that output needs.
const LARGEST_FRAGMENT: u64 = 256 << 10;
/// When artifacts or a fragment fail for as long as this although the server
/// answers, the job goes on without them.
const STEP_PATIENCE: Duration = Duration::from_secs(600);
const READ_RECORDS: &str = "read what is owed to the server";
/// So many attempts are made to post the device's information.
const DEVICE_ATTEMPTS: u32 = 3;
/// Between attempts at artifacts that the server has refused, and how many there
/// are: for a day, somebody may raise a limit.
const REFUSED_PAUSE: Duration = Duration::from_secs(3_600);
const REFUSED_ATTEMPTS: u32 = 24;

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A fragment of this log of a phase, and where in it that begins.
    Fragment(Phase, LogType, u64),
    /// The device's information.
    DeviceInfo,
    /// The exit status of this phase.
    Status(Phase),
    /// The artifacts.
    Artifacts,
    /// That the job is complete.
    Complete,
    /// Nothing before this moment, or before there is something new.
    Wait(Option<Instant>),
    /// Everything has been delivered.
    Done,
}

/// The delivery of one job.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) record: Arc<Record>,
    pub(super) progress: Progress,
    /// What waits to be sent of the phase that runs.
    waiting: PerLog<Waiting>,
    largest_fragment: u64,
    backoff: Backoff,
    longest_pause: Duration,
    /// Since when the step that is next fails, although the server answers.
    failing: Option<Instant>,
    /// The artifacts come after `complete`.
    artifacts_last: bool,
    /// So often they were refused after that.
    refusals: u32,
    /// What is missing in the artifacts has been said.
    left_out_said: Arc<AtomicBool>,
    /// The disk did not take the last entry.
    unwritten: bool,
}

impl Delivery {
    /// The delivery of what a record holds. After failures it pauses, ever
    /// longer, but no longer than `longest_pause`.
    pub(super) fn new(
        record: Arc<Record>,
        progress: Progress,
        longest_pause: Duration,
    ) -> Delivery {
        Delivery {
            record,
            progress,
            waiting: PerLog::default(),
            largest_fragment: LARGEST_FRAGMENT,
            backoff: Backoff::default(),
            longest_pause,
            failing: None,
            artifacts_last: false,
            refusals: 0,
            left_out_said: Arc::default(),
            unwritten: false,
        }
    }

    /// The same, with more patience.
    pub(super) fn slower(mut self, longest_pause: Duration) -> Delivery {
        self.longest_pause = longest_pause;
        self
    }

    /// What has become of the job.
    pub(super) fn apply(&mut self, entry: &Entry) {
        self.progress.apply(entry);
    }

    /// This log of the phase, which runs, has this many bytes. The phase may be
    /// one whose beginning has not been told yet.
    pub(super) fn output(&mut self, phase: Phase, log: LogType, available: u64, now: Instant) {
        self.waiting.of_mut(log).grown(phase, available, now);
    }

    /// The phase whose turn it is.
    pub(super) fn current(&self) -> Option<&PhaseProgress> {
        self.progress.phases.iter().find(|phase| !phase.reported)
    }

    /// Until when nothing is tried, after a failure.
    pub(super) fn resting(&self, now: Instant) -> Option<Instant> {
        self.backoff.resting(now)
    }

    /// What is to be done next.
    pub(super) fn next(&self, now: Instant) -> Step {
        if let Some(until) = self.resting(now) {
            return Step::Wait(Some(until));
        }
        if let Some(phase) = self.current() {
            return self.next_of(phase, now);
        }
        let artifacts = self.progress.owes_artifacts();
        match self.progress {
            Progress {
                finished: false, ..
            } => Step::Wait(None),
            Progress { complete: true, .. } if artifacts => Step::Artifacts,
            Progress { complete: true, .. } => Step::Done,
            _ if artifacts && !self.artifacts_last => Step::Artifacts,
            _ => Step::Complete,
        }
    }

    fn next_of(&self, phase: &PhaseProgress, now: Instant) -> Step {
        if self.progress.device_info > self.progress.device_info_sent {
            return Step::DeviceInfo;
        }
        let mut wait: Option<Instant> = None;
        for log in LOG_TYPES {
            let LogProgress { sent, refused } = *phase.logs.of(log);
            let fragment = Step::Fragment(phase.phase, log, sent);
            let waiting = self.waiting.of(log);
            let left = match phase.status {
                // The log has its final length.
                Some(_) => self
                    .record
                    .log_length(phase.phase, log)
                    .saturating_sub(sent),
                None => waiting.available(phase.phase).saturating_sub(sent),
            };
            if left == 0 || refused {
                continue;
            }
            let due = waiting.due();
            let is_due = due.is_none_or(|due| due <= now);
            if phase.status.is_some() || left >= self.largest_fragment || is_due {
                return fragment;
            }
            wait = wait.into_iter().chain(due).min();
        }
        match phase.status {
            Some(_) => Step::Status(phase.phase),
            None => Step::Wait(wait),
        }
    }

    /// Takes a step. After a failure the delivery rests.
    pub(super) fn take(&mut self, step: Step, api: &Api) {
        let result = match step {
            Step::Fragment(phase, log, from) => self.fragment(api, phase, log, from),
            Step::DeviceInfo => self.device_info(api),
            Step::Status(phase) => self.status(api, phase),
            Step::Artifacts => self.artifacts(api),
            Step::Complete => self.complete(api),
            Step::Wait(_) | Step::Done => Ok(()),
        };
        match &result {
            Ok(()) => self.failing = None,
            // An outage says nothing about this step; but who cuts off uploads
            // may well answer everything else.
            Err(Failure::Unreachable { .. }) if step != Step::Artifacts => self.failing = None,
            Err(_) => {
                self.failing.get_or_insert_with(Instant::now);
            }
        }
        // After a refusal that leaves nothing else to do, the rest is set there.
        if result.is_err() || self.backoff.resting(Instant::now()).is_none() {
            self.backoff.note(&result, self.longest_pause);
        }
    }

    /// Attempts that failed since the last one that did not.
    pub(super) fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    /// Whether the step that is next has failed for longer than anybody waits.
    fn is_hopeless(&self) -> bool {
        self.failing
            .is_some_and(|since| since.elapsed() >= STEP_PATIENCE)
    }

    fn fragment(
        &mut self,
        api: &Api,
        phase: Phase,
        log: LogType,
        from: u64,
    ) -> Result<(), Failure> {
        let started = Instant::now();
        let text = match self
            .record
            .read_log(phase, log, from, self.largest_fragment)
        {
            Ok(text) => text,
            Err(error) if is_lasting(&error) => {
                let path = self.record.log(phase, log);
                warning!(
                    "cannot read {}: {error}; the rest of it is not sent",
                    path.display()
                );
                String::new()
            }
            Err(error) => return Err(self.unreadable(api, &error)),
        };
        api.common.faults.over(READ_RECORDS);
        if text.is_empty() {
            // Or the log is shorter than it was: there is nothing to send.
            self.note(&Entry::LogRefused { phase, log });
            return Ok(());
        }
        let number = *self.progress.next_fragment.of(log);
        let bytes = from + text.len() as u64;
        match api.post_fragment(&self.progress.job_id, phase, log, number, &text) {
            Ok(()) => {
                self.waiting.of_mut(log).sent(phase, bytes, started);
                self.note(&Entry::Sent {
                    phase,
                    log,
                    bytes,
                    next_fragment: number + 1,
                });
                Ok(())
            }
            Err(Failure::Refused { status: 413, .. }) if self.largest_fragment > 1_024 => {
                self.largest_fragment /= 2;
                Ok(())
            }
            Err(failure) if failure.is_refusal() || self.is_hopeless() => {
                let what = format!("the {} of its {phase} phase", log.name());
                self.refused(&what, failure.cause());
                self.note(&Entry::LogRefused { phase, log });
                Ok(())
            }
            Err(transient) => Err(transient),
        }
    }

    /// The newest version: each one takes the place of those before.
    fn device_info(&mut self, api: &Api) -> Result<(), Failure> {
        let version = self.progress.device_info;
        let text = match std::fs::read_to_string(self.record.device_info()) {
            Err(error) if !is_lasting(&error) => return Err(self.unreadable(api, &error)),
            text => text.unwrap_or_default(),
        };
        let info = Json::parse(&text)
            .ok()
            .and_then(|json| json.get("device_info"));
        if let Some(info) = info {
            let mut body = Object::new();
            body.json("device_info", info);
            match api.post_result(&self.progress.job_id, body) {
                // It is the least of what is owed, and came from anybody.
                Err(failure) if failure.is_refusal() || self.failures() >= DEVICE_ATTEMPTS => {
                    self.refused("the device's information", failure.cause());
                }
                other => other?,
            }
        }
        self.note(&Entry::DeviceInfoSent(version));
        Ok(())
    }

    fn status(&mut self, api: &Api, phase: Phase) -> Result<(), Failure> {
        let mut body = Object::new();
        body.object("status", self.statuses(Some(phase)));
        match api.post_result(&self.progress.job_id, body) {
            Err(Failure::Refused { cause, .. }) => {
                self.refused(&format!("the status of its {phase} phase"), &cause);
            }
            other => other?,
        }
        self.note(&Entry::Reported(phase));
        Ok(())
    }

    /// The exit statuses up to a phase, or all: each post replaces the last.
    fn statuses(&self, last: Option<Phase>) -> Object {
        let mut status = Object::new();
        for (phase, value) in self.progress.statuses() {
            status.integer(phase.name(), value);
            if last == Some(phase) {
                break;
            }
        }
        status
    }

    fn artifacts(&mut self, api: &Api) -> Result<(), Failure> {
        let Some(path) = self.progress.artifacts.clone() else {
            return Ok(());
        };
        let artifacts = Artifacts::at(path.clone(), Arc::clone(&self.left_out_said));
        if let Err(error) = artifacts.open() {
            if !is_lasting(&error) {
                return Err(self.unreadable(api, &error));
            }
            warning!(
                "cannot read {}: {error}; job {} goes home without artifacts",
                path.display(),
                self.progress.job_id
            );
            self.note(&Entry::ArtifactsSent);
            return Ok(());
        }
        match api.post_artifacts(&self.progress.job_id, &mut || artifacts.open()) {
            Ok(()) => {
                self.note(&Entry::ArtifactsSent);
                artifacts.remove();
                Ok(())
            }
            Err(failure) if failure.is_refusal() || self.is_hopeless() => {
                self.put_artifacts_off(&failure);
                Ok(())
            }
            Err(transient) => Err(transient),
        }
    }

    /// The job is complete without them. They are tried again for a while.
    fn put_artifacts_off(&mut self, failure: &Failure) {
        if !self.artifacts_last {
            self.refused("its artifacts", failure.cause());
            self.artifacts_last = true;
        }
        if !self.progress.complete {
            return;
        }
        if failure.is_refusal() {
            self.refusals += 1;
        }
        if self.refusals >= REFUSED_ATTEMPTS {
            self.bring_home();
            self.note(&Entry::ArtifactsRefused);
        } else {
            self.backoff.rest(REFUSED_PAUSE);
        }
    }

    fn complete(&mut self, api: &Api) -> Result<(), Failure> {
        let mut body = Object::new();
        if self.progress.statuses().next().is_some() {
            body.object("status", self.statuses(None));
        }
        body.string("job_state", "complete");
        if let Err(failure) = api.post_result(&self.progress.job_id, body) {
            let Failure::Refused { cause, .. } = failure else {
                return Err(failure);
            };
            // The least that everybody waits for.
            self.refused("its final result", &cause);
            let mut body = Object::new();
            body.string("job_state", "complete");
            match api.post_result(&self.progress.job_id, body) {
                Err(Failure::Refused { cause, .. }) => self.refused("that it is complete", &cause),
                other => other?,
            }
        }
        self.note(&Entry::Complete);
        Ok(())
    }

    fn refused(&self, what: &str, cause: &str) {
        let id = &self.progress.job_id;
        warning!("cannot deliver of job {id} {what}: {cause}; going on without");
        // It is for people; the log has it as well.
        let _ = self.record.note_refusal(what, cause);
    }

    /// What is owed cannot be read just now: no descriptor is left, or the disk
    /// fails for a while. Nothing is lost by waiting.
    fn unreadable(&self, api: &Api, error: &io::Error) -> Failure {
        let cause = error.to_string();
        api.common
            .faults
            .report(READ_RECORDS, &cause, "trying again");
        Failure::transient(cause)
    }

    /// Writes down what the server has. Where the disk does not take that, it is
    /// remembered: only a restart could then send something again.
    fn note(&mut self, entry: &Entry) {
        match self.record.append(entry) {
            Ok(()) => self.unwritten = false,
            Err(error) if !self.unwritten => {
                self.unwritten = true;
                warning!(
                    "cannot write to {}: {error}; if the agent ends before the job is delivered, \
                     parts of it may be sent again",
                    self.record.directory().display()
                );
            }
            Err(_) => {}
        }
        self.progress.apply(entry);
    }

    /// Moves artifacts that are still in the workspace into the record, where
    /// they survive a reboot.
    pub(super) fn bring_home(&mut self) {
        let Some(path) = self.progress.artifacts.clone() else {
            return;
        };
        if !self.progress.owes_artifacts() || path.starts_with(self.record.directory()) {
            return;
        }
        let artifacts = Artifacts::at(path.clone(), Arc::clone(&self.left_out_said));
        match artifacts.move_into(self.record.directory()) {
            Ok(whole) => self.moved(whole),
            Err(error) => warning!(
                "cannot move the artifacts of job {} into its record: {error}; they stay in {} \
                 until they can be sent",
                self.progress.job_id,
                path.display()
            ),
        }
    }

    fn moved(&mut self, to: PathBuf) {
        self.note(&Entry::Finished {
            artifacts: Some(to),
        });
    }
}

/// Whether a file will not come back by itself.
fn is_lasting(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::InvalidData | io::ErrorKind::Other
    )
}

#[cfg(test)]
mod tests {
    use super::super::waiting::{FRAGMENT_INTERVAL, GATHER};
    use super::*;
    use std::path::Path;

    fn delivery(basedir: &Path) -> Delivery {
        let id = "4a01916a-c18b-4c2c-87bb-7da770768044";
        std::fs::create_dir_all(basedir).unwrap();
        let record = Record::create(basedir, id, "a").unwrap();
        Delivery::new(
            Arc::new(record),
            Progress::default(),
            Duration::from_secs(30),
        )
    }

    fn started(delivery: &mut Delivery, phase: Phase, log: &str) {
        std::fs::write(delivery.record.log(phase, LogType::Output), log).unwrap();
        delivery.apply(&Entry::Started(phase));
    }

    fn fragment(phase: Phase, from: u64) -> Step {
        Step::Fragment(phase, LogType::Output, from)
    }

    fn ended(delivery: &mut Delivery, phase: Phase) {
        delivery.apply(&Entry::Ended { phase, status: 0 });
    }

    fn sent(delivery: &mut Delivery, phase: Phase, bytes: u64) {
        let log = LogType::Output;
        let next_fragment = delivery.progress.next_fragment.of(log) + 1;
        delivery.apply(&Entry::Sent {
            phase,
            log,
            bytes,
            next_fragment,
        });
    }

    #[test]
    fn a_job_is_delivered_in_its_order() {
        let basedir = std::env::temp_dir().join(format!("tfa-order-{}", std::process::id()));
        let mut job = delivery(&basedir);
        let now = Instant::now();
        assert_eq!(job.next(now), Step::Wait(None));
        started(&mut job, Phase::Setup, "12345");
        assert_eq!(job.next(now), Step::Wait(None), "nothing was printed");
        ended(&mut job, Phase::Setup);
        started(&mut job, Phase::Test, "67");
        assert_eq!(job.next(now), fragment(Phase::Setup, 0));
        sent(&mut job, Phase::Setup, 3);
        assert_eq!(job.next(now), fragment(Phase::Setup, 3));
        sent(&mut job, Phase::Setup, 5);
        assert_eq!(job.next(now), Step::Status(Phase::Setup));
        job.apply(&Entry::Reported(Phase::Setup));
        ended(&mut job, Phase::Test);
        assert_eq!(job.next(now), fragment(Phase::Test, 0));
        job.apply(&Entry::LogRefused {
            phase: Phase::Test,
            log: LogType::Output,
        });
        assert_eq!(job.next(now), Step::Status(Phase::Test));
        job.apply(&Entry::Reported(Phase::Test));
        assert_eq!(job.next(now), Step::Wait(None), "cleanup may come");
        let artifacts = Some("/nowhere".into());
        job.apply(&Entry::Finished { artifacts });
        assert_eq!(job.next(now), Step::Artifacts);
        job.artifacts_last = true;
        assert_eq!(job.next(now), Step::Complete);
        job.apply(&Entry::Complete);
        assert_eq!(job.next(now), Step::Artifacts);
        job.apply(&Entry::ArtifactsSent);
        assert_eq!(job.next(now), Step::Done);
        std::fs::remove_dir_all(basedir).unwrap();
    }

    #[test]
    fn row_28_artifacts_that_are_refused_are_given_up_in_the_end() {
        let basedir = std::env::temp_dir().join(format!("tfa-refusals-{}", std::process::id()));
        let mut job = delivery(&basedir);
        let elsewhere = basedir.join("elsewhere");
        std::fs::create_dir_all(&elsewhere).unwrap();
        std::fs::write(elsewhere.join("file"), "x").unwrap();
        let artifacts = Some(elsewhere.clone());
        job.apply(&Entry::Finished { artifacts });
        let failure = Failure::Refused {
            status: 413,
            cause: "too large".into(),
        };
        job.put_artifacts_off(&failure);
        let later = Instant::now() + REFUSED_PAUSE * 2;
        assert_eq!(job.next(later), Step::Complete, "that comes first");
        job.apply(&Entry::Complete);
        for attempt in 1..=REFUSED_ATTEMPTS {
            assert_eq!(job.next(later), Step::Artifacts, "{attempt}");
            job.put_artifacts_off(&failure);
        }
        assert_eq!(job.next(later), Step::Done);
        assert!(job.progress.has_refusals());
        assert!(job.record.directory().join("artifacts.tar.gz").exists());
        assert!(!elsewhere.exists());
        std::fs::remove_dir_all(basedir).unwrap();
    }

    #[test]
    fn no_line_waits_for_half_a_second_and_none_travels_alone() {
        let basedir = std::env::temp_dir().join(format!("tfa-due-{}", std::process::id()));
        let mut job = delivery(&basedir);
        let now = Instant::now();
        started(&mut job, Phase::Test, "");
        // Told before the beginning of its phase was: not lost.
        job.output(Phase::Test, LogType::Output, 10, now);
        assert_eq!(job.next(now), Step::Wait(Some(now + GATHER)));
        job.output(Phase::Test, LogType::Output, 20, now + GATHER / 2);
        assert_eq!(job.next(now + GATHER), fragment(Phase::Test, 0));
        sent(&mut job, Phase::Test, 20);
        let waiting = job.waiting.of_mut(LogType::Output);
        waiting.sent(Phase::Test, 20, now + GATHER);
        // Just after a fragment: as late as it gets.
        job.output(Phase::Test, LogType::Output, 30, now + GATHER);
        let due = now + GATHER + FRAGMENT_INTERVAL;
        assert_eq!(job.next(now + GATHER), Step::Wait(Some(due)));
        assert!(GATHER + FRAGMENT_INTERVAL < Duration::from_millis(500));
        assert_eq!(job.next(due), fragment(Phase::Test, 20));
        // A flood does not wait at all.
        job.output(
            Phase::Test,
            LogType::Output,
            20 + LARGEST_FRAGMENT,
            now + GATHER,
        );
        assert_eq!(job.next(now + GATHER), fragment(Phase::Test, 20));
        std::fs::remove_dir_all(basedir).unwrap();
    }
}
