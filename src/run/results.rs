//! `results/<job_id>/`: what a run leaves where the user is.

use super::Error;
use crate::job::{PHASES, Phase};
use crate::local::Server;
use crate::log::printable_but;
use crate::sys::files;
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The results of one job.
pub(super) struct Results {
    job_id: String,
    directory: PathBuf,
}

impl Results {
    /// Makes the directory.
    pub(super) fn new(job_id: &str) -> Result<Results, Error> {
        let directory = Path::new("results").join(job_id);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|error| missing("make", &directory, &error))?;
        // A job file may name its own id: what an earlier run of it left is not
        // this one's.
        let logs = PHASES.map(|phase| format!("{phase}.log"));
        let files = ["result.json".to_owned(), "artifacts.tar.gz".to_owned()];
        for name in logs.iter().chain(&files) {
            match std::fs::remove_file(directory.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(missing("remove", &directory.join(name), &error));
                }
                _ => {}
            }
        }
        Ok(Results {
            job_id: job_id.to_owned(),
            directory,
        })
    }

    /// Prints and keeps the output as it comes to the server.
    pub(super) fn follow(&self, server: &Server) {
        let directory = self.directory.clone();
        let logs: Mutex<BTreeMap<Phase, Option<File>>> = Mutex::default();
        server.on_output(move |_, phase, text| {
            let mut stdout = io::stdout().lock();
            // A terminal that is gone is no reason to stop.
            let _ = stdout.write_all(visible(text).as_bytes());
            let _ = stdout.flush();
            let Ok(mut logs) = logs.lock() else { return };
            let path = directory.join(format!("{phase}.log"));
            let log = logs
                .entry(phase)
                .or_insert_with(|| files::create_fresh(&path).ok());
            let written = log.as_mut().map(|log| log.write_all(text.as_bytes()));
            if !matches!(written, Some(Ok(()))) && log.take().is_some() {
                crate::warning!("cannot write all of {}", path.display());
            }
        });
    }

    /// Where the job's workspace is, if it is to be kept.
    pub(super) fn for_workspace(&self) -> PathBuf {
        let directory = self.directory.join("workspace");
        std::path::absolute(&directory).unwrap_or(directory)
    }

    /// Takes home what the server has.
    pub(super) fn take(&self, server: &Server) -> Result<(), Error> {
        let path = self.directory.join("result.json");
        files::create_fresh(&path)
            .and_then(|mut file| server.write_result(&self.job_id, &mut file))
            .map_err(|error| missing("write", &path, &error))?;
        if let Some(artifacts) = server.artifact(&self.job_id) {
            let path = self.directory.join("artifacts.tar.gz");
            files::create_fresh(&path)
                .and_then(|mut file| io::copy(&mut File::open(artifacts)?, &mut file))
                .map_err(|error| missing("write", &path, &error))?;
        }
        Ok(())
    }

    /// The exit status of each phase, and where everything is.
    pub(super) fn summary(&self, server: &Server) -> String {
        let statuses = server.status(&self.job_id);
        if statuses.is_empty() {
            return format!(
                "\nno phase ran: the configuration has no command for what the job asks for\n\
                 results: {}/\n",
                self.directory.display()
            );
        }
        let mut summary = String::from("\nexit statuses:");
        for phase in PHASES {
            if let Some(status) = statuses.get(phase.name()) {
                summary.push_str(&format!(" {phase} {status},"));
            }
        }
        let summary = summary.trim_end_matches(',');
        format!("{summary}\nresults: {}/\n", self.directory.display())
    }
}

fn missing(action: &str, path: &Path, error: &io::Error) -> Error {
    Error::Missing(format!("cannot {action} {}: {error}", path.display()))
}

/// Output for this terminal: what would act on it is shown instead.
fn visible(text: &str) -> String {
    printable_but(text, &['\n', '\t', '\r'])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row 13: escapes are raw at the server and shown on our own console.
    #[test]
    fn row_13_escapes_do_not_reach_the_terminal() {
        assert_eq!(visible("a\x1b[31m\0é\t\r\n"), "a\\u{1b}[31m\\u{0}é\t\r\n");
    }
}
