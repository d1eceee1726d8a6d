//! Looking through a job's result, which holds all of its output.

use super::http::explain_io;
use crate::json::{Scanner, Token};
use std::io::Read;
use std::time::{Duration, Instant};

/// Reading a result may take this long, whatever its size.
const LONGEST_READING: Duration = Duration::from_secs(300);

/// The `job_state` of a result, which may be hundreds of megabytes long.
pub(super) fn find_job_state(reader: &mut dyn Read) -> Result<Option<String>, String> {
    let begun = Instant::now();
    let mut scanner = Scanner::new();
    let mut found = None;
    let mut is_next = false;
    let mut sink = |depth: u32, token: Token<'_>| match token {
        Token::Key(key) if depth == 1 => is_next = key == b"job_state",
        Token::String(text, _) if depth == 1 && is_next => {
            found = Some(String::from_utf8_lossy(text).into_owned());
        }
        _ => {}
    };
    let mut buffer = [0; 16 << 10];
    loop {
        let read = reader
            .read(&mut buffer)
            .map_err(|error| explain_io(&error))?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        let pushed = scanner.push(bytes, &mut sink);
        pushed.map_err(|error| error.to_string())?;
        if begun.elapsed() > LONGEST_READING {
            return Err("it takes too long".into());
        }
    }
    scanner
        .finish(&mut sink)
        .map_err(|error| error.to_string())?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_26_the_state_is_found_behind_any_amount_of_output() {
        let state = |text: &str| find_job_state(&mut text.as_bytes());
        let output = "x\\n".repeat(200_000);
        let text = format!("{{\"test_output\": \"{output}\", \"job_state\": \"cancelled\"}}");
        assert_eq!(state(&text).unwrap().as_deref(), Some("cancelled"));
        let inner = "{\"device_info\": {\"job_state\": \"cancelled\"}, \"a\": \"cancelled\"}";
        assert_eq!(state(inner).unwrap(), None);
        assert!(state(&text[..text.len() - 1]).is_err(), "cut short");
        assert!(state("<html>").is_err());
    }
}
