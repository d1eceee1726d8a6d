//! The lock of an agent's id: no two agents of one id run in one `results_basedir`.

use super::StartError;
use crate::sys::files;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// A fork of an agent that was killed has its lock until it becomes the command that it
/// was made for.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks whether it is given back.
const LOOK: Duration = Duration::from_millis(20);

/// The lock that is held. It is given back when this is dropped, also by a crash; the
/// file stays.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    file: File,
}

impl Lock {
    /// Takes it. Where somebody has it, that may change within `patience`.
    ///
    /// # Errors
    /// When it stays with another agent, or there can be no such file.
    pub(super) fn take(
        basedir: &Path,
        agent_id: &str,
        patience: Duration,
    ) -> Result<Lock, StartError> {
        let path = basedir.join(format!(".{}.lock", files::escape_name(agent_id)));
        let missing = |error: io::Error| {
            StartError::Missing(format!("cannot lock {}: {error}", path.display()))
        };
        let mut file = files::open_append(&path).map_err(missing)?;
        let deadline = Instant::now() + patience;
        let mut locked = file.try_lock();
        while matches!(locked, Err(TryLockError::WouldBlock)) && Instant::now() < deadline {
            thread::sleep(LOOK);
            locked = file.try_lock();
        }
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&path).unwrap_or_default();
                let holder = match holder.trim() {
                    "" => String::new(),
                    pid => format!(" (process {pid:.20})"),
                };
                return Err(StartError::Locked(format!(
                    "another agent with the agent_id {agent_id} runs{holder}: it holds {}",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(missing(error)),
        }
        // For people and for the message above; nobody else reads it.
        let _ = file
            .set_len(0)
            .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
        Ok(Lock { path, file })
    }

    /// Takes it anew where somebody has removed its file: whoever starts next would not
    /// find it.
    ///
    /// # Errors
    /// When another agent has been faster. What else is in the way of it may be gone the
    /// next time; until then, it is as it was.
    pub(super) fn keep(&mut self, agent_id: &str) -> Result<(), StartError> {
        let is_in_place = files::is_same_file(&self.path, &self.file);
        let basedir = self.path.parent().filter(|_| !is_in_place);
        let taken = basedir.map(|basedir| Lock::take(basedir, agent_id, Duration::ZERO));
        match taken {
            Some(Ok(lock)) => *self = lock,
            Some(Err(error @ StartError::Locked(_))) => return Err(error),
            Some(Err(StartError::Missing(_))) | None => {}
        }
        Ok(())
    }
}
