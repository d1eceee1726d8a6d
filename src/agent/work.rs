//! The story of a job, from its document to the server's last acknowledgement.

use super::chores::{self, keep_what_is_needed, make_place, sync_outcome};
use super::device::DeviceInfo;
use super::story::{RECOVERY_FAILED, Story};
use super::{Agent, Event, LAST_DELIVERY};
use crate::child::tree::{self, Process, Tree};
use crate::child::{Cgroup, Secrets};
use crate::job::{Entry, Job, PHASES, Phase, Progress, Record, Workspace};
use crate::{error, info, log, uplink, warning};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Before provision, which cannot be cancelled, the server may take this long to
/// say whether the job still stands.
const LAST_CHECK: Duration = Duration::from_secs(2);

/// A job that is being run.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) job: Job,
    pub(super) record: Arc<Record>,
    pub(super) workspace: Option<Workspace>,
    pub(super) statuses: Vec<(Phase, i64)>,
    pub(super) device_info: DeviceInfo,
    /// What must not be seen of it.
    pub(super) secrets: Arc<Secrets>,
    /// Sessions of commands that left something behind.
    pub(super) sessions: Vec<Process>,
    /// Where its processes are, if the kernel keeps them together.
    pub(super) cgroup: Option<Cgroup>,
    /// Processes that were there before the job.
    pub(super) bystanders: HashSet<Process>,
    /// An earlier life of the agent began it.
    pub(super) is_taken_up: bool,
    /// To sync its artifacts takes too long.
    pub(super) hangs: bool,
    /// What its webhook is told.
    pub(super) story: Story,
}

impl Agent {
    /// Runs a job, cleans up, delivers. False when it was none.
    pub(super) fn work(&mut self, document: String) -> bool {
        let job = match Job::parse(document) {
            Ok(job) => job,
            Err(reason) => {
                error!(
                    "cannot run the job that the server handed over: {reason}; asking for the next one"
                );
                return false;
            }
        };
        self.cancelled = false;
        // Before anything else: the server does not give it again.
        let Some(mut running) = self.begin(job) else {
            return true;
        };
        info!("took job {}", running.job.id);
        self.tell_of_start(&mut running);
        self.events.telemetry.job_begins();
        let refusal = match running.job.refusal.clone() {
            None => self.fetch_attachments(&running).err(),
            refusal => refusal,
        };
        if let Some(reason) = refusal {
            self.refuse(&mut running, &reason);
        } else {
            self.run_phases(&mut running);
        }
        self.wind_up(running);
        true
    }

    /// Cleanup, whatever became of the phases before it; then all that is left of
    /// the job goes where it belongs.
    pub(super) fn wind_up(&mut self, mut running: Running) {
        let is_clean = |(phase, _): &(Phase, i64)| *phase == Phase::Cleanup;
        // Before a crash of the agent, it may have come to its end.
        if !running.statuses.iter().any(is_clean) {
            self.restore_workspace(&running);
            let was_run = self.run_phase(&mut running, Phase::Cleanup).is_some();
            if !was_run && !self.abandoned && !running.story.has_ended(Phase::Cleanup) {
                self.tell_of_phase(&mut running, Phase::Cleanup);
                self.tell_of_status(&mut running, Phase::Cleanup, 0);
            }
        }
        // Not the job's own, and so none of what it left behind.
        if let Some(lookup) = self.events.telemetry.job_over() {
            self.see_die(lookup);
        }
        let bystanders = running.bystanders.clone();
        let leftovers = running
            .sessions
            .iter()
            .fold(Tree::without(bystanders), |tree, &session| {
                tree.with_session(session)
            });
        self.end_leftovers(&leftovers.with_cgroup(running.cgroup.clone()));
        if let Some(cgroup) = &running.cgroup {
            cgroup.remove();
        }
        if !self.abandoned {
            self.tell_of_end(&mut running);
        }
        self.finish(running);
        if !self.abandoned {
            self.deliver();
        }
        log::reveal();
    }

    /// Makes a place for the job on the disk. `None` when the agent has to end
    /// before it is made: as after a crash, the record tells what there was.
    fn begin(&mut self, job: Job) -> Option<Running> {
        let mut progress = Progress::default();
        progress.apply(&Entry::Taken {
            job_id: job.id.clone(),
            agent_id: self.config.agent_id.clone(),
        });
        let config = &self.config;
        let agent_id = config.agent_id.clone();
        let results = config.results_basedir.clone();
        let execution = config.execution_basedir.clone();
        let user = self.user.clone();
        let workspace = execution.join(&job.id);
        let is_left_over = workspace.exists();
        let made = self.meanwhile("making", &workspace, move || {
            make_place(job, &agent_id, &results, &execution, user.as_ref())
        });
        let Some(place) = made else {
            // No other job would have one.
            self.restart_wanted = true;
            return None;
        };
        let record = Arc::new(place.record);
        // The job has no process yet. Nothing comes before its record.
        let bystanders = tree::descendants();
        self.uplink
            .job(Arc::clone(&record), progress, place.job.webhook.clone());
        let secrets = Arc::new(place.secrets);
        conceal(&secrets);
        let id = &place.job.id;
        if is_left_over {
            // It may have run here before, under an agent that told nobody.
            self.end_earlier_run(id, &[]);
        }
        Some(Running {
            cgroup: Cgroup::make(id),
            job: place.job,
            secrets,
            record,
            workspace: place.workspace,
            statuses: Vec::new(),
            device_info: DeviceInfo::default(),
            sessions: Vec::new(),
            bystanders,
            is_taken_up: false,
            hangs: false,
            story: Story::default(),
        })
    }

