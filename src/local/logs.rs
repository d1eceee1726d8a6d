//! The log fragments of the jobs.
//!
//! The texts lie in files, one a job, and only where each stands is in memory:
//! a job may log more than a small board has memory. They lie there as the
//! inside of a JSON string in ASCII, which is how `GET /v1/result` sends them,
//! so that answering is copying.

use super::reply::Piece;
use crate::job::{LogType, Phase};
use crate::json::Json;
use crate::sys::files;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// A piece of a log as an agent posted it, without its text.
#[derive(Clone, Debug)]
pub struct Fragment {
    /// The agent's count.
    pub number: i64,
    /// To which log it belongs.
    pub log: LogType,
    /// To which phase it belongs.
    pub phase: Phase,
    /// The agent's time.
    pub timestamp: String,
    /// Bytes of text, in UTF-8.
    pub length: u64,
    /// When it came.
    pub stored_at: Instant,
}

/// The logs of all jobs, also of those that nobody knows.
#[derive(Debug)]
pub(super) struct Logs {
    directory: PathBuf,
    jobs: HashMap<String, JobLogs>,
}

/// The logs of a job.
#[derive(Debug, Default)]
struct JobLogs {
    /// The length of its file.
    end: u64,
    /// In the order in which they came.
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    fragment: Fragment,
    /// Where in the file its text stands, and how much of the file that is.
    offset: u64,
    stored: u64,
}

impl Logs {
    pub(super) fn new(directory: &Path) -> Logs {
        Logs {
            directory: directory.to_owned(),
            jobs: HashMap::new(),
        }
    }

    fn path(&self, job_id: &str) -> PathBuf {
        let name = format!("{}.log", files::escape_name(job_id));
        self.directory.join(name)
    }

    /// Adds a fragment; `text` is its text as it stood in the request.
    pub(super) fn add(
        &mut self,
        job_id: &str,
        fragment: Fragment,
        text: Json<'_>,
    ) -> io::Result<()> {
        let path = self.path(job_id);
        let job = self.jobs.entry(job_id.to_owned()).or_default();
        let quoted = text.text();
        let inner = quoted.get(1..quoted.len() - 1).unwrap_or_default();
        let escaped;
        let inner = if inner.is_ascii() {
            inner
        } else {
            escaped = in_ascii(inner);
            &escaped
        };
        if !inner.is_empty() {
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).mode(0o600).open(path)?;
            // What an earlier failure left behind the end is overwritten.
            file.write_all_at(inner.as_bytes(), job.end)?;
        }
        let stored = inner.len() as u64;
        job.entries.push(Entry {
            fragment,
            offset: job.end,
            stored,
        });
        job.end += stored;
        Ok(())
    }

    /// What came for a job, in the order in which it came.
    pub(super) fn fragments(&self, job_id: &str) -> Vec<Fragment> {
        let entries = self.jobs.get(job_id).map(|job| job.entries.as_slice());
        let fragments = entries.unwrap_or_default().iter();
        fragments.map(|entry| entry.fragment.clone()).collect()
    }

    /// The file that the pieces of a job's logs are parts of.
    pub(super) fn open(&self, job_id: &str) -> io::Result<Option<Arc<File>>> {
        match self.jobs.get(job_id) {
            Some(job) if job.end > 0 => Ok(Some(Arc::new(File::open(self.path(job_id))?))),
            _ => Ok(None),
        }
    }

    /// A phase's text, in the order of the fragments' numbers.
    pub(super) fn pieces(
        &self,
        job_id: &str,
        file: &Arc<File>,
        log: LogType,
        phase: Phase,
    ) -> Vec<Piece> {
        let mut entries: Vec<&Entry> = self
            .jobs
            .get(job_id)
            .map(|job| job.entries.as_slice())
            .unwrap_or_default()
            .iter()
            .filter(|entry| entry.stored > 0)
            .filter(|entry| entry.fragment.log == log && entry.fragment.phase == phase)
            .collect();
        // Stable: what has the same number stays in the order in which it came.
        entries.sort_by_key(|entry| entry.fragment.number);
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for entry in entries {
            match ranges.last_mut() {
                Some((offset, length)) if *offset + *length == entry.offset => {
                    *length += entry.stored;
                }
                _ => ranges.push((entry.offset, entry.stored)),
            }
        }
        let piece = |(offset, length)| Piece::File {
            file: Arc::clone(file),
            offset,
            length,
        };
        ranges.into_iter().map(piece).collect()
    }

    /// A phase's text as text.
    pub(super) fn text(&self, job_id: &str, log: LogType, phase: Phase) -> io::Result<String> {
        let Some(file) = self.open(job_id)? else {
            return Ok(String::new());
        };
        let mut literal = b"\"".to_vec();
        for piece in self.pieces(job_id, &file, log, phase) {
            piece.write(&mut literal)?;
        }
        literal.push(b'"');
        let text = Json::from_bytes(&literal).map_err(io::Error::other)?;
        Ok(text.string().unwrap_or_default())
    }

    /// The highest number of a phase's fragments, -1 without any.
    pub(super) fn last_number(&self, job_id: &str, log: LogType, phase: Phase) -> i64 {
        let entries = self.jobs.get(job_id).map(|job| job.entries.as_slice());
        entries
            .unwrap_or_default()
            .iter()
            .map(|entry| &entry.fragment)
            .filter(|fragment| fragment.log == log && fragment.phase == phase)
            .map(|fragment| fragment.number)
            .max()
            .unwrap_or(-1)
    }
}

