//! What a job leaves behind for its owner.

use crate::archive::TarGz;
use crate::sys::files;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Artifacts that wait to be sent: a directory that is packed while it is sent,
/// or a tar.gz that was packed before.
#[derive(Debug)]
pub struct Artifacts(PathBuf);

impl Artifacts {
    /// Those at this path.
    #[must_use]
    pub fn at(path: PathBuf) -> Artifacts {
        Artifacts(path)
    }

    /// The tar.gz, from its start.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn open(&self) -> io::Result<Box<dyn Read>> {
        if fs::symlink_metadata(&self.0)?.is_dir() {
            Ok(Box::new(Noted {
                archive: TarGz::new(&self.0, "artifacts")?,
                is_said: false,
            }))
        } else {
            Ok(Box::new(File::open(&self.0)?))
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
        let removed = files::remove_tree(&self.0);
        if let Err(error) = removed.or_else(|_| fs::remove_file(&self.0)) {
            crate::warning!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// An archive that says at its end what was left out.
struct Noted {
    archive: TarGz,
    is_said: bool,
}

impl Read for Noted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.archive.read(buffer)?;
        if read == 0 && !buffer.is_empty() && !self.is_said {
            self.is_said = true;
            for note in self.archive.notes() {
                crate::warning!("artifacts: {note}");
            }
        }
        Ok(read)
    }
}
