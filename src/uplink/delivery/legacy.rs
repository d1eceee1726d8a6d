//! The delivery to a server of before 2025-12: what it shows of a log it shows
//! once, and what lasts comes with the job's result, all at once.

use super::Delivery;
use crate::job::{Entry, LOG_TYPES, LogType, Phase};
use crate::json::Object;
use crate::sys::files;
use crate::uplink::api::Api;
use crate::uplink::era::{LogPiece, Posted};
use crate::uplink::failure::Failure;
use crate::uplink::waiting::FRAGMENT_INTERVAL;
use crate::{info, warning};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// So much of a log's end lasts, as agents of that time had it.
const KEPT: u64 = 1 << 20;
/// And no less, but for nothing.
const LEAST_KEPT: u64 = 1 << 10;
/// The database holds 16 MiB of a job, and more of it than the result; who has too
/// much says so since 2025-03, and fails before.
const LARGEST_RESULT: usize = 12 << 20;
/// Between two pieces of a log. Such a server puts a line end between them, and
/// people's programs ask for them every ten seconds: more pieces would be more
/// empty lines, and no sooner there.
const TEXT_INTERVAL: Duration = Duration::from_secs(10);
/// Somebody between the agent and the server may not know it for a moment.
const UNKNOWN_ATTEMPTS: u32 = 2;

/// What a result holds besides the job's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contents {
    Logs,
    Output,
    Statuses,
    Nothing,
}

impl Contents {
    fn name(self) -> &'static str {
        match self {
            Contents::Logs => "its result with all logs",
            Contents::Output => "its result with the output",
            Contents::Statuses => "its result with the statuses",
            Contents::Nothing => "that it is complete",
        }
    }

    /// What may be taken where this is not.
    fn less(self) -> Option<Contents> {
        match self {
            Contents::Logs => Some(Contents::Output),
            Contents::Output => Some(Contents::Statuses),
            Contents::Statuses => Some(Contents::Nothing),
            Contents::Nothing => None,
        }
    }

    fn has(self, log: LogType) -> bool {
        match log {
            LogType::Output => matches!(self, Contents::Logs | Contents::Output),
            LogType::Serial => self == Contents::Logs,
        }
    }
}

impl Delivery {
    /// Whether the server is of that time, as far as anybody knows.
    pub(super) fn is_legacy(&self, api: &Api) -> bool {
        let known = api.common.era.is_legacy();
        known.unwrap_or(self.progress.is_legacy)
    }

    /// Between two pieces of a log, as far as the job knows its server.
    pub(super) fn interval(&self) -> Duration {
        match self.progress.is_legacy {
            true => TEXT_INTERVAL,
            false => FRAGMENT_INTERVAL,
        }
    }

    /// Whether nothing of a log comes after this place.
    pub(super) fn is_last(&self, phase: Phase, log: LogType, end: u64) -> bool {
        let mut phases = self.progress.phases.iter();
        let is_over = phases.any(|one| one.phase == phase && one.status.is_some());
        is_over && end >= self.record.log_length(phase, log)
    }

    /// Where the server is today's now, it has nothing of what went to it before:
    /// it gets all of that again. True: it does.
    pub(super) fn begin_anew(&mut self, api: &Api) -> bool {
        let is_upgraded = self.progress.is_legacy && api.common.era.is_legacy() == Some(false);
        if is_upgraded && !self.progress.complete {
            info!(
                "the server was upgraded in the middle of job {}: all of its logs are sent again",
                self.progress.job_id
            );
            self.note(&Entry::Upgraded);
            (self.doubt, self.repeats, self.uncounted) = (None, false, false);
            return true;
        }
        false
    }

