//! The processes of a command, wherever they went: a walk over `/proc`.
//!
//! A process belongs to a command when it is in the command's session, or when
//! it descends from the agent and was not there before the command started: the
//! agent is a subreaper, so daemons that left their session descend from it.

use crate::sys;
use std::collections::{HashMap, HashSet};
use std::fs;

/// One process, told apart from a later one that gets the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    started: u64,
}

/// What `/proc/<pid>/stat` says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    process: Process,
    parent: i32,
    group: i32,
    session: i32,
    zombie: bool,
}

impl Entry {
    /// Reads a line of proc_pid_stat(5). The name stands in brackets and may
    /// hold brackets and blanks itself.
    fn parse(line: &str) -> Option<Entry> {
        let pid = line.split(' ').next()?.parse().ok()?;
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Entry {
            process: Process {
                pid,
                started: fields.get(19)?.parse().ok()?,
            },
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            zombie: matches!(*fields.first()?, "Z" | "X"),
        })
    }
}

/// Every process that can be seen.
fn processes() -> Vec<Entry> {
    let Ok(directory) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    directory
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
        })
        // One that ended since it was listed is simply not there any more. The
        // name of a process need not be UTF-8.
        .filter_map(|entry| fs::read(entry.path().join("stat")).ok())
        .filter_map(|stat| Entry::parse(&String::from_utf8_lossy(&stat)))
        .collect()
}

/// The living descendants of process `agent`, without what descends through a
/// process in `spared`, and the members of `sessions`.
fn members(
    entries: &[Entry],
    agent: i32,
    sessions: &[i32],
    spared: &HashSet<Process>,
) -> Vec<Entry> {
    let mut children: HashMap<i32, Vec<&Entry>> = HashMap::new();
    for entry in entries {
        children.entry(entry.parent).or_default().push(entry);
    }
    let mut found: HashSet<Process> = HashSet::new();
    let mut open = vec![agent];
    while let Some(parent) = open.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            if !spared.contains(&child.process) && found.insert(child.process) {
                open.push(child.process.pid);
            }
        }
    }
    let in_session = |entry: &&Entry| sessions.contains(&entry.session);
    found.extend(entries.iter().filter(in_session).map(|entry| entry.process));
    let is_alive = |entry: &&Entry| !entry.zombie && found.contains(&entry.process);
    entries.iter().filter(is_alive).copied().collect()
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(0)
}

/// The processes of one command, or of several.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// The commands' sessions, which are also their process groups at first.
    sessions: Vec<i32>,
    /// What earlier commands left behind on purpose.
    spared: HashSet<Process>,
}

impl Tree {
    /// What descends from the agent and is none of `spared`.
    #[must_use]
    pub fn without(spared: HashSet<Process>) -> Tree {
        Tree {
            sessions: Vec::new(),
            spared,
        }
    }

    /// The same, with everything in this session.
    #[must_use]
    pub fn with_session(mut self, session: i32) -> Tree {
        self.sessions.push(session);
        self
    }

    fn members(&self) -> Vec<Entry> {
        members(&processes(), own_pid(), &self.sessions, &self.spared)
    }

    /// The processes that can be seen alive now. One that forks and exits all
    /// the time may not be among them; see [`Tree::is_gone`].
    #[must_use]
    pub fn alive(&self) -> Vec<Process> {
        self.members().iter().map(|entry| entry.process).collect()
    }

    /// Whether nothing can be left of it: what the kernel says of children and
    /// groups is true at one moment, whatever forks meanwhile.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let nothing_else = self.spared.is_empty() && !sys::has_children();
        !self.has_group() && nothing_else && self.alive().is_empty()
    }

    /// Whether a process is left in the group of one of the commands.
    #[must_use]
    pub fn has_group(&self) -> bool {
        self.sessions
            .iter()
            .any(|&session| sys::group_exists(session))
    }

    /// Asks each of them to end.
    pub fn terminate(&self) {
        let mut members = self.members();
        // The shells first: one that sees its child die has something to say.
        members.sort_by_key(|entry| entry.process.pid != entry.session);
        for entry in &members {
            // One that has just ended, or belongs to another user: the next
            // look at the tree says which.
            let _ = sys::send_signal(entry.process.pid, false);
        }
        if members.is_empty() {
            // Nothing can be seen: no `/proc`, or too quick for it.
            for &session in &self.sessions {
                let _ = sys::signal_group(session, false);
            }
        }
    }

    /// Ends each of them, whole groups at a time: no member can escape by a fork.
    pub fn kill(&self) {
        let entries = processes();
        let members = members(&entries, own_pid(), &self.sessions, &self.spared);
        let seen = members.iter().map(|entry| entry.group);
        let mut groups: HashSet<i32> = seen.chain(self.sessions.iter().copied()).collect();
        // The agent's own, and one whose number somebody else has by now.
        for entry in entries.iter().filter(|entry| !members.contains(entry)) {
            if !entry.zombie {
                groups.remove(&entry.group);
            }
        }
        for entry in &members {
            let _ = sys::send_signal(entry.process.pid, true);
        }
        for group in groups {
            let _ = sys::signal_group(group, true);
        }
    }
}

/// Every living descendant of the agent.
#[must_use]
pub fn descendants() -> HashSet<Process> {
    Tree::default().alive().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: i32, parent: i32, session: i32) -> Entry {
        Entry {
            process: Process { pid, started: 1 },
            parent,
            group: session,
            session,
            zombie: false,
        }
    }

    #[test]
    fn a_name_may_hold_anything() {
        let line = "42 (a) R 1 (b) S 7 42 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 777 0 0";
        let read = Entry::parse(line).unwrap();
        assert_eq!((read.process.pid, read.process.started), (42, 777));
        assert_eq!((read.parent, read.session, read.zombie), (7, 9, false));
        for cut in 0..line.len() {
            let _ = Entry::parse(&line[..cut]);
        }
    }

    /// Row 2, by reading: sessions, daemons that left them, and those spared.
    #[test]
    fn row_02_a_command_is_its_session_and_what_it_left() {
        let entries = [
            entry(10, 1, 10),  // the agent
            entry(20, 10, 20), // the command's shell
            entry(21, 20, 20), // its child
            entry(22, 10, 22), // a daemon of it
            entry(23, 1, 20),  // in its session, adopted by another subreaper
            entry(30, 10, 30), // left behind by an earlier phase
            entry(31, 30, 30), // and its child
            entry(40, 1, 40),  // none of ours
        ];
        let spared = HashSet::from([Process {
            pid: 30,
            started: 1,
        }]);
        let mut found: Vec<_> = members(&entries, 10, &[20], &spared)
            .iter()
            .map(|entry| entry.process.pid)
            .collect();
        found.sort_unstable();
        assert_eq!(found, [20, 21, 22, 23]);
    }
}
