//! What lies in a `results_basedir`: the records of this agent's jobs, and of others.

use super::document::is_uuid;
use super::record::{REMOVING, document_in, hidden_prefix};
use super::refused::REFUSED;
use super::{Progress, Record};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What lies in a `results_basedir`.
#[derive(Debug, Default)]
pub struct Records {
    /// Jobs of this agent that are over and not wholly delivered, and their
    /// progress; the oldest first.
    pub owed: Vec<(Record, Progress)>,
    /// Jobs of this agent that were under way when it ended.
    pub interrupted: Vec<(Record, Progress)>,
    /// Jobs that it took, and did not come to put on record: their ids, and their
    /// documents as far as they are there.
    pub half_made: Vec<(String, Option<String>)>,
    /// Records of this agent of which nothing is owed any more.
    pub half_removed: Vec<PathBuf>,
    /// Entries that are nobody's record.
    pub foreign: Vec<PathBuf>,
}

impl Records {
    /// Looks at every entry, and at those hidden ones that are this agent's.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn find(basedir: &Path, agent_id: &str) -> io::Result<Records> {
        let mut entries: Vec<_> = fs::read_dir(basedir)?
            .flatten()
            .map(|entry| {
                let changed = entry.metadata().and_then(|metadata| metadata.modified());
                (changed.ok(), entry.path())
            })
            .collect();
        entries.sort();
        let mut records = Records::default();
        let hidden = hidden_prefix(agent_id);
        for (_, path) in entries {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with('.') {
                let Some(name) = name.strip_prefix(&hidden).filter(|_| path.is_dir()) else {
                    continue;
                };
                // Of an agent whose name begins with this one's, there is more.
                let id = name.get(..36).filter(|id| is_uuid(id));
                if id == Some(name) {
                    let document = document_in(&path);
                    records.half_made.push((name.to_owned(), document));
                } else if id.is_some() && name.ends_with(REMOVING) {
                    records.half_removed.push(path);
                }
                continue;
            }
            if name == REFUSED {
                continue;
            }
            match Record::read(&path) {
                Ok(Some(progress)) if progress.agent_id != agent_id => {}
                // It names directories.
                Ok(Some(progress)) if !is_uuid(&progress.job_id) => records.foreign.push(path),
                Ok(Some(progress)) => {
                    let of_its_kind = match progress.finished {
                        true => &mut records.owed,
                        false => &mut records.interrupted,
                    };
                    of_its_kind.push((Record::open(&path), progress));
                }
                Ok(None) | Err(_) => records.foreign.push(path),
            }
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Entry;
    use super::super::record::tests::{ID, basedir};
    use super::*;

    #[test]
    fn records_are_told_apart() {
        let basedir = basedir("apart");
        let finished = Record::create(&basedir, ID, "a", "{}").unwrap();
        finished
            .append(&Entry::Finished { artifacts: None })
            .unwrap();
        let again = Record::create(&basedir, ID, "a", "{}").unwrap();
        assert!(again.directory().ends_with(format!("{ID}.2")));
        Record::create(&basedir, "other", "b", "{}").unwrap();
        fs::create_dir(basedir.join("lost+found")).unwrap();
        fs::write(basedir.join(".a.lock"), "").unwrap();
        // Of this agent, and of one whose name begins with this one's.
        for half_made in [format!(".a.{ID}"), format!(".a.b.{ID}")] {
            fs::create_dir(basedir.join(half_made)).unwrap();
        }
        let half_removed = [format!(".a.{ID}.2.removing"), format!(".a.b.{ID}.removing")]
            .map(|name| basedir.join(name));
        for path in &half_removed {
            fs::create_dir(path).unwrap();
        }
        let records = Records::find(&basedir, "a").unwrap();
        assert_eq!(records.owed.len(), 1);
        assert_eq!(records.owed[0].1.job_id, ID);
        assert_eq!(records.interrupted.len(), 1);
        assert_eq!(records.interrupted[0].0.directory(), again.directory());
        assert_eq!(records.half_made, [(ID.to_owned(), None)]);
        assert_eq!(records.half_removed, half_removed[..1]);
        assert_eq!(records.foreign, [basedir.join("lost+found")]);
        fs::remove_dir_all(basedir).unwrap();
    }

    /// It names directories.
    #[test]
    fn a_record_of_no_job_is_nobodys() {
        let basedir = basedir("no-job");
        let record = Record::create(&basedir, "other", "a", "{}").unwrap();
        let records = Records::find(&basedir, "a").unwrap();
        assert_eq!(records.foreign, [record.directory()]);
        fs::remove_dir_all(basedir).unwrap();
    }
}
