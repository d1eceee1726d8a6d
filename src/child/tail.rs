//! A file that something else writes, read as it grows.

use super::{OutputFile, Secrets};
use crate::sys::files;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;

/// What is read in one look: more waits for the next one.
const ONE_LOOK: usize = 256 << 10;

/// A text file, such as a serial log, that belongs to somebody else: it may not
/// be there yet, be a link or a FIFO, be cut short or replaced.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    /// Where what was read is kept, and how much of that.
    kept: PathBuf,
    limit: u64,
    secrets: Arc<Secrets>,
    /// To whom it has to belong.
    owner: Option<u32>,
    open: Option<Open>,
    /// There was more than one look reads.
    behind: bool,
    /// Bytes that are still read, once nothing more is to come.
    left: Option<u64>,
    /// Why nothing could be read yet.
    fault: Option<String>,
}

#[derive(Debug)]
struct Open {
    /// Which file it is.
    inode: u64,
    file: File,
    /// Bytes read of this file, and of all that stood there.
    read: u64,
    total: u64,
    output: OutputFile,
}

impl Tail {
    /// Reads the file at `path` as it grows and keeps `limit` bytes of its text
    /// at `kept`, without these secrets.
    #[must_use]
    pub fn new(path: PathBuf, kept: PathBuf, limit: u64, secrets: Arc<Secrets>) -> Tail {
        Tail {
            path,
            kept,
            limit,
            secrets,
            owner: None,
            open: None,
            behind: false,
            left: None,
            fault: None,
        }
    }

    /// The same, if the file belongs to this user: none other's is read.
    #[must_use]
    pub fn owned_by(mut self, owner: Option<u32>) -> Tail {
        self.owner = owner;
        self
    }

    /// Reads what is new; how much is kept now, if that is more than before.
    pub fn look(&mut self) -> Option<u64> {
        if !self.has_room() {
            self.behind = false;
            return None;
        }
        let before = self.length();
        // What cannot be read now may be read at the next look.
        let read = self.read_some();
        self.behind = matches!(read, Ok(ONE_LOOK));
        self.grown(before)
    }

