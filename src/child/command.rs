//! A command that has been started.

use super::Cgroup;
use super::tree::{self, Process, Tree};
use crate::sys::{self, Pipe, Spawn, User};
use std::ffi::OsString;
use std::io;
use std::path::Path;

/// A running command.
#[derive(Debug)]
pub struct Child {
    /// Its process id, which is also its session's.
    pub pid: i32,
    /// Its process, which leads the session.
    pub leader: Process,
    /// The reading end of its output, until that is over.
    pub pipe: Option<Pipe>,
    /// Its processes.
    pub tree: Tree,
}

/// Where and as what a command runs. The environment may hold secrets: it is not for
/// printing.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// Its working directory.
    pub directory: &'a Path,
    /// Its whole environment.
    pub environment: &'a [(OsString, OsString)],
    /// As whom, if not as the agent.
    pub user: Option<&'a User>,
    /// In which control group, if not in the agent's.
    pub cgroup: Option<&'a Cgroup>,
}

impl Child {
    /// Starts `command` under `/bin/sh -c`. What earlier commands left running does not
    /// count as part of it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &str, setting: Setting<'_>) -> io::Result<Child> {
        let tree = Tree::without(tree::descendants());
        let (pipe, output) = sys::pipe()?;
        if let Some(user) = setting.user {
            // So that it can be opened once more, as /dev/stdout.
            user.give(&output)?;
        }
        let pid = sys::spawn(Spawn {
            command,
            directory: setting.directory,
            environment: setting.environment,
            output,
            user: setting.user,
            // Without it, there are other ways to find its processes.
            cgroup: setting.cgroup.and_then(|cgroup| cgroup.entrance().ok()),
        })?;
        let leader = Process::started(pid);
        Ok(Child {
            pid,
            leader,
            pipe: Some(pipe),
            tree: tree.with_session(leader),
        })
    }
}
