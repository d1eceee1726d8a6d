//! The tar, compressed: what is sent, or kept in the record.

use super::tar::Tar;
use flate2::Compression;
use flate2::bufread::GzEncoder;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// Bytes that are handed on at a time, before and after the compressor. Less
/// costs calls, more fills the caches of small machines.
const BUFFER: usize = 64 * 1024;

/// A directory as `.tar.gz`, made while it is read: constant memory, no
/// temporary file, no thread. The same tree gives the same bytes, however they
/// are read.
#[derive(Debug)]
pub struct TarGz(BufReader<GzEncoder<BufReader<Tar>>>);

impl TarGz {
    /// Begins to pack a directory, which is called `prefix` in the archive.
    ///
    /// # Errors
    /// When it is not a directory (a symbolic link is none) or cannot be
    /// listed. What goes wrong later is left out and is in the notes: reading
    /// does not fail.
    pub fn new(directory: &Path, prefix: &str) -> io::Result<TarGz> {
        let tar = BufReader::with_capacity(BUFFER, Tar::new(directory, prefix)?);
        // Level 1 packs logs to a quarter at several times the speed of the
        // usual 6: on a small controller the processor is what is scarce.
        let gzip = GzEncoder::new(tar, Compression::fast());
        Ok(TarGz(BufReader::with_capacity(BUFFER, gzip)))
    }

    /// What was left out or is not as it was, a sentence each; the first 20,
    /// and the number of the others. Complete once all has been read.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.0.get_ref().get_ref().get_ref().notes()
    }
}