    /// Sends a piece of a log. False: the server has not got it, but nothing failed.
    pub(super) fn post_piece(
        &mut self,
        api: &Api,
        phase: Phase,
        log: LogType,
        number: u64,
        text: &str,
    ) -> Result<bool, Failure> {
        let piece = LogPiece {
            job_id: &self.progress.job_id,
            phase,
            log,
            number,
            text,
        };
        let posted = api.post_log(&piece, self.progress.is_legacy);
        match posted {
            Ok(Posted::Fragment) => Ok(true),
            Ok(Posted::Text) => {
                if !self.progress.is_legacy {
                    self.note(&Entry::Legacy);
                }
                Ok(true)
            }
            Ok(Posted::NotLive) => {
                self.note(&Entry::LogRefused { phase, log });
                Ok(false)
            }
            Ok(Posted::Upgraded) => Ok(false),
            Err(Failure::Refused { status: 404, cause }) if self.failures() < UNKNOWN_ATTEMPTS => {
                Err(api.not_found(cause))
            }
            Err(failure) => Err(failure),
        }
    }

    /// The result: all that lasts of the job.
    pub(super) fn complete_as_of_old(&mut self, api: &Api, now: Instant) -> Result<(), Failure> {
        let (mut contents, mut kept) = (Contents::Logs, KEPT);
        loop {
            let can_shrink = contents.has(LogType::Output) && kept > LEAST_KEPT;
            let is_lost = |error: &io::Error| self.is_lost(error, api, now);
            let body = match self.result(contents, kept, &is_lost) {
                Ok(body) => body,
                Err(error) => return Err(self.unreadable(api, &error)),
            };
            let Some(body) = body else {
                kept /= 2;
                continue;
            };
            match api.post_result_text(&self.progress.job_id, body) {
                Ok(()) => break,
                Err(Failure::Refused { status: 413, .. }) if can_shrink => kept /= 2,
                Err(Failure::Refused { cause, .. }) => {
                    // It may be another one by now; that gets everything its way.
                    match api.ask_era() {
                        Ok(false) => return Ok(()),
                        Err(failure @ Failure::Unreachable { .. }) => return Err(failure),
                        _ => {}
                    }
                    self.refused(contents.name(), &cause);
                    match contents.less() {
                        Some(less) => contents = less,
                        None => break,
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
        self.note(&Entry::Complete);
        Ok(())
    }

    /// The members of the result, with so many bytes of each log; `None` where that
    /// is more than any server takes, and without those that are lost.
    fn result(
        &self,
        contents: Contents,
        kept: u64,
        is_lost: &dyn Fn(&io::Error) -> bool,
    ) -> io::Result<Option<String>> {
        let mut body = Object::new();
        for (phase, status) in self.progress.statuses() {
            if contents != Contents::Nothing {
                body.integer(&format!("{phase}_status"), status);
            }
            for log in LOG_TYPES.into_iter().filter(|&log| contents.has(log)) {
                let path = self.record.log(phase, log);
                let text = match end_of(&path, kept) {
                    Ok(text) => text,
                    // A phase need not have each of them.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
                    Err(error) if is_lost(&error) => {
                        let path = path.display();
                        warning!("cannot read {path}: {error}; the result goes without it");
                        String::new()
                    }
                    Err(error) => return Err(error),
                };
                if !text.is_empty() {
                    body.string(&format!("{phase}_{}", log.name()), &text);
                }
                if body.length() > LARGEST_RESULT {
                    return Ok(None);
                }
            }
        }
        body.string("job_state", "complete");
        Ok(Some(body.finish()))
    }
}

/// So many bytes of a piece are whole lines; all of it, where there is none. What
/// follows a server of that time puts on a line of its own.
pub(super) fn whole_lines(text: &str) -> usize {
    text.rfind('\n').map_or(text.len(), |at| at + 1)
}

/// The end of a text file: at most so many bytes, and whole characters only.
fn end_of(path: &Path, most: u64) -> io::Result<String> {
    let file = files::open_regular(path)?;
    let from = file.metadata()?.len().saturating_sub(most);
    let mut bytes = vec![0; usize::try_from(most).unwrap_or(0)];
    let mut length = 0;
    while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, from + length as u64)? {
            0 => break,
            read => length += read,
        }
    }
    bytes.truncate(length);
    // The rest of a character that is cut.
    let cut = bytes.iter().take_while(|byte| **byte & 0xc0 == 0x80);
    let cut = cut.count();
    bytes.drain(..cut);
    String::from_utf8(bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::super::Step;
    use super::super::patience::is_lasting;
    use super::super::tests::delivery;
    use super::*;

    #[test]
    fn a_line_is_left_for_the_piece_that_ends_it() {
        for (text, whole) in [
            ("a\nb", 2),
            ("a\n", 2),
            ("é\n\nb", 4),
            ("\n", 1),
            ("password: ", 10),
            ("", 0),
        ] {
            assert_eq!(whole_lines(text), whole, "{text:?}");
        }
    }

    #[test]
    fn the_end_of_a_log_begins_with_a_whole_character() {
        let path = std::env::temp_dir().join(format!("tfa-end-{}", std::process::id()));
        for (text, most, end) in [
            ("", 4, ""),
            ("abc", 4, "abc"),
            ("abcde", 4, "bcde"),
            ("aé😀", 4, "😀"),
            ("aé😀", 5, "😀"),
            ("aé😀", 6, "é😀"),
            ("a😀z", 3, "z"),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(end_of(&path, most).unwrap(), end, "{text} {most}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(end_of(&path, 4).is_err());
    }

    #[test]
    fn after_an_upgrade_all_but_the_artifacts_is_owed_again() {
        let basedir = std::env::temp_dir().join(format!("tfa-upgrade-{}", std::process::id()));
        let mut job = delivery(&basedir);
        let (phase, log, now) = (Phase::Setup, LogType::Output, Instant::now());
        std::fs::write(job.record.log(phase, log), "12345").unwrap();
        for entry in [
            Entry::Started(phase),
            Entry::Legacy,
            Entry::Sent {
                phase,
                log,
                bytes: 5,
                next_fragment: 1,
            },
            Entry::Ended { phase, status: 0 },
            Entry::Reported(phase),
            Entry::Finished { artifacts: None },
        ] {
            job.apply(&entry);
        }
        assert!(job.progress.is_legacy);
        assert_eq!(job.next(now), Step::Complete);
        job.apply(&Entry::Upgraded);
        assert!(!job.progress.is_legacy);
        assert_eq!(job.next(now), Step::Fragment(phase, log, 0));
        assert_eq!(*job.progress.next_fragment.of(log), 1, "numbers rise");
        std::fs::remove_dir_all(basedir).unwrap();
    }

    #[test]
    fn a_result_holds_what_its_server_takes() {
        let basedir = std::env::temp_dir().join(format!("tfa-result-{}", std::process::id()));
        let mut job = delivery(&basedir);
        for (phase, status) in [(Phase::Setup, 0), (Phase::Test, 3)] {
            job.apply(&Entry::Started(phase));
            let log = job.record.log(phase, LogType::Output);
            std::fs::write(log, format!("{phase} \"é\"\n")).unwrap();
            job.apply(&Entry::Ended { phase, status });
        }
        std::fs::write(job.record.log(Phase::Test, LogType::Serial), "boot").unwrap();
        let result = |contents| job.result(contents, 8, &is_lasting).unwrap().unwrap();
        assert_eq!(
            result(Contents::Logs),
            r#"{"setup_status": 0, "setup_output": "up \"é\"\n", "test_status": 3, "test_output": "st \"é\"\n", "test_serial": "boot", "job_state": "complete"}"#
        );
        let mut contents = Some(Contents::Logs);
        let mut lengths = Vec::new();
        while let Some(some) = contents {
            lengths.push(result(some).len());
            contents = some.less();
        }
        assert_eq!(result(Contents::Nothing), r#"{"job_state": "complete"}"#);
        // Each byte becomes six, of each phase's megabyte.
        for phase in [Phase::Setup, Phase::Test] {
            let log = job.record.log(phase, LogType::Output);
            std::fs::write(log, "\u{1}".repeat(2 << 20)).unwrap();
        }
        assert_eq!(
            job.result(Contents::Logs, 2 << 20, &is_lasting).unwrap(),
            None
        );
        let half = job.result(Contents::Logs, KEPT / 2, &is_lasting);
        assert!(half.unwrap().is_some());
        assert!(lengths.is_sorted_by(|a, b| a > b), "{lengths:?}");
        std::fs::remove_dir_all(basedir).unwrap();
    }
}
