//! What the server has of a job's logs, where that is in doubt. It stores every
//! fragment that it gets, so that one which is sent again for want of an answer
//! would be there twice.

use super::{Delivery, Doubt};
use crate::job::{Entry, LOG_TYPES, LogLength, LogType, Phase, length_of};
use crate::uplink::api::Api;
use crate::uplink::failure::Failure;
use crate::uplink::reading::Known;
use crate::warning;
use std::time::{Duration, Instant};

/// A request that is on its way may take this long to be stored.
const SETTLING: Duration = Duration::from_secs(5);
/// After a look that came to nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// So many readings in a row that come to nothing, although the server answers,
/// mean that there will be none.
const READINGS: u32 = 3;
/// Before a fragment that may be there already.
pub(super) const REPEATS: &str =
    "\n[the agent could not find out how much of this the server has: what follows may repeat]\n";

impl Delivery {
    /// A fragment may have been stored, or not.
    pub(super) fn doubt(&mut self) {
        self.doubt = Some(Doubt::until(Instant::now() + SETTLING));
    }

    /// An earlier life of the agent may have ended in the middle of a fragment, where
    /// there was something to send.
    pub(super) fn doubt_after_the_end(&mut self) {
        let is_unsent = self.progress.phases.iter().any(|phase| {
            LOG_TYPES.iter().any(|&log| {
                let progress = phase.logs.of(log);
                !progress.refused && progress.sent < self.record.log_length(phase.phase, log)
            })
        });
        let settling = if is_unsent { SETTLING } else { Duration::ZERO };
        self.doubt = Some(Doubt::until(Instant::now() + settling));
    }

    /// What is at the server and not of this run: what was there before it, and
    /// what may have been repeated.
    pub(in crate::uplink) fn learn(&mut self, known: &Known) {
        if self.progress.found.is_none() {
            self.doubt = None;
            return self.find(known);
        }
        if self.doubt.is_some() || !self.uncounted {
            return;
        }
        let more = |log: &LogLength| LogLength {
            bytes: log.bytes.saturating_sub(self.sent(log.phase, log.log)),
            ..*log
        };
        let more = known.logs.iter().map(more).filter(|log| log.bytes > 0);
        let found = match self.progress.kept {
            Some(_) => Entry::ReadBack(more.collect()),
            None => Entry::Found(more.collect()),
        };
        self.uncounted = false;
        self.note(&found);
    }

    /// It could not be seen what was there before; when to look again.
    pub(in crate::uplink) fn not_learnt(&mut self, asked: Option<Duration>) {
        if self.progress.found.is_none() && self.doubt.is_none() {
            let pause = asked.unwrap_or_default().max(LOOK_AGAIN);
            self.doubt = Some(Doubt::until(Instant::now() + pause));
        }
    }

    /// Nothing of this run has been sent: all of it was there before.
    fn find(&mut self, known: &Known) {
        let logs = known.logs.iter().copied().filter(|log| log.bytes > 0);
        let logs = logs.collect();
        let found = match self.progress.kept {
            Some(_) => Entry::ReadBack(logs),
            None => Entry::Found(logs),
        };
        self.note(&found);
    }

    /// What the server has and the disk has lost is not in the logs: what they get from
    /// now on comes after it, and not in its place.
    fn discount(&mut self, known: &Known, kept: &[LogLength]) {
        let found = self.progress.found.clone().unwrap_or_default();
        let beside = |log: &LogLength| {
            let before = length_of(&found, log.phase, log.log);
            let ours = log.bytes.saturating_sub(before);
            let ours = ours.min(length_of(kept, log.phase, log.log));
            LogLength {
                bytes: log.bytes - ours,
                ..*log
            }
        };
        let beside = known.logs.iter().map(beside).filter(|log| log.bytes > 0);
        self.note(&Entry::ReadBack(beside.collect()));
    }

    fn sent(&self, phase: Phase, log: LogType) -> u64 {
        let mut phases = self.progress.phases.iter();
        let found = phases.find(|one| one.phase == phase);
        found.map_or(0, |found| found.logs.of(log).sent)
    }

