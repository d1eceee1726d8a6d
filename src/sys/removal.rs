//! Removal of directory trees in which anybody may have made anything.
//!
//! Trees can be deeper than the stack, the descriptors and the longest path of this
//! process reach: what lies deep is moved up to the top and goes from there. Each
//! directory is held open and what is in it reached through that, so that nobody who
//! still runs leads us elsewhere by a link. What is mounted in the tree is another's:
//! a phase may have bound the host's `/dev` into it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Directories in each other that are held at the same time.
const LEVELS: u32 = 32;
/// What is moved at most, so that nobody who makes directories all the while keeps
/// us for ever; a tree of millions of them in each other needs no more.
const MOVES: u32 = 1 << 20;

/// Removes what has this name, with all in it, also where its modes forbid that; links
/// are removed, not followed. One that is not there is fine.
///
/// # Errors
/// When something in it cannot be removed: a mount point, an immutable file. All else
/// is gone then; the error is the first.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    remove(path, None)
}

/// The same for all in a directory but what has this name in it, and so not for the
/// directory.
///
/// # Errors
/// As [`remove_tree`].
pub fn remove_all_but(kept: &str, directory: &Path) -> io::Result<()> {
    remove(directory, Some(kept))
}

fn remove(path: &Path, kept: Option<&str>) -> io::Result<()> {
    match remove_untouched(path) {
        Ok(false) => {}
        Ok(true) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            return gone(fs::remove_file(path));
        }
        Err(error) => return gone(Err(error)),
    }
    let top = match hold(path) {
        Ok(top) => top,
        Err(error) => return gone(Err(error)),
    };
    let mut removal = Removal {
        mount: mount_of(&top),
        top: reached_through(&top),
        kept: kept.map(|name| reached_through(&top).join(name)),
        names: 0,
        moved: 0,
        first_error: None,
    };
    loop {
        let moved = removal.moved;
        removal.empty(&top, LEVELS);
        // What was moved up may have come behind the place that was being read.
        if removal.moved == moved {
            break;
        }
    }
    if kept.is_none() {
        removal.keep(fs::remove_dir(path));
    }
    removal.first_error.map_or(Ok(()), Err)
}

struct Removal {
    top: PathBuf,
    /// What stays, reached through that as well.
    kept: Option<PathBuf>,
    mount: Option<u64>,
    /// How many names for what is moved up have been tried, and how many were.
    names: u32,
    moved: u32,
    first_error: Option<io::Error>,
}

impl Removal {
    fn empty(&mut self, directory: &File, levels: u32) {
        let here = reached_through(directory);
        let entries = match fs::read_dir(&here) {
            Ok(entries) => entries,
            Err(error) => return self.keep(Err(error)),
        };
        for entry in entries {
            let removed = entry.and_then(|entry| {
                let path = here.join(entry.file_name());
                if self.kept.as_ref() == Some(&path) {
                    Ok(())
                } else if !entry.file_type()?.is_dir() {
                    fs::remove_file(path)
                } else if levels == 0 {
                    self.move_up(&path)
                } else {
                    self.remove_directory(&path, levels - 1)
                }
            });
            self.keep(removed);
        }
    }

    fn remove_directory(&mut self, path: &Path, levels: u32) -> io::Result<()> {
        if remove_untouched(path)? {
            return Ok(());
        }
        let directory = hold(path)?;
        // Mounted since.
        if mount_of(&directory) != self.mount {
            return Err(mounted(path));
        }
        self.empty(&directory, levels);
        fs::remove_dir(path)
    }

    fn move_up(&mut self, directory: &Path) -> io::Result<()> {
        while self.names < MOVES {
            self.names += 1;
            let to = self.top.join(format!(".{}", self.names));
            let moved = match fs::rename(directory, &to) {
                // Moving a directory changes it: its `..`.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    hold(directory)?;
                    fs::rename(directory, &to)
                }
                other => other,
            };
            match moved {
                Ok(()) => {
                    self.moved += 1;
                    return Ok(());
                }
                // That name is taken; an empty directory gives way.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::DirectoryNotEmpty
                            | ErrorKind::AlreadyExists
                            | ErrorKind::NotADirectory
                    ) => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(
            "it has too many directories in each other",
        ))
    }

    fn keep(&mut self, result: io::Result<()>) {
        if let Err(error) = gone(result) {
            self.first_error.get_or_insert(error);
        }
    }
}

