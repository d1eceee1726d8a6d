//! The command line: arguments to a [`Command`], and the help.

use pico_args::Arguments;
use std::ffi::{OsStr, OsString};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// What `--help` prints. README.md carries the same list of options; a test
/// holds them together.
pub const HELP: &str = "\
Takes jobs from a Testflinger server and runs them on the device beside it.

Usage:
  testflinger-agent [OPTIONS]            take jobs until told to stop
  testflinger-agent [OPTIONS] --check    say what keeps it from starting, if
                                         anything does
  testflinger-agent run JOB [-c FILE] [--secret NAME=FILE]... [--keep]
                                         run one job file here, with no server

Options:
  -c, --config FILE         configuration [default: testflinger-agent.conf]
      --token-file FILE     refresh token for the server
                            [default: /var/lib/testflinger-agent/refresh_token]
  -p, --metrics_port PORT   serve /metrics and /healthz at 127.0.0.1:PORT, or at
                            ADDRESS:PORT
      --check               say what keeps the agent from starting, and exit
      --keep                run: keep the job's workspace with its results
      --secret NAME=FILE    run: a secret of the test phase, out of that file;
                            may be given several times
  -h, --help                print this
  -V, --version             print the version

run prints the job's output as it comes and leaves results/<job_id>/ in the
current directory: result.json, a log for each phase, artifacts.tar.gz. Without
-c only the test phase runs: the commands in the job's test_cmds.

Signals:
  SIGTERM, SIGINT  end the phase, clean up, deliver, exit; again: end at once
  SIGUSR1          exit with status 1 when idle, to be started again
  SIGHUP           open the log again; read the configuration anew when idle

Exit status:
  0    told to stop; --check: it can start; run: every phase ended with 0
  1    told to restart, or cannot go on; run: a phase did not end with 0
  2    the command line or the configuration is wrong
  3    another agent with this agent_id runs
  4    the agent cannot start: a directory, the log or the network library;
       run: not all of the results could be kept
  130  run: ended by Ctrl-C
";

/// Where the configuration is looked for.
pub const DEFAULT_CONFIG: &str = "testflinger-agent.conf";
/// Where the refresh token is looked for.
pub const DEFAULT_TOKEN_FILE: &str = "/var/lib/testflinger-agent/refresh_token";

/// What the program was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Print the help.
    Help,
    /// Print the version.
    Version,
    /// Take jobs until told to stop.
    Daemon {
        /// The configuration file.
        config: PathBuf,
        /// The refresh token's file.
        token_file: PathBuf,
        /// Where metrics are wanted.
        metrics: Option<SocketAddr>,
    },
    /// Say what keeps the agent from starting.
    Check {
        /// The configuration file.
        config: PathBuf,
    },
    /// Run one job file.
    Run {
        /// The job file.
        job: PathBuf,
        /// The configuration file, if not the built-in one.
        config: Option<PathBuf>,
        /// Secrets for it, as `NAME=FILE`.
        secrets: Vec<String>,
        /// Keep the job's workspace.
        keep: bool,
    },
}

impl Command {
    /// Reads the arguments, without the program's name.
    ///
    /// # Errors
    /// A sentence for whoever typed them.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
        let mut arguments = Arguments::from_vec(split(arguments));
        if arguments.contains(["-h", "--help"]) {
            return Ok(Command::Help);
        }
        if arguments.contains(["-V", "--version"]) {
            return Ok(Command::Version);
        }
        let keep = arguments.contains("--keep");
        let check = arguments.contains("--check");
        let config = path(&mut arguments, ["-c", "--config"])?;
        let token_file = path(&mut arguments, ["", "--token-file"])?;
        let port = path(&mut arguments, ["-p", "--metrics_port"])?;
        let secrets: Vec<String> = arguments
            .values_from_str("--secret")
            .map_err(|_| "--secret wants a value: NAME=FILE".to_owned())?;
        let metrics = port.as_deref().map(place).transpose()?;
        let free = arguments.finish();
        let unknown = |argument: &OsStr| format!("unknown argument {}", argument.display());
        match free.as_slice() {
            [] if keep => Err("--keep is for run".into()),
            [] if !secrets.is_empty() => Err("--secret is for run".into()),
            // With whatever else the agent would be started with.
            [] if check => Ok(Command::Check {
                config: config.unwrap_or_else(|| DEFAULT_CONFIG.into()),
            }),
            [] => Ok(Command::Daemon {
                config: config.unwrap_or_else(|| DEFAULT_CONFIG.into()),
                token_file: token_file.unwrap_or_else(|| DEFAULT_TOKEN_FILE.into()),
                metrics,
            }),
            [run, rest @ ..] if run == "run" => match rest {
                _ if check => Err("--check is not for run".into()),
                _ if token_file.is_some() || metrics.is_some() => Err(
                    "run has a server of its own: it takes no --token-file and no --metrics_port"
                        .into(),
                ),
                [job] if !is_option(job) => Ok(Command::Run {
                    job: job.into(),
                    config,
                    secrets,
                    keep,
                }),
                [] => Err("run wants a job file".into()),
                [option, ..] if is_option(option) => Err(unknown(option)),
                [_, other, ..] => Err(unknown(other)),
                [other] => Err(unknown(other)),
            },
            [other, ..] => Err(unknown(other)),
        }
    }
}

fn is_option(argument: &OsStr) -> bool {
    argument.as_bytes().starts_with(b"-")
}

