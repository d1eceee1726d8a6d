//! How far a job is, and how much of that the server has.

use super::{Entry, JobEvent, LOG_TYPES, LogLength, LogType, PerLog, Phase, length_of};
use crate::child::tree::Leader;
use std::path::{Path, PathBuf};

/// What a phase reports that could not be run, or was cut short with its agent.
pub const NOT_RUN: i64 = 100;

/// No phase has more fragments than this: at two a second, it would be one of
/// months. The server wants rising numbers, and does not mind gaps.
const FRAGMENTS: u64 = 20_000_000;
/// And no run has more numbers than this that it did not use.
const RUN: u64 = 50 * FRAGMENTS;

/// No disk holds more of a log, in bytes.
const MOST: u64 = 1 << 60;

/// A job has fewer than thirty.
const EVENTS: usize = 100;

/// The sum of a job's entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The job.
    pub job_id: String,
    /// Who took it.
    pub agent_id: String,
    /// The phases that began, in their order.
    pub phases: Vec<PhaseProgress>,
    /// What the server had of the logs before this run, if it was looked at.
    pub found: Option<Vec<LogLength>>,
    /// What the disk had of the logs when the job was taken up, until it is known how
    /// much of that the server has.
    pub kept: Option<Vec<LogLength>>,
    /// The sessions of the phases' commands.
    pub leaders: Vec<Leader>,
    /// The numbers of the next fragments; they run on across phases.
    pub next_fragment: PerLog<u64>,
    /// What was sent of the logs went to a server that does not keep it.
    pub is_legacy: bool,
    /// The version of the device's information; 0 when there is none.
    pub device_info: u64,
    /// The one that the server has.
    pub device_info_sent: u64,
    /// What has happened, for the job's webhook.
    pub events: Vec<JobEvent>,
    /// How provision ended, if it ran.
    pub provisioned: Option<i64>,
    /// The server has been told that, or cannot be.
    pub provision_told: bool,
    /// All phases are over.
    pub finished: bool,
    /// What is to be uploaded.
    pub artifacts: Option<PathBuf>,
    /// Where that was before it was brought home.
    pub artifacts_before: Option<PathBuf>,
    /// The server has the artifacts.
    pub artifacts_sent: bool,
    /// The server will not have the artifacts.
    pub artifacts_refused: bool,
    /// The server knows that the job is complete.
    pub complete: bool,
}

/// How far a phase is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhaseProgress {
    /// The phase.
    pub phase: Phase,
    /// How often it began.
    pub begun: u32,
    /// Its exit status, when it is over.
    pub status: Option<i64>,
    /// How much of its logs the server has.
    pub logs: PerLog<LogProgress>,
    /// The server has its status.
    pub reported: bool,
}

/// How much of a log the server has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogProgress {
    /// Bytes.
    pub sent: u64,
    /// It will not have more.
    pub refused: bool,
}

