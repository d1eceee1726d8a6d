//! The processes of a command, wherever they went: a walk over `/proc`.
//!
//! A process belongs to a command when it is in the command's session, or when
//! it descends from the agent and was not there before the command started: the
//! agent is a subreaper, so daemons that left their session descend from it. After a
//! crash of the agent they do not, and its control group tells, where there is one.

use super::Cgroup;
use crate::sys;
use std::collections::{HashMap, HashSet};
use std::fs;

/// One process, told apart from a later one that gets the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub started: u64,
}

impl Process {
    /// A child that has just been started. Where there is no `/proc`, it is only known by
    /// its number, as all others are.
    #[must_use]
    pub fn started(pid: i32) -> Process {
        Process::find(pid).unwrap_or(Process { pid, started: 0 })
    }

    /// The process of that id, as long as it has one.
    #[must_use]
    pub fn find(pid: i32) -> Option<Process> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let entry = Entry::parse(&String::from_utf8_lossy(&stat))?;
        Some(entry.process)
    }

    /// What to call it in a message: its program's name, if it still has one, and
    /// its id.
    #[must_use]
    pub fn name(&self) -> String {
        let read = |what: &str| fs::read(format!("/proc/{}/{what}", self.pid)).unwrap_or_default();
        let (name, command_line) = (read("comm"), read("cmdline"));
        let name = whole_name(name.trim_ascii_end(), &command_line);
        format!("{} ({})", String::from_utf8_lossy(name), self.pid)
    }
}

/// The kernel keeps so many bytes of a name (proc_pid_comm(5)).
const NAME: usize = 15;

/// A name of which the kernel may have kept the beginning only, whole: half a secret
/// is not known for one. Where the command line does not tell, there is none.
fn whole_name<'a>(name: &'a [u8], command_line: &'a [u8]) -> &'a [u8] {
    if name.len() < NAME {
        return name;
    }
    let mut words = command_line.split(|byte| *byte == 0);
    let whole = words.find_map(|word| {
        let file = word.rsplit(|byte| *byte == b'/').next()?;
        file.starts_with(name).then_some(file)
    });
    whole.unwrap_or(b"a program")
}

/// The first process of a command, which leads its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The process.
    pub process: Process,
    /// Which boot of the machine it belongs to.
    pub boot: String,
}

impl Leader {
    /// That of a command that has just been started.
    #[must_use]
    pub fn of(pid: i32) -> Option<Leader> {
        Some(Leader {
            process: Process::find(pid)?,
            boot: boot_id()?,
        })
    }

    /// Whether its session can still be its own: the machine has not been booted
    /// since, and no later process has its number.
    fn may_live(&self, entries: &[Entry], boot: Option<&str>) -> bool {
        let of_its_number = entries
            .iter()
            .find(|one| one.process.pid == self.process.pid);
        boot == Some(&self.boot) && of_its_number.is_none_or(|one| one.process == self.process)
    }
}

/// What tells this boot of the machine from any other (random(4)).
fn boot_id() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
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

/// Whether a process was started with this in its environment. The agent itself
/// never was.
fn is_marked(pid: i32, mark: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mut variables = environment.split(|byte| *byte == 0);
    pid != own_pid() && variables.any(|variable| variable == mark.as_bytes())
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(0)
}

/// The processes of one command, or of several.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Who leads the commands' sessions, which are also their process groups at first.
    sessions: Vec<Process>,
    /// What earlier commands left behind on purpose.
    spared: HashSet<Process>,
    /// A variable and its value that all of them were started with.
    mark: Option<String>,
    /// The control group that all of them were started in.
    cgroup: Option<Cgroup>,
}

