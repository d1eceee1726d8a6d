//! The agent's own log: a file and the console, in the original's form.
//!
//! One line a message: `[26-11-22 10:49:01]    INFO: (agent)| took job …`. What
//! comes from outside may hold anything, so control characters are escaped.
//! Tokens and environment values never come here, and what a job's secrets are is
//! replaced ([`conceal`]): a job gives names to files and processes.

mod console;
mod file;
mod shared;

pub use file::LogFile;

use crate::json::Object;
use crate::sys::clock::{self, Now};
use console::Console;
use shared::Unshared;
use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// How grave a line of the agent's log is; the names are Python's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For whoever looks for a fault.
    Debug,
    /// The story of the agent's day.
    Info,
    /// Something is not as it should be; the agent goes on.
    Warning,
    /// Something was not done.
    Error,
    /// The agent cannot do its work.
    Critical,
}

impl Level {
    /// The name, as in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Level::Debug => "DEBUG",
            Level::Info => "INFO",
            Level::Warning => "WARNING",
            Level::Error => "ERROR",
            Level::Critical => "CRITICAL",
        }
    }
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As the original's.
    Text,
    /// A JSON object: `time`, `level`, `module`, `message`.
    Json,
}

/// Where lines go.
#[derive(Debug)]
struct Outlets {
    file: Option<LogFile>,
    format: Format,
    file_level: Level,
    console_level: Option<Level>,
    console: Console,
    file_failed: bool,
    unshared: Unshared,
    concealed: Concealed,
}

/// Makes a message out of one that may have secrets in it.
type Conceal = Box<dyn Fn(&str) -> String + Send>;

/// What messages go through, if there is something to conceal.
struct Concealed(Option<Conceal>);

impl fmt::Debug for Concealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Concealed")
    }
}

static OUTLETS: Mutex<Outlets> = Mutex::new(Outlets {
    file: None,
    format: Format::Text,
    file_level: Level::Info,
    console_level: Some(Level::Info),
    console: Console::as_given(),
    file_failed: false,
    unshared: Unshared::unwanted(),
    concealed: Concealed(None),
});

/// Longer messages are cut, in characters: who fills a name or an answer does not get
/// to fill the log.
const LONGEST_MESSAGE: usize = 4_000;

/// Opens the log: `file` gets the lines from `file_level` on, the console (the
/// standard error stream) those from `console_level` on, or none.
pub fn open(file: LogFile, format: Format, file_level: Level, console_level: Option<Level>) {
    *outlets() = Outlets {
        file: Some(file),
        format,
        file_level,
        console_level,
        console: Console::unwaiting(),
        file_failed: false,
        unshared: Unshared::unwanted(),
        concealed: Concealed(None),
    };
}

/// From here on, messages go through this, until [`reveal`].
pub fn conceal(concealed: impl Fn(&str) -> String + Send + 'static) {
    outlets().concealed = Concealed(Some(Box::new(concealed)));
}

/// Messages are written as they are again.
pub fn reveal() {
    outlets().concealed = Concealed(None);
}

/// From here on, warnings and errors are kept for the server too.
pub fn share() {
    outlets().unshared = Unshared::wanted();
}

/// Those that the server has not been told.
#[must_use]
pub fn take_unshared() -> Vec<String> {
    outlets().unshared.take()
}

/// The server could not be told.
pub fn put_back_unshared(lines: Vec<String>) {
    outlets().unshared.put_back(lines);
}

/// Opens the log file again, after somebody moved it away.
///
/// # Errors
/// When it cannot be opened; the old one stays in use.
pub fn reopen() -> io::Result<()> {
    match &mut outlets().file {
        Some(file) => file.reopen(),
        None => Ok(()),
    }
}

fn outlets() -> MutexGuard<'static, Outlets> {
    OUTLETS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes one line; use the macros.
