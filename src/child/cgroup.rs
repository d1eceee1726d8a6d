//! A control group for the processes of a job (cgroups(7), version 2): whoever was
//! started in it stays in it, with all of its children, whatever they do to their
//! session, their parents and their environment.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Levels of groups below the job's own that are looked at.
const DEPTH: u32 = 16;

/// The control group of one job.
#[derive(Clone, Debug)]
pub struct Cgroup {
    directory: PathBuf,
}

impl Cgroup {
    /// Makes that of a job, below this process's own. `None` where the kernel has none
    /// or this process may make none: then there are other ways, which see less.
    #[must_use]
    pub fn make(job_id: &str) -> Option<Cgroup> {
        let group = Cgroup::of(job_id)?;
        match fs::create_dir(&group.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => None,
            _ => Some(group),
        }
    }

    /// That of a job which an earlier life of the agent ran, if it is there.
    #[must_use]
    pub fn find(job_id: &str) -> Option<Cgroup> {
        Cgroup::of(job_id).filter(|group| group.directory.is_dir())
    }

    fn of(job_id: &str) -> Option<Cgroup> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = place(&mounts, &groups)?;
        Some(Cgroup {
            directory: own.join(format!("testflinger-agent-{job_id}")),
        })
    }

    /// A process that writes `0` there is in it. It is not frozen any more,
    /// whatever the job did: who enters a frozen one stands still before it has become
    /// its command, and the agent with it.
    ///
    /// # Errors
    /// When it is gone.
    pub fn entrance(&self) -> io::Result<File> {
        write(&self.directory.join("cgroup.freeze"), b"0");
        let path = self.directory.join("cgroup.procs");
        OpenOptions::new().write(true).open(path)
    }

    /// The ids of its processes, zombies included.
    #[must_use]
    pub fn members(&self) -> Vec<i32> {
        let mut members = Vec::new();
        visit(&self.directory, DEPTH, &mut |directory| {
            let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            members.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        });
        members
    }

    /// Ends all of its processes in one moment, whatever they fork meanwhile. Kernels
    /// before 5.14 do not know how; then nothing happens.
    pub fn kill(&self) {
        write(&self.directory.join("cgroup.kill"), b"1");
    }

    /// Removes it, if nobody is in it any more.
    pub fn remove(&self) {
        visit(&self.directory, DEPTH, &mut |directory| {
            let _ = fs::remove_dir(directory);
        });
    }
}

/// Writes to a file of the kernel's; what is not there is not made.
fn write(path: &Path, text: &[u8]) {
    let file = OpenOptions::new().write(true).open(path);
    let _ = file.and_then(|mut file| file.write_all(text));
}

/// A directory and those below, the lowest first: each file in there is the kernel's.
fn visit(directory: &Path, depth: u32, act: &mut impl FnMut(&Path)) {
    if depth > 0 {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            visit(&entry.path(), depth - 1, act);
        }
    }
    act(directory);
}

/// The directory of this process's group, by its mountinfo (proc_pid_mountinfo(5)) and
/// its groups (proc_pid_cgroup(5)).
fn place(mounts: &str, groups: &str) -> Option<PathBuf> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        if system.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        // What lies above the mount is `/..`, what is not plain is `\040`.
        let below = Path::new(own).strip_prefix(root).ok()?;
        let is_plain = !point.contains('\\') && !own.contains("..");
        is_plain.then(|| Path::new(point).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_place_is_below_that_of_the_agent() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        let unified =
            "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 none rw\n";
        let both = format!("{mounts}{unified}");
        let of = |mounts: &str, groups: &str| place(mounts, groups);
        assert_eq!(of(mounts, "0::/\n"), None);
        assert_eq!(of(&both, "4:memory:/x\n"), None);
        let top = Some(PathBuf::from("/sys/fs/cgroup/unified/"));
        assert_eq!(of(&both, "4:memory:/x\n0::/\n"), top);
        let unit = Some(PathBuf::from(
            "/sys/fs/cgroup/unified/system.slice/a.service",
        ));
        assert_eq!(of(&both, "0::/system.slice/a.service\n"), unit);
        let part = "41 31 0:38 /box /sys/fs/cgroup rw - cgroup2 none rw\n";
        assert_eq!(of(part, "0::/box/a\n"), Some("/sys/fs/cgroup/a".into()));
        assert_eq!(of(part, "0::/elsewhere\n"), None);
        assert_eq!(of(&both, "0::/../x\n"), None);
    }
}
