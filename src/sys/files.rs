//! Files and directories in places where others may have been before.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Makes a directory (0700) with all above it, and makes sure that nobody else
/// can take what is kept in it away: it is a real one that belongs to this user or
/// to root, and so is everything on the way to it that lies where anybody may
/// plant things, such as `/tmp`.
///
/// # Errors
/// A sentence that names the path and what is wrong with it.
pub fn private_directory(path: &Path) -> Result<(), String> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| format!("cannot make the directory {}: {error}", path.display()))?;
    let mut place = PathBuf::new();
    let mut is_public = false;
    for part in path.components() {
        place.push(part);
        let metadata = fs::symlink_metadata(&place)
            .map_err(|error| format!("cannot look at {}: {error}", place.display()))?;
        let what = if (is_public || place == path) && metadata.is_symlink() {
            "is a symbolic link".to_owned()
        } else if (is_public || place == path) && !is_ours(metadata.uid()) {
            format!("belongs to another user (uid {})", metadata.uid())
        } else {
            is_public = is_open_to_all(&metadata);
            continue;
        };
        return Err(format!(
            "{} {what}, so that others could change what is kept there; remove it or choose \
             another directory",
            place.display()
        ));
    }
    Ok(())
}

/// Whether everybody may put something into a directory.
#[must_use]
pub fn is_open_to_all(directory: &fs::Metadata) -> bool {
    directory.mode() & 0o002 != 0
}

fn is_ours(user: u32) -> bool {
    user == 0 || user == super::effective_user()
}

/// Whether two paths lead to the same thing; what is not there is not the same.
#[must_use]
pub fn is_same(one: &Path, other: &Path) -> bool {
    File::open(other).is_ok_and(|other| is_same_file(one, &other))
}

/// Whether a path leads to what is open.
#[must_use]
pub fn is_same_file(path: &Path, open: &File) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let of_path = fs::metadata(path).map(identity);
    of_path.is_ok_and(|found| {
        open.metadata()
            .map(identity)
            .is_ok_and(|open| open == found)
    })
}

/// Makes a new file (0600) for appending, in place of whatever has that name:
/// what stood there is removed, never written to or followed.
///
/// # Errors
/// When it cannot be made, or what stands there cannot be removed.
pub fn create_fresh(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

/// Opens a file (0600) for appending, and makes it if there is none. Neither a
/// link nor anything but a regular file is opened, and a FIFO does not make the
/// caller wait.
///
/// # Errors
/// When it cannot be opened, or is something else.
pub fn open_append(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    regular(file)
}

/// Gives this user all rights to a directory of its own; a link to one is left
/// alone. That it could not be done shows when it is used.
pub fn open_up(path: &Path) {
    let open = || fs::Permissions::from_mode(0o700);
    // Held by what needs no right to it, so that it stays the same one.
    let held = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(path);
    let opened = held.and_then(|held| {
        let path = format!("/proc/self/fd/{}", held.as_raw_fd());
        fs::set_permissions(path, open())
    });
    // Whoever is not root can do no harm by a link: it is the job's user.
    let is_directory = |metadata: fs::Metadata| metadata.is_dir();
    if opened.is_err()
        && super::process::effective_user() != 0
        && fs::symlink_metadata(path).is_ok_and(is_directory)
    {
        let _ = fs::set_permissions(path, open());
    }
}

/// Opens what is there for reading, to be packed: a link is refused, and neither
/// a FIFO nor a lease makes the caller wait. What was opened is for the caller
/// to find out.
///
/// # Errors
/// What open(2) says.
pub fn open_to_pack(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
}

/// Opens a regular file for reading, where anything else may stand.
///
/// # Errors
/// When it cannot be opened, or is something else.
pub fn open_regular(path: &Path) -> io::Result<File> {
    match open_to_pack(path) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            Err(io::Error::other("it is a symbolic link"))
        }
        other => regular(other?),
    }
}

/// Directories below each other that are packed.
pub const PACKED_LEVELS: usize = 128;

/// How long a file of text is without half a character at its end.
///
/// # Errors
/// When it cannot be read, or is something else.
pub fn length_of_text(path: &Path) -> io::Result<u64> {
    /// A character has at most four bytes.
    const END: u64 = 4;
    let file = open_regular(path)?;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(END);
    let mut end = vec![0; usize::try_from(length - from).unwrap_or(0)];
    file.read_exact_at(&mut end, from)?;
    // It may begin in the middle of one as well.
    let begin = end.iter().position(|byte| byte & 0xc0 != 0x80).unwrap_or(0);
    let cut = match std::str::from_utf8(end.get(begin..).unwrap_or_default()) {
        Err(error) if error.error_len().is_none() => begin + error.valid_up_to(),
        _ => end.len(),
    };
    Ok(from + cut as u64)
}

/// The same where it has to belong to a user: a link can be made to a file that its
/// maker cannot read.
///
/// # Errors
/// Also when it belongs to another one.
pub fn open_regular_of(path: &Path, owner: Option<u32>) -> io::Result<File> {
    let file = open_regular(path)?;
    if owner.is_some_and(|owner| file.metadata().is_ok_and(|file| file.uid() != owner)) {
        return Err(io::Error::other("it belongs to another user"));
    }
    Ok(file)
}

/// The whole of a regular file of a user's, up to `limit` bytes; `None` when there is
/// none.
///
/// # Errors
/// When it cannot be read, is something else or another's, or is longer.
pub fn read_regular_of(path: &Path, owner: Option<u32>, limit: u64) -> io::Result<Option<Vec<u8>>> {
    match open_regular_of(path, owner) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => up_to(opened?, limit).map(Some),
    }
}