    /// The phase whose turn it is after those that ended; none where one of them ended
    /// the job, or only the cleanup is left.
    pub(super) fn next_phase(&self, running: &Running) -> Option<Phase> {
        if Agent::has_failed(running) {
            return None;
        }
        let last = running.statuses.last();
        let place = |last| PHASES.iter().position(|phase| *phase == last);
        let done = last
            .and_then(|(last, _)| place(*last))
            .map_or(0, |at| at + 1);
        PHASES.into_iter().skip(done).find(|phase| {
            *phase != Phase::Cleanup
                && running.job.wants(*phase)
                && self.config.command(*phase).is_some()
        })
    }

    /// All phases but cleanup, until one of them ends the job.
    fn run_phases(&mut self, running: &mut Running) {
        while let Some(phase) = self.next_phase(running) {
            if phase == Phase::Provision {
                self.check_cancellation();
            }
            if self.cancelled {
                self.tell_of_cancellation(running);
                return;
            }
            if self.stopping.is_some() {
                if running.statuses.is_empty() {
                    // Taken, and never begun: somebody has to be told.
                    self.refuse(running, "the agent was told to stop");
                }
                return;
            }
            self.tell_of_skipped(running, Some(phase));
            if self.run_phase(running, phase).is_none() {
                return;
            }
            if phase == Phase::Allocate {
                // Whatever its command made of it.
                self.wait_for_parent(running);
            }
        }
        if self.cancelled {
            self.tell_of_cancellation(running);
        } else if self.stopping.is_none() && !Agent::has_failed(running) {
            self.tell_of_skipped(running, None);
        }
    }

    /// Whether a phase has ended the job.
    pub(super) fn has_failed(running: &Running) -> bool {
        let last = running.statuses.last();
        last.is_some_and(|(phase, status)| *status != 0 && *phase != Phase::Test)
    }

    /// Cleanup runs for every job, also for one that removed the ground under
    /// its feet.
    fn restore_workspace(&mut self, running: &Running) {
        self.restore_directories();
        let Some(workspace) = &running.workspace else {
            return;
        };
        let directory = workspace.directory().display();
        match workspace.restore(&running.job, &running.statuses) {
            Ok(false) => {}
            Ok(true) => info!("the job removed {directory}; it is made anew for the cleanup"),
            Err(error) => warning!(
                "cannot make {directory} anew for the cleanup: {error}; it runs all the same, \
                 if it can"
            ),
        }
    }

    /// A phase that is over, and `was_run` or was not, is on record before anybody hears
    /// of it.
    pub(super) fn ended(
        &mut self,
        running: &mut Running,
        phase: Phase,
        status: i64,
        was_run: bool,
    ) {
        info!(
            "phase {phase} of job {} ended with {status}",
            running.job.id
        );
        self.events.telemetry.metrics.phase_ended(phase, status);
        if status == RECOVERY_FAILED {
            // First, because to sync takes its time, and once the phase is on record
            // nobody looks at its status again.
            self.events.telemetry.metrics.recovery_failed();
            let id = &running.job.id;
            self.put_offline(format!(
                "Set to offline by agent. Recovery failed during job '{id}' execution."
            ));
            warning!("the {phase} phase of job {id} ended with 46: the agent goes offline");
        }
        self.sync(running, phase);
        // And what else nobody would look at.
        self.tell_of_stop(running);
        if was_run && phase == Phase::Provision {
            self.record(running, &Entry::Provisioned(status));
        }
        self.record(running, &Entry::Ended { phase, status });
        running.statuses.push((phase, status));
        self.tell_of_status(running, phase, status);
        if let Some(workspace) = &running.workspace
            && let Err(error) = workspace.write_outcome(&running.statuses)
        {
            // The job's own doing; it is told what became of the file.
            info!(
                "job {} has no testflinger-outcome.json any more: {error}",
                running.job.id
            );
        }
    }

