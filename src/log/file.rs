//! The log file: it is put aside at midnight and when it has grown large, and a
//! few of those are kept.

use crate::sys::clock::{self, Calendar, Now};
use crate::sys::files;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A file that has this many bytes is put aside.
const LARGEST: u64 = 10 << 20;
/// This many are kept beside the one that is written.
const KEPT: u32 = 6;
/// Clocks that differ by more than this between two lines: the date was set.
const DRIFT: Duration = Duration::from_secs(600);

/// The log file of one agent.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    length: u64,
    /// The day of its last line, and its moment if this process wrote it.
    day: Day,
    last: Option<Now>,
    // Keeps other agents off the file and off those put aside.
    _lock: File,
}

type Day = (i64, u32, u32);

impl LogFile {
    /// Opens the file, unless another agent has it: then there is none.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Option<LogFile>> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let lock = files::open_append(&path.with_file_name(format!(".{name}.lock")))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let (file, length, day) = opened(path)?;
        Ok(Some(LogFile {
            path: path.to_owned(),
            file,
            length,
            day,
            last: None,
            _lock: lock,
        }))
    }

    /// Writes a line of this moment, in a new file if it is time for one.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn write(&mut self, line: &str, now: Now) -> io::Result<()> {
        let today = day_of(clock::local(now.wall));
        let is_full = self.length + line.len() as u64 > LARGEST;
        // A board without a clock gets the date from the network at each boot:
        // six of those must not push out all that there is.
        let is_set = self.last.is_some_and(|last| last.differs(now) > DRIFT);
        let is_new_day = today > self.day && !is_set;
        if self.length > 0 && (is_full || is_new_day) {
            // Where that fails, the old file stays in use for another while.
            if self.put_aside().is_err() {
                self.length = 0;
            }
        }
        self.day = today;
        self.last = Some(now);
        self.file.write_all(line.as_bytes())?;
        self.length += line.len() as u64;
        Ok(())
    }

    /// Opens the file again, which somebody may have moved away.
    ///
    /// # Errors
    /// When it cannot be opened; the old one stays in use.
    pub fn reopen(&mut self) -> io::Result<()> {
        (self.file, self.length, self.day) = opened(&self.path)?;
        Ok(())
    }

    /// `x.log` becomes `x.log.1`, that one `x.log.2`, and so on.
    fn put_aside(&mut self) -> io::Result<()> {
        let numbered = |number: u32| {
            let mut path = self.path.clone().into_os_string();
            path.push(format!(".{number}"));
            PathBuf::from(path)
        };
        // Somebody moved it away: nothing has to be put aside.
        if fs::symlink_metadata(&self.path).is_err() {
            return self.reopen();
        }
        for number in (1..KEPT).rev() {
            // Of those that there are not yet, nothing becomes the next.
            let _ = fs::rename(numbered(number), numbered(number + 1));
        }
        fs::rename(&self.path, numbered(1))?;
        self.reopen()
    }
}

fn opened(path: &Path) -> io::Result<(File, u64, Day)> {
    let file = files::open_append(path)?;
    let metadata = file.metadata()?;
    let changed = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    Ok((file, metadata.len(), day_of(clock::local(changed))))
}

fn day_of(at: Calendar) -> Day {
    (at.year, at.month, at.day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let name = format!("tfa-log-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Scratch(path)
        }

        fn read(&self, name: &str) -> Option<String> {
            fs::read_to_string(self.0.join(name)).ok()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const DAY: Duration = Duration::from_secs(86_400);

    /// Noon, so many days after some first one.
    fn noon(days: u32) -> Now {
        let start = Now {
            steady: Instant::now(),
            wall: SystemTime::UNIX_EPOCH + DAY * 20_000 + DAY / 2,
        };
        start.after(DAY * days)
    }

    #[test]
    fn a_new_day_and_a_full_file_begin_a_new_one_and_six_are_kept() {
        let scratch = Scratch::new("rotation");
        let mut log = LogFile::open(&scratch.0.join("a.log")).unwrap().unwrap();
        let first = noon(0);
        for day in 1..=9 {
            let now = first.after(DAY * day);
            log.write(&format!("day {day}\n"), now).unwrap();
            log.write("and more\n", now).unwrap();
        }
        let read = |name: &str| scratch.read(name).unwrap_or_default();
        assert_eq!(read("a.log"), "day 9\nand more\n");
        assert_eq!(read("a.log.1"), "day 8\nand more\n");
        assert_eq!(read("a.log.6"), "day 3\nand more\n");
        assert_eq!(scratch.read("a.log.7"), None);
        let large = "x".repeat(6 << 20);
        log.write(&large, first.after(DAY * 9)).unwrap();
        log.write(&large, first.after(DAY * 9)).unwrap();
        assert_eq!(read("a.log").len(), 6 << 20);
        assert!(read("a.log.1").starts_with("day 9"));
    }

    #[test]
    fn a_date_that_is_set_is_no_midnight() {
        let scratch = Scratch::new("jump");
        let mut log = LogFile::open(&scratch.0.join("a.log")).unwrap().unwrap();
        let booted = Now {
            wall: SystemTime::UNIX_EPOCH,
            ..noon(0)
        };
        log.write("1970\n", booted).unwrap();
        let set = Now {
            steady: booted.steady + Duration::from_secs(60),
            ..noon(0)
        };
        log.write("now\n", set).unwrap();
        assert_eq!(scratch.read("a.log").as_deref(), Some("1970\nnow\n"));
        log.write("tomorrow\n", set.after(DAY)).unwrap();
        assert_eq!(scratch.read("a.log").as_deref(), Some("tomorrow\n"));
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let scratch = Scratch::new("reopen");
        let path = scratch.0.join("a.log");
        let mut log = LogFile::open(&path).unwrap().unwrap();
        assert!(
            LogFile::open(&path).unwrap().is_none(),
            "another agent has it"
        );
        log.write("one\n", noon(0)).unwrap();
        fs::rename(&path, scratch.0.join("moved")).unwrap();
        log.reopen().unwrap();
        log.write("two\n", noon(0)).unwrap();
        assert_eq!(scratch.read("a.log").as_deref(), Some("two\n"));
        assert_eq!(scratch.read("moved").as_deref(), Some("one\n"));
        drop(log);
        assert!(LogFile::open(&path).unwrap().is_some());
    }
}
