//! What a job is.

mod phase;

pub use phase::{PHASES, Phase};
