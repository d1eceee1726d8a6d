//! Attachments: whatever is in an archive, nothing gets out of its directory, and what
//! is in there is harmless.

use super::Place;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use testflinger_agent::archive::{Room, unpack};

const FOLDERS: &[&str] = &["provision", "firmware_update", "test"];
const BYTES: u64 = 1 << 20;

/// What all files below a directory hold, in bytes.
fn look(directory: &Path) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mode = metadata.mode();
        if metadata.is_dir() {
            assert_eq!(mode & 0o7777, 0o755, "{path:?}");
            bytes += look(&path);
        } else if metadata.is_file() {
            assert_eq!(mode & 0o7022, 0, "{path:?}");
            bytes += metadata.len() / metadata.nlink();
        } else {
            assert!(metadata.is_symlink(), "{path:?}");
        }
    }
    bytes
}

/// No link leads out, also by way of others.
fn follow(top: &Path, directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            follow(top, &path);
        } else if metadata.is_symlink()
            && let Ok(found) = fs::canonicalize(&path)
        {
            assert!(found.starts_with(top), "{path:?} -> {found:?}");
        }
    }
}

/// A tar, as it is and compressed: a fuzzer does not make up a checksum.
pub fn try_it(data: &[u8]) {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::none());
    gzip.write_all(data).unwrap();
    gzip.write_all(&[0; 1024]).unwrap();
    let packed = gzip.finish().unwrap();
    for archive in [data, &packed] {
        let place = Place::new();
        let inside = place.path("in");
        fs::create_dir(&inside).unwrap();
        let room = Room {
            directory: &File::open(&inside).unwrap(),
            folders: FOLDERS,
            owner: None,
            bytes: BYTES,
        };
        let _ = unpack(&mut &*archive, &room);
        assert_eq!(fs::read_dir(place.path("")).unwrap().count(), 1);
        for entry in fs::read_dir(&inside).unwrap() {
            let name = entry.unwrap().file_name();
            assert!(FOLDERS.iter().any(|folder| *folder == name), "{name:?}");
        }
        assert!(look(&inside) <= BYTES);
        let top = fs::canonicalize(&inside).unwrap();
        follow(&top, &top);
    }
}
