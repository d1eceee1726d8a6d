//! What is mounted, as the kernel lists it.

use super::files;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The places in a directory where something is mounted, by their paths in it, as bytes;
/// the empty one is the directory itself. None of them is touched: a server that is gone
/// would never answer. Where there is no `/proc`, nothing is known.
#[must_use]
pub fn mounted_in(directory: &Path) -> Vec<Vec<u8>> {
    let Ok(text) = fs::read("/proc/self/mountinfo") else {
        return Vec::new();
    };
    // It is listed by its real name.
    let above = files::open_to_pack(directory.parent().unwrap_or(directory));
    let above = above.and_then(|above| {
        let place = format!("/proc/self/fd/{}", above.as_raw_fd());
        fs::read_link(place)
    });
    match (above, directory.file_name()) {
        (Ok(above), Some(name)) => points_in(&text, above.join(name).as_os_str().as_bytes()),
        _ => Vec::new(),
    }
}

/// The fifth field of each line (proc_pid_mountinfo(5)).
fn points_in(text: &[u8], directory: &[u8]) -> Vec<Vec<u8>> {
    let mut inside = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let point = line.split(|byte| *byte == b' ').nth(4);
        let point = unescaped(point.unwrap_or_default());
        match point.strip_prefix(directory) {
            Some([]) => inside.push(Vec::new()),
            Some([b'/', rest @ ..]) => inside.push(rest.to_vec()),
            _ => {}
        }
    }
    inside
}

/// What is not plain is written as `\040`.
fn unescaped(mut text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let [first, after @ ..] = text {
        if let [
            b'\\',
            a @ b'0'..=b'3',
            b @ b'0'..=b'7',
            c @ b'0'..=b'7',
            rest @ ..,
        ] = text
        {
            bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            text = rest;
        } else {
            bytes.push(*first);
            text = after;
        }
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
        let found = points_in(text, b"/run/job");
        assert_eq!(found, [&b"a b\\"[..], b""]);
        assert!(mounted_in(Path::new("/")).is_empty());
        assert_eq!(mounted_in(Path::new("/proc")).first(), Some(&Vec::new()));
    }
}
