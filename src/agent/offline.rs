//! A device that could not be recovered takes its agent out of service. The server has
//! to hear of that, whatever ends the agent before.

use super::{Agent, Mode};
use crate::config::Config;
use crate::sys::files;
use crate::uplink::AgentData;
use crate::warning;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// In bytes.
const LONGEST_COMMENT: u64 = 1_000;

/// Why the agent is to be put offline.
#[derive(Debug)]
pub(super) struct Offline {
    /// For people.
    pub(super) comment: String,
    /// The server has it.
    pub(super) is_told: bool,
}

impl Agent {
    /// Puts the agent offline.
    pub(super) fn put_offline(&mut self, comment: String) {
        let path = word(&self.config);
        // The one job of the other mode is the last one.
        if self.mode == Mode::Daemon
            && let Err(error) = write(&path, &comment)
        {
            warning!(
                "cannot write {}: {error}; the agent goes offline, but would not know that after \
                 a restart before the server does",
                path.display()
            );
        }
        self.uplink.put_offline(comment.clone());
        self.offline = Some(Offline {
            comment,
            is_told: false,
        });
    }

    /// What the last life could not tell the server any more.
    pub(super) fn remember_offline(&mut self) {
        let path = word(&self.config);
        let comment = match files::read_named(&path, LONGEST_COMMENT) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Ok(comment) => String::from_utf8_lossy(&comment).trim().to_owned(),
            // That there is one says enough.
            Err(_) => String::new(),
        };
        warning!("the server does not know yet that the agent is offline: {comment}");
        self.offline = Some(Offline {
            comment,
            is_told: false,
        });
    }

    /// The server has it: from here on it says so, if it says anything. One of before
    /// 2025-05 does not, and the agent stays offline until its end.
    pub(super) fn offline_is_told(&mut self) {
        if let Some(offline) = &mut self.offline
            && !offline.is_told
        {
            offline.is_told = true;
            let path = word(&self.config);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => warning!(
                    "cannot remove {}: {error}; the next start takes it for news",
                    path.display()
                ),
                _ => {}
            }
        }
    }

    /// Whoever put the agent offline, or back into service, is not overruled.
    pub(super) fn compare_offline(&mut self, data: &AgentData) {
        if data.is_out_of_service() {
            self.offline_is_told();
        }
        if data.state.is_some() && self.offline.as_ref().is_some_and(|one| one.is_told) {
            self.offline = None;
        }
    }
}

/// Where it is written down.
fn word(config: &Config) -> PathBuf {
    let name = files::escape_name(&config.agent_id);
    config.results_basedir.join(format!(".{name}.offline"))
}

fn write(path: &Path, comment: &str) -> io::Result<()> {
    let mut file = files::create_fresh(path)?;
    file.write_all(comment.as_bytes())?;
    file.sync_all()?;
    files::sync_directory(path.parent().unwrap_or(Path::new(".")))
}
