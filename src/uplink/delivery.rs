//! What the server still has to get of one job, in its order.
//!
//! A delivery walks the job's record: for each phase the output and then the
//! exit status, then the artifacts, then `complete`. It is the same walk while
//! the job runs, after an outage, and after a restart of the agent.

mod legacy;
mod patience;
mod read_back;
mod steps;

use super::api::Api;
use super::backoff::Backoff;
use super::waiting::Waiting;
use crate::job::{
    Entry, LOG_TYPES, LogProgress, LogType, PerLog, Phase, PhaseProgress, Progress, Record,
};
use crate::warning;
use patience::Failing;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Largest fragment, in bytes of text. JSON makes at most six of one, and the
/// server takes 16 MB; the two buffers are all the memory that output needs.
const LARGEST_FRAGMENT: u64 = 256 << 10;

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A fragment of this log of a phase, and where in it that begins.
    Fragment(Phase, LogType, u64),
    /// How much of the logs the server has.
    ReadBack,
    /// The device's information.
    DeviceInfo,
    /// The exit status of this phase.
    Status(Phase),
    /// How provision ended, for the agent's statistics.
    ProvisionLog,
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
    /// That the step which is next fails, although the server answers.
    failing: Option<Failing>,
    /// The artifacts come after `complete`.
    artifacts_last: bool,
    /// So often they were refused after that.
    refusals: u32,
    /// What is missing in the artifacts has been said.
    left_out_said: Arc<AtomicBool>,
    /// The disk did not take the last entry.
    unwritten: bool,
    doubt: Option<Doubt>,
    /// The next fragment may repeat what the server has.
    repeats: bool,
    /// One did, or it could not be looked what was there before: nobody knows what the
    /// lengths there mean.
    uncounted: bool,
    /// No parent waits for the device's information.
    allocation_is_over: bool,
    /// The webhook is told of the job's end, as far as this life can.
    pub(super) is_end_told: bool,
}

/// The server may have a fragment of which it is not known.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    /// When to read back what it has.
    read_at: Instant,
    /// Readings that it refused.
    failures: u32,
    /// How many calls had been understood when a reading had no answer last.
    unanswered: Option<u64>,
}

impl Doubt {
    fn until(read_at: Instant) -> Doubt {
        Doubt {
            read_at,
            failures: 0,
            unanswered: None,
        }
    }
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
            doubt: None,
            repeats: false,
            uncounted: false,
            allocation_is_over: false,
            is_end_told: false,
        }
    }

    /// The same for a record of an earlier life: nothing is synced for a fragment,
    /// so that the server may have more than is on record.
    pub(super) fn of_an_earlier_life(mut self) -> Delivery {
        self.doubt_after_the_end();
        self.allocation_is_over = true;
        self
    }

    /// The same, with more patience.
    pub(super) fn slower(mut self, longest_pause: Duration) -> Delivery {
        self.longest_pause = longest_pause;
        self
    }

    /// No parent waits for the device any more.
    pub(super) fn allocation_over(&mut self) {
        self.allocation_is_over = true;
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
        if self.progress.owes_provision_log() {
            return Step::ProvisionLog;
        }
        if let Some(phase) = self.current() {
            return match (self.next_of(phase, now), self.doubt) {
                (Step::Fragment(..), Some(doubt)) if doubt.read_at > now => {
                    Step::Wait(Some(doubt.read_at))
                }
                (Step::Fragment(..), Some(_)) => Step::ReadBack,
                // Once there is more there, nobody can tell what was there before.
                (Step::Fragment(..), None) if self.progress.found.is_none() => Step::ReadBack,
                (step, _) => step,
            };
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
            let left = self.left(phase, log);
            if left == 0 || refused {
                continue;
            }
            let due = waiting.due(self.interval());
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

    /// How much of a phase's log is still to be sent. As long as the phase runs, that is
    /// what was told: more may be there for a moment, until the full disk's half of a
    /// text is taken back.
    fn left(&self, phase: &PhaseProgress, log: LogType) -> u64 {
        let length = match phase.status {
            // The log has its final length.
            Some(_) => self.record.log_length(phase.phase, log),
            None => self.waiting.of(log).available(phase.phase),
        };
        length.saturating_sub(phase.logs.of(log).sent)
    }

    /// Takes a step. After a failure the delivery rests.
    pub(super) fn take(&mut self, step: Step, api: &Api, now: Instant) {
        if self.begin_anew(api) {
            return;
        }
        let sent = self.progress.bytes_sent();
        let result = match step {
            Step::Fragment(phase, log, from) => self.fragment(api, phase, log, from, now),
            Step::ReadBack => self.read_back(api),
            Step::DeviceInfo => self.device_info(api, now),
            Step::Status(phase) => self.status(api, phase),
            Step::ProvisionLog => self.provision_log(api),
            Step::Artifacts => self.artifacts(api, now),
            Step::Complete => self.complete(api, now),
            Step::Wait(_) | Step::Done => Ok(()),
        };
        if step == Step::ReadBack && result.is_ok() && self.progress.bytes_sent() == sent {
            // To have looked is no success of the fragment that failed.
            return;
        }
        match &result {
            Ok(()) => self.failing = None,
            Err(failure) if self.is_beside(step, failure, api) => self.failing = None,
            Err(_) => self.fails(api.common.understood(), now),
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
}

#[cfg(test)]
mod tests {
    use super::super::waiting::{FRAGMENT_INTERVAL, GATHER};
    use super::*;
    use std::path::Path;

    pub(super) fn delivery(basedir: &Path) -> Delivery {
        let id = "4a01916a-c18b-4c2c-87bb-7da770768044";
        std::fs::create_dir_all(basedir).unwrap();
        let record = Record::create(basedir, id, "a", "{}").unwrap();
        let mut progress = Progress::default();
        progress.apply(&Entry::Found(Vec::new()));
        Delivery::new(Arc::new(record), progress, Duration::from_secs(30))
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
    fn before_anything_is_sent_it_is_looked_what_was_there() {
        let basedir = std::env::temp_dir().join(format!("tfa-look-{}", std::process::id()));
        let mut job = delivery(&basedir);
        job.progress.found = None;
        let now = Instant::now();
        started(&mut job, Phase::Setup, "12345");
        ended(&mut job, Phase::Setup);
        assert_eq!(job.next(now), Step::ReadBack);
        job.apply(&Entry::Found(Vec::new()));
        assert_eq!(job.next(now), fragment(Phase::Setup, 0));
        std::fs::remove_dir_all(basedir).unwrap();
    }

    /// An agent that was killed may have had a fragment on its way, if there was one to
    /// send.
    #[test]
    fn what_may_be_on_its_way_has_time_to_arrive() {
        let basedir = std::env::temp_dir().join(format!("tfa-settle-{}", std::process::id()));
        let mut job = delivery(&basedir);
        started(&mut job, Phase::Setup, "12345");
        sent(&mut job, Phase::Setup, 3);
        ended(&mut job, Phase::Setup);
        let mut job = job.of_an_earlier_life();
        let now = Instant::now();
        assert!(matches!(job.next(now), Step::Wait(Some(until)) if until > now));
        assert_eq!(job.next(now + Duration::from_secs(5)), Step::ReadBack);
        sent(&mut job, Phase::Setup, 5);
        let job = job.of_an_earlier_life();
        assert_eq!(job.next(Instant::now()), Step::Status(Phase::Setup));
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
