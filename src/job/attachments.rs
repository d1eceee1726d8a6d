//! What a job's owner gives to it.

use super::Phase;
use crate::archive::{self, Fault, Room};
use crate::sys::{self, User, files};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The phases that can have some.
pub const ATTACHABLE: [Phase; 3] = [Phase::Provision, Phase::FirmwareUpdate, Phase::Test];

/// Where the files of a job's owner go before its first phase:
/// `attachments/<phase>/…` in the workspace.
#[derive(Debug)]
pub struct Attachments {
    directory: PathBuf,
    user: Option<User>,
    spare: u64,
}

impl Attachments {
    /// Those in this directory, for this user if not for the agent's own, on a disk of
    /// which so many bytes have to stay free.
    pub(super) fn new(directory: PathBuf, user: Option<User>, spare: u64) -> Attachments {
        Attachments {
            directory,
            user,
            spare,
        }
    }

    /// Those in this directory, with all the room of its disk.
    #[must_use]
    pub fn at(directory: &Path) -> Attachments {
        Attachments::new(directory.to_owned(), None, 0)
    }

    /// Unpacks them, in place of what an earlier attempt left there.
    ///
    /// # Errors
    /// When they cannot be received, are not what they should be, or find no room.
    pub fn unpack(&self, source: &mut dyn Read) -> Result<(), Fault> {
        let disk = |error: io::Error| {
            let place = self.directory.display();
            Fault::Disk(format!("{place} cannot be made: {error}"))
        };
        sys::remove_tree(&self.directory).map_err(disk)?;
        // Until all is there, nobody else comes in here.
        let made = DirBuilder::new().mode(0o700).create(&self.directory);
        let directory = made
            .and_then(|()| {
                OpenOptions::new()
                    .read(true)
                    .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
                    .open(&self.directory)
            })
            .map_err(disk)?;
        let space = files::space(&self.directory).map_err(disk)?;
        let room = Room {
            directory: &directory,
            folders: &ATTACHABLE.map(Phase::name),
            owner: self.user.as_ref(),
            bytes: match space.total {
                // Its file system does not say.
                0 => u64::MAX,
                total => space.free.saturating_sub(self.spare.min(total / 10)),
            },
        };
        archive::unpack(source, &room)?;
        let user = self.user.as_ref();
        user.map_or(Ok(()), |user| user.give(&directory).map_err(disk))
    }
}
