//! What the server is told of an agent that runs no job: who it is, that it
//! waits, what its queues and images are, and that it ends.

use super::idle::Setback;
use super::space::NO_SPACE;
use super::{Agent, Event};
use crate::info;
use crate::json::Object;
use crate::uplink::{self, AgentData, Answer, Ask, DESCRIPTIONS, Failure};
use std::time::{Duration, Instant};

/// The server forgets agents, queues and images after seven days.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(3_600);
/// What could not be advertised is tried again after this.
const ADVERTISE_PAUSE: Duration = Duration::from_secs(60);
/// For the last words to the server.
const FAREWELL: Duration = Duration::from_secs(5);

impl Agent {
    pub(super) fn post_identity(&mut self) -> Result<(), Setback> {
        let mut body = Object::new();
        body.strings("queues", &self.config.job_queues);
        for (name, value) in self.descriptions() {
            if !value.is_empty() {
                body.string(name, value);
            }
        }
        self.post(Ask::PostAgent(body), "post this agent's data")?;
        Ok(())
    }

    fn descriptions(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let config = &self.config;
        let values = [&config.location, &config.provision_type, &config.identifier];
        DESCRIPTIONS.into_iter().zip(values)
    }

    /// Makes the server's picture of the agent right: it waits, or it is out of
    /// service, and no job runs.
    pub(super) fn post_state(
        &mut self,
        data: &AgentData,
        lack: Option<&str>,
    ) -> Result<(), Setback> {
        let mut body = Object::new();
        let mut differs = false;
        if let Some(offline) = &self.offline {
            body.string("state", "offline");
            body.string("comment", &offline.comment);
            differs = true;
        } else if !data.is_out_of_service() {
            let comment = lack.unwrap_or_default();
            let is_ours = lack.is_some() || data.comment.starts_with(NO_SPACE);
            let is_said = !is_ours || data.comment == comment;
            if data.state.as_deref() != Some("waiting") || !is_said {
                body.string("state", "waiting");
                body.string("comment", comment);
                differs = true;
            }
        }
        // One of before 2025-05 does not say what it has.
        if !data.job_id.is_empty() || data.state.is_none() {
            body.string("job_id", "");
            differs = true;
        }
        // What an earlier configuration said stays at the server until it is taken back.
        for (name, value) in self.descriptions() {
            if value.is_empty() && data.described.contains(&name) {
                body.string(name, "");
                differs = true;
            }
        }
        if differs && self.post(Ask::PostAgent(body), "post this agent's data")? {
            self.offline_is_told();
        }
        self.idle.was_working = false;
        Ok(())
    }

    pub(super) fn announce_due(&self) -> bool {
        self.idle
            .announced
            .is_none_or(|at| at.elapsed() >= ANNOUNCE_INTERVAL)
    }

    /// Advertises queues and images, now and then.
    pub(super) fn announce(&mut self) -> Result<(), Setback> {
        if !self.announce_due() {
            return Ok(());
        }
        let mut all_said = true;
        if !self.config.advertised_queues.is_empty() {
            let mut queues = Object::new();
            for (queue, description) in &self.config.advertised_queues {
                queues.string(queue, description);
            }
            let ask = Ask::Advertise("queues", queues.finish());
            all_said &= self.advertise(ask, "advertise the queues")?;
        }
        if !self.config.advertised_images.is_empty() {
            let mut all = Object::new();
            for (queue, images) in &self.config.advertised_images {
                let mut of_queue = Object::new();
                for (image, provision_data) in images {
                    of_queue.string(image, provision_data);
                }
                all.object(queue, of_queue);
            }
            let ask = Ask::Advertise("images", all.finish());
            all_said &= self.advertise(ask, "advertise the images")?;
        }
        let now = Instant::now();
        let again = ANNOUNCE_INTERVAL - ADVERTISE_PAUSE;
        self.idle.announced = match all_said {
            true => Some(now),
            false => Some(now.checked_sub(again).unwrap_or(now)),
        };
        Ok(())
    }

    /// Advertises something; false when that failed, which is no reason to take
    /// no jobs.
    fn advertise(&mut self, ask: Ask, action: &'static str) -> Result<bool, Setback> {
        match self.post(ask, action) {
            Err(Setback::Failed(Failure::Transient { .. })) => Ok(false),
            other => other.map(|_| true),
        }
    }

    /// The supervisor starts the agent again when it has ended with 1. A server
    /// that does not take the state is no reason to stay.
    pub(super) fn post_restart(&mut self, data: &AgentData) {
        info!("restarting");
        if !data.is_to_restart() {
            let mut body = Object::new();
            body.string("state", "restart");
            body.string("comment", "");
            body.string("job_id", "");
            // Its failure is said by the uplink.
            let _ = self.post(Ask::PostAgent(body), "post this agent's state");
        }
    }

    /// Before the agent ends after a job: it runs none any more.
    pub(super) fn say_farewell(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        self.uplink.ask(Ask::AgentData);
        let data = match self.answer_until(deadline) {
            Some(Ok(Answer::AgentData(data))) => data,
            _ => return,
        };
        self.compare_offline(&data);
        let mut body = Object::new();
        body.string("job_id", "");
        if let Some(offline) = self.offline.as_ref().filter(|one| !one.is_told) {
            body.string("state", "offline");
            body.string("comment", &offline.comment);
        } else if !data.is_out_of_service() && !data.is_to_restart() {
            body.string("state", "waiting");
            body.string("comment", "");
        }
        self.uplink.ask(Ask::PostAgent(body));
        if let Some(Ok(_)) = self.answer_until(deadline) {
            self.offline_is_told();
        }
    }

    /// The answer, if it comes in time.
    fn answer_until(&mut self, deadline: Instant) -> Option<Result<Answer, Failure>> {
        while !self.abandoned {
            match self.next(None, Some(deadline)) {
                Event::Uplink(uplink::Event::Answered(answer)) => return Some(answer),
                Event::Uplink(other) => self.note(&other),
                Event::Signal(signal) => self.signal(signal),
                Event::Deadline => return None,
                _ => {}
            }
        }
        None
    }
}
