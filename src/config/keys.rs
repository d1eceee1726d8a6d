//! The keys of a configuration file: one table for reading, for the messages
//! and for whoever describes them.

/// A key of the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Its value when it is not given, as it would be written; empty for none.
    pub default: &'static str,
    /// What it is for.
    pub meaning: &'static str,
}

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Printable text that is not blank; it has to be given.
    Name,
    /// Where the server is; it has to be given.
    Address,
    /// A list of names; it has to be given.
    Queues,
    /// A whole number of seconds.
    Seconds,
    /// A whole number of bytes.
    Bytes,
    /// The path of a directory.
    Directory,
    /// The path of a file.
    File,
    /// The name of a user of the machine.
    User,
    /// How lines of the log look.
    Format,
    /// The name of a level of Python's logging.
    Level,
    /// `true` or `false`.
    YesNo,
    /// Any text.
    Text,
    /// A map from queues to their descriptions.
    Descriptions,
    /// A map from queues to their images.
    Images,
    /// Anything: the key has no use any more.
    Unused,
}

/// The longest time that can be asked for, in seconds: some 31 years, which
/// added to any clock stays a time.
pub const MAX_SECONDS: u64 = 1_000_000_000;

impl Kind {
    /// What is wanted, for messages and tables.
    #[must_use]
    pub fn wanted(self) -> &'static str {
        match self {
            Kind::Name => "printable text, not empty",
            Kind::Address => "host[:port], or a URL of http or https with nothing after the port",
            Kind::Queues => "a list of queues, at least one",
            Kind::Seconds => "a whole number of seconds from 1 to 1000000000",
            Kind::Bytes => "a whole number of bytes from 0 to 1000000000000000",
            Kind::Directory => "the path of a directory",
            Kind::File => "the path of a file",
            Kind::User => "the name of a user",
            Kind::Format => "text or json",
            Kind::Level => "DEBUG, INFO, WARNING, ERROR or CRITICAL",
            Kind::YesNo => "true or false",
            Kind::Text => "text",
            Kind::Descriptions => "a map from each queue to its description",
            Kind::Images => "a map from each queue to a map from images to their provision data",
            Kind::Unused => "anything",
        }
    }

    /// Whether keys of this kind are our own: the original has none like them, so
    /// that no command expects them in its environment.
    #[must_use]
    pub fn is_our_own(self) -> bool {
        matches!(self, Kind::Bytes | Kind::File | Kind::User | Kind::Format)
    }

    /// Whether the values are text, which phase commands find in their
    /// environment.
    #[must_use]
    pub fn is_text(self) -> bool {
        matches!(
            self,
            Kind::Name | Kind::Address | Kind::Directory | Kind::Level | Kind::Text
        )
    }
}

/// The most bytes that can be asked for.
pub(super) const MAX_BYTES: u64 = 1_000_000_000_000_000;

