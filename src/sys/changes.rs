//! Changes in a directory, as descriptors that can be polled (inotify(7)).

use super::Pipe;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Becomes readable when something in a directory has been made, moved there or
/// written to.
#[derive(Debug)]
pub struct Changes {
    events: Pipe,
    /// The watch of the directory above, which alone tells at once that this one
    /// has been removed: its own watch lives as long as anybody has it open.
    above: i32,
    /// The directory's name in the one above.
    name: CString,
}

impl Changes {
    /// Those of this directory; a link to one is refused.
    ///
    /// # Errors
    /// Where the kernel cannot (it may be built without), or has no more of them
    /// to give.
    pub fn of(directory: &Path) -> io::Result<Changes> {
        let (Some(above), Some(name)) = (directory.parent(), directory.file_name()) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        let name = CString::new(name.as_bytes())?;
        // SAFETY: takes flags only.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        let fd = super::cerr(fd)?;
        // SAFETY: it is open, and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let made = libc::IN_CREATE | libc::IN_MOVED_TO | libc::IN_MODIFY;
        watch(
            &fd,
            directory,
            made | libc::IN_MOVE_SELF | libc::IN_DONT_FOLLOW,
        )?;
        let above = watch(&fd, above, libc::IN_DELETE | libc::IN_MOVED_FROM)?;
        Ok(Changes {
            events: Pipe::of(File::from(fd)),
            above,
            name,
        })
    }

    /// Forgets what has happened so far, or a good deal of it: who makes changes all the
    /// while keeps nobody here. False when nothing more is told of because the directory
    /// is no longer where it was.
    pub fn drain(&mut self) -> bool {
        let mut goes_on = true;
        let mut events = [0; 4096];
        if let Ok(Some(length @ 1..)) = self.events.read(&mut events) {
            let mut rest = events.get(..length).unwrap_or_default();
            // struct inotify_event: four numbers of 32 bits, then the name.
            while let Some((head, names)) = rest.split_at_checked(16) {
                let [watch, what, _, length] = numbers(head);
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let name = names.get(..length).unwrap_or_default();
                rest = names.get(length..).unwrap_or_default();
                goes_on &= if i32::try_from(watch) == Ok(self.above) {
                    CStr::from_bytes_until_nul(name) != Ok(&self.name)
                } else {
                    what & (libc::IN_IGNORED | libc::IN_MOVE_SELF) == 0
                };
            }
        }
        goes_on
    }
}

fn numbers(head: &[u8]) -> [u32; 4] {
    let mut numbers = [0; 4];
    for (number, bytes) in numbers.iter_mut().zip(head.chunks_exact(4)) {
        *number = u32::from_ne_bytes(bytes.try_into().unwrap_or_default());
    }
    numbers
}

/// The number of a new watch on a directory.
fn watch(inotify: &OwnedFd, directory: &Path, what: u32) -> io::Result<i32> {
    let name = CString::new(directory.as_os_str().as_bytes())?;
    let what = what | libc::IN_ONLYDIR;
    // SAFETY: the descriptor is open and `name` is a C string.
    super::cerr(unsafe { libc::inotify_add_watch(inotify.as_raw_fd(), name.as_ptr(), what) })
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    #[test]
    fn whatever_happens_in_a_directory_is_a_change_until_it_is_gone() {
        let name = format!("tfa-changes-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let mut changes = Changes::of(&directory).unwrap();
        let happened = |changes: &Changes| {
            let ready = super::super::poll(&[Some(changes.as_fd())], &[], Some(Duration::ZERO));
            ready.unwrap()[0]
        };
        assert!(!happened(&changes));
        for text in ["made", "made and written to"] {
            fs::write(directory.join("file"), text).unwrap();
            assert!(happened(&changes), "{text}");
            assert!(changes.drain());
            assert!(!happened(&changes));
        }
        // Also where somebody still has it, or something in it, open.
        let open = fs::File::open(directory.join("file")).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert!(happened(&changes));
        assert!(!changes.drain(), "it is gone");
        assert!(Changes::of(&directory).is_err());
        drop(open);
        fs::create_dir(&directory).unwrap();
        let mut changes = Changes::of(&directory).unwrap();
        let moved = directory.with_extension("moved");
        fs::rename(&directory, &moved).unwrap();
        assert!(!changes.drain(), "it is elsewhere");
        fs::remove_dir(&moved).unwrap();
    }
}
