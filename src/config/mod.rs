//! The configuration file, read once and checked in full.
//!
//! After [`Config::load`] nobody asks again whether a value is there or fits.
//! Whoever wrote the file sees one message with the place, what stands there and
//! what is wanted. The keys, their defaults and their environment variables are
//! the original's, so that its files work here as they are.

mod address;
mod advertised;
mod environment;
mod fields;
mod keys;
mod report;

pub use keys::{KEYS, Key, Kind, MAX_SECONDS};
pub use report::{Error, Notice};

use crate::job::{PHASES, Phase};
use crate::log::{Format, Level};
use crate::sys::files;
use crate::yaml;
use fields::Fields;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Everything that the configuration file decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The unique name of this agent: printable, never blank.
    pub agent_id: String,
    /// The server's URL: scheme, host and port, without a slash at the end.
    pub server: String,
    /// Where jobs are taken from; at least one.
    pub job_queues: Vec<String>,
    /// The time between two questions for a job.
    pub polling_interval: Duration,
    /// Where jobs have their working directories.
    pub execution_basedir: PathBuf,
    /// Where the log is kept.
    pub logging_basedir: PathBuf,
    /// Where results are kept until the server has them.
    pub results_basedir: PathBuf,
    /// How grave a line must be to be logged.
    pub logging_level: Level,
    /// Whether the console stays silent.
    pub logging_quiet: bool,
    /// Queues to show to users, with their descriptions.
    pub advertised_queues: Vec<(String, String)>,
    /// Queues with their images, and the provision data of each image.
    pub advertised_images: Vec<(String, Vec<(String, String)>)>,
    /// The longest time for a phase, in seconds.
    pub global_timeout: Option<u64>,
    /// The longest silence of the test phase, in seconds.
    pub output_timeout: Option<u64>,
    /// The device's identifier, or empty.
    pub identifier: String,
    /// Where the device is, or empty.
    pub location: String,
    /// How the device is provisioned, or empty.
    pub provision_type: String,
    /// Certificates to trust besides the system's.
    pub ca_certificate: Option<PathBuf>,
    /// The certificate to show to the server.
    pub client_certificate: Option<PathBuf>,
    /// Its private key.
    pub client_key: Option<PathBuf>,
    /// How lines of the log look.
    pub log_format: Format,
    /// Bytes of output that are kept of a phase.
    pub output_limit: u64,
    /// Bytes that must be free before a job is taken.
    pub min_free_space: u64,
    /// From TERM to KILL.
    pub stop_grace: Duration,
    /// The board's watchdog, if it is to be fed.
    pub watchdog_device: Option<PathBuf>,
    /// As whom phase commands run, or empty.
    pub run_as: String,
    /// What phase commands find in their environment beside the agent's own.
    pub environment: Vec<(String, String)>,
    /// What is odd, but no reason to stop; to be logged once the log is open.
    pub warnings: Vec<Notice>,
    /// In the order of [`PHASES`].
    commands: [String; PHASES.len()],
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read, or does not hold what is wanted.
    pub fn load(path: &Path) -> Result<Config, Error> {
        let bytes = files::read_named(path, yaml::MAX_BYTES as u64)
            .map_err(|error| Error::of_file(path, format!("cannot be read: {error}")))?;
        Config::parse(path, &bytes)
    }

    /// Reads what the file holds; `path` is for the messages.
    ///
    /// # Errors
    /// When it does not hold what is wanted.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Config, Error> {
        let document = yaml::parse_bytes(bytes)
            .map_err(|error| Error::at(path, error.line, error.column, error.reason))?;
        let fields = Fields::new(path, &document.root)?;
        let execution_basedir = fields.directory("execution_basedir")?;
        let logging_basedir = fields.directory("logging_basedir")?;
        let results_basedir = fields.directory("results_basedir")?;
        let mut warnings = report::duplicates(path, &document);
        warnings.extend(report::unused(path, &fields));
        let level = fields.text("logging_level", Kind::Level)?;
        let logging_level = level_from_name(&level).unwrap_or_else(|| {
            let reason = format!(
                "logging_level is the text \"{}\", which is not known; wanted: {}; INFO is taken",
                fields::shown(&level),
                Kind::Level.wanted()
            );
            let odd = fields.error("logging_level", reason);
            warnings.push(Notice::new(Level::Warning, odd.to_string()));
            Level::Info
        });
        // Never absent: the table has a default.
        let polling_interval = fields.seconds("polling_interval")?.unwrap_or(1);
        let mut commands = [const { String::new() }; PHASES.len()];
        for (phase, command) in PHASES.into_iter().zip(&mut commands) {
            *command = fields.text(&format!("{phase}_command"), Kind::Text)?;
        }
        let mut config = Config {
            agent_id: fields.name("agent_id")?,
            server: fields.server("server_address")?,
            job_queues: fields.queues("job_queues")?,
            polling_interval: Duration::from_secs(polling_interval),
            execution_basedir,
            logging_basedir,
            results_basedir,
            logging_level,
            logging_quiet: fields.yes_no("logging_quiet")?,
            advertised_queues: fields.descriptions("advertised_queues")?,
            advertised_images: fields.images("advertised_images")?,
            global_timeout: fields.seconds("global_timeout")?,
            output_timeout: fields.seconds("output_timeout")?,
            identifier: fields.text("identifier", Kind::Text)?,
            location: fields.text("location", Kind::Text)?,
            provision_type: fields.text("provision_type", Kind::Text)?,
            ca_certificate: fields.file("ca_certificate")?,
            client_certificate: fields.file("client_certificate")?,
            client_key: fields.file("client_key")?,
            log_format: fields.format("log_format")?,
            output_limit: fields.bytes("output_limit")?,
            min_free_space: fields.bytes("min_free_space")?,
            // Never absent: the table has a default.
            stop_grace: Duration::from_secs(fields.seconds("stop_grace")?.unwrap_or(1)),
            watchdog_device: fields.file("watchdog_device")?,
            run_as: fields.text("run_as", Kind::User)?,
            environment: Vec::new(),
            warnings,
            commands,
        };
        config.environment = environment::of(&fields, &config);
        Ok(config)
    }

    /// The command of a phase, if there is one.
    #[must_use]
    pub fn command(&self, phase: Phase) -> Option<&str> {
        let mut all = PHASES.into_iter().zip(&self.commands);
        let (_, command) = all.find(|(one, _)| *one == phase)?;
        Some(command.as_str()).filter(|command| !command.trim().is_empty())
    }
}