pub fn write(level: Level, module: &str, message: fmt::Arguments<'_>) {
    let mut outlets = outlets();
    let to_file = outlets.file.is_some() && level >= outlets.file_level;
    let to_console = outlets.console_level.is_some_and(|least| level >= least);
    if !to_file && !to_console && level < Level::Warning {
        return;
    }
    let now = Now::read();
    let mut message = message.to_string();
    if let Concealed(Some(concealed)) = &outlets.concealed {
        message = concealed(&message);
    }
    if let Some((end, _)) = message.char_indices().nth(LONGEST_MESSAGE) {
        // Only now: half a secret would not be known for one.
        message.truncate(end);
        message.push_str("...");
    }
    outlets.unshared.add(now.wall, level, &message);
    let line = line(outlets.format, now.wall, level, module, &message);
    if to_console {
        outlets.console.write(&line);
    }
    if let Some(file) = outlets.file.as_mut().filter(|_| to_file) {
        let failed = file.write(&line, now).is_err();
        if failed && !outlets.file_failed && outlets.console_level.is_some() {
            // A full disk: said once, where it can still be seen.
            outlets.console.write("the log file cannot be written to\n");
        }
        outlets.file_failed = failed;
    }
}

fn line(format: Format, time: SystemTime, level: Level, module: &str, message: &str) -> String {
    // `agent::idle` speaks for the agent.
    let module = module.strip_prefix("testflinger_agent::").unwrap_or(module);
    let module = module.split("::").next().unwrap_or(module);
    match format {
        Format::Text => {
            let at = clock::local(time);
            format!(
                "[{:02}-{:02}-{:02} {:02}:{:02}:{:02}] {:>7}: ({module})| {}\n",
                at.year.rem_euclid(100),
                at.month,
                at.day,
                at.hour,
                at.minute,
                at.second,
                level.name(),
                printable(message)
            )
        }
        Format::Json => {
            let mut line = Object::new();
            line.string("time", &clock::iso8601(time));
            line.string("level", level.name());
            line.string("module", module);
            line.string("message", &printable(message));
            line.finish() + "\n"
        }
    }
}

/// The text without what would act on a terminal or forge a line.
#[must_use]
pub fn printable(text: &str) -> String {
    printable_but(text, &['\t'])
}

/// The text with its control characters written out, but for these.
#[must_use]
pub fn printable_but(text: &str, kept: &[char]) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !kept.contains(&c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// A line at DEBUG.
#[macro_export]
macro_rules! debug {
    ($($message:tt)*) => {
        $crate::log::write($crate::log::Level::Debug, module_path!(), format_args!($($message)*))
    };
}

/// A line at INFO.
#[macro_export]
macro_rules! info {
    ($($message:tt)*) => {
        $crate::log::write($crate::log::Level::Info, module_path!(), format_args!($($message)*))
    };
}

/// A line at WARNING.
#[macro_export]
macro_rules! warning {
    ($($message:tt)*) => {
        $crate::log::write($crate::log::Level::Warning, module_path!(), format_args!($($message)*))
    };
}

/// A line at ERROR.
#[macro_export]
macro_rules! error {
    ($($message:tt)*) => {
        $crate::log::write($crate::log::Level::Error, module_path!(), format_args!($($message)*))
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_originals_form() {
        let text = line(
            Format::Text,
            SystemTime::UNIX_EPOCH,
            Level::Info,
            "testflinger_agent::agent::idle",
            "one\ntwo \x1b[31m",
        );
        let (date, rest) = text.split_at(20);
        assert!(
            date.starts_with("[70-01-01 ") || date.starts_with("[69-12-31 "),
            "{date}"
        );
        assert_eq!(rest, "   INFO: (agent)| one\\ntwo \\u{1b}[31m\n");
        let text = line(
            Format::Json,
            SystemTime::UNIX_EPOCH,
            Level::Error,
            "testflinger_agent::uplink",
            "a \"b\"\n",
        );
        assert_eq!(
            text,
            "{\"time\": \"1970-01-01T00:00:00.000000+00:00\", \"level\": \"ERROR\", \
             \"module\": \"uplink\", \"message\": \"a \\\"b\\\"\\\\n\"}\n"
        );
    }
}