impl Read for TarGz {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Through the buffer, always: a large read would go past it, and the
        // compressor's output depends on how much it may write at a time.
        let ready = self.0.fill_buf()?;
        let length = ready.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..length), ready.get(..length)) {
            to.copy_from_slice(from);
        }
        self.0.consume(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::scratch::Scratch;
    use flate2::read::GzDecoder;
    use std::ffi::OsStr;
    use std::fs::{self, File};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::process::Command;
    use std::time::{Duration, SystemTime};

    fn pack(directory: &Path) -> (Vec<u8>, Vec<String>) {
        let mut packed = Vec::new();
        let mut targz = TarGz::new(directory, "artifacts").unwrap();
        targz.read_to_end(&mut packed).unwrap();
        (packed, targz.notes())
    }

    /// Unpacks with the tar that users have.
    fn unpack(packed: &[u8], scratch: &Scratch) -> PathBuf {
        fs::write(scratch.path("packed.tar.gz"), packed).unwrap();
        fs::create_dir(scratch.path("unpacked")).unwrap();
        run(Command::new("tar")
            .arg("-C")
            .arg(scratch.path("unpacked"))
            .arg("-xpzf")
            .arg(scratch.path("packed.tar.gz")));
        scratch.path("unpacked/artifacts")
    }

    fn run(command: &mut Command) -> Vec<u8> {
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.is_empty(), "{errors}");
        output.stdout
    }

    /// All that an archive should bring back, a line an entry.
    fn describe(directory: &Path) -> Vec<String> {
        let mut lines = Vec::new();
        let mut names: Vec<PathBuf> = vec![directory.to_owned()];
        while let Some(path) = names.pop() {
            let metadata = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(directory).unwrap();
            let what = if metadata.is_symlink() {
                format!("-> {:?}", fs::read_link(&path).unwrap())
            } else if metadata.is_dir() {
                names.extend(
                    fs::read_dir(&path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
                format!("directory {:o} {}", metadata.mode(), metadata.mtime())
            } else {
                let content = fs::read(&path).unwrap();
                let (mode, links, mtime) = (metadata.mode(), metadata.nlink(), metadata.mtime());
                format!("{mode:o} {links} {mtime} {content:?}")
            };
            lines.push(format!("{name:?} {what}"));
        }
        lines.sort();
        lines
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x2545_F491_4F6C_DD1D_u64;
        let mut byte = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        (0..length).map(|_| byte()).collect()
    }

    #[test]
    fn gnu_tar_brings_back_what_was_packed() {
        let scratch = Scratch::new();
        let root = scratch.path("tree");
        let long = "n".repeat(255);
        let deep = root.join("d".repeat(200)).join(&long).join("e".repeat(120));
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir(root.join("empty")).unwrap();
        fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o1750)).unwrap();
        for length in [0, 1, 511, 512, 513, 70_000] {
            fs::write(root.join(format!("size {length}")), noise(length)).unwrap();
        }
        for length in 98..=102 {
            // With "artifacts/" before it, on both sides of what a header holds.
            fs::write(root.join("x".repeat(length - 10)), "").unwrap();
        }
        fs::write(deep.join(&long), "deep").unwrap();
        fs::write(root.join(OsStr::from_bytes(b"\xff\n\xe9\x1b")), "bytes").unwrap();
        fs::set_permissions(root.join("size 1"), fs::Permissions::from_mode(0o4711)).unwrap();
        File::options()
            .append(true)
            .open(root.join("size 513"))
            .unwrap()
            .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000))
            .unwrap();
        fs::hard_link(root.join("size 512"), root.join("again")).unwrap();
        fs::hard_link(root.join("size 512"), root.join("empty/again")).unwrap();
        fs::hard_link(deep.join(&long), root.join("zz")).unwrap();
        symlink("/nowhere/../at/all", root.join("dangling")).unwrap();
        symlink(OsStr::from_bytes(b"../\xfe"), root.join("up")).unwrap();
        symlink("t".repeat(3000), root.join("s".repeat(250))).unwrap();
        symlink("empty", root.join("to a directory")).unwrap();

        let (packed, notes) = pack(&root);
        assert!(notes.is_empty(), "{notes:?}");
        assert_eq!(describe(&unpack(&packed, &scratch)), describe(&root));
    }

    #[test]
    fn row_43_what_cannot_be_stored_is_left_out_and_said() {
        let scratch = Scratch::new();
        let root = scratch.path("tree");
        fs::create_dir(&root).unwrap();
        run(Command::new("mkfifo").arg(root.join("fifo")));
        let _socket = UnixListener::bind(root.join("socket")).unwrap();
        symlink("/dev/null", root.join("device")).unwrap();
        fs::write(root.join("unreadable"), "").unwrap();
        fs::set_permissions(root.join("unreadable"), fs::Permissions::from_mode(0o000)).unwrap();
        fs::write(root.join("zero"), "").unwrap();

        let (packed, notes) = pack(&root);
        assert_eq!(notes[0], r#""artifacts/fifo" was left out: it is a FIFO"#);
        assert_eq!(
            notes[1],
            r#""artifacts/socket" was left out: it is a socket"#
        );
        // Root can read anything.
        if File::open(root.join("unreadable")).is_err() {
            assert_eq!(
                notes[2],
                r#""artifacts/unreadable" was left out: Permission denied (os error 13)"#
            );
            fs::remove_file(root.join("unreadable")).unwrap();
        }
        fs::remove_file(root.join("fifo")).unwrap();
        fs::remove_file(root.join("socket")).unwrap();
        let unpacked = unpack(&packed, &scratch);
        // The tree was changed above, so its own time is another now.
        assert_eq!(describe(&unpacked)[1..], describe(&root)[1..]);
    }

    #[test]
    fn an_empty_directory_is_an_entry_and_an_end() {
        let scratch = Scratch::new();
        let (packed, _) = pack(&scratch.path(""));
        let mut tar = Vec::new();
        GzDecoder::new(&packed[..]).read_to_end(&mut tar).unwrap();
        assert_eq!(tar.len(), 3 * 512);
        assert!(tar.starts_with(b"artifacts/\0"));
        assert_eq!(tar[512..], [0; 1024]);
    }

    #[test]
    fn twenty_thousand_files_come_in_order() {
        let scratch = Scratch::new();
        let root = scratch.path("tree");
        fs::create_dir(&root).unwrap();
        for name in 0..20_000 {
            fs::write(root.join(name.to_string()), "").unwrap();
        }
        let (packed, notes) = pack(&root);
        assert!(notes.is_empty());
        fs::write(scratch.path("packed"), packed).unwrap();
        let listing = run(Command::new("tar").arg("-tzf").arg(scratch.path("packed")));
        let listing = String::from_utf8(listing).unwrap();
        assert_eq!(listing.lines().count(), 20_001);
        assert!(listing.lines().is_sorted());
    }

    #[test]
    fn the_bytes_are_the_same_however_they_are_read() {
        let scratch = Scratch::new();
        let root = scratch.path("tree");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("noise"), noise(3_000_000)).unwrap();
        fs::write(root.join("text"), "line of a log\n".repeat(30_000)).unwrap();
        let (whole, _) = pack(&root);
        for length in [7, 513, 65_535, 65_536, 65_537, 1 << 20] {
            let mut targz = TarGz::new(&root, "artifacts").unwrap();
            let mut read = Vec::new();
            let mut buffer = vec![0; length];
            loop {
                match targz.read(&mut buffer).unwrap() {
                    0 => break,
                    given => read.extend_from_slice(&buffer[..given]),
                }
            }
            assert!(read == whole, "in pieces of {length}");
        }
    }
}
