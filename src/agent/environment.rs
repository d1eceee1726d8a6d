//! What the phases' commands find in their environment.

use crate::config::Config;
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
pub(super) fn of_commands(config: &Config, token_file: &Path) -> Vec<(OsString, OsString)> {
    let mut environment: Vec<_> = std::env::vars_os()
        .filter(|(name, _)| !is_the_agents(name))
        .collect();
    if std::env::var_os("PATH").is_none() {
        environment.push(("PATH".into(), PATH.into()));
    }
    let texts = config.environment.iter();
    environment.extend(texts.map(|(name, value)| (name.into(), value.into())));
    environment.push(("token_file".into(), token_file.into()));
    environment
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
}
