//! Whether there is room for a job.

use crate::config::Config;
use crate::info;
use crate::job::remove_oldest_refused;
use crate::sys::files::{self, Space};

/// How the comment at the server begins when there is none.
pub(super) const NO_SPACE: &str = "No jobs are taken: ";

/// A record and a workspace have two dozen files each before the job makes any.
const JOBS_FILES: u64 = 64;

/// For its record and its logs, its pipe, the start of its commands, two
/// connections and the levels of its artifacts.
const JOBS_DESCRIPTORS: usize = 32;

/// Why no job can be taken, if there is no room for one. What servers refused is
/// kept for people to look at, but not in the way of a job: it goes, the oldest
/// first, one each time.
pub(super) fn lack_of_space_after_clearing(config: &Config) -> Option<String> {
    let lack = lack_of_space(config)?;
    let place = &config.results_basedir;
    let is_full = |space: Space| space.free < wanted(space, config.min_free_space);
    if files::space(place).is_ok_and(is_full)
        && let Ok(Some(removed)) = remove_oldest_refused(place, &config.agent_id)
    {
        info!("removed {}, to make room for jobs", removed.display());
        return lack_of_space(config);
    }
    Some(lack)
}

/// Why no job can be taken, if there is no room for one. The text does not
/// change with every byte, so that it need not be said again and again.
fn lack_of_space(config: &Config) -> Option<String> {
    if let Err(error) = files::spare_descriptors(JOBS_DESCRIPTORS) {
        return Some(format!("{NO_SPACE}no files can be opened: {error}"));
    }
    let directories = [&config.execution_basedir, &config.results_basedir];
    directories.into_iter().find_map(|directory| {
        let place = directory.display();
        // One that cannot be looked at shows when the job is taken.
        let space = files::space(directory).ok();
        if space.is_some_and(|space| space.read_only) {
            return Some(format!("{NO_SPACE}the file system of {place} is read-only"));
        }
        if !directory.is_dir() {
            return Some(format!(
                "{NO_SPACE}{place} is no directory, and none can be made"
            ));
        }
        if !files::is_writable(directory) {
            return Some(format!("{NO_SPACE}this agent may not write to {place}"));
        }
        let space = space?;
        let files = JOBS_FILES.min(space.total_files / 10);
        if space.free_files < files {
            return Some(format!(
                "{NO_SPACE}fewer than {files} more files can be made in {place}"
            ));
        }
        let wanted = wanted(space, config.min_free_space);
        (space.free < wanted).then(|| {
            let wanted = shown(wanted);
            format!("{NO_SPACE}less than {wanted} are free in {place}")
        })
    })
}

/// Bytes for people, in the unit that leaves no nothing.
fn shown(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        mebibytes => format!("{mebibytes} MiB"),
    }
}

/// How much has to be free: a small file system is judged by its size, and one
/// that does not tell its size not at all.
fn wanted(space: Space, min_free_space: u64) -> u64 {
    min_free_space.min(space.total / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_a_small_file_system_is_enough() {
        let wanted = |total| {
            let space = Space {
                free: 0,
                total,
                read_only: false,
                free_files: 0,
                total_files: 0,
            };
            wanted(space, 64 << 20)
        };
        assert_eq!(wanted(32 << 30), 64 << 20);
        assert_eq!(wanted(100 << 20), 10 << 20);
        assert_eq!(wanted(0), 0);
        assert_eq!(shown(wanted(1 << 20)), "103 KiB");
        assert_eq!(shown(wanted(100 << 20)), "10 MiB");
    }
}
