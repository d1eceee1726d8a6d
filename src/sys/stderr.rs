//! The standard error stream, written to without waiting for whoever reads it. The
//! stream itself is shared with others, who do want to wait.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// The stream; a write that would wait fails.
#[derive(Debug)]
pub enum Stderr {
    /// A terminal, a pipe or a device, opened once more.
    Opened(File),
    /// A socket, as systemd's journal is, which cannot be opened.
    Socket,
}

impl Stderr {
    /// Finds out what it is.
    ///
    /// # Errors
    /// Where nothing can be had (no `/proc`), or need not: a regular file.
    pub fn unwaiting() -> io::Result<Stderr> {
        let place = Path::new("/proc/self/fd/2");
        let kind = fs::metadata(place)?.file_type();
        if kind.is_socket() {
            return Ok(Stderr::Socket);
        }
        if kind.is_file() {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        }
        let opened = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(place)?;
        Ok(Stderr::Opened(opened))
    }
}

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stderr::Opened(file) => file.write(bytes),
            Stderr::Socket => {
                let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
                // SAFETY: the kernel reads as many bytes as there are.
                let sent = unsafe {
                    libc::send(
                        libc::STDERR_FILENO,
                        bytes.as_ptr().cast(),
                        bytes.len(),
                        flags,
                    )
                };
                usize::try_from(sent).map_err(|_| io::Error::last_os_error())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
