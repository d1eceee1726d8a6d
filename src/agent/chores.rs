//! What takes long on a slow card: making and removing a job's files. It is done
//! on a thread, while the main loop turns: no signal waits for it, and nobody
//! takes the agent for dead. What never ends is left to itself after a while.

use super::{Agent, Event};
use crate::archive;
use crate::child::Secrets;
use crate::job::{Job, Phase, Record, Workspace};
use crate::sys::{self, User, files};
use crate::{error, warning};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// No chore takes as long as this, not even with a million files on a slow card: whatever
/// it waits for does not answer.
const PATIENCE: Duration = Duration::from_secs(900);
/// The same when somebody waits for the end of the job.
const WHEN_CANCELLED: Duration = Duration::from_secs(300);
/// The same when the agent is to stop: supervisors wait for two minutes, and the end of
/// a job needs up to 100 seconds of that.
const WHEN_STOPPING: Duration = Duration::from_secs(20);
/// The same when it has to end at once.
const WHEN_ABANDONED: Duration = Duration::from_secs(5);

type Chore = Box<dyn FnOnce() + Send>;

impl Agent {
    /// Does a chore in this place while everything else goes on, and waits for its end.
    /// `None` when it takes too long: it is left to itself then, which is said.
    pub(super) fn meanwhile<T: Send + 'static>(
        &mut self,
        doing: &str,
        place: &Path,
        chore: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let result = Arc::new(Mutex::new(None));
        let kept = Arc::clone(&result);
        let chore = Box::new(move || {
            let done = chore();
            *lock(&kept) = Some(done);
        });
        self.wait_for(doing, place, chore);
        lock(&result).take()
    }

    fn wait_for(&mut self, doing: &str, place: &Path, chore: Chore) {
        let chore = Arc::new(Mutex::new(Some(chore)));
        let handed_over = Arc::clone(&chore);
        let started = sys::pipe().and_then(|(pipe, held)| {
            let thread = thread::Builder::new().name("chore".into());
            thread.spawn(move || {
                // It may be there for long: a signal is for the main thread.
                let _ = sys::hold_signals();
                run(&handed_over);
                // Its end is what can be waited for.
                drop(held);
            })?;
            Ok(pipe)
        });
        let Ok(pipe) = started else {
            // No descriptor or no thread to be had.
            return run(&chore);
        };
        let mut patience = self.patience();
        let mut deadline = Instant::now() + patience;
        loop {
            match self.next(Some(&pipe), Some(deadline)) {
                Event::Output => return,
                Event::Deadline => break,
                Event::Uplink(event) => self.note(&event),
                Event::Signal(signal) => self.signal(signal),
                Event::Ended(_) | Event::Changed => {}
            }
            if self.patience() < patience {
                patience = self.patience();
                deadline = deadline.min(Instant::now() + patience);
            }
        }
        if !self.abandoned {
            error!(
                "{doing} {} takes too long, as if nobody answered there: going on without",
                place.display()
            );
        }
    }

    /// How long a chore is waited for.
    fn patience(&self) -> Duration {
        if self.abandoned {
            WHEN_ABANDONED
        } else if self.stopping.is_some() {
            WHEN_STOPPING
        } else if self.cancelled {
            WHEN_CANCELLED
        } else {
            PATIENCE
        }
    }
}

fn run(chore: &Mutex<Option<Chore>>) {
    let taken = lock(chore).take();
    if let Some(chore) = taken {
        chore();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a job has on the disk, and what nobody may see of it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) job: Job,
    pub(super) record: Record,
    pub(super) workspace: Option<Workspace>,
    pub(super) secrets: Secrets,
}

/// Makes the record and the workspace. Where one of them cannot be made, the job
/// is refused: somebody has to be told.
pub(super) fn make_place(
    mut job: Job,
    agent_id: &str,
    results_basedir: &Path,
    execution_basedir: &Path,
    user: Option<&User>,
) -> Place {
    let created = Record::create(results_basedir, &job.id, agent_id, &job.text);
    let record = created.unwrap_or_else(|error| {
        let reason = format!(
            "the agent cannot make a record in {}: {error}",
            results_basedir.display()
        );
        error!("job {}: {reason}", job.id);
        job.refusal = Some(reason);
        Record::unwritten(results_basedir, &job.id)
    });
    let created = Workspace::create(execution_basedir, &job, user.cloned());
    let workspace = created.or_else(|error| {
        let basedir = execution_basedir.display();
        let reason = format!("the agent cannot make a workspace in {basedir}: {error}");
        error!("job {}: {reason}", job.id);
        job.refusal.get_or_insert(reason);
        // Cleanup runs all the same, and nowhere near another job.
        Workspace::create(record.directory(), &job, user.cloned())
    });
    Place {
        secrets: Secrets::new(job.secrets.values()),
        job,
        record,
        workspace: workspace.ok(),
    }
}

