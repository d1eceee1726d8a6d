//! Warnings and errors for those who cannot see the board: the server shows them.

use super::{Level, printable};
use crate::sys::clock;
use std::collections::VecDeque;
use std::time::SystemTime;

/// As many as the server keeps.
const MOST: usize = 100;
/// So many characters of one are shown.
const LONGEST: usize = 500;

/// Lines that the server does not have yet; of too many, the last.
#[derive(Debug, Default)]
pub(super) struct Unshared(Option<VecDeque<String>>);

impl Unshared {
    pub(super) const fn unwanted() -> Unshared {
        Unshared(None)
    }

    pub(super) fn wanted() -> Unshared {
        Unshared(Some(VecDeque::new()))
    }

    pub(super) fn add(&mut self, time: SystemTime, level: Level, message: &str) {
        if let Some(lines) = self.0.as_mut().filter(|_| level >= Level::Warning) {
            let time = clock::iso8601(time);
            let time = time.get(..19).unwrap_or(&time);
            let line = format!("{time} {}: {}", level.name(), printable(message));
            lines.push_back(line.chars().take(LONGEST).collect());
            shorten(lines);
        }
    }

    pub(super) fn take(&mut self) -> Vec<String> {
        let lines = self.0.as_mut().map(std::mem::take);
        lines.unwrap_or_default().into()
    }

    /// They could not be told: before those that came meanwhile.
    pub(super) fn put_back(&mut self, older: Vec<String>) {
        if let Some(lines) = &mut self.0 {
            for line in older.into_iter().rev() {
                lines.push_front(line);
            }
            shorten(lines);
        }
    }
}

fn shorten(lines: &mut VecDeque<String>) {
    while lines.len() > MOST {
        lines.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hundred_warnings_wait_for_the_server() {
        let mut lines = Unshared::wanted();
        let time = SystemTime::UNIX_EPOCH;
        lines.add(time, Level::Info, "not this");
        for number in 0..60 {
            lines.add(time, Level::Warning, &format!("{number}\n"));
        }
        let taken = lines.take();
        assert_eq!(taken.len(), 60);
        assert_eq!(taken[0], "1970-01-01T00:00:00 WARNING: 0\\n");
        for number in 60..120 {
            lines.add(
                time,
                Level::Error,
                &format!("{number}{}", "x".repeat(1_000)),
            );
        }
        lines.put_back(taken);
        let taken = lines.take();
        assert_eq!(taken.len(), 100);
        assert!(taken[0].ends_with("WARNING: 20\\n"), "{}", taken[0]);
        assert_eq!(taken[99].len(), LONGEST);
        assert!(lines.take().is_empty());
        let mut nobody = Unshared::unwanted();
        nobody.add(time, Level::Error, "x");
        assert!(nobody.take().is_empty());
    }
}
