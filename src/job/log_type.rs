//! The two logs of a phase.

use super::Phase;

/// Which of a phase's logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogType {
    /// What its command printed.
    Output,
    /// What the device's serial line said.
    Serial,
}

/// Both of them, in the order in which they are delivered.
pub const LOG_TYPES: [LogType; 2] = [LogType::Output, LogType::Serial];

impl LogType {
    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            LogType::Output => "output",
            LogType::Serial => "serial",
        }
    }

    /// The log type of that name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<LogType> {
        LOG_TYPES.into_iter().find(|log| log.name() == name)
    }
}

/// How much there is of a phase's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLength {
    /// The phase.
    pub phase: Phase,
    /// Which of its logs.
    pub log: LogType,
    /// Bytes of UTF-8.
    pub bytes: u64,
}

/// How much there is of one log, by a list in which the others are as well.
#[must_use]
pub fn length_of(lengths: &[LogLength], phase: Phase, log: LogType) -> u64 {
    let mut found = lengths.iter();
    let found = found.find(|one| one.phase == phase && one.log == log);
    found.map_or(0, |found| found.bytes)
}

/// Something of each log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerLog<T> {
    output: T,
    serial: T,
}

impl<T> PerLog<T> {
    /// That of one log.
    #[must_use]
    pub fn of(&self, log: LogType) -> &T {
        match log {
            LogType::Output => &self.output,
            LogType::Serial => &self.serial,
        }
    }

    /// That of one log, to be changed.
    #[must_use]
    pub fn of_mut(&mut self, log: LogType) -> &mut T {
        match log {
            LogType::Output => &mut self.output,
            LogType::Serial => &mut self.serial,
        }
    }
}
