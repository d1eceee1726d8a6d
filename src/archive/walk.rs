//! A directory's entries in the order in which they are packed: sorted by
//! their bytes, a directory before what is in it.
//!
//! Whoever owns the tree may change it meanwhile, so nothing is reached by a
//! path that could lead elsewhere in the next moment: each directory on the way
//! down is held open, and what is in it is reached through `/proc/self/fd`,
//! which is openat(2) by another name. Links are never followed, and only
//! regular files and directories are opened: to open a device can do harm.

use super::level::Level;
use super::links::Links;
use super::notes::Notes;
use crate::sys::{self, files};
use std::fs::{self, File, FileType, Metadata};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Names that are held at a time, all levels together (about). A level takes
/// half of what is left, and is read again when there are more names in it: ten
/// million files cost time, not memory.
const NAMES: usize = 32_768;

/// Names that a level holds even when the levels above it leave no room.
const FEWEST_NAMES: usize = 64;

/// Directories below each other. Each costs a descriptor, of which a process
/// ordinarily has 1024.
const DEPTH: usize = files::PACKED_LEVELS;

/// So much that is on no disk is packed, in bytes: an image of a disk that is mostly empty
/// is fine, but holes cost their maker nothing, and to pack exabytes of them takes for ever.
const HOLES: u64 = 64 << 30;

/// One thing to be packed.
#[derive(Debug)]
pub(super) struct Entry {
    /// The path in the archive: bytes, since names need not be text.
    pub(super) path: Vec<u8>,
    pub(super) metadata: Metadata,
    pub(super) content: Content,
}

/// What an entry is made of.
#[derive(Debug)]
pub(super) enum Content {
    Directory,
    File(File),
    /// Where the link points, wherever that is.
    Symlink(Vec<u8>),
    /// The path in the archive of the same file.
    HardLink(Vec<u8>),
}

/// The walk; [`Walk::next`] takes the next step.
#[derive(Debug)]
pub(super) struct Walk {
    root: Option<Entry>,
    levels: Vec<Level>,
    links: Links,
    /// Where something is mounted: the paths in the directory, whose path in the archive
    /// has so many bytes.
    mounted: Vec<Vec<u8>>,
    prefix: usize,
    /// How much that is on no disk has been met, in bytes.
    holes: u64,
}

impl Walk {
    /// Starts at a directory, which is called `prefix` in the archive.
    pub(super) fn new(directory: &Path, prefix: &str) -> io::Result<Walk> {
        let (file, metadata) = open(directory)?;
        if !metadata.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let mut level = Level::new(file, prefix.into());
        // At once, so that what makes all of it unreadable is an error.
        level.list(NAMES / 2)?;
        let root = Entry {
            path: prefix.into(),
            metadata,
            content: Content::Directory,
        };
        Ok(Walk {
            root: Some(root),
            levels: vec![level],
            links: Links::default(),
            mounted: sys::mounted_in(directory),
            prefix: prefix.len(),
            holes: 0,
        })
    }

    /// The next entry; what cannot be one becomes a note.
    pub(super) fn next(&mut self, notes: &mut Notes) -> Option<Entry> {
        if let Some(root) = self.root.take() {
            return Some(root);
        }
        loop {
            let held: usize = self.levels.iter().map(Level::held).sum();
            let level = self.levels.last_mut()?;
            let room = (NAMES.saturating_sub(held) / 2).max(FEWEST_NAMES);
            match level.next_name(room) {
                Ok(Some(name)) => {
                    let path = level.path_of(&name);
                    let place = level.place_of(&name);
                    match self.look_at(&place, path.clone(), notes) {
                        Ok(entry) => return Some(entry),
                        Err(error) => notes.say(&path, format_args!("was left out: {error}")),
                    }
                }
                Ok(None) => drop(self.levels.pop()),
                Err(error) => {
                    notes.say(
                        level.path(),
                        format_args!("cannot be listed to its end: {error}"),
                    );
                    self.levels.pop();
                }
            }
        }
    }

    fn look_at(&mut self, place: &Path, path: Vec<u8>, notes: &mut Notes) -> io::Result<Entry> {
        let inside = path.get(self.prefix + 1..).unwrap_or_default();
        if self.mounted.iter().any(|mounted| mounted == inside) {
            return Err(io::Error::other("something is mounted on it"));
        }
        let metadata = fs::symlink_metadata(place)?;
        let kind = metadata.file_type();
        let content = if kind.is_symlink() {
            Content::Symlink(fs::read_link(place)?.into_os_string().into_vec())
        } else if kind.is_dir() {
            return self.enter(place, path, notes);
        } else if !kind.is_file() {
            return Err(io::Error::other(what_else(kind)));
        } else if let Some(stored) = self.links.find(&metadata) {
            Content::HardLink(stored)
        } else {
            let (file, metadata) = open(place)?;
            if !metadata.is_file() {
                return Err(io::Error::other("it became something else"));
            }
            let holes = self.holes.saturating_add(holes(&metadata));
            if holes > HOLES {
                return Err(io::Error::other(format!(
                    "it has {} bytes and next to none of them on a disk",
                    metadata.len()
                )));
            }
            self.holes = holes;
            self.links.remember(&metadata, &path);
            return Ok(Entry {
                path,
                metadata,
                content: Content::File(file),
            });
        };
        Ok(Entry {
            path,
            metadata,
            content,
        })
    }