/// Python's names, in any casing.
fn level_from_name(name: &str) -> Option<Level> {
    match name.to_ascii_uppercase().as_str() {
        "DEBUG" | "NOTSET" => Some(Level::Debug),
        "INFO" => Some(Level::Info),
        "WARNING" | "WARN" => Some(Level::Warning),
        "ERROR" => Some(Level::Error),
        "CRITICAL" | "FATAL" => Some(Level::Critical),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "agent_id: a1\nserver_address: host:8000\njob_queues: [q1]\n";

    fn parse(text: &str) -> Result<Config, Error> {
        Config::parse(Path::new("x.conf"), text.as_bytes())
    }

    fn config(more: &str) -> Config {
        parse(&format!("{LEAST}{more}")).unwrap()
    }

    /// What is said about the fourth line.
    fn error(more: &str) -> String {
        parse(&format!("{LEAST}{more}")).unwrap_err().to_string()
    }

    fn warnings(more: &str) -> Vec<(Level, String)> {
        let warnings = config(more).warnings.into_iter();
        warnings.map(|notice| (notice.level, notice.text)).collect()
    }

    #[test]
    fn the_rest_has_defaults() {
        let config = config("");
        assert_eq!(config.agent_id, "a1");
        assert_eq!(config.server, "http://host:8000");
        assert_eq!(config.job_queues, ["q1"]);
        assert_eq!(config.polling_interval, Duration::from_secs(10));
        assert_eq!(config.execution_basedir, Path::new("/tmp/testflinger/run"));
        assert_eq!(config.logging_basedir, Path::new("/tmp/testflinger/logs"));
        assert_eq!(
            config.results_basedir,
            Path::new("/tmp/testflinger/results")
        );
        assert_eq!(config.logging_level, Level::Info);
        assert!(!config.logging_quiet);
        assert_eq!(config.advertised_queues, []);
        assert_eq!(config.advertised_images, []);
        assert_eq!((config.global_timeout, config.output_timeout), (None, None));
        assert_eq!(config.identifier, "");
        assert_eq!(config.warnings, []);
        for phase in PHASES {
            assert_eq!(config.command(phase), None);
        }
    }

    #[test]
    fn the_originals_example_is_understood() {
        let config = config(
            "\
polling_interval: 30
logging_level: DEBUG
logging_quiet: True
advertised_queues:
  myqueue: A brief description of myqueue
  other:
advertised_images:
  myqueue:
    - latest: \"url: http://path/to/latest.img.xz\"
    - stable: \"url: http://path/to/stable.img.xz\"
  other:
    latest: 'url: http://other'
setup_command: echo setup phase && run-setup-tasks.sh
provision_command: ''
test_command: |
  echo one
  echo two
global_timeout: 43_200
output_timeout: 900
identifier: 202402-01010
",
        );
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(config.polling_interval, Duration::from_secs(30));
        assert_eq!(config.logging_level, Level::Debug);
        assert!(config.logging_quiet);
        assert_eq!(
            config.advertised_queues,
            [
                pair("myqueue", "A brief description of myqueue"),
                pair("other", "")
            ]
        );
        let of_mine = vec![
            pair("latest", "url: http://path/to/latest.img.xz"),
            pair("stable", "url: http://path/to/stable.img.xz"),
        ];
        let of_other = vec![pair("latest", "url: http://other")];
        assert_eq!(
            config.advertised_images,
            [
                ("myqueue".to_owned(), of_mine),
                ("other".to_owned(), of_other)
            ]
        );
        assert_eq!(
            config.command(Phase::Setup),
            Some("echo setup phase && run-setup-tasks.sh")
        );
        assert_eq!(config.command(Phase::Provision), None);
        assert_eq!(config.command(Phase::Test), Some("echo one\necho two\n"));
        assert_eq!(config.command(Phase::Cleanup), None);
        assert_eq!(config.global_timeout, Some(43_200));
        assert_eq!(config.output_timeout, Some(900));
        assert_eq!(config.identifier, "202402-01010");
        assert_eq!(config.warnings, []);
    }

    #[test]
    fn null_is_not_given() {
        let config = config("polling_interval:\nlinks: ~\ntest_command: null\noutput_bytes:\n");
        assert_eq!(config.polling_interval, Duration::from_secs(10));
        assert_eq!(config.command(Phase::Test), None);
        assert_eq!(config.warnings, []);
    }

    #[test]
    fn relative_directories_become_absolute() {
        let config = config("results_basedir: some/where\n");
        assert!(config.results_basedir.is_absolute());
        assert!(config.results_basedir.ends_with("some/where"));
    }

    #[test]
    fn levels_have_pythons_names() {
        for (name, level) in [
            ("NOTSET", Level::Debug),
            ("warn", Level::Warning),
            ("Warning", Level::Warning),
            ("ERROR", Level::Error),
            ("FATAL", Level::Critical),
        ] {
            assert_eq!(
                config(&format!("logging_level: {name}\n")).logging_level,
                level
            );
        }
        let odd = "logging_level: LOUD\n";
        assert_eq!(config(odd).logging_level, Level::Info);
        assert_eq!(
            warnings(odd),
            [(
                Level::Warning,
                "x.conf:4:16: logging_level is the text \"LOUD\", which is not known; \
                 wanted: DEBUG, INFO, WARNING, ERROR or CRITICAL; INFO is taken"
                    .to_owned()
            )]
        );
    }

    #[test]
    fn what_has_no_use_is_told_once() {
        assert_eq!(
            warnings("output_bytes: 100\nlinks: [a]\ncontrol_host: h\nconserver_address: {}\n"),
            [
                (
                    Level::Debug,
                    "x.conf: output_bytes has no use any more".to_owned()
                ),
                (
                    Level::Warning,
                    "x.conf: these keys have no use any more: links, control_host, conserver_address".to_owned()
                ),
            ]
        );
        assert_eq!(
            warnings("location: a\nlocation: b\n"),
            [(
                Level::Warning,
                "x.conf:5: `location` stands here again; the last one counts".to_owned()
            )]
        );
        assert_eq!(config("location: a\nlocation: b\n").location, "b");
        assert_eq!(warnings(&"location: a\n".repeat(1000)).len(), 10);
    }

    #[test]
    fn phase_commands_see_every_text() {
        let text = "location: lab 3\ncontrol_host: 10.0.0.1\nlinks: [x]\npolling_interval: 3\n";
        let environment = config(&format!("{text}test_command: make\n")).environment;
        let environment: Vec<_> = environment.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(
            environment,
            [
                ("agent_id", "a1"),
                ("server_address", "host:8000"),
                ("execution_basedir", "/tmp/testflinger/run"),
                ("logging_basedir", "/tmp/testflinger/logs"),
                ("results_basedir", "/tmp/testflinger/results"),
                ("logging_level", "INFO"),
                ("setup_command", ""),
                ("provision_command", ""),
                ("firmware_update_command", ""),
                ("test_command", "make"),
                ("allocate_command", ""),
                ("reserve_command", ""),
                ("cleanup_command", ""),
                ("identifier", ""),
                ("location", "lab 3"),
                ("provision_type", ""),
                ("control_host", "10.0.0.1"),
            ]
        );
    }

    #[test]
    fn files_that_cannot_be_read_are_named() {
        assert_eq!(
            Config::load(Path::new("/nonexistent/x.conf"))
                .unwrap_err()
                .to_string(),
            "/nonexistent/x.conf: cannot be read: No such file or directory (os error 2)"
        );
        let error = Config::load(Path::new("/")).unwrap_err().to_string();
        assert_eq!(error, "/: cannot be read: Is a directory (os error 21)");
        let error = Config::load(Path::new("/dev/zero"))
            .unwrap_err()
            .to_string();
        let wanted = "/dev/zero: cannot be read: not a regular file";
        assert_eq!(error, wanted);
    }

    #[test]
    fn faults_of_the_whole_name_their_place() {
        for (text, expected) in [
            (
                "",
                "x.conf: agent_id is missing; wanted: printable text, not empty",
            ),
            (
                "agent_id:\nserver_address: h\n",
                "x.conf:1:1: agent_id is empty; wanted: printable text, not empty",
            ),
            (
                "agent_id: a\njob_queues: [q]\n",
                "x.conf: server_address is missing; wanted: host[:port], or a URL of http or \
                 https with nothing after the port",
            ),
            (
                "agent_id: a\nserver_address: h\n",
                "x.conf: job_queues is missing; wanted: a list of queues, at least one",
            ),
            (
                "- a\n",
                "x.conf:1:1: the file holds a list; wanted: `key: value` lines",
            ),
            (
                "a: !vault b\n",
                "x.conf:1:4: the tag !vault is not known here",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), expected);
        }
        assert_eq!(
            error("poling_interval: 3\n"),
            "x.conf:4:1: unknown key `poling_interval`; did you mean `polling_interval`?"
        );
        assert_eq!(error("colour: red\n"), "x.conf:4:1: unknown key `colour`");
        assert_eq!(
            error("yes: red\n"),
            "x.conf:4:1: the yes or no value true stands where a key is wanted"
        );
        assert_eq!(
            error(&format!("links:\n{}", "- ".repeat(20_000))),
            "x.conf:5:63: lists and maps are nested more than 32 deep"
        );
    }

    /// Every byte of a good file is replaced by what YAML has a meaning for.
    #[test]
    fn row_44_no_change_makes_it_panic() {
        let good = format!("{LEAST}advertised_images: &a {{q: [{{i: \"x\"}}]}}\nlinks: *a\n");
        for at in 0..good.len() {
            for byte in *b"-:[]{}&*!|>'\"%@`?,#\n\t \0\xff\\<=.0~" {
                let mut bad = good.clone().into_bytes();
                bad[at] = byte;
                if let Err(error) = Config::parse(Path::new("x.conf"), &bad) {
                    assert!(!error.to_string().contains('\n'));
                }
                bad.truncate(at + 1);
                let _ = Config::parse(Path::new("x.conf"), &bad);
            }
        }
    }
}
