//! The steps of a delivery: one call, and what becomes of the job by its answer.

use super::legacy::whole_lines;
use super::patience::{Failing, is_lasting, is_shortage};
use super::read_back::REPEATS;
use super::{Delivery, Step};
use crate::job::{Artifacts, Entry, LogType, Phase};
use crate::json::{Json, Object};
use crate::uplink::api::Api;
use crate::uplink::failure::Failure;
use crate::warning;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ALLOCATE: &str = "tell the parent of a job about its device";
const READ_RECORDS: &str = "read what is owed to the server";
/// So many attempts are made to post the device's information.
const DEVICE_ATTEMPTS: u32 = 3;
/// Between attempts at artifacts that the server has refused, and how many there
/// are: for a day, somebody may raise a limit.
const REFUSED_PAUSE: Duration = Duration::from_secs(3_600);
const REFUSED_ATTEMPTS: u32 = 24;

impl Delivery {
    pub(super) fn fragment(
        &mut self,
        api: &Api,
        phase: Phase,
        log: LogType,
        from: u64,
        now: Instant,
    ) -> Result<(), Failure> {
        let step = Step::Fragment(phase, log, from);
        let started = Instant::now();
        let left = self.current().map_or(0, |current| self.left(current, log));
        let most = left.min(self.largest_fragment);
        let mut text = match self.record.read_log(phase, log, from, most) {
            Ok(text) => text,
            Err(error) if self.is_lost(&error, api, now) => {
                let path = self.record.log(phase, log);
                warning!(
                    "cannot read {}: {error}; the rest of it is not sent",
                    path.display()
                );
                api.common.faults.forget(READ_RECORDS);
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
        if self.is_legacy(api) && !self.is_last(phase, log, from + text.len() as u64) {
            text.truncate(whole_lines(&text));
        }
        let number = *self.progress.next_fragment.of(log);
        let bytes = from + text.len() as u64;
        let text = match self.repeats {
            true => format!("{REPEATS}{text}"),
            false => text,
        };
        match self.post_piece(api, phase, log, number, &text) {
            Ok(false) => Ok(()),
            Ok(true) => {
                self.repeats = false;
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
            Err(failure)
                if failure.is_refusal()
                    || self.is_worthless(api, now)
                    || self.is_hopeless(api, now) && !self.is_beside(step, &failure, api) =>
            {
                let what = format!("the {} of its {phase} phase", log.name());
                self.refused(&what, failure.cause());
                self.note(&Entry::LogRefused { phase, log });
                Ok(())
            }
            Err(transient) => {
                if transient.may_have_arrived() {
                    self.doubt();
                }
                Err(transient)
            }
        }
    }

    /// The newest version: each one takes the place of those before.
    pub(super) fn device_info(&mut self, api: &Api, now: Instant) -> Result<(), Failure> {
        let version = self.progress.device_info;
        let text = match self.record.read_device_info() {
            Ok(text) => text,
            Err(error) if self.is_lost(&error, api, now) => {
                let path = self.record.device_info();
                warning!("cannot read {}: {error}; it is not sent", path.display());
                String::new()
            }
            Err(error) => return Err(self.unreadable(api, &error)),
        };
        let info = Json::parse(&text)
            .ok()
            .and_then(|json| json.get("device_info"));
        if let Some(info) = info {
            let mut body = Object::new();
            body.json("device_info", info);
            // Without it, a parent job cannot reach its device.
            let is_allocating = self
                .current()
                .is_some_and(|one| one.phase == Phase::Allocate);
            match api.post_result(&self.progress.job_id, body) {
                Err(failure) if is_allocating && !self.allocation_is_over => {
                    let Failure::Refused { cause, .. } = failure else {
                        return Err(failure);
                    };
                    api.common.faults.report(ALLOCATE, &cause, "trying again");
                    return Err(Failure::transient(cause));
                }
                // It is the least of what is owed, and came from anybody.
                Err(failure) if failure.is_refusal() || self.is_alone(api, &failure) => {
                    self.refused("the device's information", failure.cause());
                }
                other => other?,
            }
            api.common.faults.over(ALLOCATE);
        }
        self.note(&Entry::DeviceInfoSent(version));
        Ok(())
    }

    /// Whether the device's information was tried so often, and other things are
    /// understood meanwhile.
    fn is_alone(&self, api: &Api, failure: &Failure) -> bool {
        let is_beside = self.is_beside(Step::DeviceInfo, failure, api);
        let others = |failing: Failing| failing.understood != api.common.understood();
        !is_beside && self.failures() >= DEVICE_ATTEMPTS && self.failing.is_some_and(others)
    }

    pub(super) fn status(&mut self, api: &Api, phase: Phase) -> Result<(), Failure> {
        if self.is_legacy(api) {
            // It comes with the result: the server has no place for it alone.
            self.note(&Entry::Reported(phase));
            return Ok(());
        }
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

    /// The server counts these: one that may have arrived is not sent again.
    pub(super) fn provision_log(&mut self, api: &Api) -> Result<(), Failure> {
        // What the server has been told, whatever the agent lived to write down of it.
        let mut phases = self.progress.phases.iter();
        let provision = phases.find(|progress| progress.phase == Phase::Provision);
        let status = provision
            .and_then(|progress| progress.status)
            .unwrap_or_default();
        self.note(&Entry::ProvisionTold);
        match api.post_provision_log(&self.progress.job_id, status) {
            // An agent that is not known is none to the statistics only.
            Ok(()) | Err(Failure::Refused { status: 404, .. }) => Ok(()),
            Err(Failure::Refused { cause, .. }) => {
                warning!("cannot post how provision ended: {cause}; going on without");
                Ok(())
            }
            Err(failure) if failure.may_have_arrived() => Ok(()),
            Err(failure) => {
                self.progress.provision_told = false;
                Err(failure)
            }
        }
    }

    pub(super) fn artifacts(&mut self, api: &Api, now: Instant) -> Result<(), Failure> {
        let Some(path) = self.progress.artifacts.clone() else {
            return Ok(());
        };
        if self.failing.is_some() {
            // What else the server answers tells whether it is theirs; an idle agent may
            // ask nothing for a long time.
            let _ = api.agent_data();
        }
        let artifacts = self.artifacts_at(path.clone());
        if let Err(error) = artifacts.open() {
            if !is_lasting(&error) {
                let failure = self.unreadable(api, &error);
                if !self.is_lost(&error, api, now) {
                    return Err(failure);
                }
                // A disk may think better of it within a day, too.
                self.put_artifacts_off(failure.cause(), true);
                return Ok(());
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
            Err(failure) if failure.is_refusal() || self.is_hopeless(api, now) => {
                self.put_artifacts_off(failure.cause(), failure.is_refusal());
                Ok(())
            }
            Err(transient) => Err(transient),
        }
    }

    fn artifacts_at(&self, path: PathBuf) -> Artifacts {
        let record = Arc::clone(&self.record);
        Artifacts::at(path, record, Arc::clone(&self.left_out_said))
    }

    /// The job is complete without them. They are tried again, but not for ever where
    /// it is they that are at fault.
    fn put_artifacts_off(&mut self, cause: &str, is_theirs: bool) {
        if !self.artifacts_last {
            let id = &self.progress.job_id;
            warning!("cannot deliver the artifacts of job {id} yet: {cause}; going on without");
            self.artifacts_last = true;
        }
        if !self.progress.complete {
            return;
        }
        if is_theirs {
            self.refusals += 1;
        }
        if self.refusals >= REFUSED_ATTEMPTS {
            self.bring_home();
            self.refused("its artifacts", cause);
            self.note(&Entry::ArtifactsRefused);
        } else {
            self.backoff.rest(REFUSED_PAUSE);
        }
    }

    pub(super) fn complete(&mut self, api: &Api, now: Instant) -> Result<(), Failure> {
        if self.is_legacy(api) {
            return self.complete_as_of_old(api, now);
        }
        let mut body = Object::new();
        if self.progress.statuses().next().is_some() {
            body.object("status", self.statuses(None));
        }
        body.string("job_state", "complete");
        if let Err(failure) = api.post_result(&self.progress.job_id, body) {
            let Failure::Refused { cause, .. } = failure else {
                return Err(failure);
            };
            // There may have been no log to ask about.
            let is_known = api.common.era.is_legacy().is_some();
            if !is_known && matches!(api.ask_era(), Ok(true)) {
                return self.complete_as_of_old(api, now);
            }
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

    pub(super) fn refused(&self, what: &str, cause: &str) {
        let id = &self.progress.job_id;
        warning!("cannot deliver of job {id} {what}: {cause}; going on without");
        // It is for people; the log has it as well.
        let _ = self.record.note_refusal(what, cause);
    }

    /// What is owed cannot be read just now: no descriptor is left, or the disk fails.
    pub(super) fn unreadable(&self, api: &Api, error: &io::Error) -> Failure {
        let cause = error.to_string();
        api.common
            .faults
            .report(READ_RECORDS, &cause, "trying again");
        let failure = Failure::transient(cause);
        match is_shortage(error) {
            true => failure.waiting(),
            false => failure,
        }
    }

    /// Moves artifacts that are still in the workspace into the record, where
    /// they survive a reboot.
    pub(in crate::uplink) fn bring_home(&mut self) {
        let Some(path) = self.progress.artifacts.clone() else {
            return;
        };
        if !self.progress.owes_artifacts() || path.starts_with(self.record.directory()) {
            return;
        }
        let artifacts = self.artifacts_at(path.clone());
        let packed = artifacts.pack_into_record().and_then(|whole| {
            let entry = Entry::Finished {
                artifacts: Some(whole),
            };
            // Who is killed before this is on the disk sends them from where they were.
            self.record.append(&entry).map(|()| entry)
        });
        match packed {
            Ok(moved) => {
                self.progress.apply(&moved);
                artifacts.remove();
            }
            Err(error) => warning!(
                "cannot move the artifacts of job {} into its record: {error}; they stay in {} \
                 until they can be sent",
                self.progress.job_id,
                path.display()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Step;
    use super::super::tests::delivery;
    use super::*;
    use crate::job::Record;
    use crate::local::{Options, Server};
    use crate::uplink::api::tests::api_of;

    #[test]
    fn artifacts_stay_where_they_are_until_the_journal_has_their_new_place() {
        let basedir = std::env::temp_dir().join(format!("tfa-home-{}", std::process::id()));
        let mut job = delivery(&basedir);
        let elsewhere = basedir.join("elsewhere");
        std::fs::create_dir_all(&elsewhere).unwrap();
        std::fs::write(elsewhere.join("file"), "x").unwrap();
        let artifacts = Some(elsewhere.clone());
        job.apply(&Entry::Finished { artifacts });
        // The disk takes the archive, and not the entry.
        job.record.rest();
        let journal = job.record.directory().join("journal");
        let taken = std::fs::read(&journal).unwrap();
        std::fs::remove_file(&journal).unwrap();
        std::fs::create_dir(&journal).unwrap();
        job.bring_home();
        assert_eq!(job.progress.artifacts.as_ref(), Some(&elsewhere));
        assert!(elsewhere.join("file").exists());
        std::fs::remove_dir(&journal).unwrap();
        std::fs::write(&journal, taken).unwrap();
        job.bring_home();
        let whole = Some(job.record.directory().join("artifacts.tar.gz"));
        assert_eq!(job.progress.artifacts, whole);
        let journal = Record::read(job.record.directory()).unwrap().unwrap();
        assert_eq!(journal.artifacts, whole);
        assert!(!elsewhere.exists());
        // Whoever is killed before that does it in its next life.
        assert!(job.progress.useless_artifacts().eq([elsewhere.as_path()]));
        std::fs::remove_dir_all(basedir).unwrap();
    }

    /// What the disk did not take whole is cut back: until then, half of it is in the log.
    #[test]
    fn of_a_running_phase_only_what_was_told_is_sent() {
        let basedir = std::env::temp_dir().join(format!("tfa-told-{}", std::process::id()));
        let server = Server::start(Options {
            directory: basedir.join("server"),
            ..Options::default()
        })
        .unwrap();
        let api = api_of(&server, &basedir);
        let mut job = delivery(&basedir);
        job.progress.job_id = server.submit("{\"job_queue\": \"q\"}").unwrap();
        let (phase, log) = (Phase::Test, LogType::Output);
        job.apply(&Entry::Started(phase));
        std::fs::write(job.record.log(phase, log), "told and half of wh").unwrap();
        job.output(phase, log, 5, Instant::now());
        job.take(Step::Fragment(phase, log, 0), &api, Instant::now());
        assert_eq!(server.output(&job.progress.job_id, phase), "told ");
        std::fs::write(job.record.log(phase, log), "told and more").unwrap();
        job.apply(&Entry::Ended { phase, status: 0 });
        job.take(Step::Fragment(phase, log, 5), &api, Instant::now());
        assert_eq!(server.output(&job.progress.job_id, phase), "told and more");
        drop(server);
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
        job.put_artifacts_off("too large", true);
        let later = Instant::now() + REFUSED_PAUSE * 2;
        assert_eq!(job.next(later), Step::Complete, "that comes first");
        job.apply(&Entry::Complete);
        for attempt in 1..=REFUSED_ATTEMPTS {
            assert_eq!(job.next(later), Step::Artifacts, "{attempt}");
            job.put_artifacts_off("too large", true);
        }
        assert_eq!(job.next(later), Step::Done);
        assert!(job.record.has_refusals());
        assert!(job.record.directory().join("artifacts.tar.gz").exists());
        assert!(!elsewhere.exists());
        std::fs::remove_dir_all(basedir).unwrap();
    }
}
