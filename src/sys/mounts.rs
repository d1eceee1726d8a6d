//! What is mounted, as the kernel lists it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The places in a directory where something is mounted, by their paths in it; the empty
/// one is the directory itself. None of them is touched: a server that is gone would
/// never answer. Where there is no `/proc`, nothing is known.
#[must_use]
pub fn mounted_in(directory: &Path) -> Vec<PathBuf> {
    let above = directory
        .parent()
        .and_then(|above| above.canonicalize().ok());
    let (Some(above), Some(name)) = (above, directory.file_name()) else {
        return Vec::new();
    };
    let text = fs::read("/proc/self/mountinfo").unwrap_or_default();
    points_in(&text, &above.join(name))
}

/// The fifth field of each line (proc_pid_mountinfo(5)).
fn points_in(text: &[u8], directory: &Path) -> Vec<PathBuf> {
    let lines = text.split(|byte| *byte == b'\n');
    let points = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    let inside = points.filter_map(|point| {
        let point = unescaped(point);
        let point = Path::new(OsStr::from_bytes(&point));
        point.strip_prefix(directory).ok().map(Path::to_owned)
    });
    inside.collect()
}

/// What is not plain is written as `\040`.
fn unescaped(mut text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    while let Some((&byte, after)) = text.split_first() {
        let digits = after.get(..3).filter(|_| byte == b'\\');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let octal = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(octal.unwrap_or(byte));
        text = after.get(octal.map_or(0, |_| 3)..).unwrap_or_default();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_by_their_paths_in_the_directory() {
        let text = b"29 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                     63 29 0:39 / /run/job/a\\040b\\134 rw,relatime shared:4 - fuse none rw\n\
                     64 29 0:40 / /run/job rw - tmpfs none rw\n\
                     65 29 0:41 / /run/jobs rw - tmpfs none rw\n";
        let found = points_in(text, Path::new("/run/job"));
        assert_eq!(found, ["a b\\", ""].map(PathBuf::from));
        assert!(mounted_in(Path::new("/")).is_empty());
        assert_eq!(
            mounted_in(Path::new("/proc")).first(),
            Some(&PathBuf::new())
        );
    }
}
