//! What a job leaves behind for its owner.

use super::Record;
use crate::archive::TarGz;
use crate::sys::{self, files};
use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
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

    /// Removes them, and the workspace that they may still be in.
    pub fn remove(&self) {
        let is_directory = |metadata: fs::Metadata| metadata.is_dir();
        let removed = match fs::symlink_metadata(&self.path).is_ok_and(is_directory) {
            true => sys::remove_tree(&self.path),
            false => fs::remove_file(&self.path),
        };
        if let Err(error) = removed {
            crate::warning!("cannot remove {}: {error}", self.path.display());
        }
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
