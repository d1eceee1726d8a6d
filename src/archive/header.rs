//! One entry of an archive to the blocks that announce it.

use super::walk::{Content, Entry};
use std::os::unix::fs::MetadataExt;
use tar::{EntryType, Header};

/// Everything in a tar comes in blocks of this many bytes.
pub(super) const BLOCK: usize = 512;

/// Bytes of a name that fit into a header itself (GNU needs no NUL at its end).
const SHORT: usize = 100;

/// The name under which GNU tar announces a longer one.
const LONG_LINK: &[u8] = b"././@LongLink";

/// The header of an entry, with the records of long names before it.
pub(super) fn header(entry: &Entry) -> Vec<u8> {
    let metadata = &entry.metadata;
    let mut path = entry.path.clone();
    let (kind, target, size) = match &entry.content {
        Content::Directory => {
            path.push(b'/');
            (EntryType::Directory, &[][..], 0)
        }
        Content::File(_) => (EntryType::Regular, &[][..], metadata.size()),
        Content::Symlink(target) => (EntryType::Symlink, &target[..], 0),
        Content::HardLink(target) => (EntryType::Link, &target[..], 0),
    };

    let mut blocks = Vec::with_capacity(BLOCK);
    if target.len() > SHORT {
        long_name(&mut blocks, EntryType::GNULongLink, target);
    }
    if path.len() > SHORT {
        long_name(&mut blocks, EntryType::GNULongName, &path);
    }
    let mut header = named(kind, &path, target);
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(metadata.uid().into());
    header.set_gid(metadata.gid().into());
    // A time before 1970 has no portable form.
    header.set_mtime(metadata.mtime().try_into().unwrap_or(0));
    header.set_size(size);
    header.set_cksum();
    blocks.extend_from_slice(header.as_bytes());
    blocks
}

/// A record that carries a name too long for a header, with a NUL at its end.
fn long_name(blocks: &mut Vec<u8>, kind: EntryType, name: &[u8]) {
    let mut header = named(kind, LONG_LINK, b"");
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(name.len() as u64 + 1);
    header.set_cksum();
    blocks.extend_from_slice(header.as_bytes());
    blocks.extend_from_slice(name);
    blocks.push(0);
    blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
}

/// A header with the names as they are, cut to what fits. The crate's setters
/// refuse names that are absolute or hold `..`, and a link's target may.
fn named(kind: EntryType, path: &[u8], target: &[u8]) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    let fields = header.as_old_mut();
    for (field, byte) in fields.name.iter_mut().zip(path) {
        *field = *byte;
    }
    for (field, byte) in fields.linkname.iter_mut().zip(target) {
        *field = *byte;
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::scratch::Scratch;
    use std::fs::{self, File};
    use std::time::{Duration, SystemTime};

    #[test]
    fn numbers_that_octal_cannot_hold_are_written_all_the_same() {
        let scratch = Scratch::new();
        let path = scratch.path("big");
        let file = File::create(&path).unwrap();
        file.set_len(9 << 30).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH - Duration::from_secs(1000))
            .unwrap();
        // Only root may give a file away.
        let given = std::os::unix::fs::chown(&path, Some(3_000_000_000), Some(3_000_000_000));
        let metadata = fs::metadata(&path).unwrap();
        let blocks = header(&Entry {
            path: vec![b'n'; SHORT],
            metadata,
            content: Content::File(file),
        });
        assert_eq!(blocks.len(), BLOCK);
        let mut archive = tar::Archive::new(&blocks[..]);
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.header().size().unwrap(), 9 << 30);
        assert_eq!(entry.header().mtime().unwrap(), 0);
        if given.is_ok() {
            assert_eq!(entry.header().uid().unwrap(), 3_000_000_000);
            assert_eq!(entry.header().gid().unwrap(), 3_000_000_000);
        }
        assert_eq!(*entry.path_bytes(), [b'n'; SHORT]);
    }
}
