//! `results_basedir/refused/`: what the server would not have of jobs that are
//! complete, for people to look at. Nothing here is owed to anybody, so that it
//! must never take the room of the next job.

use super::Record;
use super::record::DOCUMENT;
use crate::sys::{self, clock, files};
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The name of the place, beside the records.
pub(super) const REFUSED: &str = "refused";
/// What was refused, and why, a line each.
const REASONS: &str = "refused.txt";
/// So many of an agent's jobs are kept.
const KEPT: usize = 20;

impl Record {
    /// Writes down what the server refuses, and its reason.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn note_refusal(&self, what: &str, cause: &str) -> io::Result<()> {
        let now = clock::iso8601(SystemTime::now());
        let line = format!("{now} {what}: {cause}\n");
        files::open_append(&self.directory().join(REASONS))?.write_all(line.as_bytes())
    }

    /// Whether the server refused something that people may want to look at.
    #[must_use]
    pub fn has_refusals(&self) -> bool {
        self.directory().join(REASONS).exists()
    }

    /// Puts the record aside, and the oldest one of this agent there away if
    /// there are too many; returns where it is now. Secrets are kept no longer than
    /// their job: a document with some is not.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn put_aside(&self, agent_id: &str) -> io::Result<PathBuf> {
        let name = self.directory().file_name().unwrap_or_default();
        let basedir = self.directory().parent().unwrap_or(Path::new("/"));
        let refused = basedir.join(REFUSED);
        if self
            .document()
            .is_some_and(|text| text.contains("\"secrets\""))
        {
            fs::remove_file(self.directory().join(DOCUMENT))?;
        }
        match DirBuilder::new().mode(0o700).create(&refused) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let place = refused.join(name);
        sys::remove_tree(&place)?;
        fs::rename(self.directory(), &place)?;
        for old in oldest_first(basedir, agent_id).iter().rev().skip(KEPT) {
            sys::remove_tree(old)?;
        }
        Ok(place)
    }
}

/// Removes the oldest record of this agent that was put aside; what that was, if
/// there is one.
///
/// # Errors
/// When it cannot be removed.
pub fn remove_oldest_refused(basedir: &Path, agent_id: &str) -> io::Result<Option<PathBuf>> {
    let Some(oldest) = oldest_first(basedir, agent_id).into_iter().next() else {
        return Ok(None);
    };
    sys::remove_tree(&oldest)?;
    Ok(Some(oldest))
}

/// What this agent put aside. Other agents of this host use the same place.
fn oldest_first(basedir: &Path, agent_id: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(basedir.join(REFUSED)).into_iter().flatten();
    let mut found: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let progress = Record::read(path).ok().flatten();
            progress.is_some_and(|progress| progress.agent_id == agent_id)
        })
        .map(|path| {
            (
                fs::metadata(&path).and_then(|found| found.modified()).ok(),
                path,
            )
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::time::Duration;

    #[test]
    fn the_newest_of_an_agent_are_kept() {
        let name = format!("tfa-refused-{}", std::process::id());
        let basedir = std::env::temp_dir().join(name);
        fs::create_dir_all(&basedir).unwrap();
        let aside = |id: &str, agent_id: &str, age: u64| {
            let record = Record::create(&basedir, id, agent_id, "{}").unwrap();
            record.note_refusal("its artifacts", "too large").unwrap();
            let at = SystemTime::now() - Duration::from_secs(age);
            File::open(record.directory())
                .unwrap()
                .set_modified(at)
                .unwrap();
            record.put_aside(agent_id).unwrap()
        };
        let of_another = aside("other", "b", 1_000_000);
        let places: Vec<_> = (0..25)
            .map(|number| aside(&format!("job{number}"), "a", 10_000 - number))
            .collect();
        let kept: Vec<_> = places.iter().map(|place| place.exists()).collect();
        assert_eq!(kept.iter().filter(|kept| **kept).count(), KEPT);
        assert!(kept.is_sorted(), "the oldest went: {kept:?}");
        let text = fs::read_to_string(places[24].join(REASONS)).unwrap();
        assert!(text.ends_with(" its artifacts: too large\n"), "{text}");
        assert!(places[24].join(DOCUMENT).exists());
        let secret = r#"{"test_data": {"secrets": {"A": "b"}}}"#;
        let record = Record::create(&basedir, "secret", "c", secret).unwrap();
        assert!(!record.put_aside("c").unwrap().join(DOCUMENT).exists());
        let removed = remove_oldest_refused(&basedir, "a").unwrap();
        assert_eq!(removed.as_ref(), Some(&places[5]));
        assert!(!places[5].exists() && places[6].exists() && of_another.exists());
        fs::remove_dir_all(basedir).unwrap();
    }
}
