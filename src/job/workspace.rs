//! The workspace of a job: `execution_basedir/<job_id>/`, where its commands
//! run. The job may do what it likes in here; nothing the agent needs is lost.

use super::record::LONGEST_DOCUMENT;
use super::{Attachments, Job, Phase};
use crate::json::Object;
use crate::sys::{self, User, files};
use std::fs::{DirBuilder, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The name of the directory in a workspace where a job leaves its artifacts.
pub(super) const ARTIFACTS: &str = "artifacts";

/// The job, for its commands.
const DOCUMENT: &str = "testflinger.json";

/// The directory of a job's commands, with the files that they and the device
/// connectors look for (PROTOCOL.md, section 4).
#[derive(Debug)]
pub struct Workspace {
    directory: PathBuf,
    /// Whose it is, if not the agent's.
    user: Option<User>,
}

impl Workspace {
    /// Makes it, for this user; what an earlier run of the same job left there is
    /// removed.
    ///
    /// # Errors
    /// When the disk does not take it, or an earlier one cannot be removed.
    pub fn create(basedir: &Path, job: &Job, user: Option<User>) -> io::Result<Workspace> {
        let directory = basedir.join(&job.id);
        sys::remove_tree(&directory)?;
        let workspace = Workspace { directory, user };
        if let Err(error) = workspace.furnish(job) {
            // Nobody else would: what there is of the job's document has secrets, and is
            // in the way of the next job.
            let _ = workspace.remove();
            return Err(error);
        }
        Ok(workspace)
    }

    /// The one of a job that an earlier life of the agent ran; it may be gone.
    #[must_use]
    pub fn of_an_earlier_life(basedir: &Path, job: &Job, user: Option<User>) -> Workspace {
        Workspace {
            directory: basedir.join(&job.id),
            user,
        }
    }

    /// Makes it anew where the job removed it, and opens it where the job closed
    /// it. False: it is there.
    ///
    /// # Errors
    /// As [`Workspace::create`].
    pub fn restore(&self, job: &Job, statuses: &[(Phase, i64)]) -> io::Result<bool> {
        // A link would lead to somebody else's directory.
        let is_directory = |metadata: Metadata| metadata.is_dir();
        if std::fs::symlink_metadata(&self.directory).is_ok_and(is_directory) {
            files::open_up(&self.directory);
            return Ok(false);
        }
        let _ = std::fs::remove_file(&self.directory);
        self.furnish(job)?;
        self.write_outcome(statuses)?;
        Ok(true)
    }

    /// The directory, and what stands in it before the first phase.
    fn furnish(&self, job: &Job) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(&self.directory)?;
        // It holds the job's secrets: 0600, and gone with the workspace.
        self.write(DOCUMENT, &job.text)?;
        self.write("testflinger-outcome.json", "{}")?;
        // Hosts bind-mount it, so it must be there before a connector writes it.
        self.write("device-connector-error.json", "")?;
        // Last, so that nobody else has been in there.
        self.give(&File::open(&self.directory)?)
    }

    /// Makes something in it its user's.
    fn give(&self, file: &File) -> io::Result<()> {
        self.user.as_ref().map_or(Ok(()), |user| user.give(file))
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The copy of the job's document, as its commands have left it.
    #[must_use]
    pub fn document(&self) -> Option<String> {
        let path = self.directory.join(DOCUMENT);
        let read = files::read_regular_of(&path, self.owner(), LONGEST_DOCUMENT);
        String::from_utf8(read.ok()??).ok()
    }

    /// To whom all belongs that is used of it; anybody's may be where it is the
    /// agent's. The job may have made a link to a file that it cannot read itself.
    #[must_use]
    pub fn owner(&self) -> Option<u32> {
        self.user.as_ref().map(|user| user.uid)
    }

    /// Makes the copy of a phase's output that scripts find.
    ///
    /// # Errors
    /// When the job left no room or no directory for it.
    pub fn make_log(&self, phase: Phase) -> io::Result<File> {
        self.make(&format!("{phase}.log"))
    }

    /// Where device connectors write what the serial line says in a phase.
    #[must_use]
    pub fn serial_log(&self, phase: Phase) -> PathBuf {
        self.directory.join(format!("{phase}-serial.log"))
    }

    /// Where device connectors write what is to be known of the device.
    #[must_use]
    pub fn device_info(&self) -> PathBuf {
        self.directory.join("device-info.json")
    }

    /// Where device connectors write why they failed.
    #[must_use]
    pub fn connector_error(&self) -> PathBuf {
        self.directory.join("device-connector-error.json")
    }

    /// Where the job leaves its artifacts.
    #[must_use]
    pub fn artifacts(&self) -> PathBuf {
        self.directory.join(ARTIFACTS)
    }

    /// Where what its owner gives to it comes to be, on a disk of which so many bytes
    /// have to stay free.
    #[must_use]
    pub fn attachments(&self, spare: u64) -> Attachments {
        let directory = self.directory.join("attachments");
        Attachments::new(directory, self.user.clone(), spare)
    }

    /// Tells later phases how the earlier ones ended.
    ///
    /// # Errors
    /// When the job left no room or no directory for it.
    pub fn write_outcome(&self, statuses: &[(Phase, i64)]) -> io::Result<()> {
        let mut status = Object::new();
        for (phase, value) in statuses {
            status.integer(phase.name(), *value);
        }
        let mut outcome = Object::new();
        outcome.object("status", status);
        self.write("testflinger-outcome.json", &outcome.finish())
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        self.make(name)?.write_all(text.as_bytes())
    }

    fn make(&self, name: &str) -> io::Result<File> {
        let file = files::create_fresh(&self.directory.join(name))?;
        self.give(&file)?;
        Ok(file)
    }

    /// Removes it with all in it.
    ///
    /// # Errors
    /// When something in it cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        sys::remove_tree(&self.directory)
    }

    /// Removes all in it but the artifacts, which are to be sent from there: no secret
    /// stays with them.
    ///
    /// # Errors
    /// As [`Workspace::remove`].
    pub fn remove_all_but_artifacts(&self) -> io::Result<()> {
        sys::remove_all_but(ARTIFACTS, &self.directory)
    }
}
