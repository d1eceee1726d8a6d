//! Another user of this machine, as whom commands can run.

use std::ffi::{CStr, CString, OsStr};
use std::fs::Metadata;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A user, and what it takes to become them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// As in passwd(5).
    pub name: String,
    /// The directory that is theirs.
    pub home: PathBuf,
    /// Their number.
    pub uid: u32,
    gid: u32,
    /// All of their groups, that one among them.
    groups: Vec<u32>,
}

impl User {
    /// Looks a user up; `None` when there is none of that name.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn find(name: &str) -> io::Result<Option<User>> {
        let wanted = CString::new(name)?;
        let mut buffer: Vec<libc::c_char> = vec![0; 64 << 10];
        // SAFETY: a zeroed entry is valid, as place to write to; all pointers are to
        // live buffers of the length that is said.
        let (mut entry, mut found): (libc::passwd, _) =
            unsafe { (std::mem::zeroed(), std::ptr::null_mut()) };
        // SAFETY: as above.
        let error = unsafe {
            libc::getpwnam_r(
                wanted.as_ptr(),
                &raw mut entry,
                buffer.as_mut_ptr(),
                buffer.len(),
                &raw mut found,
            )
        };
        if found.is_null() {
            // Not being there is no error; some C libraries say so all the same.
            let is_absent = matches!(error, 0 | libc::ENOENT | libc::ESRCH);
            return match is_absent {
                true => Ok(None),
                false => Err(io::Error::from_raw_os_error(error)),
            };
        }
        // SAFETY: the entry was found, and points into the buffer.
        let home = unsafe { CStr::from_ptr(entry.pw_dir) };
        Ok(Some(User {
            name: name.to_owned(),
            home: Path::new(OsStr::from_bytes(home.to_bytes())).to_owned(),
            uid: entry.pw_uid,
            gid: entry.pw_gid,
            groups: groups(&wanted, entry.pw_gid),
        }))
    }

    /// Makes what is open theirs: a file, a directory, a pipe.
    ///
    /// # Errors
    /// What fchown(2) says.
    pub fn give(&self, open: impl AsFd) -> io::Result<()> {
        std::os::unix::fs::fchown(open, Some(self.uid), Some(self.gid))
    }

    /// Makes a symbolic link theirs.
    ///
    /// # Errors
    /// What lchown(2) says.
    pub fn give_link(&self, link: &Path) -> io::Result<()> {
        std::os::unix::fs::lchown(link, Some(self.uid), Some(self.gid))
    }

    /// Whether their commands can go through a directory.
    #[must_use]
    pub fn can_enter(&self, directory: &Metadata) -> bool {
        self.rights(directory) & 0o1 != 0
    }

    /// Whether their commands can put something else in the place of what is in a
    /// directory and belongs to others.
    #[must_use]
    pub fn can_change(&self, directory: &Metadata) -> bool {
        let is_sticky = directory.permissions().mode() & 0o1000 != 0;
        directory.uid() == self.uid || (self.rights(directory) & 0o2 != 0 && !is_sticky)
    }

    /// Whether their commands can put something into a directory.
    #[must_use]
    pub fn can_add(&self, directory: &Metadata) -> bool {
        directory.uid() == self.uid || self.rights(directory) & 0o2 != 0
    }

    /// To read (4), to change (2), to go through (1).
    fn rights(&self, directory: &Metadata) -> u32 {
        let mode = directory.permissions().mode();
        let shift = if directory.uid() == self.uid {
            6
        } else if self.groups.contains(&directory.gid()) {
            3
        } else {
            0
        };
        mode >> shift & 0o7
    }

    /// Becomes this user for good, and can become no other after that: neither sudo nor
    /// a program with the setuid bit gains anything.
    ///
    /// For a process of a single thread, between fork and exec: nothing here allocates
    /// or takes a lock. The C library's own functions would tell other threads.
    ///
    /// # Errors
    /// When the kernel does not allow it.
    pub(super) fn become_them(&self) -> io::Result<()> {
        #[cfg(not(target_arch = "arm"))]
        use libc::{
            SYS_setgroups as SETGROUPS, SYS_setresgid as SETRESGID, SYS_setresuid as SETRESUID,
        };
        #[cfg(target_arch = "arm")]
        use libc::{
            SYS_setgroups32 as SETGROUPS, SYS_setresgid32 as SETRESGID,
            SYS_setresuid32 as SETRESUID,
        };
        let failed = |result: libc::c_long| match result {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        };
        // SAFETY: numbers, and a list with its length.
        unsafe {
            failed(libc::syscall(
                SETGROUPS,
                self.groups.len(),
                self.groups.as_ptr(),
            ))?;
            failed(libc::syscall(SETRESGID, self.gid, self.gid, self.gid))?;
            failed(libc::syscall(SETRESUID, self.uid, self.uid, self.uid))?;
            super::cerr(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        }
        Ok(())
    }
}

/// The groups of a user, of group(5).
fn groups(name: &CStr, gid: u32) -> Vec<u32> {
    let mut groups = vec![gid; 64];
    loop {
        let mut count = libc::c_int::try_from(groups.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: a C string, and a list with its length.
        let found =
            unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        let count = usize::try_from(count).unwrap_or(0);
        if found >= 0 || count <= groups.len() {
            groups.truncate(count.max(1));
            return groups;
        }
        groups.resize(count, gid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name() {
        let root = User::find("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(root.groups.contains(&0) && root.home.is_absolute());
        assert_eq!(User::find("nobody-of-that-name").unwrap(), None);
        assert!(User::find("a\0b").is_err());
    }

    #[test]
    fn directories_are_entered_by_their_modes() {
        let name = format!("tfa-user-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let own = std::fs::metadata(&directory).unwrap();
        let user = |uid, groups: &[u32]| User {
            name: String::new(),
            home: PathBuf::new(),
            uid,
            gid: 7,
            groups: groups.to_vec(),
        };
        let (owner, member, stranger) = (
            user(own.uid(), &[7]),
            user(own.uid() + 1, &[7, own.gid()]),
            user(own.uid() + 1, &[7]),
        );
        for (mode, can) in [
            (0o700, [true, false, false]),
            (0o711, [true, true, true]),
            (0o710, [true, true, false]),
            (0o077, [false, true, true]),
        ] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&directory, permissions).unwrap();
            let metadata = std::fs::metadata(&directory).unwrap();
            let found = [&owner, &member, &stranger].map(|user| user.can_enter(&metadata));
            assert_eq!(found, can, "{mode:o}");
        }
        for (mode, can) in [
            (0o755, [true, false, false]),
            (0o775, [true, true, false]),
            (0o777, [true, true, true]),
            (0o1777, [true, false, false]),
        ] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&directory, permissions).unwrap();
            let metadata = std::fs::metadata(&directory).unwrap();
            let found = [&owner, &member, &stranger].map(|user| user.can_change(&metadata));
            assert_eq!(found, can, "{mode:o}");
        }
        std::fs::remove_dir(directory).unwrap();
    }
}