impl Tree {
    /// What an earlier life of the agent left behind of a job: the sessions of
    /// its commands, and whoever still has this in the environment
    /// (`NAME=value`).
    #[must_use]
    pub fn of_an_earlier_life(leaders: &[Leader], mark: &str) -> Tree {
        let (entries, boot) = (processes(), boot_id());
        let live = leaders
            .iter()
            .filter(|leader| leader.may_live(&entries, boot.as_deref()));
        Tree {
            sessions: live.map(|leader| leader.process).collect(),
            spared: descendants(),
            mark: Some(mark.to_owned()),
            cgroup: None,
        }
    }

    /// What descends from the agent and is none of `spared`.
    #[must_use]
    pub fn without(spared: HashSet<Process>) -> Tree {
        Tree {
            spared,
            ..Tree::default()
        }
    }

    /// The same, with everything in the session of this leader.
    #[must_use]
    pub fn with_session(mut self, leader: Process) -> Tree {
        self.sessions.push(leader);
        self
    }

    /// The sessions that are not somebody else's by now: a number that is free is given
    /// to a later process.
    fn sessions(&self) -> impl Iterator<Item = i32> {
        let is_ours = |leader: &&Process| {
            let found = Process::find(leader.pid);
            leader.started == 0 || found.is_none_or(|found| found.started == leader.started)
        };
        self.sessions
            .iter()
            .filter(is_ours)
            .map(|leader| leader.pid)
    }

    /// The same, with everything in this control group.
    #[must_use]
    pub fn with_cgroup(mut self, cgroup: Option<Cgroup>) -> Tree {
        self.cgroup = cgroup;
        self
    }

    fn members(&self) -> Vec<Entry> {
        self.members_of(&processes())
    }

    fn members_of(&self, entries: &[Entry]) -> Vec<Entry> {
        let sessions: Vec<i32> = self.sessions().collect();
        let mut found = members(entries, own_pid(), &sessions, &self.spared);
        if let Some(cgroup) = &self.cgroup {
            let (inside, known) = (cgroup.members(), processes_of(&found));
            let inside: HashSet<i32> = inside.into_iter().collect();
            found.extend(entries.iter().filter(|entry| {
                let is_inside = !entry.zombie && inside.contains(&entry.process.pid);
                is_inside && !known.contains(&entry.process)
            }));
        }
        if let Some(mark) = &self.mark {
            let known = processes_of(&found);
            found.extend(entries.iter().filter(|entry| {
                let is_other = !entry.zombie && !known.contains(&entry.process);
                is_other && is_marked(entry.process.pid, mark)
            }));
        }
        found
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
        self.sessions().any(sys::group_exists)
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
            for session in self.sessions() {
                let _ = sys::signal_group(session, false);
            }
        }
    }

    /// Ends each of them, whole groups at a time: no member can escape by a fork.
    pub fn kill(&self) {
        let entries = processes();
        let members = self.members_of(&entries);
        let seen = members.iter().map(|entry| entry.group);
        let mut groups: HashSet<i32> = seen.chain(self.sessions()).collect();
        // The agent's own, and one whose number somebody else has by now.
        let known = processes_of(&members);
        for entry in &entries {
            if !entry.zombie && !known.contains(&entry.process) {
                groups.remove(&entry.group);
            }
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        for entry in &members {
            let _ = sys::send_signal(entry.process.pid, true);
        }
        for group in groups {
            let _ = sys::signal_group(group, true);
        }
    }
}

/// For many questions: a job may have made tens of thousands.
fn processes_of(entries: &[Entry]) -> HashSet<Process> {
    entries.iter().map(|entry| entry.process).collect()
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

    /// Whose number a later process has is not looked for under it.
    #[test]
    fn a_session_whose_number_is_somebody_elses_is_nobodys() {
        let own = Process::find(own_pid()).unwrap();
        let earlier = Process {
            started: own.started - 1,
            ..own
        };
        let sessions = |leader| Tree::default().with_session(leader).sessions().count();
        assert_eq!((sessions(own), sessions(earlier)), (1, 0));
        assert!(!Tree::default().with_session(earlier).has_group());
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
