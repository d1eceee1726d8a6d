//! Unpacking a tar.gz that a stranger made, while it is received.
//!
//! Nothing is written outside of the directory: names are checked, no entry leads
//! through a link, because links are made last, and where a link leads is checked as
//! well. What a name or a mode could do to others is refused or made harmless. All
//! that is held in memory is bounded.

#[cfg(test)]
mod attacks;
mod names;
mod records;

use crate::sys::User;
use flate2::bufread::GzDecoder;
use names::{harmless, plain, plain_target};
use records::{extensions, long_name, record};
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tar::{Archive, Entry, EntryType};

/// Files, directories and links.
const MOST_ENTRIES: u64 = 100_000;
/// All that is remembered of links, in bytes.
const LINKS: usize = 1 << 20;
/// After the end of the archive, a writer may fill up its last block with zeros.
const LONGEST_FILLING: u64 = 1 << 20;
/// The end of an archive: two blocks of zeros.
const END: u64 = 1_024;

/// What an archive may do, and where.
#[derive(Debug)]
pub struct Room<'a> {
    /// The directory, which is empty.
    pub directory: &'a File,
    /// The names at the top that it may have.
    pub folders: &'a [&'a str],
    /// Whose all of it is to be, if not this process's.
    pub owner: Option<&'a User>,
    /// How much all files may hold, in bytes.
    pub bytes: u64,
}

/// Why an archive was not unpacked. What was unpacked before that stays.
#[derive(Debug)]
pub enum Fault {
    /// It could not be received.
    Source(io::Error),
    /// It is none, or not one that may be unpacked.
    Archive(String),
    /// The disk does not take it.
    Disk(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Source(error) => error.fmt(f),
            Fault::Archive(reason) | Fault::Disk(reason) => f.write_str(reason),
        }
    }
}

/// Unpacks a tar.gz.
///
/// # Errors
/// When it cannot be received, is not what it should be, or finds no room.
pub fn unpack(source: &mut dyn Read, room: &Room<'_>) -> Result<(), Fault> {
    let mut source = Source {
        reader: source,
        failed: None,
    };
    let mut unpacker = Unpacker {
        room,
        top: PathBuf::from(format!("/proc/self/fd/{}", room.directory.as_raw_fd())),
        left: room.bytes,
        links: Vec::new(),
        remembered: 0,
    };
    let unpacked = unpacker.all(&mut source);
    match source.failed {
        // Whatever that looks like to who reads it.
        Some(error) => Err(Fault::Source(error)),
        None => unpacked.and_then(|()| unpacker.make_links()),
    }
}

/// Remembers that receiving failed: a decoder's own errors look the same.
struct Source<'a> {
    reader: &'a mut dyn Read,
    failed: Option<io::Error>,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                self.failed = Some(error);
            }
            io::Error::from(kind)
        })
    }
}

/// The members of a gzip, one after the other (RFC 1952, section 2.2). What follows and
/// is none belongs to nobody, as for gzip(1).
struct Members<R>(Option<GzDecoder<BufReader<R>>>);

impl<R: Read> Members<R> {
    fn of(source: R) -> Members<R> {
        Members(Some(GzDecoder::new(BufReader::new(source))))
    }
}

impl<R: Read> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        const MAGIC: u8 = 0x1f;
        while let Some(member) = &mut self.0 {
            let length = member.read(buffer)?;
            if length > 0 || buffer.is_empty() {
                return Ok(length);
            }
            let rest = self.0.take().map(GzDecoder::into_inner);
            self.0 = rest.and_then(|mut rest| match rest.fill_buf() {
                Ok(bytes) if bytes.first() == Some(&MAGIC) => Some(GzDecoder::new(rest)),
                _ => None,
            });
        }
        Ok(0)
    }
}

/// Counts the zeros at the end of what has been read.
struct Zeros<R> {
    reader: R,
    zeros: u64,
}

impl<R: Read> Read for Zeros<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        let read = buffer.get(..length).unwrap_or_default();
        let zeros = read.iter().rev().take_while(|byte| **byte == 0).count();
        self.zeros = match zeros == read.len() {
            true => self.zeros + zeros as u64,
            false => zeros as u64,
        };
        Ok(length)
    }
}

/// A link that is to be made.
struct Link {
    path: PathBuf,
    target: PathBuf,
}

