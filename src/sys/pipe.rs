//! Pipes: a child's output, and a way to wake the main loop.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

/// The reading end of a pipe; never blocks.
#[derive(Debug)]
pub struct Pipe(File);

/// Makes a pipe that no child inherits by accident: the reading end does not
/// block, the writing end does.
///
/// # Errors
/// When the process or the system is out of descriptors.
pub fn pipe() -> io::Result<(Pipe, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors that pipe2 writes.
    super::cerr(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    let [read, write] = ends;
    // SAFETY: pipe2 succeeded, so both are open and nobody else owns them.
    let (read, write) = unsafe { (OwnedFd::from_raw_fd(read), OwnedFd::from_raw_fd(write)) };
    set_nonblocking(&read)?;
    Ok((Pipe(File::from(read)), write))
}

pub(super) fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: fcntl on an owned, open descriptor touches no memory.
    let flags = super::cerr(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    let flags = flags | libc::O_NONBLOCK;
    // SAFETY: as above.
    super::cerr(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) })?;
    Ok(())
}

impl Pipe {
    /// Another kind of descriptor that does not block.
    pub(super) fn of(file: File) -> Pipe {
        Pipe(file)
    }

    /// What is there now: `Some(0)` is the end, `None` nothing yet.
    ///
    /// # Errors
    /// What read(2) says.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match self.0.read(buffer) {
                Ok(read) => return Ok(Some(read)),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(None),
                    io::ErrorKind::Interrupted => {}
                    _ => return Err(error),
                },
            }
        }
    }

    /// Reads and forgets whatever is there.
    pub fn drain(&mut self) {
        let mut buffer = [0; 64];
        while let Ok(Some(1..)) = self.read(&mut buffer) {}
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Wakes whoever polls the other end; can be cloned and sent to threads.
#[derive(Clone, Debug)]
pub struct Wake(Arc<File>);

impl Wake {
    /// A wake-up call and the end that becomes readable by it.
    ///
    /// # Errors
    /// As [`pipe`].
    pub fn new() -> io::Result<(Pipe, Wake)> {
        let (read, write) = pipe()?;
        // A full pipe has woken the reader already: the writer must not wait.
        set_nonblocking(&write)?;
        Ok((read, Wake(Arc::new(File::from(write)))))
    }

    /// Makes the other end readable.
    pub fn wake(&self) {
        // Fails only when the pipe is full, or its reader has gone: either way
        // nobody needs to be woken.
        let _ = (&*self.0).write(&[1]);
    }
}