/// Removes from a tree whatever does not belong to a user, but directories: a link can
/// be made to a file that its maker cannot read. How many names that were.
///
/// # Errors
/// When the tree cannot be walked or changed, or is deeper than anybody needs.
pub fn remove_what_others_own(directory: &Path, owner: u32) -> io::Result<u64> {
    /// Each directory is held open, and what is in it reached through that: another
    /// process of its owner's may put links in the way. What lies deeper than what is
    /// packed is left alone.
    fn walk(directory: &Path, owner: u32, levels: usize) -> io::Result<u64> {
        let Some(levels) = levels.checked_sub(1) else {
            return Ok(0);
        };
        let held = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(directory)?;
        let held_at = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
        let mut removed = 0;
        for entry in fs::read_dir(&held_at)? {
            let path = held_at.join(entry?.file_name());
            let metadata = fs::symlink_metadata(&path)?;
            if metadata.is_dir() {
                removed += walk(&path, owner, levels)?;
            } else if metadata.uid() != owner {
                fs::remove_file(path)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
    walk(directory, owner, PACKED_LEVELS)
}

/// The whole of a file that a person named, up to `limit` bytes: it may be a link,
/// but is a regular file, so that nobody waits for its other end.
///
/// # Errors
/// When it cannot be read, is something else, or is longer.
pub fn read_named(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    up_to(regular(opened)?, limit)
}

fn up_to(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        true => Err(io::Error::other(format!("more than {limit} bytes"))),
        false => Ok(bytes),
    }
}

fn regular(file: File) -> io::Result<File> {
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        Ok(file)
    } else if kind.is_dir() {
        Err(io::Error::from_raw_os_error(libc::EISDIR))
    } else {
        Err(io::Error::other("not a regular file"))
    }
}

/// Whether a directory's file system is in memory (tmpfs, ramfs).
#[must_use]
pub fn is_in_memory(path: &Path) -> bool {
    const RAMFS: u64 = 0x8584_58f6;
    const TMPFS: u64 = 0x0102_1994;
    let Ok(name) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: `name` is a C string and `found` is where statfs writes; a zeroed
    // one is valid.
    let kind = unsafe {
        let mut found: libc::statfs = std::mem::zeroed();
        if libc::statfs(name.as_ptr(), &raw mut found) == -1 {
            return false;
        }
        found.f_type
    };
    // The type of the field differs between targets; the numbers have 32 bits.
    matches!(kind as u64 & 0xffff_ffff, RAMFS | TMPFS)
}

/// The space of a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What this user may still write.
    pub free: u64,
    /// The size of the whole; 0 where the file system does not say.
    pub total: u64,
    /// Nothing can be written at all.
    pub read_only: bool,
    /// How many more files this user may make, and how many the whole can hold
    /// (inodes); both 0 where the file system has no table of them.
    pub free_files: u64,
    /// See there.
    pub total_files: u64,
}

/// The space of the file system that a directory is on.
///
/// # Errors
/// What statvfs(3) says.
#[allow(
    clippy::useless_conversion,
    reason = "these numbers have 32 bits on some targets"
)]
pub fn space(path: &Path) -> io::Result<Space> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `name` is a C string and `found` is where statvfs writes; a zeroed
    // one is valid.
    let found = unsafe {
        let mut found: libc::statvfs = std::mem::zeroed();
        super::cerr(libc::statvfs(name.as_ptr(), &raw mut found))?;
        found
    };
    let bytes = |blocks| u64::from(found.f_frsize).saturating_mul(u64::from(blocks));
    Ok(Space {
        free: bytes(found.f_bavail),
        total: bytes(found.f_blocks),
        read_only: found.f_flag & libc::ST_RDONLY != 0,
        free_files: u64::from(found.f_favail),
        total_files: u64::from(found.f_files),
    })
}

/// Whether this process may make files in a directory.
#[must_use]
pub fn is_writable(path: &Path) -> bool {
    let Ok(name) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: `name` is a C string.
    unsafe { libc::access(name.as_ptr(), libc::W_OK | libc::X_OK) == 0 }
}

/// Whether this process can be given so many descriptors.
///
/// # Errors
/// When it can not, and why: its own limit, or the system's.
pub fn spare_descriptors(count: usize) -> io::Result<()> {
    let mut spare = Vec::new();
    for _ in 0..count {
        spare.push(File::open("/dev/null")?);
    }
    Ok(())
}

/// Makes a directory's entries durable.
///
/// # Errors
/// What fsync(2) says.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes all that was written to the file system of a directory durable.
///
/// # Errors
/// What syncfs(2) says; also when it is no directory, or a link to one.
pub fn sync_file_system(directory: &Path) -> io::Result<()> {
    let directory = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(directory)?;
    // SAFETY: the descriptor is open.
    super::cerr(unsafe { libc::syncfs(directory.as_raw_fd()) })?;
    Ok(())
}

/// Writes a name so that it is one component of a path, whatever it holds:
/// everything but letters, digits, `-`, `_` and inner dots becomes `%XX`.
#[must_use]
pub fn escape_name(name: &str) -> String {
    let mut escaped = String::new();
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => escaped.push(byte.into()),
            b'.' if at > 0 => escaped.push('.'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_one_component() {
        assert_eq!(escape_name("pi-4_a.b"), "pi-4_a.b");
        assert_eq!(escape_name("../x y"), "%2E.%2Fx%20y");
        assert_eq!(escape_name("é%"), "%C3%A9%25");
    }
}
