//! What is counted, and how it is shown: `/metrics` and `/healthz`.
//!
//! [`Metrics`] is the registry, shared by the main loop and the uplink's threads. Its
//! labels are sets that are known beforehand; nothing that a job says becomes one, but
//! for the release of a device, of which there are only so many. The [`Listener`] is
//! part of the main loop. This room decides nothing, starts no process, and contacts
//! nobody.

mod client;
mod endpoint;
mod health;
mod histogram;
mod listener;
mod points;
mod text;

pub use endpoint::Endpoint;
pub use listener::Listener;
pub use points::{Point, Points};

use crate::job::{PHASES, Phase};
use endpoint::ENDPOINTS;
use health::Health;
use histogram::Histogram;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The release of a device that nobody could find out.
pub const UNKNOWN: &str = "unknown";
/// So many releases are told apart: it is the device that names them, and what runs on
/// it is a job's choice.
const RELEASES: usize = 32;
/// All releases beyond those.
const OTHER: &str = "other";

/// What the agent is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It has a job.
    Busy,
    /// It takes jobs, and there is none.
    Idle,
    /// It takes none: an administrator's word, or no room.
    OutOfService,
    /// It would ask for one, but the server does not answer, or refuses.
    #[default]
    WaitingForServer,
}

const STATES: [State; 4] = [
    State::Busy,
    State::Idle,
    State::OutOfService,
    State::WaitingForServer,
];

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Busy => "busy",
            State::Idle => "idle",
            State::OutOfService => "out_of_service",
            State::WaitingForServer => "waiting_for_server",
        }
    }
}

/// What became of the requests to one endpoint.
#[derive(Clone, Copy, Debug, Default)]
struct Requests {
    /// By the first digit of their answer's status; 0 for those without one.
    by_class: [u64; 6],
    /// Until the head of the answer came, or none.
    time: Duration,
}

/// How long phases lasted on devices with one release.
#[derive(Debug, Default)]
struct Durations {
    release: String,
    phases: [Histogram; PHASES.len()],
}

#[derive(Debug, Default)]
struct Registry {
    agent_id: String,
    identifier: String,
    state: State,
    jobs: u64,
    failures: [u64; PHASES.len()],
    recovery_failures: u64,
    durations: Vec<Durations>,
    output_bytes: u64,
    artifact_bytes: u64,
    artifacts: u64,
    /// Records of jobs that are over and of which the server lacks something.
    unsent: u64,
    requests: [Requests; ENDPOINTS.len()],
    reconnects: u64,
    health: Health,
}

/// The registry. A clone is the same one.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    /// What is written to a database as it happens, if there is one.
    pub points: Arc<Points>,
}

