//! The story of a job, from its document to the server's last acknowledgement.

use super::device::DeviceInfo;
use super::{Agent, Event, LAST_DELIVERY};
use crate::archive;
use crate::child::tree::{self, Tree};
use crate::job::{Entry, Job, PHASES, Phase, Progress, Record, Workspace};
use crate::sys::files;
use crate::{error, info, uplink, warning};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A device that could not be recovered: the agent goes offline.
const RECOVERY_FAILED: i64 = 46;
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
    /// Sessions of commands that left something behind.
    pub(super) sessions: Vec<i32>,
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
        info!("took job {}", job.id);
        self.cancelled = false;
        let bystanders = tree::descendants();
        let mut running = self.begin(job);
        let refusal = self.refusal(&running);
        if let Some(reason) = refusal {
            self.refuse(&mut running, &reason);
        } else {
            self.run_phases(&mut running);
        }
        self.restore_workspace(&running);
        self.run_phase(&mut running, Phase::Cleanup);
        let leftovers = running
            .sessions
            .iter()
            .fold(Tree::without(bystanders), |tree, &session| {
                tree.with_session(session)
            });
        self.end_leftovers(&leftovers);
        self.finish(running);
        if !self.abandoned {
            self.deliver();
        }
        true
    }

    /// Makes the record and the workspace. Where one of them cannot be made, the
    /// job is refused: somebody has to be told.
    fn begin(&mut self, mut job: Job) -> Running {
        let basedir = &self.config.results_basedir;
        let created = Record::create(basedir, &job.id, &self.config.agent_id);
        let record = created.unwrap_or_else(|error| {
            let reason = format!(
                "the agent cannot make a record in {}: {error}",
                basedir.display()
            );
            error!("job {}: {reason}", job.id);
            job.refusal = Some(reason);
            Record::unwritten(basedir, &job.id)
        });
        let mut progress = Progress::default();
        progress.apply(&Entry::Taken {
            job_id: job.id.clone(),
            agent_id: self.config.agent_id.clone(),
        });
        let record = Arc::new(record);
        self.uplink.job(Arc::clone(&record), progress);
        let created = Workspace::create(&self.config.execution_basedir, &job);
        let workspace = created.or_else(|error| {
            let basedir = self.config.execution_basedir.display();
            let reason = format!("the agent cannot make a workspace in {basedir}: {error}");
            error!("job {}: {reason}", job.id);
            job.refusal.get_or_insert(reason);
            // Cleanup runs all the same, and nowhere near another job.
            Workspace::create(record.directory(), &job)
        });
        Running {
            job,
            record,
            workspace: workspace.ok(),
            statuses: Vec::new(),
            device_info: DeviceInfo::default(),
            sessions: Vec::new(),
        }
    }

    fn refusal(&self, running: &Running) -> Option<String> {
        let can_allocate = self.config.command(Phase::Allocate).is_some();
        running.job.refused(can_allocate).map(str::to_owned)
    }

    /// All phases but cleanup, until one of them ends the job.
    fn run_phases(&mut self, running: &mut Running) {
        for phase in PHASES {
            if phase == Phase::Cleanup || !running.job.wants(phase) {
                continue;
            }
            if phase == Phase::Provision && self.config.command(phase).is_some() {
                self.check_cancellation();
            }
            if self.cancelled {
                return;
            }
            if self.stopping.is_some() {
                if running.statuses.is_empty() {
                    // Taken, and never begun: somebody has to be told.
                    self.refuse(running, "the agent was told to stop");
                }
                return;
            }
            let Some(status) = self.run_phase(running, phase) else {
                continue;
            };
            if status != 0 && phase != Phase::Test {
                return;
            }
        }
    }

    /// Cleanup runs for every job, also for one that removed the ground under
    /// its feet.
    fn restore_workspace(&self, running: &Running) {
        let Some(workspace) = &running.workspace else {
            return;
        };
        let directory = workspace.directory().display();
        match workspace.restore(&running.job, &running.statuses) {
            Ok(false) => {}
            Ok(true) => info!("the job removed {directory}; it is made anew for the cleanup"),
            Err(error) => warning!("cannot make {directory} anew for the cleanup: {error}"),
        }
    }

    /// A phase that is over is on record before anybody hears of it.
    pub(super) fn ended(&mut self, running: &mut Running, phase: Phase, status: i64) {
        info!(
            "phase {phase} of job {} ended with {status}",
            running.job.id
        );
        self.record(running, &Entry::Ended { phase, status });
        running.statuses.push((phase, status));
        if let Some(workspace) = &running.workspace
            && let Err(error) = workspace.write_outcome(&running.statuses)
        {
            // The job's own doing; it is told what became of the file.
            info!(
                "job {} has no testflinger-outcome.json any more: {error}",
                running.job.id
            );
        }
        if status == RECOVERY_FAILED {
            let id = &running.job.id;
            let comment =
                format!("Set to offline by agent. Recovery failed during job '{id}' execution.");
            warning!("the {phase} phase of job {id} ended with 46: the agent goes offline");
            self.uplink.put_offline(comment.clone());
            self.offline = Some(comment);
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
    fn finish(&mut self, running: Running) {
        self.events.drop_leftovers();
        let artifacts = running.workspace.as_ref().and_then(|workspace| {
            self.keep_artifacts(workspace, &running)
                .unwrap_or_else(|error| {
                    warning!(
                        "cannot keep the artifacts of job {}: {error}; it goes home without",
                        running.job.id
                    );
                    None
                })
        });
        if let Some(workspace) = &running.workspace
            && !self.keep_workspace
            && !artifacts
                .as_ref()
                .is_some_and(|path| path.starts_with(workspace.directory()))
            && let Err(error) = workspace.remove()
        {
            warning!(
                "cannot remove {}: {error}; it can be removed by hand",
                workspace.directory().display()
            );
        }
        if !self.abandoned {
            self.record(&running, &Entry::Finished { artifacts });
        }
    }

    /// Where the job's artifacts are from now on, if it has any.
    fn keep_artifacts(
        &self,
        workspace: &Workspace,
        running: &Running,
    ) -> io::Result<Option<PathBuf>> {
        let from = workspace.artifacts();
        // Whatever the job made of their modes.
        files::open_up(workspace.directory());
        if archive::is_empty(&from).or_else(|_| {
            files::open_up(&from);
            archive::is_empty(&from)
        })? {
            return Ok(None);
        }
        let mut to = running.record.artifacts();
        let mut moved = std::fs::rename(&from, &to);
        if is_denied(&moved) {
            // Moving a directory changes it: its `..`.
            files::open_up(&from);
            moved = std::fs::rename(&from, &to);
        }
        match moved {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                // Beside the workspace for now; the uplink brings them home if
                // they cannot be sent at once.
                to = self
                    .config
                    .execution_basedir
                    .join(format!("{}.artifacts", running.job.id));
                files::remove_tree(&to)?;
                std::fs::rename(&from, &to)?;
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                warning!(
                    "{} belongs to somebody else and stays where it is, to be sent from there",
                    from.display()
                );
                return Ok(Some(from));
            }
            other => other?,
        }
        Ok(Some(to))
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

fn is_denied<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::PermissionDenied)
}
