//! The configuration: it is good, or a message says what is not.

use std::path::Path;
use testflinger_agent::config::Config;
use testflinger_agent::job::PHASES;
use testflinger_agent::log::printable;

/// What a person still reads.
const LONGEST_MESSAGE: usize = 2_000;

/// It does nothing to a terminal.
fn is_readable(message: &str) -> bool {
    let does_something = |c: char| c.is_control() && c != '\t';
    message.len() <= LONGEST_MESSAGE && !message.chars().any(does_something)
}

pub fn try_it(data: &[u8]) {
    match Config::parse(Path::new("conf"), data) {
        Ok(config) => {
            for notice in &config.warnings {
                let text = printable(&notice.text);
                assert!(is_readable(&text), "{text:?}");
            }
            for phase in PHASES {
                let _ = config.command(phase);
            }
            assert!(!config.agent_id.is_empty() && !config.job_queues.is_empty());
            assert!(config.server.starts_with("http"));
            for (name, value) in &config.environment {
                assert!(!name.is_empty() && !name.contains(['=', '\0']));
                assert!(!value.contains('\0'), "{name}: {value:?}");
            }
        }
        Err(error) => {
            let message = error.to_string();
            assert!(is_readable(&message), "{message:?}");
        }
    }
}