/// Every key that may stand in a configuration file.
#[rustfmt::skip] // A table reads best with one row a line.
pub const KEYS: [Key; 36] = [
    key("agent_id", Kind::Name, "", "unique name of this agent; required"),
    key("server_address", Kind::Address, "", "where the server is, `http://` unless said otherwise; required"),
    key("job_queues", Kind::Queues, "", "the queues that jobs are taken from; required"),
    key("polling_interval", Kind::Seconds, "10", "time between two questions for a job"),
    key("execution_basedir", Kind::Directory, "/tmp/testflinger/run", "where jobs have their working directories"),
    key("logging_basedir", Kind::Directory, "/tmp/testflinger/logs", "where the agent keeps its log"),
    key("results_basedir", Kind::Directory, "/tmp/testflinger/results", "where results are kept until the server has them"),
    key("logging_level", Kind::Level, "INFO", "how much is logged"),
    key("logging_quiet", Kind::YesNo, "false", "log to the file only, not to the console"),
    key("advertised_queues", Kind::Descriptions, "", "queues that are shown to users"),
    key("advertised_images", Kind::Images, "", "images that are shown to users, with the provision data for each"),
    key("global_timeout", Kind::Seconds, "", "longest time for a phase of a job"),
    key("output_timeout", Kind::Seconds, "", "longest time for the test phase to stay silent"),
    key("setup_command", Kind::Text, "", "command of the setup phase"),
    key("provision_command", Kind::Text, "", "command of the provision phase"),
    key("firmware_update_command", Kind::Text, "", "command of the firmware update phase"),
    key("test_command", Kind::Text, "", "command of the test phase"),
    key("allocate_command", Kind::Text, "", "command of the allocate phase"),
    key("reserve_command", Kind::Text, "", "command of the reserve phase"),
    key("cleanup_command", Kind::Text, "", "command of the cleanup phase"),
    key("identifier", Kind::Text, "", "the device's identifier, reported to the server"),
    key("location", Kind::Text, "", "where the device is, reported to the server"),
    key("provision_type", Kind::Text, "", "how the device is provisioned, reported to the server"),
    key("ca_certificate", Kind::File, "", "certificates (PEM) to trust besides the system's"),
    key("client_certificate", Kind::File, "", "certificate (PEM) to show to the server"),
    key("client_key", Kind::File, "", "private key (PEM) of `client_certificate`"),
    key("log_format", Kind::Format, "text", "`text`, or `json` for one object a line"),
    key("output_limit", Kind::Bytes, "268435456", "bytes of output that are kept of a phase; the rest is counted"),
    key("min_free_space", Kind::Bytes, "67108864", "bytes that must be free in both base directories before a job is taken, or a tenth of the file system if that is less"),
    key("stop_grace", Kind::Seconds, "10", "time from TERM to KILL"),
    key("watchdog_device", Kind::File, "", "the board's watchdog, such as `/dev/watchdog`: fed while the agent works"),
    key("run_as", Kind::User, "", "the user as whom the commands of the phases run, instead of the agent's own"),
    key("output_bytes", Kind::Unused, "", "no use any more: all output is sent"),
    key("links", Kind::Unused, "", "no use any more"),
    key("control_host", Kind::Unused, "", "no use any more"),
    key("conserver_address", Kind::Unused, "", "no use any more"),
];

const fn key(name: &'static str, kind: Kind, default: &'static str, meaning: &'static str) -> Key {
    Key {
        name,
        kind,
        default,
        meaning,
    }
}

/// The key of that name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The key that was probably meant.
pub(super) fn closest(name: &str) -> Option<&'static Key> {
    let name = name.to_lowercase().replace(['-', ' '], "_");
    let candidates = KEYS.iter().filter_map(|key| {
        // What is further away is another word.
        let slips = 1 + key.name.len() / 6;
        let near = name.len().abs_diff(key.name.len()) <= slips;
        let distance = if near {
            distance(&name, key.name)
        } else {
            usize::MAX
        };
        (distance <= slips).then_some((distance, key))
    });
    candidates
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, key)| key)
}

/// How many letters have to be put in, taken out or replaced (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (at, left) in a.chars().enumerate() {
        let mut diagonal = at;
        let mut before = at + 1;
        for (right, above) in b.chars().zip(row.iter_mut().skip(1)) {
            let best = (before + 1)
                .min(*above + 1)
                .min(diagonal + usize::from(left != right));
            diagonal = *above;
            *above = best;
            before = best;
        }
        if let Some(first) = row.first_mut() {
            *first = at + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::PHASES;

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("job_queue", "job_queues", 1),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn slips_are_understood() {
        for (written, meant) in [
            ("job_queue", Some("job_queues")),
            ("Agent-ID", Some("agent_id")),
            ("agentid", Some("agent_id")),
            ("server_adress", Some("server_address")),
            ("poling_intervall", Some("polling_interval")),
            ("tset_command", Some("test_command")),
            ("globaltimeout", Some("global_timeout")),
            ("timeout", None),
            ("id", None),
            ("", None),
        ] {
            assert_eq!(closest(written).map(|key| key.name), meant, "{written}");
        }
    }

    #[test]
    fn the_table_is_whole() {
        for phase in PHASES {
            assert!(find(&format!("{phase}_command")).is_some());
        }
        assert!(Kind::Seconds.wanted().ends_with(&MAX_SECONDS.to_string()));
    }
}