/// Writes what is not ASCII as escapes, as the original does.
fn in_ascii(inner: &str) -> String {
    let mut escaped = String::with_capacity(inner.len() * 2);
    let mut units = [0; 2];
    for letter in inner.chars() {
        if letter.is_ascii() {
            escaped.push(letter);
            continue;
        }
        for unit in letter.encode_utf16(&mut units) {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }
    escaped
}

/// How many bytes of UTF-8 a JSON string without lone surrogates stands for.
pub(super) fn text_length(quoted: &str) -> u64 {
    let mut rest = quoted.get(1..quoted.len() - 1).unwrap_or_default();
    let mut length = 0;
    while let Some(at) = rest.find('\\') {
        let escape = rest.get(at + 1..).unwrap_or_default();
        let unit = escape.strip_prefix('u').and_then(|hex| hex.get(..4));
        let unit = unit.and_then(|hex| u16::from_str_radix(hex, 16).ok());
        let (decoded, skipped) = match unit {
            None | Some(0..=0x7f) => (1, unit.map_or(1, |_| 5)),
            // Each half of a pair stands for half of four bytes.
            Some(0x80..=0x7ff | 0xd800..=0xdfff) => (2, 5),
            Some(_) => (3, 5),
        };
        length += at + decoded;
        rest = escape.get(skipped..).unwrap_or_default();
    }
    (length + rest.len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_that_of_the_text() {
        for literal in [
            r#""""#,
            r#""plain""#,
            r#""a\n\"\\\/\t""#,
            r#""\u0000\u007f\u0080\u07ff\u0800\uffff""#,
            r#""\ud83d\ude00é😀x""#,
        ] {
            let text = Json::parse(literal).unwrap().string().unwrap();
            assert_eq!(text_length(literal), text.len() as u64, "{literal}");
        }
    }

    #[test]
    fn texts_come_back_by_number() {
        let directory = std::env::temp_dir().join(format!("logs-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut logs = Logs::new(&directory);
        for (number, log, text) in [
            (2, LogType::Output, "\"zwei 😀\\n\""),
            (1, LogType::Output, "\"eins \""),
            (1, LogType::Serial, "\"serial\""),
            (1, LogType::Output, "\"\\u00e9ins \""),
            (3, LogType::Output, "\"\""),
        ] {
            let fragment = Fragment {
                number,
                log,
                phase: Phase::Test,
                timestamp: String::new(),
                length: text_length(text),
                stored_at: Instant::now(),
            };
            logs.add("j", fragment, Json::parse(text).unwrap()).unwrap();
        }
        let text = |log, phase| logs.text("j", log, phase).unwrap();
        assert_eq!(text(LogType::Output, Phase::Test), "eins éins zwei 😀\n");
        assert_eq!(text(LogType::Serial, Phase::Test), "serial");
        assert_eq!(text(LogType::Output, Phase::Setup), "");
        assert_eq!(logs.last_number("j", LogType::Output, Phase::Test), 3);
        assert_eq!(logs.last_number("x", LogType::Output, Phase::Test), -1);
        assert_eq!(logs.fragments("j").len(), 5);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
