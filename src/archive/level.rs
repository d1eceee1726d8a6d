//! One directory of a walk, held open, and its names in order.
//!
//! The names of an ordinary directory are held at once. Of an enormous one only
//! so many are, the smallest that are yet to come, and it is read again for the
//! next: that costs time and not memory.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A directory on the way from the root to where the walk is.
#[derive(Debug)]
pub(super) struct Level {
    directory: File,
    path: Vec<u8>,
    /// The next names in order.
    names: BTreeSet<OsString>,
    /// The last name of this listing and those before it.
    last: Option<OsString>,
    /// Whether there may be names after `last`.
    more: bool,
}

impl Level {
    /// The names that are to come, of an open directory that has this path in
    /// the archive.
    pub(super) fn new(directory: File, path: Vec<u8>) -> Level {
        Level {
            directory,
            path,
            names: BTreeSet::new(),
            last: None,
            more: true,
        }
    }

    /// The next name; when none is held, up to `room` are read.
    pub(super) fn next_name(&mut self, room: usize) -> io::Result<Option<OsString>> {
        if self.names.is_empty() && self.more {
            self.list(room)?;
        }
        Ok(self.names.pop_first())
    }

    /// Takes the first `room` names after those of the last listing.
    pub(super) fn list(&mut self, room: usize) -> io::Result<()> {
        self.more = false;
        for entry in fs::read_dir(self.place())? {
            let name = entry?.file_name();
            if self.last.as_ref().is_some_and(|last| name <= *last) {
                continue;
            }
            self.names.insert(name);
            if self.names.len() > room {
                self.names.pop_last();
                self.more = true;
            }
        }
        self.last = self.names.last().cloned();
        Ok(())
    }

    /// How many names it holds now.
    pub(super) fn held(&self) -> usize {
        self.names.len()
    }

    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    fn place(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.directory.as_raw_fd()))
    }

    /// Where the file system has this name, whatever happens to the directory.
    pub(super) fn place_of(&self, name: &OsStr) -> PathBuf {
        self.place().join(name)
    }

    /// What this name is called in the archive.
    pub(super) fn path_of(&self, name: &OsStr) -> Vec<u8> {
        [&self.path, name.as_bytes()].join(&b'/')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::scratch::Scratch;

    #[test]
    fn a_listing_in_pieces_is_the_whole_listing() {
        let scratch = Scratch::new();
        for name in 0..100 {
            fs::write(scratch.path(format!("{name:02}")), "").unwrap();
        }
        for room in [1, 7, 99, 100, 101] {
            let file = File::open(scratch.path("")).unwrap();
            let mut level = Level::new(file, Vec::new());
            let names: Vec<OsString> =
                std::iter::from_fn(|| level.next_name(room).unwrap()).collect();
            assert_eq!(names.len(), 100, "{room}");
            assert!(names.is_sorted());
        }
    }
}
