//! Changes in a directory, as descriptors that can be polled (inotify(7)).

use super::Pipe;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Becomes readable when something in a directory has been made, moved there or
/// written to.
#[derive(Debug)]
pub struct Changes(Pipe);

impl Changes {
    /// Those of this directory; a link to one is refused.
    ///
    /// # Errors
    /// Where the kernel cannot (it may be built without), or has no more of them
    /// to give.
    pub fn of(directory: &Path) -> io::Result<Changes> {
        let name = CString::new(directory.as_os_str().as_bytes())?;
        // SAFETY: takes flags only.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        let fd = super::cerr(fd)?;
        // SAFETY: it is open, and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let what = libc::IN_CREATE | libc::IN_MOVED_TO | libc::IN_MODIFY;
        let what = what | libc::IN_ONLYDIR | libc::IN_DONT_FOLLOW;
        // SAFETY: the descriptor is open and `name` is a C string.
        super::cerr(unsafe { libc::inotify_add_watch(fd.as_raw_fd(), name.as_ptr(), what) })?;
        Ok(Changes(Pipe::of(File::from(fd))))
    }

    /// Forgets what has happened so far; false when nothing more can happen
    /// because the directory is gone.
    pub fn drain(&mut self) -> bool {
        let mut goes_on = true;
        let mut events = [0; 4096];
        while let Ok(Some(length @ 1..)) = self.0.read(&mut events) {
            let mut rest = events.get(..length).unwrap_or_default();
            // struct inotify_event: four numbers of 32 bits, then the name.
            while let Some((head, names)) = rest.split_at_checked(16) {
                let field = |at: usize| {
                    let bytes = head.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
                    u32::from_ne_bytes(bytes.unwrap_or_default())
                };
                goes_on &= field(4) & libc::IN_IGNORED == 0;
                let name = usize::try_from(field(12)).unwrap_or(usize::MAX);
                rest = names.get(name..).unwrap_or_default();
            }
        }
        goes_on
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
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
            let ready = super::super::poll(&[Some(changes.as_fd())], Some(Duration::ZERO));
            ready.unwrap()[0]
        };
        assert!(!happened(&changes));
        for text in ["made", "made and written to"] {
            fs::write(directory.join("file"), text).unwrap();
            assert!(happened(&changes), "{text}");
            assert!(changes.drain());
            assert!(!happened(&changes));
        }
        fs::remove_dir_all(&directory).unwrap();
        assert!(happened(&changes));
        assert!(!changes.drain(), "it is gone");
        assert!(Changes::of(&directory).is_err());
    }
}
