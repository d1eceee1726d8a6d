//! Jobs in whose middle an earlier life of the agent ended: by a crash, by KILL, by
//! a power cut. What is left of their processes is ended, the phase that was cut
//! short is said to be, no later one runs, and cleanup and delivery are those of
//! every job.

use super::Agent;
use super::device::DeviceInfo;
use super::story::Story;
use super::work::{self, Running};
use crate::child::tree;
use crate::child::{Cgroup, OutputFile, Secrets};
use crate::job::{Entry, Job, LogType, NOT_RUN, Phase, Progress, Record, Workspace};
use crate::metrics::State;
use crate::{error, info, warning};
use std::sync::Arc;

/// A cleanup is run so often, if the agent ends in its middle each time.
const MOST_CLEANUPS: u32 = 5;

impl Agent {
    /// Takes up all of them, the oldest first.
    pub(super) fn take_up_interrupted(&mut self) {
        for (record, progress) in std::mem::take(&mut self.interrupted) {
            if self.abandoned {
                return;
            }
            self.take_up(record, progress);
        }
    }

    fn take_up(&mut self, record: Record, mut progress: Progress) {
        let id = progress.job_id.clone();
        warning!("the agent ended in the middle of job {id}: cleaning up after it");
        self.say_status(&format!("job {id}: taking it up again"));
        self.events.telemetry.metrics.state(State::Busy);
        self.cancelled = false;
        let job = record.job().unwrap_or_else(|| self.without_document(&id));
        let secrets = Arc::new(Secrets::new(job.secrets.values()));
        work::conceal(&secrets);
        self.end_earlier_run(&id, &progress.leaders);
        let interrupted = progress.interrupted();
        // On record before anything else is done.
        let taken_up = Entry::TakenUp(record.log_lengths());
        if let Err(error) = record.append(&taken_up) {
            warning!(
                "cannot write to {}: {error}; the job comes to its end, but would not survive \
                 another restart",
                record.directory().display()
            );
        }
        progress.apply(&taken_up);
        let record = Arc::new(record);
        self.uplink
            .job_again(Arc::clone(&record), progress.clone(), job.webhook.clone());
        if let Some(offline) = &self.offline {
            self.uplink.put_offline(offline.comment.clone());
        }
        let workspace =
            Workspace::of_an_earlier_life(&self.config.execution_basedir, &job, self.user.clone());
        let mut running = Running {
            secrets,
            job,
            record,
            workspace: Some(workspace),
            statuses: progress.statuses().collect(),
            device_info: DeviceInfo::of_an_earlier_life(progress.device_info),
            sessions: Vec::new(),
            cgroup: Cgroup::make(&id),
            bystanders: tree::descendants(),
            is_taken_up: true,
            hangs: false,
            story: Story::of_an_earlier_life(&progress.events),
        };
        self.catch_up(&mut running, &progress.phases);
        match interrupted {
            Some(phase) => self.say_interrupted(&mut running, phase, progress.begun(phase)),
            None if progress.phases.is_empty() && !running.story.has_ended(Phase::Setup) => {
                self.refuse(&mut running, "the agent ended before it could begin it");
            }
            None => {
                let next = self.next_phase(&running);
                let is_cut_short = matches!(running.statuses.last(), Some((_, NOT_RUN)));
                let goes_on = !is_cut_short && !Agent::has_failed(&running);
                if goes_on && !running.story.was_cancelled() {
                    self.tell_of_skipped(&mut running, next);
                }
                if let Some(phase) = next {
                    let why =
                        "The agent was interrupted before the end of this phase, which is not run";
                    self.pass_over(&mut running, phase, why);
                }
            }
        }
        self.wind_up(running);
    }

    /// A job whose document the disk has lost. Its commands may print what is in the
    /// copy in its workspace; nothing else of that is believed, because it is theirs.
    fn without_document(&self, id: &str) -> Job {
        let mut job = Job::unknown(id);
        let (basedir, owner) = (&self.config.execution_basedir, self.user.as_ref());
        let copy = Workspace::of_an_earlier_life(basedir, &job, owner.cloned()).document();
        let copy = copy.and_then(|text| Job::parse(text).ok());
        warning!(
            "the document of job {id} is lost from its record: it goes home without its webhook"
        );
        if let Some(copy) = copy.filter(|copy| copy.id == id) {
            job.secrets = copy.secrets;
        }
        job
    }

    /// The phase that was cut short ends with that. A cleanup runs again, and
    /// then has the status of that; but not for ever, as one that brings the whole board
    /// down would.
    fn say_interrupted(&mut self, running: &mut Running, phase: Phase, begun: u32) {
        let gives_up = phase == Phase::Cleanup && begun >= MOST_CLEANUPS;
        let log = running.record.log(phase, LogType::Output);
        let limit = self.config.output_limit;
        if let Ok(mut file) = OutputFile::open(&log, None, limit, &running.secrets) {
            file.say("\nERROR: The agent was interrupted in the middle of this phase.\n");
            if gives_up {
                file.say("ERROR: That has happened too often: it is not run again.\n");
            }
            self.uplink.output(phase, LogType::Output, file.length());
        }
        if gives_up {
            error!(
                "the cleanup of job {} has been cut short {begun} times, and is not run again: \
                 the job goes home without",
                running.job.id
            );
            self.ended(running, phase, NOT_RUN, false);
        } else if phase == Phase::Cleanup {
            info!("the cleanup of job {} runs again", running.job.id);
        } else {
            self.ended(running, phase, NOT_RUN, false);
        }
    }
}
