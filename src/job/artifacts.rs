//! What a job leaves behind for its owner.

use crate::archive::TarGz;
use crate::sys::{self, files};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Artifacts that wait to be sent: a directory that is packed while it is sent,
/// or a tar.gz that was packed before.
#[derive(Debug)]
pub struct Artifacts {
    path: PathBuf,
    /// What was left out has been said.
    is_said: Arc<AtomicBool>,
}

impl Artifacts {
    /// Those at this path. They may be packed many times; what has to be left
    /// out is said once, as long as `is_said` is the same.
    #[must_use]
    pub fn at(path: PathBuf, is_said: Arc<AtomicBool>) -> Artifacts {
        Artifacts { path, is_said }
    }

    /// The tar.gz, from its start.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn open(&self) -> io::Result<Box<dyn Read>> {
        if fs::symlink_metadata(&self.path)?.is_dir() {
            Ok(Box::new(Noted {
                archive: TarGz::new(&self.path, "artifacts")?,
                is_said: Arc::clone(&self.is_said),
            }))
        } else {
            Ok(Box::new(File::open(&self.path)?))
        }
    }

    /// Packs them into a record's directory, where they survive what happens to
    /// their own file system, and removes them.
    ///
    /// # Errors
    /// When there is no room, or they cannot be read.
    pub fn move_into(&self, record: &Path) -> io::Result<PathBuf> {
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
        self.remove();
        Ok(whole)
    }

    /// Removes them, and the workspace that they may still be in.
    pub fn remove(&self) {
        let removed = sys::remove_tree(&self.path);
        if let Err(error) = removed.or_else(|_| fs::remove_file(&self.path)) {
            crate::warning!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// An archive that says at its end what was left out.
struct Noted {
    archive: TarGz,
    is_said: Arc<AtomicBool>,
}

impl Read for Noted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.archive.read(buffer)?;
        let is_over = read == 0 && !buffer.is_empty();
        if is_over && !self.is_said.swap(true, Ordering::Relaxed) {
            for note in self.archive.notes() {
                crate::warning!("artifacts: {note}");
            }
        }
        Ok(read)
    }
}
