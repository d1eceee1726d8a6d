//! One result to one exit status; `--help` lists them.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;
use testflinger_agent::agent::{self, Agent, End, Mode, Setup, StartError};
use testflinger_agent::cli::{self, HELP};
use testflinger_agent::config::Config;
use testflinger_agent::run::{self, Outcome};
use testflinger_agent::sys;

const RESTART: u8 = 1;
const FAILED: u8 = 1;
const WRONG_INPUT: u8 = 2;
const LOCKED: u8 = 3;
const CANNOT_START: u8 = 4;
const INTERRUPTED: u8 = 130;

/// Before an agent gives up that its init would start again at once.
const RESPAWN_PAUSE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    // Whatever was open when we were started is not for the jobs.
    sys::close_on_exec_from(3);
    match cli::Command::parse(std::env::args_os().skip(1)) {
        Ok(cli::Command::Help) => print(HELP),
        Ok(cli::Command::Version) => print(concat!(
            "testflinger-agent ",
            env!("CARGO_PKG_VERSION"),
            "\n"
        )),
        Ok(cli::Command::Daemon {
            config,
            token_file,
            metrics,
        }) => daemon(&config, token_file, metrics),
        Ok(cli::Command::Check { config }) => check(&config),
        Ok(cli::Command::Run {
            job,
            config,
            secrets,
            keep,
        }) => run(&job, config.as_deref(), &secrets, keep),
        Err(message) => {
            complain(&format!("{message}; --help lists what there is"));
            ExitCode::from(WRONG_INPUT)
        }
    }
}

fn daemon(config_path: &Path, token_file: PathBuf, metrics: Option<SocketAddr>) -> ExitCode {
    // The kernel takes the name from the path, which has been /proc/self/exe when
    // the agent has begun anew.
    let program = PathBuf::from(std::env::args_os().next().unwrap_or_default());
    if let Some(name) = program.file_name() {
        sys::be_called(name);
    }
    let config = match load(config_path) {
        Ok(config) => config,
        Err(error) => return give_up(&error, WRONG_INPUT),
    };
    let lock_basedir = config.results_basedir.clone();
    let setup = Setup {
        config,
        config_path: config_path.to_owned(),
        token_file,
        mode: Mode::Daemon,
        keep_workspace: false,
        lock_basedir,
        metrics,
    };
    let mut agent = match Agent::start(setup) {
        Ok(agent) => agent,
        Err(error) => return give_up(&error.to_string(), status_of(&error)),
    };
    // What the agent holds, its lock among it, is given back when it is dropped, or
    // by becoming another program: its threads find all in place until then.
    match agent.live() {
        End::Restart => ExitCode::from(RESTART),
        End::Failed => ExitCode::from(FAILED),
        End::Locked => ExitCode::from(LOCKED),
        End::Stopped | End::JobOver => ExitCode::SUCCESS,
        End::Reload => begin_anew(),
    }
}

/// For whoever starts the agent where nobody sees what it says, such as a start
/// script: there is no pause, and nothing is contacted.
fn check(config_path: &Path) -> ExitCode {
    let result = load(config_path)
        .map_err(|error| (error, WRONG_INPUT))
        .and_then(|config| {
            agent::try_out(&config).map_err(|error| (error.to_string(), status_of(&error)))
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err((message, status)) => {
            complain(&message);
            ExitCode::from(status)
        }
    }
}

/// A configuration that the agent can work with, as far as the files say.
fn load(config_path: &Path) -> Result<Config, String> {
    let config = Config::load(config_path).map_err(|error| error.to_string())?;
    agent::check(&config).map_err(|error| format!("{}: {error}", config_path.display()))?;
    Ok(config)
}

fn status_of(error: &StartError) -> u8 {
    match error {
        StartError::Locked(_) => LOCKED,
        StartError::Missing(_) => CANNOT_START,
    }
}

/// Becomes a new process image under the same process id: whatever can be
/// configured is then as the new configuration says, and what was owed is found
/// in its records.
fn begin_anew() -> ExitCode {
    sys::oom::put_back();
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let error = Command::new("/proc/self/exe")
        .arg0(name)
        .args(arguments)
        .exec();
    complain(&format!(
        "cannot begin anew: {error}; the supervisor has to do it"
    ));
    ExitCode::from(RESTART)
}

fn run(job: &Path, config: Option<&Path>, secrets: &[String], keep: bool) -> ExitCode {
    match run::run(job, config, secrets, keep) {
        Ok(Outcome::Passed) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::from(FAILED),
        Ok(Outcome::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(match error {
                run::Error::Job(_) | run::Error::Config(_) => WRONG_INPUT,
                run::Error::Start(error) => status_of(&error),
                run::Error::Missing(_) => CANNOT_START,
            })
        }
    }
}

/// Says why the agent cannot run. A person at a terminal has the prompt back at
/// once; an init that starts the agent again and again does not spin, also where it
/// gives it the board's console.
fn give_up(message: &str, status: u8) -> ExitCode {
    complain(message);
    // Nobody catches them any more: a TERM must not wait for the pause.
    let _ = sys::release_signals();
    let is_started_by_init = std::os::unix::process::parent_id() == 1;
    if is_started_by_init || !std::io::stderr().is_terminal() {
        std::thread::sleep(RESPAWN_PAUSE);
    }
    ExitCode::from(status)
}

fn complain(message: &str) {
    // A terminal that is gone is no reason for a panic.
    let _ = writeln!(std::io::stderr(), "testflinger-agent: {message}");
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(FAILED),
    }
}
