//! The record of a job: `results_basedir/<job_id>/`, from the moment the job is
//! taken until the server has all of it.
//!
//! It holds the journal, one log per phase, and at the end the artifacts. The
//! journal is only ever added to; a torn last line is ignored, and with it
//! whatever it was about to say.

use super::{Entry, Job, LOG_TYPES, LogLength, LogType, PHASES, Phase, Progress};
use crate::child::Secrets;
use crate::sys::{self, files};
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

const JOURNAL: &str = "journal";
/// The job as received, secrets included: 0600, and gone with the record.
pub(super) const DOCUMENT: &str = "job.json";

/// No entry is longer, in bytes.
const LONGEST_ENTRY: u64 = 1 << 20;
/// No job is longer, in bytes: no answer is.
pub(super) const LONGEST_DOCUMENT: u64 = 16 << 20;

/// How the name of a record or of artifacts ends that are being removed.
pub(super) const REMOVING: &str = ".removing";
/// And that of one that could not be made.
const UNWRITTEN: &str = ".unwritten";

/// How the name of a record begins that is being made or removed, before its own.
pub(super) fn hidden_prefix(agent_id: &str) -> String {
    format!(".{}.", files::escape_name(agent_id))
}

/// The document in a record's directory, if it is there.
pub(super) fn document_in(directory: &Path) -> Option<String> {
    let read = files::read_regular_of(&directory.join(DOCUMENT), None, LONGEST_DOCUMENT);
    String::from_utf8(read.ok()??).ok()
}

/// A record that can be added to, by the agent and the uplink alike.
#[derive(Debug)]
pub struct Record {
    directory: PathBuf,
    journal: Mutex<Journal>,
}

/// What a record is written into.
#[derive(Debug)]
struct Journal {
    file: JournalFile,
    /// Its last line may be torn: that must not swallow the next one.
    is_torn: bool,
}

/// The file of that.
#[derive(Debug)]
enum JournalFile {
    /// Held open, so that a job that runs needs no descriptor to go on.
    Open(File),
    /// Opened for each entry: a job that is over has few left.
    Closed,
    /// The disk did not take it: the job is known to this process only.
    Missing,
}

impl Journal {
    fn new(file: JournalFile, is_torn: bool) -> Mutex<Journal> {
        Mutex::new(Journal { file, is_torn })
    }
}

impl Record {
    /// Makes the record of a job that has been taken, with its document. Where
    /// there is one of the same id still, it stands beside that. It has its name
    /// when it is whole: what is found half-made later is [`super::Records::half_made`].
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn create(
        basedir: &Path,
        job_id: &str,
        agent_id: &str,
        document: &str,
    ) -> io::Result<Record> {
        let making = basedir.join(format!("{}{job_id}", hidden_prefix(agent_id)));
        match DirBuilder::new().mode(0o700).create(&making) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // From here on, nobody forgets that it was taken: the name alone says so.
        files::sync_directory(basedir)?;
        let mut text = files::create_fresh(&making.join(DOCUMENT))?;
        text.write_all(document.as_bytes())?;
        text.sync_data()?;
        let mut journal = files::create_fresh(&making.join(JOURNAL))?;
        let taken = Entry::Taken {
            job_id: job_id.to_owned(),
            agent_id: agent_id.to_owned(),
        };
        journal.write_all(taken.to_line().as_bytes())?;
        journal.sync_data()?;
        files::sync_directory(&making)?;
        let mut directory = basedir.join(job_id);
        let mut copies = 1;
        while let Err(error) = fs::rename(&making, &directory) {
            let is_there = matches!(
                error.kind(),
                io::ErrorKind::DirectoryNotEmpty
                    | io::ErrorKind::AlreadyExists
                    | io::ErrorKind::NotADirectory
            );
            if !is_there || copies == 100 {
                return Err(error);
            }
            copies += 1;
            directory = basedir.join(format!("{job_id}.{copies}"));
        }
        if let Err(error) = files::sync_directory(basedir) {
            // Half-made, as whatever else fails leaves it.
            let _ = fs::rename(&directory, &making);
            return Err(error);
        }
        Ok(Record {
            directory,
            journal: Journal::new(JournalFile::Open(journal), false),
        })
    }