impl Progress {
    /// Adds an entry.
    pub fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Taken { job_id, agent_id } => {
                self.job_id.clone_from(job_id);
                self.agent_id.clone_from(agent_id);
            }
            Entry::TakenUp(kept) => self.take_up(kept),
            Entry::Found(logs) => self.find(logs),
            Entry::ReadBack(logs) => {
                self.find(logs);
                self.kept = None;
            }
            Entry::Started(phase) => self.start(*phase),
            Entry::Spawned(leader) => self.leaders.push(leader.clone()),
            Entry::Ended { phase, status } => {
                self.with(*phase, |progress| progress.status = Some(*status));
            }
            Entry::Finished { artifacts } => {
                self.finished = true;
                if self.artifacts != *artifacts {
                    self.artifacts_before =
                        std::mem::replace(&mut self.artifacts, artifacts.clone());
                }
                // The disk did not take its end.
                for phase in &mut self.phases {
                    phase.status.get_or_insert(NOT_RUN);
                }
            }
            Entry::DeviceInfo(version) => self.device_info = *version,
            Entry::DeviceInfoSent(version) => self.device_info_sent = *version,
            Entry::Sent {
                phase,
                log,
                bytes,
                next_fragment,
            } => {
                self.with_log(*phase, *log, |progress| progress.sent = *bytes);
                *self.next_fragment.of_mut(*log) = *next_fragment;
            }
            Entry::LogRefused { phase, log } => {
                self.with_log(*phase, *log, |progress| progress.refused = true);
            }
            Entry::Legacy => self.is_legacy = true,
            Entry::Upgraded => self.send_again(),
            Entry::Reported(phase) => self.with(*phase, |progress| progress.reported = true),
            Entry::Event(event) if self.events.len() < EVENTS => self.events.push(event.clone()),
            Entry::Event(_) => {}
            Entry::Provisioned(status) => self.provisioned = Some(*status),
            Entry::ProvisionTold => self.provision_told = true,
            Entry::ArtifactsSent => self.artifacts_sent = true,
            Entry::ArtifactsRefused => self.artifacts_refused = true,
            Entry::Complete => self.complete = true,
        }
    }

    fn start(&mut self, phase: Phase) {
        let again = self.phases.iter_mut().find(|known| known.phase == phase);
        match again {
            // A cleanup that was cut short: its log goes on.
            Some(known) => {
                known.begun = known.begun.saturating_add(1);
                (known.status, known.reported) = (None, false);
            }
            None => self.phases.push(PhaseProgress {
                phase,
                begun: 1,
                status: None,
                logs: PerLog::default(),
                reported: false,
            }),
        }
    }

    /// What was sent last may not be on record, as nothing is synced for a
    /// fragment: the next ones get numbers that none can have had. Nor may all of it
    /// be on the disk: what is written from now on begins where the disk ends.
    fn take_up(&mut self, kept: &[LogLength]) {
        for log in LOG_TYPES {
            let next = self.next_fragment.of_mut(log);
            *next = next.saturating_add(FRAGMENTS);
        }
        let before = self.kept.take();
        let mut kept = kept.to_vec();
        for log in &mut kept {
            // Of what an earlier life added, the server has nothing.
            if let Some(before) = &before {
                log.bytes = log.bytes.min(length_of(before, log.phase, log.log));
            }
        }
        for phase in &mut self.phases {
            for log in LOG_TYPES {
                let sent = &mut phase.logs.of_mut(log).sent;
                *sent = (*sent).min(length_of(&kept, phase.phase, log));
            }
        }
        self.kept = Some(kept);
    }

    /// All is owed again but artifacts, which every server keeps. The fragments'
    /// numbers go on.
    fn send_again(&mut self) {
        self.is_legacy = false;
        for phase in &mut self.phases {
            (phase.logs, phase.reported) = (PerLog::default(), false);
        }
    }

    /// What an earlier run left at the server comes before what this one adds: no
    /// run has more fragments than bytes.
    fn find(&mut self, logs: &[LogLength]) {
        let is_first = self.found.replace(logs.to_vec()).is_none();
        for log in LOG_TYPES.into_iter().filter(|_| is_first) {
            let of_it = logs.iter().filter(|one| one.log == log);
            // The record of a broken disk may say anything.
            let bytes = of_it.fold(0, |sum: u64, one| sum.saturating_add(one.bytes));
            if bytes > 0 {
                let next = self.next_fragment.of_mut(log);
                *next = (*next).max(bytes.min(MOST).saturating_add(RUN));
            }
        }
    }

    /// The phase that was cut short, if one was.
    #[must_use]
    pub fn interrupted(&self) -> Option<Phase> {
        let open = self.phases.iter().find(|phase| phase.status.is_none());
        open.map(|phase| phase.phase)
    }

    /// How often a phase began.
    #[must_use]
    pub fn begun(&self, phase: Phase) -> u32 {
        let known = self.phases.iter().find(|known| known.phase == phase);
        known.map_or(0, |known| known.begun)
    }

    fn with(&mut self, phase: Phase, change: impl FnOnce(&mut PhaseProgress)) {
        if let Some(progress) = self.phases.iter_mut().find(|p| p.phase == phase) {
            change(progress);
        }
    }

    fn with_log(&mut self, phase: Phase, log: LogType, change: impl FnOnce(&mut LogProgress)) {
        self.with(phase, |progress| change(progress.logs.of_mut(log)));
    }

    /// The exit statuses of the phases that are over.
    pub fn statuses(&self) -> impl Iterator<Item = (Phase, i64)> {
        self.phases
            .iter()
            .filter_map(|p| Some((p.phase, p.status?)))
    }

    /// How much of the logs the server has, in bytes.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        let of_phase = |phase: &PhaseProgress| {
            let sent = LOG_TYPES.map(|log| phase.logs.of(log).sent);
            // The record of a broken disk may say anything.
            sent.iter()
                .fold(0, |sum: u64, sent| sum.saturating_add(*sent))
        };
        let phases = self.phases.iter().map(of_phase);
        phases.fold(0, u64::saturating_add)
    }

    /// Whether the server knows how provision ended, and not yet that it counts.
    #[must_use]
    pub fn owes_provision_log(&self) -> bool {
        let is_reported = |phase: &PhaseProgress| phase.phase == Phase::Provision && phase.reported;
        self.provisioned.is_some() && !self.provision_told && self.phases.iter().any(is_reported)
    }

    /// Whether there are artifacts that the server may still take.
    #[must_use]
    pub fn owes_artifacts(&self) -> bool {
        self.artifacts.is_some() && !self.artifacts_sent && !self.artifacts_refused
    }

    /// Where artifacts have been that nobody needs there any more: whoever was to remove
    /// them may have been killed.
    pub fn useless_artifacts(&self) -> impl Iterator<Item = &Path> {
        let sent = self.artifacts.as_deref().filter(|_| self.artifacts_sent);
        self.artifacts_before.as_deref().into_iter().chain(sent)
    }
}
