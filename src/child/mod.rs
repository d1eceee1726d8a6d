//! A command that runs: started in a session of its own, read, watched, ended
//! with its whole tree.
//!
//! This room knows no jobs and no servers, and decides nothing: when to stop a
//! command is what [`Watch`] computes and the agent carries out.

mod cgroup;
mod command;
mod mask;
mod output;
mod tail;
mod text;
pub mod tree;
mod watch;

pub use cgroup::Cgroup;
pub use command::{Child, Setting};
pub use mask::{Masker, Secrets};
pub use output::{OutputFile, SCRIPT_COPY_LIMIT};
pub use tail::Tail;
pub use text::Decoder;
pub use watch::{Limits, Stop, Watch};
