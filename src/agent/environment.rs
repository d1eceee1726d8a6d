//! What the phases' commands find in their environment.

use crate::config::{Config, KEYS};
use crate::job::{JobSecrets, Phase};
use crate::sys::User;
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// Where commands look for programs if nobody said so: an init may start the agent
/// with nothing at all.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variable that holds the id of the job, in all of its processes: so they
/// are known again after a crash of the agent.
pub(super) const JOB_MARK: &str = "TESTFLINGER_AGENT_JOB";

/// The agent's own environment without what is meant for the agent alone, then
/// the configuration, as the original exports it.
pub(super) fn of_commands(
    config: &Config,
    token_file: &Path,
    user: Option<&User>,
) -> Vec<(OsString, OsString)> {
    let mut environment: Vec<_> = std::env::vars_os()
        .filter(|(name, _)| !is_the_agents(name))
        .collect();
    if let Some(user) = user {
        // As login(1) does; the rest of the agent's own is meant for its commands.
        let home = ("HOME".into(), user.home.clone().into());
        let names = ["USER", "LOGNAME"].map(|name| (name.into(), user.name.clone().into()));
        environment.retain(|(name, _)| !["HOME", "USER", "LOGNAME"].iter().any(|own| name == own));
        environment.push(home);
        environment.extend(names);
    }
    if std::env::var_os("PATH").is_none() {
        environment.push(("PATH".into(), PATH.into()));
    }
    let texts = config.environment.iter();
    environment.extend(texts.map(|(name, value)| (name.into(), value.into())));
    environment.push(("token_file".into(), token_file.into()));
    environment
}

/// The secrets of a phase for its command's environment, and why some of them are
/// refused. No reason holds a value.
pub(super) fn of_secrets(
    secrets: &JobSecrets,
    phase: Phase,
) -> (Vec<(OsString, OsString)>, Vec<String>) {
    let (mut variables, mut refused) = (Vec::new(), Vec::new());
    for variable in secrets.variables(phase) {
        match variable {
            Err(reason) => refused.push(reason.to_owned()),
            Ok((name, value)) => match objection(name) {
                Some(reason) => refused.push(format!("its secret {name:.80?} {reason}")),
                None => variables.push((name.into(), value.into())),
            },
        }
    }
    (variables, refused)
}

/// Why no secret may have this name, if none may.
fn objection(name: &str) -> Option<&'static str> {
    /// They change what the shell, the loader or the interpreters of the operator's
    /// commands do before those have done anything.
    const POWERFUL: [&str; 17] = [
        "PATH",
        "IFS",
        "ENV",
        "CDPATH",
        "SHELLOPTS",
        // Numbers that the shell takes its own way with.
        "OPTIND",
        "PPID",
        "UID",
        "EUID",
        "LINENO",
        "PROMPT_COMMAND",
        "PS4",
        "GLIBC_TUNABLES",
        "GCONV_PATH",
        "NODE_OPTIONS",
        "RUBYOPT",
        "RUBYLIB",
    ];
    const POWERFUL_BEGINNINGS: [&str; 4] = ["LD_", "BASH", "PYTHON", "PERL"];
    let begins = |prefix: &&str| name.starts_with(*prefix);
    let is_powerful = POWERFUL.contains(&name) || POWERFUL_BEGINNINGS.iter().any(begins);
    let is_name = name.bytes().enumerate().all(|(at, byte)| {
        byte == b'_' || byte.is_ascii_alphabetic() || at > 0 && byte.is_ascii_digit()
    });
    if name.is_empty() || !is_name {
        // POSIX, XBD 8.1: what a shell can name.
        Some("has no name that a variable can have")
    } else if is_powerful {
        Some("would change what the shell or the loader of its command does")
    } else if name.starts_with("TESTFLINGER_AGENT_")
        || name == "token_file"
        || is_the_agents(OsStr::new(name))
        || KEYS.iter().any(|key| key.name == name)
    {
        Some("has the name of a variable of the agent")
    } else {
        None
    }
}

/// Whether a variable speaks of the agent's supervisor or its metrics.
fn is_the_agents(name: &OsStr) -> bool {
    let prefixes: [&[u8]; 3] = [b"WATCHDOG_", b"LISTEN_", b"INFLUX_"];
    let name = name.as_encoded_bytes();
    name == b"NOTIFY_SOCKET" || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_agents_is_not_passed_on() {
        let kept = |name: &str| !is_the_agents(OsStr::new(name));
        assert!(kept("PATH") && kept("NOTIFY") && kept("LISTEN"));
        assert!(!kept("NOTIFY_SOCKET") && !kept("WATCHDOG_USEC"));
        assert!(!kept("LISTEN_FDS") && !kept("INFLUX_PW"));
    }

    #[test]
    fn row_41_a_secret_may_have_the_name_of_a_variable_that_does_nothing_else() {
        for name in [
            "A",
            "_",
            "my_token2",
            "PATHS",
            "HOMEPAGE",
            "ENVIRONMENT",
            "LDAP_PASSWORD",
        ] {
            assert_eq!(objection(name), None, "{name}");
        }
        let table = [
            ("no name", "|1A|A-B|A B|A=B|\u{e9}|A\n|BASH_FUNC_x%%"),
            (
                "would change",
                "PATH|LD_PRELOAD|LD_AUDIT|IFS|ENV|BASH_ENV|SHELLOPTS|BASHOPTS|PYTHONPATH",
            ),
            (
                "of the agent",
                "TESTFLINGER_AGENT_JOB|token_file|agent_id|test_command|NOTIFY_SOCKET|LISTEN_FDS",
            ),
        ];
        for (reason, names) in table {
            for name in names.split('|') {
                assert!(objection(name).unwrap().contains(reason), "{name:?}");
            }
        }
    }
}