    pub(super) fn read_back(&mut self, api: &Api) -> Result<(), Failure> {
        if self.uncounted || self.is_legacy(api) {
            // Nobody knows what the lengths there mean, or there are none: what an old
            // server shows to one reader nobody else sees.
            self.repeat();
            return Ok(());
        }
        match api.known(&self.progress.job_id) {
            Ok(known) => {
                self.doubt = None;
                self.believe(&known);
                Ok(())
            }
            Err(failure) => {
                let mut doubt = self.doubt.unwrap_or(Doubt::until(Instant::now()));
                if self.says_nothing(&failure, &mut doubt, api.common.understood()) {
                    self.doubt = Some(doubt);
                    return Err(failure);
                }
                doubt.failures += 1;
                doubt.read_at = Instant::now();
                self.doubt = (doubt.failures < READINGS).then_some(doubt);
                if self.doubt.is_none() {
                    let id = &self.progress.job_id;
                    let cause = failure.cause();
                    let consequence = match self.progress.found {
                        Some(_) => "what it did not acknowledge is sent again",
                        None => "its output goes behind that",
                    };
                    warning!(
                        "cannot read back what the server has of job {id}: {cause}; {consequence}"
                    );
                    self.repeat();
                }
                Err(failure)
            }
        }
    }

    /// Whether a failed reading is that of an outage, which says nothing about the next
    /// one. Who answers everything else is there.
    fn says_nothing(&self, failure: &Failure, doubt: &mut Doubt, understood: u64) -> bool {
        let Failure::Unreachable { was_there, .. } = failure else {
            return false;
        };
        let before = doubt.unanswered.replace(understood);
        !was_there || before.is_none_or(|before| before == understood)
    }

    /// Sends what is in doubt once more, and says so; nothing is, where nothing of this
    /// run was sent before. Both are settled with that.
    fn repeat(&mut self) {
        self.doubt = None;
        self.uncounted = true;
        self.repeats |= self.progress.found.is_some();
        let found = self.progress.found.clone();
        if self.progress.kept.is_some() {
            self.note(&Entry::ReadBack(found.unwrap_or_default()));
        } else if found.is_none() {
            self.note(&Entry::Found(Vec::new()));
        }
    }

    /// Goes on after what the server has.
    fn believe(&mut self, known: &Known) {
        if self.progress.found.is_none() {
            return self.find(known);
        }
        if let Some(kept) = self.progress.kept.clone() {
            self.discount(known, &kept);
        }
        let found = self.progress.found.clone().unwrap_or_default();
        let logs: Vec<(Phase, LogType, u64)> = self
            .progress
            .phases
            .iter()
            .flat_map(|phase| LOG_TYPES.map(|log| (phase.phase, log, phase.logs.of(log).sent)))
            .collect();
        for (phase, log, sent) in logs {
            let before = length_of(&found, phase, log);
            let length = self.record.log_length(phase, log);
            // Who has more than there is, has at least that.
            let bytes = known.length(phase, log).saturating_sub(before).min(length);
            if bytes > sent {
                let next_fragment = *self.progress.next_fragment.of(log) + 1;
                self.note(&Entry::Sent {
                    phase,
                    log,
                    bytes,
                    next_fragment,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Step;
    use super::super::tests::delivery;
    use super::*;
    use crate::local::{Options, Server};
    use crate::uplink::api::tests::api_of;

    /// The server answers, and takes no output: that it can be asked what it has is no
    /// end of that.
    #[test]
    fn a_reading_that_finds_nothing_new_ends_no_failure() {
        let basedir = std::env::temp_dir().join(format!("tfa-reading-{}", std::process::id()));
        let server = Server::start(Options {
            directory: basedir.join("server"),
            ..Options::default()
        })
        .unwrap();
        let api = api_of(&server, &basedir);
        let mut job = delivery(&basedir);
        job.progress.job_id = server.submit("{\"job_queue\": \"q\"}").unwrap();
        let (phase, log) = (Phase::Test, LogType::Output);
        std::fs::write(job.record.log(phase, log), "12345").unwrap();
        job.apply(&Entry::Started(phase));
        job.output(phase, log, 5, Instant::now());
        server.answer("POST", "/v1/result/*/log/output", 2, 503, "");
        let fragment = Step::Fragment(phase, log, 0);
        for failures in [1, 2] {
            job.take(fragment, &api, Instant::now());
            assert_eq!(job.failures(), failures);
            let failing = job.failing.unwrap();
            job.take(Step::ReadBack, &api, Instant::now());
            assert_eq!((job.failures(), job.failing), (failures, Some(failing)));
            assert!(job.doubt.is_none());
        }
        // It is taken, but nobody hears of that; the reading does.
        api.post_fragment(&job.progress.job_id, phase, log, 0, "123")
            .unwrap();
        job.take(Step::ReadBack, &api, Instant::now());
        assert_eq!(job.failing, None);
        assert_eq!(job.sent(phase, log), 3);
        drop(server);
        std::fs::remove_dir_all(basedir).unwrap();
    }
}