/// Makes durable what a phase has left: its logs, and the artifacts so far. A phase
/// that is said to have ended has them also after a power cut.
///
/// # Errors
/// When the disk does not take it.
pub(super) fn sync_outcome(
    record: &Record,
    artifacts: Option<&Path>,
    phase: Phase,
) -> io::Result<()> {
    let artifacts = artifacts
        .filter(|path| !is_mounted_on(path) && matches!(archive::is_empty(path), Ok(false)));
    let Some(artifacts) = artifacts else {
        return record.sync_logs(phase);
    };
    files::sync_file_system(artifacts)?;
    if fs::metadata(artifacts)?.dev() != fs::metadata(record.directory())?.dev() {
        record.sync_logs(phase)?;
    }
    Ok(())
}

/// What is still needed moves into the record. Where the job's artifacts are from now on,
/// if it has any: `beside` the workspace where the record is on another file system. An
/// earlier life of the agent may have come as far as that with a job that was taken up
/// again.
pub(super) fn keep_what_is_needed(
    job_id: &str,
    record: &Record,
    workspace: &Workspace,
    beside: PathBuf,
    is_taken_up: bool,
) -> Option<PathBuf> {
    let kept = keep_artifacts(workspace, record, &beside);
    let artifacts = kept.unwrap_or_else(|error| {
        warning!("cannot keep the artifacts of job {job_id}: {error}; it goes home without");
        None
    });
    let moved = || {
        [record.artifacts(), beside]
            .into_iter()
            .find(|place| place.is_dir())
    };
    let artifacts = artifacts.or_else(|| if is_taken_up { moved() } else { None });
    artifacts.filter(|path| {
        let looked_at = remove_what_is_another_s(path, workspace.owner());
        looked_at
            .inspect_err(|error| {
                warning!("the artifacts of job {job_id} are not sent: {error}");
            })
            .is_ok()
    })
}

/// The workspace goes, but for artifacts that are sent from there.
pub(super) fn remove(workspace: &Workspace, has_artifacts: bool) {
    let removed = match has_artifacts {
        true => workspace.remove_all_but_artifacts(),
        false => workspace.remove(),
    };
    if let Err(error) = removed {
        warning!(
            "cannot remove {}: {error}; it can be removed by hand",
            workspace.directory().display()
        );
    }
}

/// Takes the artifacts out of the workspace; `beside` it where the record is on
/// another file system.
fn keep_artifacts(
    workspace: &Workspace,
    record: &Record,
    beside: &Path,
) -> io::Result<Option<PathBuf>> {
    let from = workspace.artifacts();
    if is_mounted_on(&from) {
        return Err(io::Error::other("something is mounted on them"));
    }
    // Whatever the job made of their modes.
    files::open_up(workspace.directory());
    if fs::symlink_metadata(&from).is_ok_and(|metadata| !metadata.is_dir()) {
        return Err(io::Error::other(
            "they are no directory, and a link to one is not followed",
        ));
    }
    if archive::is_empty(&from).or_else(|_| {
        files::open_up(&from);
        archive::is_empty(&from)
    })? {
        return Ok(None);
    }
    let mut to = record.artifacts();
    let mut moved = change_place(&from, &to);
    if matches!(&moved, Err(error) if error.kind() == io::ErrorKind::CrossesDevices) {
        // There for now; the uplink brings them home if they cannot be sent at once.
        to = beside.to_owned();
        sys::remove_tree(&to)?;
        moved = change_place(&from, &to);
    }
    match moved {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            warning!(
                "{} belongs to somebody else and stays where it is, to be sent from there",
                from.display()
            );
            to = from;
        }
        other => {
            other?;
            // Before it is on record that they are there; in the record, with that.
            if to == beside
                && let Err(error) = to.parent().map_or(Ok(()), files::sync_directory)
            {
                warning!("cannot sync the directory of {}: {error}", to.display());
            }
        }
    }
    Ok(Some(to))
}

/// Looks at the artifacts where only the agent can put others in their place: before, a
/// process of the job's user could, if it has one of its own.
fn remove_what_is_another_s(artifacts: &Path, owner: Option<u32>) -> io::Result<()> {
    let Some(owner) = owner else { return Ok(()) };
    let metadata = fs::symlink_metadata(artifacts)?;
    if !metadata.is_dir() || metadata.uid() != owner {
        return Err(io::Error::other("they are no directory of the job's user"));
    }
    // Whose that is nobody can tell, and it may not answer.
    if !sys::mounted_in(artifacts).is_empty() {
        return Err(io::Error::other("something is mounted in them"));
    }
    let removed = files::remove_what_others_own(artifacts, owner)?;
    if removed > 0 {
        warning!(
            "{removed} files of {} belong to another user than the job's, and are not sent",
            artifacts.display()
        );
    }
    Ok(())
}

/// Moves a directory, whatever the job made of its mode: to move it changes it, its `..`.
fn change_place(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            files::open_up(from);
            fs::rename(from, to)
        }
        other => other,
    }
}

/// What is mounted there cannot be moved, and is not touched: its server may be gone.
fn is_mounted_on(directory: &Path) -> bool {
    sys::mounted_in(directory).iter().any(Vec::is_empty)
}