    /// Whether the last look did not come to the end.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.behind
    }

    /// Nothing more is to come: only what is there at this moment is still read, so that
    /// whoever goes on writing keeps nobody.
    pub fn end_here(&mut self) {
        let now = files::open_regular_of(&self.path, self.owner);
        let now = now.and_then(|file| file.metadata()).ok();
        let length = now.as_ref().map_or(0, MetadataExt::size);
        let left = self.open.as_ref().map_or(length, |open| {
            let own = open.file.metadata().map_or(0, |metadata| metadata.len());
            let is_same = now.is_none_or(|now| now.ino() == open.inode && length >= open.read);
            let others = if is_same { 0 } else { length };
            own.saturating_sub(open.read).saturating_add(others)
        });
        self.left = Some(left);
    }

    /// Reads all that is left, within the limit.
    pub fn finish(&mut self) -> Option<u64> {
        if self.left.is_none() {
            self.end_here();
        }
        let before = self.length();
        while self.has_room() && matches!(self.read_some(), Ok(1..)) {}
        if let Some(open) = &mut self.open {
            let length = open.file.metadata().map_or(0, |metadata| metadata.len());
            let rest = length.saturating_sub(open.read);
            open.output
                .leave_out(rest.min(self.left.unwrap_or_default()));
            open.output.finish();
        }
        self.grown(before)
    }

    /// Why what is there is of no use, if nothing of it could be read.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Bytes of text that are missing because the disk did not take them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.output.lost())
    }

    /// What is beyond the limit need not be read: a file of terabytes takes a
    /// moment to make.
    fn has_room(&self) -> bool {
        self.open
            .as_ref()
            .is_none_or(|open| open.total <= self.limit)
    }

    fn length(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.output.length())
    }

    fn grown(&self, before: u64) -> Option<u64> {
        Some(self.length()).filter(|length| *length > before)
    }

    fn read_some(&mut self) -> io::Result<usize> {
        let Some(open) = &mut self.open else {
            let file = files::open_regular_of(&self.path, self.owner).inspect_err(|error| {
                let is_there = error.kind() != io::ErrorKind::NotFound;
                self.fault = is_there.then(|| error.to_string());
            })?;
            self.fault = None;
            self.open = Some(Open {
                inode: file.metadata()?.ino(),
                file,
                read: 0,
                total: 0,
                output: OutputFile::open(&self.kept, None, self.limit, &self.secrets)?,
            });
            return self.read_some();
        };
        let left = self
            .left
            .map(|left| usize::try_from(left).unwrap_or(usize::MAX));
        let mut buffer = vec![0; left.map_or(ONE_LOOK, |left| left.min(ONE_LOOK))];
        let read = open.file.read_at(&mut buffer, open.read)?;
        if read > 0 {
            open.read += read as u64;
            open.total += read as u64;
            self.left = self.left.map(|left| left.saturating_sub(read as u64));
            open.output.bytes(buffer.get(..read).unwrap_or_default());
            return Ok(read);
        }
        if left == Some(0) {
            return Ok(0);
        }
        // Cut short, or another file by now: what is there is new.
        let now = files::open_regular_of(&self.path, self.owner)?;
        let metadata = now.metadata()?;
        if metadata.ino() != open.inode || metadata.len() < open.read {
            open.inode = metadata.ino();
            open.file = now;
            open.read = 0;
            if metadata.len() > 0 {
                return self.read_some();
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_is_followed_whatever_becomes_of_it() {
        let directory = std::env::temp_dir().join(format!("tfa-tail-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (path, kept) = (directory.join("serial"), directory.join("kept"));
        let mut tail = Tail::new(path.clone(), kept.clone(), 100, Arc::default());
        let text = || fs::read_to_string(&kept).unwrap_or_default();
        assert_eq!(tail.look(), None, "there is no file yet");
        fs::write(&path, b"one \xe2\x82").unwrap();
        assert_eq!(tail.look(), Some(4));
        assert_eq!(tail.look(), None, "nothing is new");
        fs::write(&path, b"one \xe2\x82\xac").unwrap();
        assert_eq!(tail.look(), Some(7));
        assert_eq!(text(), "one €");
        fs::write(&path, "cut").unwrap();
        assert_eq!(tail.look(), Some(10));
        fs::rename(&path, directory.join("old")).unwrap();
        fs::write(&path, "other file").unwrap();
        assert_eq!(tail.look(), Some(20));
        fs::remove_file(&path).unwrap();
        assert_eq!(tail.look(), None);
        fs::write(&path, "x".repeat(200)).unwrap();
        tail.finish();
        assert!(text().starts_with("one €cutother filexxxx"));
        assert!(text().ends_with("output_limit is 100]\n"), "{}", text());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_is_written_after_the_end_is_not_read() {
        let directory = std::env::temp_dir().join(format!("tfa-end-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (path, kept) = (directory.join("serial"), directory.join("kept"));
        let tail = || {
            let _ = fs::remove_file(&kept);
            Tail::new(path.clone(), kept.clone(), 100, Arc::default())
        };
        let text = || fs::read_to_string(&kept).unwrap();
        for (looked_at, then, expected) in [
            ("", "until the end, and on", "until the"),
            ("until ", "until the end, and on", "until the"),
            ("until the", "until the end, and on", "until the"),
            // Another text, longer than what was left to be read.
            (
                "what was before",
                "until the end",
                "what was beforeuntil the",
            ),
        ] {
            let mut tail = tail();
            if !looked_at.is_empty() {
                fs::write(&path, looked_at).unwrap();
                tail.look();
            }
            fs::write(&path, "until the").unwrap();
            tail.end_here();
            fs::write(&path, then).unwrap();
            tail.finish();
            assert_eq!(text(), expected, "{looked_at:?}");
            let _ = fs::remove_file(&path);
        }
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_link_is_not_followed() {
        let directory = std::env::temp_dir().join(format!("tfa-link-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("serial");
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        let mut tail = Tail::new(path, directory.join("kept"), 100, Arc::default());
        assert_eq!(tail.look(), None);
        assert_eq!(tail.finish(), None);
        assert_eq!(tail.fault(), Some("it is a symbolic link"));
        fs::remove_dir_all(directory).unwrap();
    }
}
