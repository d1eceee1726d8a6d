//! What happened to a job, one entry after the other.

use super::{JobEvent, LogLength, LogType, Phase};
use crate::child::tree::{Leader, Process};
use crate::json::{Json, Object};
use std::path::PathBuf;

/// An entry of a job's journal. Those that the agent makes say what there is to
/// tell the server; those that the uplink makes say what the server has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The job was taken.
    Taken {
        /// The job.
        job_id: String,
        /// Who took it.
        agent_id: String,
    },
    /// The agent ended in the middle of the job, and a later life of it takes the
    /// job up. The disk has this much of its logs: after a power cut perhaps less than
    /// the server.
    TakenUp(Vec<LogLength>),
    /// What the server had of the job's logs before it got anything of this run: a
    /// job may come again under its id.
    Found(Vec<LogLength>),
    /// What the server has of the job's logs beside what is in them, as was read after
    /// the job had been taken up.
    ReadBack(Vec<LogLength>),
    /// A phase began.
    Started(Phase),
    /// Its command runs as this process.
    Spawned(Leader),
    /// A phase ended.
    Ended {
        /// The phase.
        phase: Phase,
        /// Its exit status.
        status: i64,
    },
    /// All phases are over. Nothing is added to what is owed from here on.
    Finished {
        /// Where the artifacts are, if there are any: a directory, or a tar.gz.
        artifacts: Option<PathBuf>,
    },
    /// There is a new version of the device's information.
    DeviceInfo(u64),
    /// The server has this much of a phase's log.
    Sent {
        /// The phase.
        phase: Phase,
        /// Which of its logs.
        log: LogType,
        /// Bytes of that.
        bytes: u64,
        /// The number that the next fragment of the job's logs of this type gets.
        next_fragment: u64,
    },
    /// The server will not have the rest of a phase's log.
    LogRefused {
        /// The phase.
        phase: Phase,
        /// Which of its logs.
        log: LogType,
    },
    /// What the server has of the logs it was only to show: it is of before 2025-12.
    Legacy,
    /// The server is today's now, and has nothing of what it was sent before.
    Upgraded,
    /// The server has this version of the device's information.
    DeviceInfoSent(u64),
    /// The server has the exit status of this phase and all before it.
    Reported(Phase),
    /// Something happened of which the job's webhook is told.
    Event(JobEvent),
    /// Provision ran, and ended with this.
    Provisioned(i64),
    /// The server is being told how provision ended. That is done once: it counts.
    ProvisionTold,
    /// The server has the artifacts.
    ArtifactsSent,
    /// The server will not have the artifacts.
    ArtifactsRefused,
    /// The server knows that the job is complete.
    Complete,
}