    fn enter(&mut self, place: &Path, path: Vec<u8>, notes: &mut Notes) -> io::Result<Entry> {
        let (file, metadata) = open(place)?;
        if !metadata.is_dir() {
            return Err(io::Error::other("it became something else"));
        }
        if self.levels.len() < DEPTH {
            self.levels.push(Level::new(file, path.clone()));
        } else {
            notes.say(
                &path,
                format_args!("was left empty: it is {DEPTH} directories deep"),
            );
        }
        Ok(Entry {
            path,
            metadata,
            content: Content::Directory,
        })
    }
}

/// Opens what is there, and says what was opened.
fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let file = files::open_to_pack(path)?;
    let metadata = file.metadata()?;
    Ok((file, metadata))
}

/// How much of a file is on no disk.
fn holes(metadata: &Metadata) -> u64 {
    metadata
        .len()
        .saturating_sub(metadata.blocks().saturating_mul(512))
}

fn what_else(kind: FileType) -> &'static str {
    if kind.is_fifo() {
        "it is a FIFO"
    } else if kind.is_socket() {
        "it is a socket"
    } else {
        "it is a device"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::scratch::Scratch;
    use std::os::unix::fs::symlink;

    fn paths(walk: &mut Walk, notes: &mut Notes) -> Vec<String> {
        std::iter::from_fn(|| walk.next(notes))
            .map(|entry| String::from_utf8(entry.path).unwrap())
            .collect()
    }

    #[test]
    fn a_directory_swapped_for_a_link_is_not_followed() {
        let scratch = Scratch::new();
        let root = scratch.path("artifacts");
        fs::create_dir_all(root.join("a/deep")).unwrap();
        fs::create_dir_all(root.join("b")).unwrap();
        fs::write(root.join("a/deep/inside"), "").unwrap();
        fs::create_dir_all(scratch.path("elsewhere/deep")).unwrap();
        fs::write(scratch.path("elsewhere/deep/secret"), "").unwrap();

        let mut notes = Notes::default();
        let mut walk = Walk::new(&root, "p").unwrap();
        walk.next(&mut notes).unwrap();
        assert_eq!(walk.next(&mut notes).unwrap().path, b"p/a");
        // The walk has entered `a`; now the name `a` leads elsewhere.
        fs::rename(root.join("a"), root.join("c")).unwrap();
        symlink(scratch.path("elsewhere"), root.join("a")).unwrap();
        assert_eq!(
            paths(&mut walk, &mut notes),
            ["p/a/deep", "p/a/deep/inside", "p/b"]
        );
        assert!(notes.sentences().is_empty());
    }

    #[test]
    fn what_goes_away_is_noted() {
        let scratch = Scratch::new();
        fs::write(scratch.path("x"), "").unwrap();
        let mut notes = Notes::default();
        let mut walk = Walk::new(&scratch.path(""), "p").unwrap();
        fs::remove_file(scratch.path("x")).unwrap();
        assert_eq!(paths(&mut walk, &mut notes), ["p"]);
        let sentences = notes.sentences();
        assert!(
            sentences[0].starts_with("\"p/x\" was left out: "),
            "{sentences:?}"
        );
    }

    #[test]
    fn holes_are_packed_up_to_a_limit() {
        let scratch = Scratch::new();
        for (name, length) in [("a", HOLES - 9_000), ("b", HOLES), ("c", 8_000)] {
            let file = File::create(scratch.path(name)).unwrap();
            file.set_len(length).unwrap();
        }
        fs::write(scratch.path("d"), vec![1; 20_000]).unwrap();
        let mut notes = Notes::default();
        let mut walk = Walk::new(&scratch.path(""), "p").unwrap();
        assert_eq!(paths(&mut walk, &mut notes), ["p", "p/a", "p/c", "p/d"]);
        assert_eq!(
            notes.sentences(),
            [format!(
                "\"p/b\" was left out: it has {HOLES} bytes and next to none of them on a disk"
            )]
        );
    }

    #[test]
    fn the_depth_is_bounded() {
        let scratch = Scratch::new();
        let mut place = scratch.path("artifacts");
        for _ in 0..DEPTH + 5 {
            fs::create_dir(&place).unwrap();
            place.push("d");
        }
        let mut notes = Notes::default();
        let mut walk = Walk::new(&scratch.path("artifacts"), "p").unwrap();
        assert_eq!(paths(&mut walk, &mut notes).len(), DEPTH + 1);
        assert_eq!(notes.sentences().len(), 1);
    }

    #[test]
    fn only_a_real_directory_is_walked() {
        let scratch = Scratch::new();
        fs::write(scratch.path("file"), "").unwrap();
        symlink(scratch.path(""), scratch.path("link")).unwrap();
        for name in ["file", "link", "nothing"] {
            assert!(Walk::new(&scratch.path(name), "p").is_err(), "{name}");
        }
    }
}
