//! What the server knows, for those in whose process it runs.

use super::agents::{Agent, ProvisionLog};
use super::legacy::{self, Era};
use super::logs::Fragment;
use super::results;
use super::script::Exchange;
use super::state::State;
use crate::job::{LogType, Phase};
use std::collections::BTreeMap;

/// What a server knows at one moment; see [`Server::wait_for`].
///
/// [`Server::wait_for`]: super::Server::wait_for
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(&'a State);

impl<'a> View<'a> {
    pub(super) fn of(state: &'a State) -> View<'a> {
        View(state)
    }

    /// A job's state, if there is such a job.
    #[must_use]
    pub fn job_state(self, job_id: &str) -> Option<String> {
        self.0.jobs.get(job_id).map(|job| job.state.clone())
    }

    /// The exit statuses of a job's phases.
    #[must_use]
    pub fn status(self, job_id: &str) -> BTreeMap<String, i64> {
        let Some(job) = self.0.jobs.get(job_id) else {
            return BTreeMap::new();
        };
        let named = |(phase, status): (&Phase, &i64)| (phase.name().to_owned(), *status);
        job.status.iter().map(named).collect()
    }

    /// The output of a phase, in the order of the fragments' numbers.
    #[must_use]
    pub fn output(self, job_id: &str, phase: Phase) -> String {
        results::text(self.0, job_id, LogType::Output, phase)
    }

    /// What the serial line said in a phase.
    #[must_use]
    pub fn serial(self, job_id: &str, phase: Phase) -> String {
        results::text(self.0, job_id, LogType::Serial, phase)
    }

    /// The fragments of a job's logs, in the order in which they came.
    #[must_use]
    pub fn fragments(self, job_id: &str) -> Vec<Fragment> {
        self.0.logs.fragments(job_id)
    }

    /// What `GET /v1/result` answers; empty if there is no such job.
    #[must_use]
    pub fn result(self, job_id: &str) -> String {
        match self.0.era {
            Era::Today => results::document(self.0, job_id),
            _ => legacy::document(self.0, job_id).unwrap_or_default(),
        }
    }

    /// The pieces of a job's log that came as text, to a server of earlier times.
    #[must_use]
    pub fn texts(self, job_id: &str, log: LogType) -> Vec<String> {
        self.0.legacy.posted(job_id, log)
    }

    /// Whether there are artifacts of a job.
    #[must_use]
    pub fn has_artifact(self, job_id: &str) -> bool {
        self.0.artifacts.contains(job_id)
    }

    /// An agent, if it ever said anything.
    #[must_use]
    pub fn agent(self, name: &str) -> Option<Agent> {
        self.0.agents.get(name)
    }

    /// The last 100 results of an agent's provisioning.
    #[must_use]
    pub fn provision_logs(self, name: &str) -> Vec<ProvisionLog> {
        self.0.agents.provision_logs(name)
    }

    /// The queues that agents advertise, with their descriptions.
    #[must_use]
    pub fn queues(self) -> BTreeMap<String, String> {
        self.0.agents.queues.clone()
    }

    /// The images that agents advertise: queue, image, provision data.
    #[must_use]
    pub fn images(self) -> BTreeMap<String, BTreeMap<String, String>> {
        self.0.agents.images.clone()
    }

    /// The requests so far, in the order of their answers.
    #[must_use]
    pub fn exchanges(self) -> &'a [Exchange] {
        &self.0.script.exchanges
    }
}