/// Removes a directory that is empty; false where it is not, or where that is for others
/// to find out. On what is mounted there rmdir(2) does not even look: a server that is
/// gone would never answer.
fn remove_untouched(path: &Path) -> io::Result<bool> {
    match fs::remove_dir(path) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            ErrorKind::ResourceBusy => Err(mounted(path)),
            ErrorKind::NotADirectory | ErrorKind::NotFound => Err(error),
            _ => Ok(false),
        },
    }
}

fn mounted(path: &Path) -> io::Error {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    io::Error::new(
        ErrorKind::ResourceBusy,
        format!("something is mounted on {name:?} in it; unmount that first"),
    )
}

/// Opens a directory whose content is to be changed, whatever was made of its mode.
fn hold(path: &Path) -> io::Result<File> {
    let open = || {
        OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
    };
    let ours = Permissions::from_mode(0o700);
    let directory = match open() {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            fs::set_permissions(path, ours.clone())?;
            open()?
        }
        other => other?,
    };
    if directory.metadata()?.mode() & 0o700 != 0o700 {
        // That it could not be done shows when something is removed.
        let _ = directory.set_permissions(ours);
    }
    Ok(directory)
}

fn reached_through(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

/// The number of the mount on which it lies; a bind mount has one of its own.
fn mount_of(directory: &File) -> Option<u64> {
    let place = format!("/proc/self/fdinfo/{}", directory.as_raw_fd());
    let text = fs::read_to_string(place).ok()?;
    let number = text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?;
    number.trim().parse().ok()
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn scratch(name: &str) -> PathBuf {
        let name = format!("tfa-removal-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[test]
    fn row_39_a_tree_of_any_depth_goes_in_a_small_stack() {
        let top = scratch("deep");
        // Made from the inside to the outside: no path is that long.
        let (inner, outer) = (top.join("inner"), top.join("outer"));
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("file"), "").unwrap();
        for _ in 0..5_000 {
            fs::create_dir(&outer).unwrap();
            fs::rename(&inner, outer.join("d")).unwrap();
            fs::rename(&outer, &inner).unwrap();
        }
        // Names that are in the way.
        fs::write(top.join(".1"), "").unwrap();
        fs::create_dir_all(top.join(".2").join("d")).unwrap();
        let removed = std::thread::Builder::new()
            .stack_size(128 << 10)
            .spawn({
                let top = top.clone();
                move || remove_tree(&top)
            })
            .unwrap();
        removed.join().unwrap().unwrap();
        assert!(fs::symlink_metadata(top).is_err());
    }

    #[test]
    fn modes_do_not_matter_and_links_are_not_followed() {
        let (top, outside) = (scratch("modes"), scratch("outside"));
        fs::write(outside.join("kept"), "").unwrap();
        let inner = top.join("a/b/c");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("file"), "").unwrap();
        symlink(&outside, inner.join("link")).unwrap();
        for place in ["a/b/c", "a/b", "a", ""] {
            fs::set_permissions(top.join(place), Permissions::from_mode(0o000)).unwrap();
        }
        remove_tree(&top).unwrap();
        assert!(fs::symlink_metadata(&top).is_err());
        symlink(&outside, &top).unwrap();
        remove_tree(&top).unwrap();
        remove_tree(&top).unwrap();
        remove_tree(&top.join("nothing")).unwrap();
        assert!(outside.join("kept").exists());
        remove_tree(&outside).unwrap();
    }

    #[test]
    fn what_is_kept_stays_with_all_in_it() {
        let top = scratch("kept");
        for place in ["kept/a/kept", "other/kept"] {
            fs::create_dir_all(top.join(place)).unwrap();
        }
        fs::write(top.join("file"), "").unwrap();
        remove_all_but("kept", &top).unwrap();
        let names = |place: &str| {
            let entries = fs::read_dir(top.join(place)).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name());
            names.collect::<Vec<_>>()
        };
        assert_eq!(
            (names(""), names("kept/a")),
            (vec!["kept".into()], vec!["kept".into()])
        );
        remove_tree(&top).unwrap();
    }
}
