//! The console: the standard error stream, which may be a terminal that was stopped
//! with Ctrl-S or a pipe or a socket that nobody reads. The agent waits for none of them.

use crate::sys::Stderr;
use std::io::{self, Write};

/// Where lines for people go, if they are taken.
#[derive(Debug)]
pub(super) struct Console {
    /// The same place, where writing does not wait. None where that cannot be had, or
    /// need not: a file always takes what comes.
    unwaiting: Option<Stderr>,
    /// Lines that were not taken since one was.
    left_out: u64,
}

impl Console {
    /// The console as it was given to the process.
    pub(super) const fn as_given() -> Console {
        Console {
            unwaiting: None,
            left_out: 0,
        }
    }

    /// The same without waiting for it, where the system has a way to that.
    pub(super) fn unwaiting() -> Console {
        Console {
            unwaiting: Stderr::unwaiting().ok(),
            left_out: 0,
        }
    }

    /// Writes a line, if it is taken at once.
    pub(super) fn write(&mut self, line: &str) {
        let Some(file) = &mut self.unwaiting else {
            // A console that is gone is no reason to stop.
            let _ = io::stderr().write_all(line.as_bytes());
            return;
        };
        let before = match self.left_out {
            0 => String::new(),
            lines => format!("[{lines} lines left out: the console took none]\n"),
        };
        match file.write_all(format!("{before}{line}").as_bytes()) {
            Ok(()) => self.left_out = 0,
            // A part of it may be there, which is better than to wait for the rest.
            Err(_) => self.left_out += 1,
        }
    }
}
