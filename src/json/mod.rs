//! JSON from outside: checked first, read afterwards.
//!
//! Text that comes from the server, a job or a phase command passes the strict,
//! iterative [`Scanner`] before anybody looks into it. [`Json`] is the proof
//! that it did; its members are found by walking the text, so that what is only
//! passed on stays the text it was. This is the only room that imports
//! nanoserde, which never sees a text that is not a [`Json`] cut down to the
//! wanted fields (PACKAGES.md says why).

mod scan;
mod text;
mod write;

pub use nanoserde::DeJson;
pub use scan::{MAX_DEPTH, Scanner, Token};
pub use text::{Json, Kind};
pub use write::{Object, escape_into};

use std::fmt;

/// Why a text is not acceptable JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Bytes before the fault.
    pub offset: u64,
    /// What is wrong there.
    pub reason: &'static str,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not valid JSON at byte {}: {}", self.offset, self.reason)
    }
}

impl std::error::Error for Error {}