impl Metrics {
    /// The registry of this agent.
    #[must_use]
    pub fn new(agent_id: &str, identifier: &str) -> Metrics {
        let metrics = Metrics::default();
        agent_id.clone_into(&mut metrics.lock().agent_id);
        identifier.clone_into(&mut metrics.lock().identifier);
        metrics
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the agent does from now on.
    pub fn state(&self, state: State) {
        self.lock().state = state;
    }

    /// A job was taken.
    pub fn job_taken(&self) {
        let mut registry = self.lock();
        registry.jobs += 1;
        registry.state = State::Busy;
    }

    /// A phase ended with this status.
    pub fn phase_ended(&self, phase: Phase, status: i64) {
        if status != 0
            && let Some(count) = self.lock().failures.get_mut(phase as usize)
        {
            *count += 1;
        }
        self.points.push(phase.name(), Some(status));
    }

    /// A phase's command ran so long, on a device with this release.
    pub fn phase_lasted(&self, phase: Phase, time: Duration, release: &str) {
        let mut registry = self.lock();
        let all = &mut registry.durations;
        let is_known = all.iter().any(|one| one.release == release);
        let release = match is_known || all.len() < RELEASES {
            true => release,
            false => OTHER,
        };
        if !all.iter().any(|one| one.release == release) {
            all.push(Durations {
                release: release.to_owned(),
                ..Durations::default()
            });
        }
        let found = all.iter_mut().find(|one| one.release == release);
        if let Some(histogram) = found.and_then(|one| one.phases.get_mut(phase as usize)) {
            histogram.observe(time);
        }
    }

    /// A device could not be brought back.
    pub fn recovery_failed(&self) {
        self.lock().recovery_failures += 1;
    }

    /// So many bytes of a command's output were read.
    pub fn output(&self, bytes: usize) {
        self.lock().output_bytes += bytes as u64;
    }

    /// So many bytes of artifacts were given to the network.
    pub fn artifacts(&self, bytes: usize) {
        self.lock().artifact_bytes += bytes as u64;
    }

    /// The record of a job that is over waits to be sent.
    pub fn owed(&self) {
        self.lock().unsent += 1;
    }

    /// The server has all of it.
    pub fn delivered(&self) {
        let mut registry = self.lock();
        registry.unsent = registry.unsent.saturating_sub(1);
    }

    /// A request to the server begins.
    pub fn asking(&self, endpoint: Endpoint, now: Instant) {
        self.lock().health.asking(endpoint, now);
    }

    /// It is over: with the status of its answer, or the reason why there is none.
    pub fn asked(&self, endpoint: Endpoint, begun: Instant, now: Instant, end: Result<u16, &str>) {
        let mut registry = self.lock();
        if let Some(requests) = registry.requests.get_mut(endpoint.index()) {
            let class = end.map_or(0, |status| usize::from(status / 100));
            if let Some(count) = requests.by_class.get_mut(class) {
                *count += 1;
            }
            requests.time += now.saturating_duration_since(begun);
        }
        let is_kept = endpoint.is_artifact() && matches!(end, Ok(200..=299));
        registry.artifacts += u64::from(is_kept);
        let fault = match end {
            // Whoever stands before the server says so, not the server.
            Ok(status @ (502..=504)) if !endpoint.is_relayed() => {
                Some(format!("HTTP status {status}"))
            }
            Ok(_) => None,
            Err(cause) => Some(cause.to_owned()),
        };
        let is_back = registry.health.asked(endpoint, now, fault.as_deref());
        registry.reconnects += u64::from(is_back);
    }

    /// The agent is about to end.
    pub fn stopping(&self) {
        self.lock().health.stopping();
    }

    /// Whether the server answers.
    ///
    /// # Errors
    /// Why it does not, as far as is known.
    pub fn health(&self, now: Instant) -> Result<(), String> {
        self.lock().health.verdict(now)
    }

    /// Whether the last request got an answer of the server's.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.lock().health.answers()
    }

    /// All of it, in Prometheus' text format.
    #[must_use]
    pub fn text(&self) -> String {
        text::of(&self.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_only_so_many_releases() {
        let metrics = Metrics::new("a", "");
        let observe = |release: &str| {
            metrics.phase_lasted(Phase::Test, Duration::from_secs(1), release);
        };
        for number in 0..1_000 {
            observe(&number.to_string());
        }
        observe("0");
        let durations = &metrics.lock().durations;
        assert_eq!(durations.len(), RELEASES + 1);
        let count = |release: &str| {
            let found = durations.iter().find(|one| one.release == release);
            found.map(|one| one.phases[Phase::Test as usize].count())
        };
        assert_eq!((count("0"), count("31")), (Some(2), Some(1)));
        assert_eq!(count(OTHER), Some(1_000 - RELEASES as u64));
        assert!(
            PHASES
                .iter()
                .enumerate()
                .all(|(at, phase)| *phase as usize == at)
        );
    }

    #[test]
    fn who_answers_for_a_server_that_is_down_is_not_the_server() {
        let metrics = Metrics::new("a", "");
        let now = Instant::now();
        let endpoint = Endpoint::of("GET", "/v1/result/x");
        for (status, is_well) in [(200, true), (503, false), (500, true), (502, false)] {
            metrics.asked(endpoint, now, now, Ok(status));
            assert_eq!(metrics.health(now).is_ok(), is_well, "{status}");
        }
        let reason = metrics.health(now).unwrap_err();
        assert_eq!(reason, "no answer from the server for 0 s: HTTP status 502");
    }

    #[test]
    fn a_webhook_that_is_dead_says_nothing_of_the_server() {
        let metrics = Metrics::new("a", "");
        let now = Instant::now();
        for path in ["/v1/result/x", "/v1/job/x/events"] {
            for status in [502, 503, 504, 200] {
                metrics.asked(Endpoint::of("POST", path), now, now, Ok(status));
                let is_well = status == 200 || path.ends_with("events");
                assert_eq!(metrics.health(now).is_ok(), is_well, "{path} {status}");
            }
        }
        assert_eq!(metrics.lock().reconnects, 1);
    }

    #[test]
    fn what_was_delivered_was_owed() {
        let metrics = Metrics::default();
        metrics.delivered();
        metrics.owed();
        metrics.owed();
        metrics.delivered();
        assert_eq!(metrics.lock().unsent, 1);
    }
}
