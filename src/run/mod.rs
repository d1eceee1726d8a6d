//! `run`: one job file on this machine, with no server but our own.
//!
//! The job goes the way of every job: it is submitted to a small Testflinger
//! server in this process and taken from there by an ordinary agent. Only the
//! directories are private ones, and the results are left where the user is.

mod given;
mod job_file;
mod narrate;
mod results;

use crate::agent::{Agent, End, Mode, Setup, StartError};
use crate::archive::TarGz;
use crate::config::{self, Config};
use crate::json::{Json, Object};
use crate::local::{Options, Server};
use crate::log::Level;
use crate::sys::{self, files};
use results::Results;
use std::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every phase that ran ended with 0.
    Passed,
    /// A phase did not.
    Failed,
    /// Somebody pressed Ctrl-C.
    Interrupted,
}

/// Why a job file cannot be run.
#[derive(Debug)]
pub enum Error {
    /// The job file is wrong.
    Job(String),
    /// The configuration is wrong.
    Config(config::Error),
    /// The agent cannot start.
    Start(StartError),
    /// Something that it needs is missing.
    Missing(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Job(message) | Error::Missing(message) => f.write_str(message),
            Error::Config(error) => error.fmt(f),
            Error::Start(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

/// Runs the job file.
///
/// # Errors
/// When it cannot be run at all; a phase that fails is an [`Outcome`].
pub fn run(
    job: &Path,
    config: Option<&Path>,
    secrets: &[String],
    keep: bool,
) -> Result<Outcome, Error> {
    let document = job_file::read(job).map_err(Error::Job)?;
    let document = given::with_secrets(&document, secrets).map_err(Error::Job)?;
    let missing =
        |action: &str, error: io::Error| Error::Missing(format!("cannot {action}: {error}"));
    let private = Private::new().map_err(|error| missing("make a temporary directory", error))?;
    let to_attach = private.0.join("attachments");
    let (document, is_attached) = given::attach(&document, job, &to_attach)
        .map_err(|reason| Error::Job(format!("{}: {reason}", job.display())))?;
    let config = match config {
        Some(path) => Config::load(path),
        None => {
            let text = job_file::built_in_config(&document, &private.0)
                .map_err(|error| missing("write the job's commands", error))?;
            Config::parse(Path::new("the built-in configuration"), text.as_bytes())
        }
    };
    let mut config = config.map_err(Error::Config)?;
    if !config.run_as.is_empty() {
        // The way to the workspace of another user's commands.
        fs::set_permissions(&private.0, Permissions::from_mode(0o711))
            .map_err(|error| missing("let that user's commands through", error))?;
    }
    let directory = |name: &str| private.0.join(name);
    let server = Server::start(Options {
        directory: directory("server"),
        ..Options::default()
    })
    .map_err(|error| missing("start the server for this job", error))?;
    let id = server
        .submit(&document)
        .map_err(|reason| Error::Job(format!("{}: the job is refused: {reason}", job.display())))?;
    if is_attached {
        let attached = TarGz::new(&to_attach, ".").and_then(|archive| server.attach(&id, archive));
        attached.map_err(|error| missing("attach the job's files", error))?;
    }
    let results = Results::new(&id)?;
    results.follow(&server);

    let token_file = directory("refresh_token");
    write_token(&token_file, &server).map_err(|error| missing("write the token", error))?;
    let lock_basedir = config.results_basedir.clone();
    adapt(&mut config, &server, &document, &private.0);
    if keep {
        config.execution_basedir = results.for_workspace();
    }
    export(&mut config);
    let setup = Setup {
        config,
        config_path: PathBuf::new(),
        token_file,
        mode: Mode::Once,
        keep_workspace: keep,
        lock_basedir,
        metrics: None,
    };
    let end = narrate::while_it_runs(&server, &id, || {
        Ok(Agent::start(setup).map_err(Error::Start)?.live())
    })?;
    results.take(&server)?;
    let _ = io::stderr().write_all(results.summary(&server).as_bytes());
    if end != End::Stopped && server.job_state(&id).as_deref() != Some("complete") {
        let reason = match server.status(&id).is_empty() {
            true => "the job was not given to this agent: does it exclude it, or wait for \
                     attachments?"
                .to_owned(),
            false => format!(
                "the results are not complete: is {} full?",
                std::env::temp_dir().display()
            ),
        };
        return Err(Error::Missing(reason));
    }
    Ok(match end {
        End::Stopped => Outcome::Interrupted,
        _ if server.status(&id).values().all(|status| *status == 0) => Outcome::Passed,
        _ => Outcome::Failed,
    })
}

/// Makes the configuration one for this job: its queue, our server, directories
/// of its own, and the job's test commands where it has none.
fn adapt(config: &mut Config, server: &Server, document: &str, private: &Path) {
    let job = Json::parse(document).ok();
    let queue = job.and_then(|job| job.get("job_queue")?.string());
    config.job_queues = queue.into_iter().collect();
    config.server = server.url();
    config.execution_basedir = private.join("run");
    config.results_basedir = private.join("results");
    config.logging_basedir = private.join("logs");
    // Whoever runs a job here wants it run here.
    config.min_free_space = 0;
    // The job's output is what there is to see.
    config.logging_level = config.logging_level.max(Level::Warning);
}

/// Shows the commands the directories that are used.
fn export(config: &mut Config) {
    for (name, value) in &mut config.environment {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        match name.as_str() {
            "server_address" => value.clone_from(&config.server),
            "execution_basedir" => *value = text(&config.execution_basedir),
            "results_basedir" => *value = text(&config.results_basedir),
            "logging_basedir" => *value = text(&config.logging_basedir),
            _ => {}
        }
    }
}

/// A directory that only this process knows, and that goes with it.
struct Private(PathBuf);

impl Private {
    fn new() -> io::Result<Private> {
        let name = format!("testflinger-agent-run-{:016x}", sys::random());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Private(path))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Err(error) = sys::remove_tree(&self.0) {
            eprintln!(
                "testflinger-agent: cannot remove {}: {error}",
                self.0.display()
            );
        }
    }
}

fn write_token(path: &Path, server: &Server) -> io::Result<()> {
    let mut token = Object::new();
    token.string("refresh_token", &server.refresh_token());
    files::create_fresh(path)?.write_all(token.finish().as_bytes())
}