    /// Makes durable what a phase has left; its logs alone where nobody answers for the
    /// artifacts.
    fn sync(&mut self, running: &mut Running, phase: Phase) {
        let workspace = running.workspace.as_ref().filter(|_| !running.hangs);
        let artifacts = workspace.map(Workspace::artifacts);
        let record = Arc::clone(&running.record);
        let place = artifacts.as_deref().unwrap_or(record.directory());
        let (place, has_artifacts) = (place.to_owned(), artifacts.is_some());
        let synced = self.meanwhile("syncing", &place, move || {
            sync_outcome(&record, artifacts.as_deref(), phase)
        });
        match synced {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                let id = &running.job.id;
                warning!(
                    "cannot sync the outcome of phase {phase} of job {id}: {error}; a power cut \
                     might take it"
                );
            }
            None if has_artifacts && !self.abandoned => {
                running.hangs = true;
                self.sync(running, phase);
            }
            None => {}
        }
    }

    /// Writes an entry down and passes it on.
    pub(super) fn record(&mut self, running: &Running, entry: &Entry) {
        if let Err(error) = running.record.append(entry) {
            error!(
                "cannot write to {}: {error}; the job goes on, but would not survive a restart of \
                 the agent",
                running.record.directory().display()
            );
        }
        self.uplink.entry(entry.clone());
    }

    /// Asks once more whether the job still stands.
    fn check_cancellation(&mut self) {
        self.uplink.check_now();
        let deadline = Instant::now() + LAST_CHECK;
        while !self.cancelled && self.stopping.is_none() {
            match self.next(None, Some(deadline)) {
                Event::Uplink(uplink::Event::Checked) | Event::Deadline => return,
                Event::Uplink(event) => self.note(&event),
                Event::Signal(signal) => self.signal(signal),
                _ => {}
            }
        }
    }

    /// All phases are over: what is still needed moves into the record, and the
    /// workspace goes.
    fn finish(&mut self, mut running: Running) {
        self.events.drop_leftovers();
        if self.abandoned {
            // As after a crash: the next life takes the job up.
            return;
        }
        self.say_status(&format!("job {}: clearing up", running.job.id));
        let workspace = running.workspace.take();
        let artifacts = workspace.and_then(|workspace| self.clear(&running, workspace));
        if !self.abandoned {
            self.record(&running, &Entry::Finished { artifacts });
            self.say_status(&format!("job {}: delivering", running.job.id));
        }
    }

    /// Clears up after a job that is over. Where its artifacts are.
    fn clear(&mut self, running: &Running, workspace: Workspace) -> Option<PathBuf> {
        let workspace = Arc::new(workspace);
        let directory = workspace.directory().to_owned();
        let (id, record) = (running.job.id.clone(), Arc::clone(&running.record));
        // As its record is named: those of an earlier job of this id may still be owed.
        let mut beside = record
            .directory()
            .file_name()
            .unwrap_or_default()
            .to_owned();
        beside.push(".artifacts");
        let beside = self.config.execution_basedir.join(beside);
        let (is_taken_up, of) = (running.is_taken_up, Arc::clone(&workspace));
        let kept = self.meanwhile("clearing", &directory, move || {
            keep_what_is_needed(&id, &record, &of, beside, is_taken_up)
        });
        let removed = match &kept {
            None => None,
            Some(_) if self.keep_workspace => Some(()),
            Some(artifacts) => {
                let is_there = |path: &PathBuf| path.starts_with(&directory);
                let has_artifacts = artifacts.as_ref().is_some_and(is_there);
                self.meanwhile("removing", &directory, move || {
                    chores::remove(&workspace, has_artifacts);
                })
            }
        };
        if removed.is_none() && !self.abandoned {
            // It may only be slow. There is a next life for that, or nobody waits.
            self.abandoned = self.stopping.is_some();
            let then = match self.abandoned {
                true => "is cleared after the next start",
                false => "stays, and can be removed by hand",
            };
            warning!("{} {then}", directory.display());
        }
        kept.flatten()
    }

    /// Waits until the server has everything, or cannot be given it now.
    fn deliver(&mut self) {
        let begun = Instant::now();
        while !self.abandoned {
            let deadline = self.stopping.map(|since| since.max(begun) + LAST_DELIVERY);
            match self.next(None, deadline) {
                Event::Uplink(uplink::Event::Delivered) => return,
                Event::Uplink(uplink::Event::Owed) => {
                    warning!(
                        "the job is over, but not all of it is at the server; the rest follows"
                    );
                    return;
                }
                Event::Uplink(event) => self.note(&event),
                Event::Signal(signal) => self.signal(signal),
                Event::Deadline => {
                    warning!("the rest of the job is sent after the next start");
                    return;
                }
                _ => {}
            }
        }
    }
}

/// What the job names files and processes by is said without its secrets.
pub(super) fn conceal(secrets: &Arc<Secrets>) {
    let secrets = Arc::clone(secrets);
    log::conceal(move |text| secrets.masked(text));
}
