//! Archives: a job's `artifacts/` as a gzip'd tar that is made while it is read, and
//! its attachments as one that is unpacked while it is received.
//!
//! What a job leaves behind may be anything: gigabytes, a million names, files
//! that still change, FIFOs, links to elsewhere. So this room walks by itself,
//! holds a bounded amount of memory whatever it meets, writes no temporary
//! file, and never gives up half-way: what cannot be stored is left out and
//! said in a note. It knows no HTTP and no jobs.

mod header;
mod level;
mod links;
mod notes;
#[cfg(test)]
mod scratch;
mod tar;
mod targz;
mod unpack;
mod walk;

pub use targz::TarGz;
pub use unpack::{Fault, Room, unpack};

use std::fs;
use std::io;
use std::path::Path;

/// Says whether there is nothing to pack: no such directory, nothing in it, or
/// something else under its name (a symbolic link is not followed).
///
/// # Errors
/// When it is there and cannot be read.
pub fn is_empty(directory: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(directory) {
        Ok(metadata) if metadata.is_dir() => {
            let first = fs::read_dir(directory)?.next().transpose()?;
            Ok(first.is_none())
        }
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scratch::Scratch;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_a_directory_with_something_in_it_is_not_empty() {
        let scratch = Scratch::new();
        let directory = scratch.path("artifacts");
        assert!(is_empty(&directory).unwrap());
        fs::create_dir(&directory).unwrap();
        assert!(is_empty(&directory).unwrap());
        fs::write(directory.join("x"), "").unwrap();
        assert!(!is_empty(&directory).unwrap());
        symlink(&directory, scratch.path("link")).unwrap();
        assert!(is_empty(&scratch.path("link")).unwrap());
        assert!(is_empty(&directory.join("x")).unwrap());
    }
}