/// The value of an option that wants one; some have no short name.
fn path(arguments: &mut Arguments, keys: [&'static str; 2]) -> Result<Option<PathBuf>, String> {
    let as_is = |value: &OsStr| Ok::<_, std::convert::Infallible>(PathBuf::from(value));
    let [short, name] = keys;
    let wanted = || format!("{name} wants a value");
    let mut next = || {
        let value = match short {
            "" => arguments.opt_value_from_os_str(name, as_is),
            _ => arguments.opt_value_from_os_str(keys, as_is),
        };
        value.map_err(|_| wanted())
    };
    let (first, second) = (next()?, next()?);
    // As in the original, the last one counts.
    match second.or(first) {
        Some(value) if value.as_os_str().is_empty() || is_option(value.as_os_str()) => {
            Err(wanted())
        }
        value => Ok(value),
    }
}

/// Where metrics are served: a port of this machine, for nobody else unless an address
/// is given.
fn place(text: &Path) -> Result<SocketAddr, String> {
    let port_or_both = |text: &str| match text.parse() {
        Ok(port) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        Err(_) => text.parse().ok(),
    };
    text.to_str().and_then(port_or_both).ok_or_else(|| {
        format!(
            "--metrics_port is {}; wanted: a port from 0 to 65535, alone or after an address, \
             such as 0.0.0.0:8000 or [::]:8000",
            text.display()
        )
    })
}

/// `-cFILE`, `-c=FILE` and `--config=FILE` as two arguments, which is all that
/// the library takes for values that need not be UTF-8.
fn split(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut split = Vec::new();
    for argument in arguments {
        let bytes = argument.as_bytes();
        let equals = bytes.iter().position(|byte| *byte == b'=');
        let (name, value) = match (bytes, equals) {
            ([b'-', b'-', ..], Some(at)) => bytes.split_at(at),
            ([b'-', b'c' | b'p', _, ..], _) => bytes.split_at(2),
            _ => (bytes, [].as_slice()),
        };
        let has_value = name.len() < bytes.len();
        split.push(OsString::from_vec(name.to_vec()));
        if has_value {
            let value = value.strip_prefix(b"=").unwrap_or(value);
            split.push(OsString::from_vec(value.to_vec()));
        }
    }
    split
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        Command::parse(line.split_whitespace().map(OsString::from))
    }

    fn daemon(config: &str, token_file: &str, metrics: &str) -> Command {
        Command::Daemon {
            config: config.into(),
            token_file: token_file.into(),
            metrics: metrics.parse().ok(),
        }
    }

    fn run(job: &str, config: Option<&str>) -> Command {
        Command::Run {
            job: job.into(),
            config: config.map(PathBuf::from),
            secrets: Vec::new(),
            keep: false,
        }
    }

    #[test]
    fn every_way_to_write_an_option_is_understood() {
        let default = daemon(DEFAULT_CONFIG, DEFAULT_TOKEN_FILE, "");
        assert_eq!(parse(""), Ok(default));
        let given = daemon("a.conf", DEFAULT_TOKEN_FILE, "");
        for line in [
            "-c a.conf",
            "-ca.conf",
            "-c=a.conf",
            "--config a.conf",
            "--config=a.conf",
        ] {
            assert_eq!(parse(line), Ok(given.clone()), "{line}");
        }
        let all = daemon("a", "t", "127.0.0.1:1");
        assert_eq!(parse("-p 1 --token-file t -c a"), Ok(all.clone()));
        assert_eq!(
            parse("--token-file=t --metrics_port=1 -ca"),
            Ok(all.clone())
        );
        assert_eq!(parse("-p1 -c b -c a --token-file t"), Ok(all));
        for place in ["0.0.0.0:8000", "[::1]:8000"] {
            let there = daemon(DEFAULT_CONFIG, DEFAULT_TOKEN_FILE, place);
            assert_eq!(parse(&format!("-p {place}")), Ok(there));
        }
        for line in ["run j.yaml -c a", "-c a run j.yaml", "run -ca j.yaml"] {
            assert_eq!(parse(line), Ok(run("j.yaml", Some("a"))), "{line}");
        }
        assert_eq!(parse("run j.yaml"), Ok(run("j.yaml", None)));
        assert_eq!(parse("run --help"), Ok(Command::Help));
        assert_eq!(parse("-V"), Ok(Command::Version));
        let check = Command::Check { config: "a".into() };
        assert_eq!(parse("-c a --check -p 1 --token-file t"), Ok(check));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, wanted) in [
            ("--confg x", "unknown argument --confg"),
            ("start", "unknown argument start"),
            ("-c", "--config wants a value"),
            ("-c --token-file x", "--config wants a value"),
            ("run", "run wants a job file"),
            ("run a b", "unknown argument b"),
            ("run --fast a", "unknown argument --fast"),
            ("run a --fast", "unknown argument --fast"),
            ("--keep", "--keep is for run"),
            ("--secret A=b", "--secret is for run"),
            ("run a --secret", "--secret wants a value: NAME=FILE"),
            ("run a --check", "--check is not for run"),
        ] {
            assert_eq!(parse(line), Err(wanted.into()), "{line}");
        }
        for place in [
            "http",
            "65536",
            "-1",
            ":1",
            "::1",
            "::1:x",
            "[::1]",
            "localhost:1",
            "+",
        ] {
            let said = parse(&format!("-p {place}")).unwrap_err();
            assert!(said.starts_with("--metrics_port "), "{place}: {said}");
        }
        assert!(
            parse("run a -p 1")
                .unwrap_err()
                .contains("server of its own")
        );
    }
}
