//! The archive that a kernel unpacks as its first file system: cpio in the "newc"
//! form (the kernel's "initramfs buffer format").

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const DIRECTORY: u32 = 0o040_000;
const DEVICE: u32 = 0o020_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// An archive that is being written.
#[derive(Debug)]
pub(crate) struct Cpio<W> {
    out: W,
    count: u32,
}

impl<W: Write> Cpio<W> {
    pub(crate) fn new(out: W) -> Cpio<W> {
        Cpio { out, count: 0 }
    }

    /// Everything below a directory; all of it belongs to root.
    pub(crate) fn tree(&mut self, directory: &Path, name: &str) -> io::Result<()> {
        let mut entries: Vec<_> = fs::read_dir(directory)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let name = format!("{name}{}", entry.file_name().display());
            let metadata = entry.metadata()?;
            let mode = metadata.permissions().mode() & 0o7777;
            if metadata.is_dir() {
                self.entry(&name, DIRECTORY | mode, (0, 0), b"")?;
                self.tree(&path, &format!("{name}/"))?;
            } else if metadata.is_symlink() {
                let target = fs::read_link(&path)?;
                self.entry(&name, LINK | mode, (0, 0), target.as_os_str().as_bytes())?;
            } else {
                self.entry(&name, FILE | mode, (0, 0), &fs::read(&path)?)?;
            }
        }
        Ok(())
    }

    /// A character device.
    pub(crate) fn device(&mut self, name: &str, number: (u32, u32)) -> io::Result<()> {
        self.entry(name, DEVICE | 0o600, number, b"")
    }

    /// Its end.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, (0, 0), b"")?;
        self.out.flush()
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) -> io::Result<()> {
        self.count += 1;
        let length = |length: usize| u32::try_from(length).map_err(io::Error::other);
        let fields = [
            self.count, // inode
            mode,
            0, // user
            0, // group
            1, // links
            0, // time
            length(data.len())?,
            0, // the device it is on
            0,
            device.0,
            device.1,
            length(name.len() + 1)?,
            0, // no checksum
        ];
        let mut head = String::from("070701");
        for field in fields {
            head.push_str(&format!("{field:08X}"));
        }
        head.push_str(name);
        head.push('\0');
        self.padded(head.as_bytes())?;
        self.padded(data)
    }

    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        let more = bytes.len().next_multiple_of(4) - bytes.len();
        self.out.write_all(&[0; 3][..more])
    }
}
