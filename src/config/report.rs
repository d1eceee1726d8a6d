//! What is told about a configuration: why it cannot be used, or what is odd.

use super::fields::{Fields, shown};
use super::keys::Kind;
use crate::log::{Level, printable};
use crate::yaml::Document;
use std::fmt;
use std::path::{Path, PathBuf};

/// How many keys that stand twice are told.
const MAX_DUPLICATES: usize = 10;

/// Why a configuration cannot be used: the file, the place, what stands there
/// and what is wanted, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    path: PathBuf,
    /// Line and column, from 1. What is missing has none.
    place: Option<(usize, usize)>,
    reason: String,
}

impl Error {
    pub(super) fn of_file(path: &Path, reason: impl Into<String>) -> Error {
        Error {
            path: path.to_owned(),
            place: None,
            reason: reason.into(),
        }
    }

    pub(super) fn at(path: &Path, line: usize, column: usize, reason: impl Into<String>) -> Error {
        Error {
            place: Some((line, column)),
            ..Error::of_file(path, reason)
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.path.display().to_string()))?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", printable(&self.reason))
    }
}

impl std::error::Error for Error {}

/// Something odd about a configuration that is used all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How grave it is.
    pub level: Level,
    /// What there is to say.
    pub text: String,
}

impl Notice {
    pub(super) fn new(level: Level, text: String) -> Notice {
        Notice { level, text }
    }
}

/// Tells of keys that stand more than once.
pub(super) fn duplicates(path: &Path, document: &Document) -> Vec<Notice> {
    let all = document.duplicates.iter().take(MAX_DUPLICATES);
    all.map(|(key, line)| {
        let text = format!(
            "{}:{line}: `{}` stands here again; the last one counts",
            path.display(),
            shown(key)
        );
        Notice::new(Level::Warning, text)
    })
    .collect()
}

/// Tells of keys that have no use any more.
pub(super) fn unused(path: &Path, fields: &Fields<'_>) -> Vec<Notice> {
    let mut notices = Vec::new();
    let mut old = Vec::new();
    for key in fields.given().map(|(key, _, _)| key) {
        match (key.kind, key.name) {
            // The original still takes it, so it is no sign of an old file.
            (Kind::Unused, "output_bytes") => {
                let text = format!("{}: output_bytes has no use any more", path.display());
                notices.push(Notice::new(Level::Debug, text));
            }
            (Kind::Unused, name) => old.push(name),
            _ => {}
        }
    }
    if !old.is_empty() {
        let text = format!(
            "{}: these keys have no use any more: {}",
            path.display(),
            old.join(", ")
        );
        notices.push(Notice::new(Level::Warning, text));
    }
    notices
}
