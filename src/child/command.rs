//! A command that has been started.

use super::tree::{self, Tree};
use crate::sys::{self, Pipe, Spawn, User};
use std::ffi::OsString;
use std::io;
use std::path::Path;

/// A running command.
#[derive(Debug)]
pub struct Child {
    /// Its process id, which is also its session's.
    pub pid: i32,
    /// The reading end of its output, until that is over.
    pub pipe: Option<Pipe>,
    /// Its processes.
    pub tree: Tree,
}

impl Child {
    /// Starts `command` under `/bin/sh -c` with exactly this environment, as a user of
    /// its own if there is one. What earlier commands left running does not count as
    /// part of it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        command: &str,
        directory: &Path,
        environment: &[(OsString, OsString)],
        user: Option<&User>,
    ) -> io::Result<Child> {
        let tree = Tree::without(tree::descendants());
        let (pipe, output) = sys::pipe()?;
        let pid = sys::spawn(Spawn {
            command,
            directory,
            environment,
            output,
            user,
        })?;
        Ok(Child {
            pid,
            pipe: Some(pipe),
            tree: tree.with_session(pid),
        })
    }
}
