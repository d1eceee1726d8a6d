//! Before the first request: directories, the lock, the log, the threads.

use super::events::Events;
use super::lock::{self, Lock};
use super::overseers::Overseers;
use super::telemetry::Telemetry;
use super::{Agent, Mode, Setup, environment, idle, user};
use crate::config::Config;
use crate::job::{Entry, Progress, Record, Records, remove_artifacts};
use crate::log::{self, LogFile};
use crate::metrics::Metrics;
use crate::sys::{self, Signals, User, Wake, files};
use crate::uplink::{self, TlsFiles, Uplink};
use crate::{error, info, warning};
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Why an agent cannot start.
#[derive(Debug)]
pub enum StartError {
    /// Another agent of this id runs.
    Locked(String),
    /// Something that it needs is missing.
    Missing(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Locked(message) | StartError::Missing(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for StartError {}

impl Agent {
    /// Starts an agent: after this, its log is open and nobody else has its id.
    ///
    /// # Errors
    /// When another agent of this id runs, or the system lacks what it needs.
    pub fn start(setup: Setup) -> Result<Agent, StartError> {
        let Setup {
            config,
            config_path,
            token_file,
            mode,
            keep_workspace,
            lock_basedir,
            metrics: metrics_address,
        } = setup;
        files::private_directory(&lock_basedir).map_err(StartError::Missing)?;
        let user = make_directories(&config)?;
        let lock = Lock::take(&lock_basedir, &config.agent_id, lock::PATIENCE)?;
        open_log(&config)?;
        for notice in &config.warnings {
            log::write(notice.level, "config", format_args!("{}", notice.text));
        }
        let missing = |what: &str, error: std::io::Error| {
            StartError::Missing(format!("cannot {what}: {error}"))
        };
        let signals = Signals::catch().map_err(|error| missing("catch signals", error))?;
        if let Err(error) = sys::become_subreaper() {
            warning!(
                "this kernel keeps no track of orphans ({error}): daemons that a job starts may \
                 outlive it"
            );
        }
        let (pipe, wake) = Wake::new().map_err(|error| missing("make a pipe", error))?;
        let metrics = Metrics::new(&config.agent_id, &config.identifier);
        let settings = uplink::Settings {
            metrics: metrics.clone(),
            server: config.server.clone(),
            tls: tls_files(&config),
            agent_id: config.agent_id.clone(),
            token_file: token_file.clone(),
        };
        let (uplink, inbox) = Uplink::start(settings, wake).map_err(StartError::Missing)?;
        info!(
            "testflinger-agent {} is {} at {}, for the queues {}",
            env!("CARGO_PKG_VERSION"),
            config.agent_id,
            config.server,
            config.job_queues.join(", ")
        );
        let environment = environment::of_commands(&config, &token_file, user.as_ref());
        sys::oom::put_commands_first();
        let mut agent = Agent {
            events: Events::new(signals, pipe, inbox),
            environment,
            user,
            uplink,
            config,
            config_path,
            mode,
            keep_workspace,
            stopping: None,
            phase_begun: Instant::now(),
            abandoned: false,
            has_failed: false,
            restart_wanted: false,
            reload_wanted: false,
            cancelled: false,
            offline: None,
            interrupted: Vec::new(),
            idle: idle::Idle::default(),
            lock,
        };
        agent.events.telemetry = Telemetry::start(metrics, metrics_address);
        if mode == Mode::Daemon {
            log::share();
            uplink::influx::start(&agent.config.agent_id, &agent.events.telemetry.metrics);
            agent.remember_offline();
            agent.look_at_records();
            // Last: from here on the main loop must turn.
            let watchdog = agent.config.watchdog_device.as_deref();
            agent.events.overseers = Overseers::start(watchdog);
        }
        Ok(agent)
    }

    /// What earlier lives left behind.
    fn look_at_records(&mut self) {
        let basedir = &self.config.results_basedir;
        if files::is_in_memory(basedir) {
            warning!(
                "{} is in memory: what is owed to the server would not survive a reboot; set \
                 results_basedir to a directory on a disk",
                basedir.display()
            );
        }
        let records = match Records::find(basedir, &self.config.agent_id) {
            Ok(records) => records,
            Err(error) => {
                warning!(
                    "cannot look for what is owed in {}: {error}; nothing of it is sent before \
                     the next start",
                    basedir.display()
                );
                return;
            }
        };
        for (record, progress) in records.owed {
            progress.useless_artifacts().for_each(remove_artifacts);
            info!(
                "job {} is over and not wholly delivered: sending the rest",
                progress.job_id
            );
            self.uplink.owe(record, progress);
        }
        self.interrupted = records.interrupted;
        for (job_id, document) in records.half_made {
            let record = self.put_on_record(&job_id, document.as_deref());
            self.interrupted.push(record);
        }
        for path in records.half_removed {
            if let Err(error) = sys::remove_tree(&path) {
                let path = path.display();
                warning!(
                    "cannot remove {path}: {error}; it can be removed by hand, its job is delivered"
                );
            }
        }
        if !records.foreign.is_empty() {
            warning!(
                "not this agent's, as far as it can be read, and left alone: {}",
                listed(&records.foreign, |path| path.display().to_string())
            );
        }
    }
}

impl Agent {
    /// A job that was taken when the agent ended, before it was on record.
    fn put_on_record(&self, job_id: &str, document: Option<&str>) -> (Record, Progress) {
        let Config {
            results_basedir,
            agent_id,
            ..
        } = &self.config;
        let created = Record::create(results_basedir, job_id, agent_id, document.unwrap_or("{}"));
        let record = created.unwrap_or_else(|error| {
            error!(
                "cannot make a record of job {job_id}: {error}; it goes home all the same, but \
                 would not survive another restart"
            );
            Record::unwritten(results_basedir, job_id)
        });
        let mut progress = Progress::default();
        progress.apply(&Entry::Taken {
            job_id: job_id.to_owned(),
            agent_id: agent_id.clone(),
        });
        (record, progress)
    }
}

/// Whether an agent could start with a configuration: takes what that would take,
/// and gives it back.
///
/// # Errors
/// When another agent of this id runs, or the system lacks what it needs.
pub fn try_out(config: &Config) -> Result<(), StartError> {
    make_directories(config)?;
    let _lock = Lock::take(&config.results_basedir, &config.agent_id, lock::PATIENCE)?;
    log_file(config)?;
    Ok(())
}

/// Whether an agent that runs with `old` could start with `new`: takes whatever
/// is not its own already, and gives it back.
pub(super) fn rehearse(new: &Config, old: &Config) -> Result<(), StartError> {
    make_directories(new)?;
    let is_elsewhere = new.agent_id != old.agent_id || new.results_basedir != old.results_basedir;
    let records = Records::find(&old.results_basedir, &old.agent_id).unwrap_or_default();
    if is_elsewhere && !records.owed.is_empty() {
        return Err(StartError::Missing(format!(
            "{} jobs in {} are not wholly delivered, and nobody else would do that: wait until \
             they are, then send SIGHUP again",
            records.owed.len(),
            old.results_basedir.display()
        )));
    }
    let same_id = new.agent_id == old.agent_id;
    if !same_id || new.results_basedir != old.results_basedir {
        Lock::take(&new.results_basedir, &new.agent_id, Duration::ZERO)?;
    }
    if !same_id || new.logging_basedir != old.logging_basedir {
        log_file(new)?;
    }
    Ok(())
}

impl Agent {
    /// Makes the directories anew that somebody has removed, as who clears `/tmp` does:
    /// also from an agent that has had nothing to do for days.
    pub(super) fn restore_directories(&mut self) {
        let config = &self.config;
        let mut missing = basedirs(config).to_vec();
        missing.retain(|directory| !directory.is_dir());
        // Where they cannot be made, no job is taken, and that is said.
        if missing.is_empty() || make_directories(config).is_err() {
            return;
        }
        if missing.contains(&&config.logging_basedir) {
            let _ = open_log(config);
        }
        let names = listed(&missing, |directory| directory.display().to_string());
        warning!("{names} was removed, and is made anew");
    }
}

/// The directories of an agent's own.
fn basedirs(config: &Config) -> [&PathBuf; 3] {
    [
        &config.results_basedir,
        &config.execution_basedir,
        &config.logging_basedir,
    ]
}

/// Makes them, so that the commands' user can work in theirs; who that is, if it is
/// another one than the agent's.
fn make_directories(config: &Config) -> Result<Option<User>, StartError> {
    for directory in basedirs(config) {
        files::private_directory(directory).map_err(StartError::Missing)?;
    }
    let (results, execution) = (&config.results_basedir, &config.execution_basedir);
    if files::is_same(results, execution) {
        return Err(StartError::Missing(format!(
            "results_basedir and execution_basedir are one directory, {}: a job's record and its \
             workspace would have the same name there; choose another one for one of them",
            results.display()
        )));
    }
    let user = user::of(config).map_err(StartError::Missing)?;
    user::keep_out(user.as_ref(), results).map_err(StartError::Missing)?;
    if let Some(user) = &user {
        user::let_through(user, &config.execution_basedir).map_err(StartError::Missing)?;
    }
    Ok(user)
}

/// Whether the user and the files of TLS that a configuration names are what they
/// should be.
///
/// # Errors
/// A sentence, when they are not.
pub fn check(config: &Config) -> Result<(), String> {
    user::of(config)?;
    uplink::check(&config.server, &tls_files(config))
}

/// The files of TLS that a configuration names.
fn tls_files(config: &Config) -> TlsFiles {
    TlsFiles {
        ca_certificate: config.ca_certificate.clone(),
        client_certificate: config.client_certificate.clone(),
        client_key: config.client_key.clone(),
    }
}

/// A few of many things, for a message.
pub(super) fn listed<T>(things: &[T], name: impl Fn(&T) -> String) -> String {
    let shown: Vec<_> = things.iter().take(5).map(name).collect();
    match things.len().saturating_sub(shown.len()) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Opens the agent's log.
fn open_log(config: &Config) -> Result<(), StartError> {
    let console = (!config.logging_quiet).then_some(config.logging_level);
    let (file, own) = log_file(config)?;
    log::open(file, config.log_format, config.logging_level, console);
    if let Some(own) = own {
        info!("another agent logs here already; this one's log is {own}");
    }
    Ok(())
}

/// The agent's log file; where another agent on this host has that, one of its
/// own, with its name.
fn log_file(config: &Config) -> Result<(LogFile, Option<String>), StartError> {
    let basedir = &config.logging_basedir;
    let open = |name: &str| {
        let path = basedir.join(name);
        LogFile::open(&path).map_err(|error| {
            StartError::Missing(format!("cannot open the log {}: {error}", path.display()))
        })
    };
    if let Some(file) = open("testflinger-agent.log")? {
        return Ok((file, None));
    }
    let own = format!(
        "testflinger-agent-{}.log",
        files::escape_name(&config.agent_id)
    );
    match open(&own)? {
        Some(file) => Ok((file, Some(own))),
        None => Err(StartError::Missing(format!(
            "cannot log: other programs hold both testflinger-agent.log and {own} in {}",
            basedir.display()
        ))),
    }
}
