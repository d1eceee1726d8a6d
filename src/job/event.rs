//! What a job's webhook is told.

/// Something that happened to a job. Names and details are the original's
/// (PROTOCOL.md, section 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEvent {
    /// What it was: `job_start`, `test_fail`.
    pub name: String,
    /// When, as ISO 8601.
    pub timestamp: String,
    /// What else there is to say, or nothing.
    pub detail: String,
}

/// Who is told of a job's events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The URL that the server passes them on to.
    pub url: String,
    /// The queue that the job was in.
    pub queue: String,
}
