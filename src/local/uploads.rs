//! Files that come and go in requests: a job's artifacts and attachments.
//!
//! They go from the connection to the disk and back without ever being in
//! memory as a whole. A file is there when all of it is there: it is received
//! under another name and renamed.

use super::formats;
use super::jobs::Attachments;
use super::multipart;
use super::reply::{Outcome, Reply};
use super::routes::Call;
use super::state::Shared;
use crate::sys::files;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What a file is to its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What the job made.
    Artifact,
    /// What its submitter gave it.
    Attachments,
}

/// Where the file lies if it is there.
pub(super) fn path(directory: &Path, job_id: &str, kind: Kind) -> PathBuf {
    let name = files::escape_name(job_id);
    directory.join(match kind {
        Kind::Artifact => format!("{name}.artifact.tar.gz"),
        Kind::Attachments => format!("{name}.attachments.tar.gz"),
    })
}

/// A file that is being received. What did not become complete is removed.
struct Partial(PathBuf);

impl Partial {
    fn create(shared: &Shared) -> io::Result<(Partial, File)> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = shared
            .options
            .directory
            .join(format!("upload-{number}.part"));
        let file = files::create_fresh(&path)?;
        Ok((Partial(path), file))
    }

    /// The file is complete: it takes its place, and everybody may know.
    fn complete(self, shared: &Shared, job_id: &str, kind: Kind) -> io::Result<()> {
        let path = path(&shared.options.directory, job_id, kind);
        shared.update(|state| {
            fs::rename(&self.0, path)?;
            match kind {
                Kind::Artifact => {
                    state.artifacts.insert(job_id.to_owned());
                }
                Kind::Attachments => {
                    if let Some(job) = state.jobs.get_mut(job_id) {
                        job.attachments = Attachments::Complete;
                    }
                }
            }
            Ok(())
        })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Gone already if it was renamed.
        let _ = fs::remove_file(&self.0);
    }
}

/// How many bytes of files that are being received are there, if one is.
pub(super) fn receiving(directory: &Path) -> Option<u64> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    let is_partial = |entry: &fs::DirEntry| entry.path().extension() == Some("part".as_ref());
    let sizes = entries
        .filter(is_partial)
        .filter_map(|entry| Some(entry.metadata().ok()?.len()));
    sizes.reduce(|all, size| all + size)
}

/// Receives a file from a form.
pub(super) fn store(call: &mut Call<'_, '_, '_>, kind: Kind) -> Outcome {
    let content_type = call.request.header("content-type").unwrap_or_default();
    let Some(boundary) = multipart::boundary(content_type) else {
        return Ok(Reply::abort(400, "Bad Request"));
    };
    // Faults of the disk are the server's, those of the connection are not.
    let (partial, mut file) = match Partial::create(call.shared) {
        Ok(made) => made,
        Err(error) => return Ok(Reply::unhandled(&error)),
    };
    if !multipart::copy_file(&mut call.body, &boundary, &mut file)? {
        return Ok(Reply::abort(400, "Bad Request"));
    }
    Ok(match partial.complete(call.shared, &call.name, kind) {
        Ok(()) => Reply::ok(),
        Err(error) => Reply::unhandled(&error),
    })
}

/// Takes a job's attachments from somewhere else than a request.
pub(super) fn attach(shared: &Shared, job_id: &str, mut from: impl Read) -> io::Result<()> {
    let (partial, mut file) = Partial::create(shared)?;
    io::copy(&mut from, &mut file)?;
    partial.complete(shared, job_id, Kind::Attachments)
}

/// Sends a file.
pub(super) fn send(call: &mut Call<'_, '_, '_>, kind: Kind) -> Outcome {
    let job_id = call.name.as_str();
    if !formats::is_uuid(job_id) {
        return Ok(Reply::text(400, "Invalid job id\n"));
    }
    let is_there = call.shared.look(|state| match kind {
        Kind::Artifact => state.artifacts.contains(job_id),
        Kind::Attachments => {
            let job = state.jobs.get(job_id);
            job.is_some_and(|job| job.attachments == Attachments::Complete)
        }
    });
    if !is_there {
        return Ok(Reply::nothing());
    }
    let path = path(&call.shared.options.directory, job_id, kind);
    Ok(match kind {
        // Clients that unpack what they are sent unpack this, so it had better
        // be packed.
        Kind::Artifact => Reply::file(&path, "application/x-tar")?
            .with("Content-Encoding", "gzip")
            .with("Content-Disposition", "inline; filename=artifact.tar.gz"),
        Kind::Attachments => Reply::file(&path, "application/gzip")?,
    })
}

/// `POST /v1/result/<id>/artifact`
pub(super) fn post_artifact(call: &mut Call<'_, '_, '_>) -> Outcome {
    if !formats::is_uuid(&call.name) {
        return Ok(Reply::text(400, "Invalid job id\n"));
    }
    store(call, Kind::Artifact)
}

/// `GET /v1/result/<id>/artifact`
pub(super) fn get_artifact(call: &mut Call<'_, '_, '_>) -> Outcome {
    send(call, Kind::Artifact)
}