struct Unpacker<'a> {
    room: &'a Room<'a>,
    top: PathBuf,
    /// Bytes that the files may still have.
    left: u64,
    /// Those that are to be made, in the order of their paths.
    links: Vec<Link>,
    remembered: usize,
}

impl Unpacker<'_> {
    fn all(&mut self, source: &mut Source<'_>) -> Result<(), Fault> {
        let mut archive = Archive::new(Zeros {
            reader: Members::of(source),
            zeros: 0,
        });
        let broken = |error: io::Error| Fault::Archive(format!("it is broken: {error}"));
        // What the entries before one say of it.
        let (mut name, mut target) = (None, None);
        for (at, entry) in (0..).zip(archive.entries().map_err(broken)?.raw(true)) {
            let mut entry = entry.map_err(broken)?;
            if at >= MOST_ENTRIES {
                return Err(Fault::Archive(format!(
                    "it has more than {MOST_ENTRIES} entries"
                )));
            }
            match entry.header().entry_type() {
                EntryType::GNULongName => name = Some(long_name(&mut entry)?),
                EntryType::GNULongLink => target = Some(long_name(&mut entry)?),
                EntryType::XHeader => {
                    let (longer, further) = extensions(&record(&mut entry)?)?;
                    name = longer.or(name);
                    target = further.or(target);
                }
                EntryType::XGlobalHeader => drop(record(&mut entry)?),
                _ => {
                    let name = name
                        .take()
                        .unwrap_or_else(|| entry.path_bytes().into_owned());
                    let target = target
                        .take()
                        .or_else(|| entry.link_name_bytes().map(|bytes| bytes.into_owned()));
                    self.entry(&mut entry, &name, target.as_deref())?;
                }
            }
        }
        // To the end, where the checksum is.
        let mut rest = archive.into_inner();
        let filling = io::copy(&mut rest.by_ref().take(LONGEST_FILLING), &mut io::sink());
        if filling.map_err(broken)? == LONGEST_FILLING {
            return Err(Fault::Archive("it goes on behind its end".into()));
        }
        if rest.zeros < END {
            return Err(Fault::Archive("it has no end".into()));
        }
        Ok(())
    }

    fn entry(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        name: &[u8],
        target: Option<&[u8]>,
    ) -> Result<(), Fault> {
        let refused = |why: &str| {
            let shown = String::from_utf8_lossy(name);
            Fault::Archive(format!("{shown:?} {why}"))
        };
        let Some(path) = plain(name).map_err(&refused)? else {
            // The directory itself.
            return Ok(());
        };
        let folder = path.components().next().map(|first| first.as_os_str());
        let folders = self.room.folders;
        if !folders
            .iter()
            .any(|known| folder == Some(OsStr::new(known)))
        {
            return Err(refused(&format!("is not below {}", listed(folders))));
        }
        let link = |target: &[u8]| plain_target(target, &path).map_err(&refused);
        match entry.header().entry_type() {
            EntryType::Directory => self.directory(&path),
            _ if path.components().count() == 1 => {
                Err(refused("has the name of a directory, and is none"))
            }
            EntryType::Regular | EntryType::Continuous => {
                self.parents(&path)?;
                self.file(entry, &path)
            }
            EntryType::Symlink => {
                let target = link(target.unwrap_or_default())?;
                self.parents(&path)?;
                self.remember(path, target)
            }
            EntryType::Link => {
                let found = plain(target.unwrap_or_default()).map_err(&refused)?;
                let found = found.ok_or_else(|| refused("is a link to nothing"))?;
                self.parents(&path)?;
                let found_link = self.place_of(&found).ok();
                match found_link.and_then(|at| self.links.get(at)) {
                    // That is another one which leads there, and may be somewhere else.
                    Some(Link { target, .. }) => {
                        let target = link(target.as_os_str().as_bytes())?;
                        self.remember(path, target)
                    }
                    None => self.hard_link(&found, &path),
                }
            }
            _ => Err(refused("is neither a file, a directory nor a link")),
        }
    }

    /// The directories above what is about to be made.
    fn parents(&self, path: &Path) -> Result<(), Fault> {
        path.parent()
            .map_or(Ok(()), |parent| self.directory(parent))
    }

    fn directory(&self, path: &Path) -> Result<(), Fault> {
        let mut place = PathBuf::new();
        for part in path.components() {
            place.push(part);
            let at = self.top.join(&place);
            let made = fs::create_dir(&at).and_then(|()| {
                fs::set_permissions(&at, Permissions::from_mode(0o755))?;
                self.give(&File::open(&at)?)
            });
            match made {
                // No link can be there: they are made last.
                Err(error)
                    if error.kind() == io::ErrorKind::AlreadyExists
                        && fs::symlink_metadata(&at).is_ok_and(|found| found.is_dir()) => {}
                other => other.map_err(|error| disk(&place, &error))?,
            }
        }
        Ok(())
    }

    fn file(&mut self, entry: &mut Entry<'_, impl Read>, path: &Path) -> Result<(), Fault> {
        let size = entry.size();
        if size > self.left {
            return Err(Fault::Disk(format!(
                "it holds more than the {} bytes that there is room for",
                self.room.bytes
            )));
        }
        self.left -= size;
        self.make_way(path)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(self.top.join(path))
            .map_err(|error| disk(path, &error))?;
        let mut buffer = [0; 32 << 10];
        let mut written = 0;
        loop {
            let length = entry
                .read(&mut buffer)
                .map_err(|error| Fault::Archive(format!("it is broken: {error}")))?;
            let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            file.write_all(bytes).map_err(|error| disk(path, &error))?;
            written += length as u64;
        }
        if written != size {
            return Err(Fault::Archive(format!("it is cut short in {path:?}")));
        }
        let mode = harmless(entry.header().mode().unwrap_or(0o600));
        let made = file
            .set_permissions(Permissions::from_mode(mode))
            .and_then(|()| self.give(&file));
        made.map_err(|error| disk(path, &error))?;
        let seconds = Duration::from_secs(entry.header().mtime().unwrap_or(0));
        if let Some(modified) = SystemTime::UNIX_EPOCH.checked_add(seconds) {
            // Nobody needs a date that the file system cannot keep.
            let _ = file.set_modified(modified);
        }
        Ok(())
    }

    /// What is there twice is what it was last; a link to what it was stays that.
    fn make_way(&mut self, path: &Path) -> Result<(), Fault> {
        if let Ok(at) = self.place_of(path) {
            self.links.remove(at);
        }
        match fs::remove_file(self.top.join(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk(path, &error)),
            _ => Ok(()),
        }
    }

    fn hard_link(&mut self, target: &Path, path: &Path) -> Result<(), Fault> {
        let from = self.top.join(target);
        if !fs::symlink_metadata(&from).is_ok_and(|found| found.is_file()) {
            return Err(Fault::Archive(format!(
                "{path:?} is a link to {target:?}, which is no file before it"
            )));
        }
        if target == path {
            return Ok(());
        }
        self.make_way(path)?;
        fs::hard_link(from, self.top.join(path)).map_err(|error| disk(path, &error))
    }

    fn remember(&mut self, path: PathBuf, target: PathBuf) -> Result<(), Fault> {
        let paths = path.as_os_str().len() + target.as_os_str().len();
        self.remembered += size_of::<Link>() + paths;
        if self.remembered > LINKS {
            return Err(Fault::Archive("it has too many links".into()));
        }
        self.make_way(&path)?;
        let (Ok(at) | Err(at)) = self.place_of(&path);
        self.links.insert(at, Link { path, target });
        Ok(())
    }

    /// Where the link of this path is, or would be.
    fn place_of(&self, path: &Path) -> Result<usize, usize> {
        let path = path.as_os_str();
        self.links
            .binary_search_by(|link| link.path.as_os_str().cmp(path))
    }

    fn make_links(&self) -> Result<(), Fault> {
        for Link { path, target } in &self.links {
            let at = self.top.join(path);
            let made = symlink(target, &at).and_then(|()| match self.room.owner {
                Some(owner) => owner.give_link(&at),
                None => Ok(()),
            });
            made.map_err(|error| disk(path, &error))?;
        }
        Ok(())
    }

    fn give(&self, made: &File) -> io::Result<()> {
        self.room.owner.map_or(Ok(()), |owner| owner.give(made))
    }
}

fn disk(path: &Path, error: &io::Error) -> Fault {
    Fault::Disk(format!("{path:?} cannot be made: {error}"))
}

fn listed(folders: &[&str]) -> String {
    folders.join("/, ") + "/"
}
