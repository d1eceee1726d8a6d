//! What a stranger's names and modes may be.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A name that leads nowhere else; none for the directory itself.
pub(super) fn plain(name: &[u8]) -> Result<Option<PathBuf>, &'static str> {
    if name.starts_with(b"/") {
        return Err("is an absolute name");
    }
    let mut path = PathBuf::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("leads out of its directory (..)"),
            part if part.contains(&0) => return Err("is no name"),
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    Ok((!path.as_os_str().is_empty()).then_some(path))
}

/// Where a symbolic link may lead: some steps up, but not out, and then down. After a
/// name, a step up could start behind another link, which is anywhere.
pub(super) fn plain_target(target: &[u8], link: &Path) -> Result<PathBuf, &'static str> {
    let mut above = link.components().count().saturating_sub(1);
    let mut goes_down = false;
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if goes_down => return Err("is a link with a step up (..) behind a name"),
            b".." if above == 0 => return Err("is a link that leads elsewhere"),
            b".." => above -= 1,
            _ => goes_down = true,
        }
    }
    match target {
        [] => Err("is a link to nothing"),
        [b'/', ..] => Err("is a link that leads elsewhere"),
        _ if target.contains(&0) => Err("is a link to no name"),
        _ => Ok(PathBuf::from(OsStr::from_bytes(target))),
    }
}

/// What is left of a mode: its owner can read and change the file, nobody else can
/// change it, and it gives nobody another's rights.
pub(super) fn harmless(mode: u32) -> u32 {
    let mode = mode & 0o755 | 0o600;
    match mode & 0o100 {
        0 => mode & !0o011,
        _ => mode,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_36_a_link_leads_up_before_it_leads_down_and_never_out() {
        let link = Path::new("test/a/link");
        for (target, is_good) in [
            ("file", true),
            ("./b//file", true),
            ("../../provision/file", true),
            ("..", true),
            ("../../..", false),
            ("b/../file", false),
            ("b/..", false),
            ("/etc/passwd", false),
            ("", false),
            ("a\0b", false),
        ] {
            let found = plain_target(target.as_bytes(), link);
            assert_eq!(found.is_ok(), is_good, "{target:?}: {found:?}");
        }
    }

    #[test]
    fn row_36_a_name_leads_down() {
        for (name, found) in [
            ("test/./a//b/", Ok(Some("test/a/b"))),
            ("./", Ok(None)),
            ("", Ok(None)),
            ("/test/a", Err("is an absolute name")),
            ("test/../a", Err("leads out of its directory (..)")),
            ("test/a\0b", Err("is no name")),
        ] {
            let wanted = found.map(|path| path.map(PathBuf::from));
            assert_eq!(plain(name.as_bytes()), wanted, "{name:?}");
        }
    }

    #[test]
    fn row_36_modes_are_made_harmless() {
        for (mode, left) in [
            (0o000, 0o600),
            (0o777, 0o755),
            (0o7755, 0o755),
            (0o666, 0o644),
            (0o471, 0o600 | 0o040),
            (0o171, 0o751 & 0o755),
        ] {
            assert_eq!(harmless(mode), left & 0o755, "{mode:o}");
        }
    }
}