    /// The job's document, if it is there.
    #[must_use]
    pub fn document(&self) -> Option<String> {
        document_in(&self.directory)
    }

    /// The job, if its document is there and is one.
    #[must_use]
    pub fn job(&self) -> Option<Job> {
        self.document().and_then(|text| Job::parse(text).ok())
    }

    /// What must not be seen of the job.
    #[must_use]
    pub fn secrets(&self) -> Arc<Secrets> {
        self.job().map_or_else(Arc::default, |job| {
            Arc::new(Secrets::new(job.secrets.values()))
        })
    }

    /// Reads how far the record in a directory is; `None` when the directory is
    /// no record. Nothing is changed: it may be another agent's.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(directory: &Path) -> io::Result<Option<Progress>> {
        let path = directory.join(JOURNAL);
        let is_file = |metadata: fs::Metadata| metadata.is_file();
        if !fs::symlink_metadata(&path).is_ok_and(is_file) {
            return Ok(None);
        }
        let mut progress = Progress::default();
        let mut lines = BufReader::new(files::open_regular(&path)?);
        let (mut line, mut first) = (Vec::new(), true);
        // What is longer is none, and comes in pieces that are none.
        while lines
            .by_ref()
            .take(LONGEST_ENTRY)
            .read_until(b'\n', &mut line)?
            > 0
        {
            match (Entry::parse(&String::from_utf8_lossy(&line)), first) {
                (Some(entry @ Entry::Taken { .. }), true) => progress.apply(&entry),
                (_, true) => return Ok(None),
                (Some(entry), false) => progress.apply(&entry),
                (None, false) => {}
            }
            first = false;
            line.clear();
        }
        Ok((!first).then_some(progress))
    }

    /// A record that is there, to be added to.
    #[must_use]
    pub fn open(directory: &Path) -> Record {
        Record {
            directory: directory.to_owned(),
            journal: Journal::new(JournalFile::Closed, true),
        }
    }

    /// In place of a record that cannot be made.
    #[must_use]
    pub fn unwritten(basedir: &Path, job_id: &str) -> Record {
        Record {
            directory: basedir.join(format!("{job_id}{UNWRITTEN}")),
            journal: Journal::new(JournalFile::Missing, false),
        }
    }

    /// Adds an entry; when this returns, it is as durable as it has to be.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn append(&self, entry: &Entry) -> io::Result<()> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let Journal { file, is_torn } = &mut *journal;
        let mut opened;
        let journal = match file {
            JournalFile::Open(file) => file,
            JournalFile::Closed => {
                opened = files::open_append(&self.directory.join(JOURNAL))?;
                &mut opened
            }
            JournalFile::Missing => return Ok(()),
        };
        let before = journal.metadata()?.len();
        let mut line = entry.to_line();
        if *is_torn {
            line.insert(0, '\n');
        }
        if let Err(error) = journal.write_all(line.as_bytes()) {
            // Half an entry would take the next one with it.
            *is_torn |= journal.set_len(before).is_err();
            return Err(error);
        }
        *is_torn = false;
        match entry {
            // In one step with the artifacts that were moved here: not every file system
            // keeps the order of what it is told.
            Entry::Finished {
                artifacts: Some(path),
            } if path.starts_with(&self.directory) => {
                files::sync_file_system(&self.directory).or_else(|_| journal.sync_data())
            }
            _ if entry.is_synced() => journal.sync_data(),
            _ => Ok(()),
        }
    }

    /// Makes the logs of a phase durable, as far as there are any.
    ///
    /// # Errors
    /// When the disk does not take them.
    pub fn sync_logs(&self, phase: Phase) -> io::Result<()> {
        for log in LOG_TYPES {
            match files::open_regular(&self.log(phase, log)) {
                Ok(file) => file.sync_data()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The job is over: its journal need not be held open any more.
    pub fn rest(&self) {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(journal.file, JournalFile::Open(_)) {
            journal.file = JournalFile::Closed;
        }
    }

    /// Where the record is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where one of a phase's logs is kept.
    #[must_use]
    pub fn log(&self, phase: Phase, log: LogType) -> PathBuf {
        self.directory.join(match log {
            LogType::Output => format!("{phase}.log"),
            LogType::Serial => format!("{phase}-serial.log"),
        })
    }

    /// How many bytes that log has; a log that is not there has none.
    #[must_use]
    pub fn log_length(&self, phase: Phase, log: LogType) -> u64 {
        let metadata = fs::symlink_metadata(self.log(phase, log));
        let metadata = metadata.ok().filter(fs::Metadata::is_file);
        metadata.map_or(0, |metadata| metadata.len())
    }

    /// How much text there is of each log, without half a character at its end; of
    /// those that are not there, nothing is said.
    #[must_use]
    pub fn log_lengths(&self) -> Vec<LogLength> {
        let mut lengths = Vec::new();
        for phase in PHASES {
            for log in LOG_TYPES {
                if let Ok(bytes) = files::length_of_text(&self.log(phase, log)) {
                    lengths.push(LogLength { phase, log, bytes });
                }
            }
        }
        lengths
    }

    /// Text of that log from a place on: at most so many bytes, and whole
    /// characters only. What a broken disk made of it has a `?` for each byte that is
    /// none, so that places stay what they are.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_log(&self, phase: Phase, log: LogType, from: u64, most: u64) -> io::Result<String> {
        let log = files::open_regular(&self.log(phase, log))?;
        let left = log.metadata()?.len().saturating_sub(from);
        let length = usize::try_from(left.min(most)).unwrap_or(0);
        let mut bytes = vec![0; length];
        log.read_exact_at(&mut bytes, from)?;
        let mut from = 0;
        while let Some(Err(error)) = bytes.get(from..).map(std::str::from_utf8) {
            from += error.valid_up_to();
            match error.error_len() {
                // The end cuts a character: it goes with the next piece.
                None if from > 0 => bytes.truncate(from),
                length => {
                    let end = length.map_or(bytes.len(), |length| from + length);
                    let broken = bytes.get_mut(from..end).unwrap_or_default();
                    broken.fill(b'?');
                    from = end;
                }
            }
        }
        String::from_utf8(bytes).map_err(io::Error::other)
    }

    /// Where the device's information is kept.
    #[must_use]
    pub fn device_info(&self) -> PathBuf {
        self.directory.join("device-info.json")
    }

    /// Keeps the device's information, whole or not at all.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn keep_device_info(&self, text: &str) -> io::Result<()> {
        let partial = self.directory.join("device-info.partial");
        files::create_fresh(&partial)?.write_all(text.as_bytes())?;
        fs::rename(partial, self.device_info())
    }

    /// The device's information, as it was kept last.
    ///
    /// # Errors
    /// When it cannot be read, or is no text.
    pub fn read_device_info(&self) -> io::Result<String> {
        let read = files::read_regular_of(&self.device_info(), None, LONGEST_DOCUMENT);
        let bytes = read?.ok_or(io::ErrorKind::NotFound)?;
        String::from_utf8(bytes).map_err(io::Error::other)
    }

    /// Where the artifacts are kept, as a directory.
    #[must_use]
    pub fn artifacts(&self) -> PathBuf {
        self.directory.join("artifacts")
    }

    /// Removes the record: nothing is owed any more. What is found half-removed
    /// later is one of [`super::Records::half_removed`].
    ///
    /// # Errors
    /// When something in it cannot be removed.
    pub fn remove(&self, agent_id: &str) -> io::Result<()> {
        let name = self.directory.file_name().unwrap_or_default();
        let name = format!("{}{}", hidden_prefix(agent_id), name.to_string_lossy());
        if let Some(making) = name.strip_suffix(UNWRITTEN) {
            // What there is of it would be taken for a job that nobody knows of.
            sys::remove_tree(&self.directory.with_file_name(making))?;
        }
        let removing = self.directory.with_file_name(name + REMOVING);
        let is_renamed = fs::rename(&self.directory, &removing).is_ok();
        sys::remove_tree(if is_renamed {
            &removing
        } else {
            &self.directory
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Records;
    use super::*;

    pub(in crate::job) const ID: &str = "4a01916a-c18b-4c2c-87bb-7da770768044";

    pub(in crate::job) fn basedir(name: &str) -> PathBuf {
        let name = format!("tfa-record-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    /// Row 20: the last line is torn at every byte; what stands before it holds,
    /// and what is added afterwards is read.
    #[test]
    fn row_20_a_torn_last_entry_is_ignored() {
        let basedir = basedir("torn");
        let record = Record::create(&basedir, ID, "a", "{}").unwrap();
        record.append(&Entry::Started(Phase::Setup)).unwrap();
        let ended = Entry::Ended {
            phase: Phase::Setup,
            status: 3,
        };
        let whole = fs::read(record.directory.join(JOURNAL)).unwrap();
        let line = ended.to_line();
        for cut in 0..=line.len() {
            let mut bytes = whole.clone();
            bytes.extend_from_slice(&line.as_bytes()[..cut]);
            fs::write(record.directory.join(JOURNAL), bytes).unwrap();
            let progress = Record::read(&record.directory).unwrap().unwrap();
            let length = fs::metadata(record.directory.join(JOURNAL)).unwrap().len();
            let opened = Record::open(&record.directory);
            // A disk that is full is no reason not to know the job.
            let untouched = fs::metadata(record.directory.join(JOURNAL)).unwrap().len();
            assert_eq!(untouched, length);
            let expected = (cut + 1 >= line.len()).then_some(3);
            assert_eq!(progress.phases[0].status, expected, "cut at {cut}");
            opened.append(&Entry::Started(Phase::Test)).unwrap();
            let progress = Record::read(&record.directory).unwrap().unwrap();
            assert_eq!(progress.phases.len(), 2, "cut at {cut}");
        }
        fs::remove_dir_all(basedir).unwrap();
    }

    /// Whoever had the disk in hand.
    #[test]
    fn a_record_that_is_broken_is_read_as_far_as_it_can_be() {
        let basedir = basedir("broken");
        let record = Record::create(&basedir, ID, "a", "{}").unwrap();
        let (phase, log) = (Phase::Test, LogType::Output);
        let path = record.log(phase, log);
        let read = |from, most| record.read_log(phase, log, from, most);
        fs::write(&path, b"\xff\xfea\xc3(\xe2\x82\xac\xe2\x82").unwrap();
        assert_eq!(read(0, 99).unwrap(), "??a?(€");
        assert_eq!(read(0, 7).unwrap(), "??a?(");
        assert_eq!(read(8, 99).unwrap(), "??", "there is no more");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(read(0, 99).is_err());
        assert_eq!(record.log_length(phase, log), 0);
        // Who opened that to read would wait for a writer.
        for name in [DOCUMENT, JOURNAL] {
            let path = record.directory.join(name);
            fs::remove_file(&path).unwrap();
            let made = std::process::Command::new("mkfifo").arg(&path).status();
            assert!(made.unwrap().success());
        }
        assert_eq!(record.document(), None);
        let found = Records::find(&basedir, "a").unwrap();
        assert_eq!(found.foreign, [record.directory()]);
        fs::remove_dir_all(basedir).unwrap();
    }

    #[test]
    fn an_entry_without_an_end_is_none() {
        let basedir = basedir("endless");
        let record = Record::create(&basedir, ID, "a", "{}").unwrap();
        let mut journal = files::open_append(&record.directory.join(JOURNAL)).unwrap();
        let end = journal.metadata().unwrap().len();
        journal.set_len(end + (1 << 30)).unwrap();
        journal.write_all(b"\n").unwrap();
        journal
            .write_all(Entry::Complete.to_line().as_bytes())
            .unwrap();
        let progress = Record::read(&record.directory).unwrap().unwrap();
        assert!(progress.complete);
        fs::remove_dir_all(basedir).unwrap();
    }
}
