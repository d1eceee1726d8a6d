//! Looking through a job's result, which holds all of its output.

use super::http::explain_io;
use crate::job::{LogLength, LogType, Phase, length_of};
use crate::json::{Scanner, Token};
use std::io::Read;
use std::time::{Duration, Instant};

/// Reading a result may take this long, whatever its size.
const LONGEST_READING: Duration = Duration::from_secs(300);
/// After a while, it has to have come at this many bytes a second: nothing else
/// is delivered meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);
const SLOWEST: u128 = 4 << 10;

/// What the server knows of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// There is such a job.
    pub(super) is_known: bool,
    pub(super) job_state: Option<String>,
    /// How many bytes it has of each log.
    pub(super) logs: Vec<LogLength>,
}

impl Known {
    /// How many bytes it has of one log.
    pub(super) fn length(&self, phase: Phase, log: LogType) -> u64 {
        length_of(&self.logs, phase, log)
    }
}

/// Which log a member of a result is.
fn log_of(member: &[u8]) -> Option<(Phase, LogType)> {
    let (phase, log) = std::str::from_utf8(member).ok()?.rsplit_once('_')?;
    Some((Phase::from_name(phase)?, LogType::from_name(log)?))
}

/// Reads a result, which may be hundreds of megabytes long.
pub(super) fn read_known(reader: &mut dyn Read) -> Result<Known, String> {
    read_within(reader, PATIENCE)
}

fn read_within(reader: &mut dyn Read, patience: Duration) -> Result<Known, String> {
    let begun = Instant::now();
    let mut scanner = Scanner::new();
    let mut known = Known {
        is_known: true,
        ..Known::default()
    };
    let (mut is_state, mut log) = (false, None);
    let mut sink = |depth: u32, token: Token<'_>| match token {
        Token::Key(key) if depth == 1 => {
            is_state = key == b"job_state";
            log = log_of(key);
        }
        Token::String(text, length) if depth == 1 => {
            if is_state {
                known.job_state = Some(String::from_utf8_lossy(text).into_owned());
            }
            if let Some((phase, log)) = log {
                // The last one counts, and one is all that is kept, however often it comes.
                known
                    .logs
                    .retain(|one| (one.phase, one.log) != (phase, log));
                known.logs.push(LogLength {
                    phase,
                    log,
                    bytes: length,
                });
            }
        }
        _ => {}
    };
    let mut buffer = [0; 16 << 10];
    let mut total = 0;
    loop {
        let read = reader
            .read(&mut buffer)
            .map_err(|error| explain_io(&error))?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        let pushed = scanner.push(bytes, &mut sink);
        pushed.map_err(|error| error.to_string())?;
        total += bytes.len() as u64;
        let elapsed = begun.elapsed();
        let is_slow =
            elapsed > patience && u128::from(total) * 1_000 / SLOWEST < elapsed.as_millis();
        if is_slow || elapsed > LONGEST_READING {
            return Err("it comes too slowly".into());
        }
    }
    scanner
        .finish(&mut sink)
        .map_err(|error| error.to_string())?;
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_26_the_state_is_found_behind_any_amount_of_output() {
        let known = |text: &str| read_known(&mut text.as_bytes());
        let state = |text: &str| known(text).map(|known| known.job_state);
        let output = "x\\n".repeat(200_000);
        let text = format!("{{\"test_output\": \"{output}\", \"job_state\": \"cancelled\"}}");
        assert_eq!(state(&text).unwrap().as_deref(), Some("cancelled"));
        let length = |phase, log| known(&text).unwrap().length(phase, log);
        assert_eq!(length(Phase::Test, LogType::Output), 400_000);
        assert_eq!(length(Phase::Test, LogType::Serial), 0);
        let inner = "{\"device_info\": {\"job_state\": \"cancelled\"}, \"a\": \"cancelled\"}";
        assert_eq!(state(inner).unwrap(), None);
        assert!(state(&text[..text.len() - 1]).is_err(), "cut short");
        assert!(state("<html>").is_err());
    }

    #[test]
    fn row_26_a_log_that_comes_a_thousand_times_is_kept_once() {
        let text = "\"test_output\": \"\", \"test_serial\": \"x\", ".repeat(1_000);
        let text = format!("{{{text} \"test_output\": \"123\"}}");
        let known = read_known(&mut text.as_bytes()).unwrap();
        assert_eq!(known.logs.len(), 2);
        assert_eq!(known.length(Phase::Test, LogType::Output), 3);
        assert_eq!(known.length(Phase::Test, LogType::Serial), 1);
    }

    /// A byte now and then.
    struct Trickle;

    impl Read for Trickle {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            std::thread::sleep(Duration::from_millis(20));
            buffer[0] = b' ';
            Ok(1)
        }
    }

    #[test]
    fn row_23_a_result_that_trickles_in_is_given_up() {
        let error = read_within(&mut Trickle, Duration::from_millis(100)).unwrap_err();
        assert_eq!(error, "it comes too slowly");
        let text = format!("{{\"job_state\": \"test\"}}{}", " ".repeat(100_000));
        assert!(read_within(&mut text.as_bytes(), Duration::ZERO).is_ok());
    }
}
