//! What a job leaves behind for its owner.

use super::Record;
use super::record::REMOVING;
use super::workspace::ARTIFACTS;
use crate::archive::TarGz;
use crate::sys::{self, files};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Artifacts that wait to be sent: a directory that is packed while it is sent,
/// or a tar.gz that was packed before.
#[derive(Debug)]
pub struct Artifacts {
    path: PathBuf,
    record: Arc<Record>,
    /// What was left out has been said.
    is_said: Arc<AtomicBool>,
}

impl Artifacts {
    /// Those at this path, of a job with this record. They may be packed many times;
    /// what has to be left out is said once, as long as `is_said` is the same.
    #[must_use]
    pub fn at(path: PathBuf, record: Arc<Record>, is_said: Arc<AtomicBool>) -> Artifacts {
        Artifacts {
            path,
            record,
            is_said,
        }
    }

    /// The tar.gz, from its start.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn open(&self) -> io::Result<Box<dyn Read>> {
        if fs::symlink_metadata(&self.path)?.is_dir() {
            Ok(Box::new(Noted {
                archive: TarGz::new(&self.path, "artifacts")?,
                record: Arc::clone(&self.record),
                is_said: Arc::clone(&self.is_said),
            }))
        } else {
            Ok(Box::new(files::open_regular(&self.path)?))
        }
    }

    /// Packs them into the record's directory, where they survive what happens to
    /// their own file system. Where they were they stay, until the journal knows better.
    ///
    /// # Errors
    /// When there is no room, or they cannot be read.
    pub fn pack_into_record(&self) -> io::Result<PathBuf> {
        let record = self.record.directory();
        let (partial, whole) = (
            record.join("artifacts.partial"),
            record.join("artifacts.tar.gz"),
        );
        let mut file = files::create_fresh(&partial)?;
        let packed = io::copy(&mut self.open()?, &mut file).and_then(|_| file.sync_all());
        if let Err(error) = packed {
            let _ = fs::remove_file(&partial);
            return Err(error);
        }
        fs::rename(&partial, &whole)?;
        files::sync_directory(record)?;
        Ok(whole)
    }

    /// Removes them, whole or not at all where they are, and what is left of the
    /// workspace that they may still be in.
    pub fn remove(&self) {
        remove_artifacts(&self.path);
    }
}

/// See [`Artifacts::remove`]; also of those that are half removed, or not there.
pub fn remove_artifacts(path: &Path) {
    let name = path.file_name().unwrap_or_default();
    let name = name.to_string_lossy() + REMOVING;
    let removing = path.with_file_name(&*name);
    // What a power cut leaves of them must not be sent: the disk may not know that
    // the server has them.
    let renamed = sys::remove_tree(&removing).and_then(|()| fs::rename(path, &removing));
    let removed = match renamed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.and_then(|()| sys::remove_tree(&removing)),
    };
    if let Err(error) = removed {
        crate::warning!("cannot remove {}: {error}", path.display());
    } else if path.ends_with(ARTIFACTS)
        && let Some(workspace) = path.parent()
    {
        // Not if there is anything in it: it was kept, or is the record.
        let _ = fs::remove_dir(workspace);
    }
}

/// An archive that says at its end what was left out.
struct Noted {
    archive: TarGz,
    record: Arc<Record>,
    is_said: Arc<AtomicBool>,
}

impl Read for Noted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.archive.read(buffer)?;
        let is_over = read == 0 && !buffer.is_empty();
        if is_over && !self.is_said.swap(true, Ordering::Relaxed) {
            let notes = self.archive.notes();
            // Names may hold anything, and the job may be over long since.
            let secrets = match notes.is_empty() {
                true => Arc::default(),
                false => self.record.secrets(),
            };
            for note in notes {
                crate::warning!("artifacts: {}", secrets.masked(&note));
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{ID, basedir};
    use super::*;

    /// And nothing else: what is kept beside a workspace has nothing around it.
    #[test]
    fn an_empty_workspace_goes_with_its_artifacts() {
        let basedir = basedir("around");
        let record = Arc::new(Record::create(&basedir, ID, "a", "{}").unwrap());
        let is_gone_with = |place: &str, more: &str| {
            let path = basedir.join("run").join(place);
            let around = path.with_file_name("");
            fs::create_dir_all(&path).unwrap();
            if !more.is_empty() {
                fs::write(around.join(more), "").unwrap();
            }
            Artifacts::at(path.clone(), Arc::clone(&record), Arc::default()).remove();
            assert!(!path.exists());
            !around.exists()
        };
        assert!(is_gone_with("job/artifacts", ""));
        // And what an earlier removal left of them.
        assert!(is_gone_with("job/artifacts", "artifacts.removing"));
        assert!(!is_gone_with("job/artifacts", "kept"));
        fs::remove_dir_all(basedir.join("run")).unwrap();
        assert!(!is_gone_with("job.artifacts", ""));
        fs::remove_dir_all(basedir).unwrap();
    }
}
