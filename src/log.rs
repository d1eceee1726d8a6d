//! The agent's own log.

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
