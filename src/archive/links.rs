//! Which files of an archive are one file under several names.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// Bytes of names that are remembered. When more are needed, the further names
/// are stored as files of their own: a bigger archive, but a right one.
const ROOM: usize = 1 << 20;

/// The files with several names of which one has been stored.
#[derive(Debug, Default)]
pub(super) struct Links {
    stored: HashMap<(u64, u64), Stored>,
    bytes: usize,
}

#[derive(Debug)]
struct Stored {
    path: Vec<u8>,
    /// Names that may still turn up; at 0 there is nothing left to remember.
    expected: u64,
}

impl Links {
    /// The path under which this very file is in the archive already.
    pub(super) fn find(&mut self, metadata: &Metadata) -> Option<Vec<u8>> {
        let key = (metadata.dev(), metadata.ino());
        let stored = self.stored.get_mut(&key)?;
        stored.expected -= 1;
        if stored.expected > 0 {
            return Some(stored.path.clone());
        }
        let stored = self.stored.remove(&key)?;
        self.bytes -= stored.path.len();
        Some(stored.path)
    }

    /// Remembers a regular file that goes into the archive with its content.
    pub(super) fn remember(&mut self, metadata: &Metadata, path: &[u8]) {
        let expected = metadata.nlink().saturating_sub(1);
        if expected == 0 || self.bytes + path.len() > ROOM {
            return;
        }
        self.bytes += path.len();
        let key = (metadata.dev(), metadata.ino());
        let path = path.to_vec();
        self.stored.insert(key, Stored { path, expected });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::scratch::Scratch;
    use std::fs;

    #[test]
    fn a_file_is_forgotten_with_its_last_name() {
        let scratch = Scratch::new();
        let (one, two) = (scratch.path("one"), scratch.path("two"));
        fs::write(&one, "x").unwrap();
        let mut links = Links::default();
        links.remember(&fs::metadata(&one).unwrap(), b"one");
        assert!(links.stored.is_empty());

        fs::hard_link(&one, &two).unwrap();
        let metadata = fs::metadata(&one).unwrap();
        links.remember(&metadata, b"one");
        assert_eq!(links.find(&metadata).unwrap(), b"one");
        assert_eq!(links.find(&metadata), None);
        assert_eq!(links.bytes, 0);
    }

    #[test]
    fn the_table_is_bounded() {
        let scratch = Scratch::new();
        let (one, two) = (scratch.path("one"), scratch.path("two"));
        fs::write(&one, "x").unwrap();
        fs::hard_link(&one, &two).unwrap();
        let metadata = fs::metadata(&one).unwrap();
        let mut links = Links::default();
        links.remember(&metadata, &vec![b'n'; ROOM + 1]);
        assert_eq!(links.find(&metadata), None);
    }
}
