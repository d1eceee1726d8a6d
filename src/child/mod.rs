//! A command that runs: started in a session of its own, read, watched, ended
//! with its whole tree.
//!
//! This room knows no jobs and no servers, and decides nothing: when to stop a
//! command is what the watch computes and the agent carries out.

mod text;

pub use text::Decoder;