impl Entry {
    /// The entry as a line of a journal, its end included.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut line = Object::new();
        line.string("entry", self.name());
        match self {
            Entry::Taken { job_id, agent_id } => {
                line.string("job_id", job_id);
                line.string("agent_id", agent_id);
            }
            Entry::TakenUp(logs) | Entry::Found(logs) | Entry::ReadBack(logs) => {
                let mut lengths = Object::new();
                for LogLength { phase, log, bytes } in logs {
                    let name = format!("{phase}_{}", log.name());
                    lengths.integer(&name, i64::try_from(*bytes).unwrap_or(i64::MAX));
                }
                line.object("logs", lengths);
            }
            Entry::Started(phase) | Entry::Reported(phase) => {
                line.string("phase", phase.name());
            }
            Entry::Ended { phase, status } => {
                line.string("phase", phase.name());
                line.integer("status", *status);
            }
            Entry::Finished { artifacts } => {
                // Paths of ours come from the configuration and are text.
                if let Some(path) = artifacts.as_ref().and_then(|path| path.to_str()) {
                    line.string("artifacts", path);
                }
            }
            Entry::DeviceInfo(version) | Entry::DeviceInfoSent(version) => {
                let version = i64::try_from(*version).unwrap_or(i64::MAX);
                line.integer("version", version);
            }
            Entry::LogRefused { phase, log } => {
                line.string("phase", phase.name());
                line.string("log", log.name());
            }
            Entry::Sent {
                phase,
                log,
                bytes,
                next_fragment,
            } => {
                line.string("phase", phase.name());
                line.string("log", log.name());
                line.integer("bytes", i64::try_from(*bytes).unwrap_or(i64::MAX));
                let number = i64::try_from(*next_fragment).unwrap_or(i64::MAX);
                line.integer("next_fragment", number);
            }
            Entry::Spawned(Leader { process, boot }) => {
                line.integer("pid", process.pid.into());
                let started = i64::try_from(process.started).unwrap_or(i64::MAX);
                line.integer("started", started);
                line.string("boot", boot);
            }
            Entry::Event(JobEvent {
                name,
                timestamp,
                detail,
            }) => {
                line.string("name", name);
                line.string("timestamp", timestamp);
                line.string("detail", detail);
            }
            Entry::Provisioned(status) => line.integer("status", *status),
            Entry::ProvisionTold
            | Entry::Legacy
            | Entry::Upgraded
            | Entry::ArtifactsSent
            | Entry::ArtifactsRefused
            | Entry::Complete => {}
        }
        line.finish() + "\n"
    }

    /// Reads a line of a journal; `None` for a torn one.
    #[must_use]
    pub fn parse(line: &str) -> Option<Entry> {
        let json = Json::parse(line).ok()?;
        let string = |name: &str| json.get(name).and_then(Json::string);
        let phase = || string("phase").and_then(|name| Phase::from_name(&name));
        let log = || string("log").and_then(|name| LogType::from_name(&name));
        let number = |name: &str| {
            let value = json.get(name).and_then(Json::integer);
            value.and_then(|value| u64::try_from(value).ok())
        };
        let logs = || {
            let members = json.get("logs")?.members();
            Some(members.filter_map(log_length).collect())
        };
        Some(match string("entry")?.as_str() {
            "taken" => Entry::Taken {
                job_id: string("job_id")?,
                agent_id: string("agent_id")?,
            },
            "taken_up" => Entry::TakenUp(logs()?),
            "found" => Entry::Found(logs()?),
            "read_back" => Entry::ReadBack(logs()?),
            "started" => Entry::Started(phase()?),
            "spawned" => Entry::Spawned(Leader {
                process: Process {
                    pid: i32::try_from(number("pid")?).ok()?,
                    started: number("started")?,
                },
                boot: string("boot")?,
            }),
            "ended" => Entry::Ended {
                phase: phase()?,
                status: json.get("status")?.integer()?,
            },
            "finished" => Entry::Finished {
                artifacts: string("artifacts").map(PathBuf::from),
            },
            "device_info" => Entry::DeviceInfo(number("version")?),
            "device_info_sent" => Entry::DeviceInfoSent(number("version")?),
            "sent" => Entry::Sent {
                phase: phase()?,
                log: log()?,
                bytes: number("bytes")?,
                next_fragment: number("next_fragment")?,
            },
            "log_refused" => Entry::LogRefused {
                phase: phase()?,
                log: log()?,
            },
            "legacy" => Entry::Legacy,
            "upgraded" => Entry::Upgraded,
            "reported" => Entry::Reported(phase()?),
            "event" => Entry::Event(JobEvent {
                name: string("name")?,
                timestamp: string("timestamp")?,
                detail: string("detail")?,
            }),
            "provisioned" => Entry::Provisioned(json.get("status")?.integer()?),
            "provision_told" => Entry::ProvisionTold,
            "artifacts_sent" => Entry::ArtifactsSent,
            "artifacts_refused" => Entry::ArtifactsRefused,
            "complete" => Entry::Complete,
            _ => return None,
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Entry::Taken { .. } => "taken",
            Entry::TakenUp(_) => "taken_up",
            Entry::Found(_) => "found",
            Entry::ReadBack(_) => "read_back",
            Entry::Started(_) => "started",
            Entry::Spawned(_) => "spawned",
            Entry::Ended { .. } => "ended",
            Entry::Finished { .. } => "finished",
            Entry::Sent { .. } => "sent",
            Entry::LogRefused { .. } => "log_refused",
            Entry::Legacy => "legacy",
            Entry::Upgraded => "upgraded",
            Entry::DeviceInfo(_) => "device_info",
            Entry::DeviceInfoSent(_) => "device_info_sent",
            Entry::Reported(_) => "reported",
            Entry::Event(_) => "event",
            Entry::Provisioned(_) => "provisioned",
            Entry::ProvisionTold => "provision_told",
            Entry::ArtifactsSent => "artifacts_sent",
            Entry::ArtifactsRefused => "artifacts_refused",
            Entry::Complete => "complete",
        }
    }

    /// Whether the entry must survive a power cut before anybody is told of it.
    /// What the server has can be found out again, but for what was there before; and a
    /// phase whose beginning is lost is not run after a power cut either, but for the
    /// cleanup: it begins anew then, after what it had printed. Cards wear out.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        matches!(
            self,
            Entry::Taken { .. }
                | Entry::TakenUp(_)
                | Entry::Found(_)
                | Entry::ReadBack(_)
                | Entry::Started(Phase::Cleanup)
                | Entry::Ended { .. }
                | Entry::Finished { .. }
        )
    }
}

/// A member of [`Entry::Found`] and its like.
fn log_length((name, bytes): (String, Json<'_>)) -> Option<LogLength> {
    let (phase, log) = name.rsplit_once('_')?;
    Some(LogLength {
        phase: Phase::from_name(phase)?,
        log: LogType::from_name(log)?,
        bytes: u64::try_from(bytes.integer()?).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_read_back_and_no_torn_one() {
        let logs = vec![LogLength {
            phase: Phase::FirmwareUpdate,
            log: LogType::Serial,
            bytes: 12,
        }];
        let entries = [
            Entry::Taken {
                job_id: "j".into(),
                agent_id: "a \"b\"\n".into(),
            },
            Entry::TakenUp(Vec::new()),
            Entry::TakenUp(logs.clone()),
            Entry::Found(logs.clone()),
            Entry::ReadBack(logs),
            Entry::Started(Phase::Setup),
            Entry::Spawned(Leader {
                process: Process {
                    pid: 77,
                    started: 123_456_789_012,
                },
                boot: "b5e3".into(),
            }),
            Entry::Ended {
                phase: Phase::Test,
                status: 247,
            },
            Entry::Finished { artifacts: None },
            Entry::Finished {
                artifacts: Some("/x/artifacts".into()),
            },
            Entry::Sent {
                phase: Phase::Test,
                log: LogType::Serial,
                bytes: 5_000_000_000,
                next_fragment: 7,
            },
            Entry::LogRefused {
                phase: Phase::Reserve,
                log: LogType::Output,
            },
            Entry::Legacy,
            Entry::Upgraded,
            Entry::DeviceInfo(2),
            Entry::DeviceInfoSent(1),
            Entry::Reported(Phase::Cleanup),
            Entry::ArtifactsSent,
            Entry::ArtifactsRefused,
            Entry::Complete,
        ];
        for entry in entries {
            let line = entry.to_line();
            assert_eq!(Entry::parse(&line), Some(entry));
            for cut in 0..line.len() - 1 {
                assert_eq!(Entry::parse(&line[..cut]), None, "{line} cut at {cut}");
            }
        }
    }
}
