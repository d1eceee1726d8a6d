//! Before a job's first phase: what its owner gives to it.

use super::work::Running;
use super::{Agent, Event};
use crate::info;
use crate::job::{AgentLimits, Phase, limits};
use crate::uplink;
use std::time::{Duration, Instant};

impl Agent {
    /// Waits until the job's attachments are in its workspace, if it has some. It may
    /// be cancelled meanwhile, or the agent told to stop.
    ///
    /// # Errors
    /// Why the job cannot be run without them.
    pub(super) fn fetch_attachments(&mut self, running: &Running) -> Result<(), String> {
        let (job, Some(workspace)) = (&running.job, &running.workspace) else {
            return Ok(());
        };
        if !job.has_attachments {
            return Ok(());
        }
        info!("fetching the attachments of job {}", job.id);
        self.say_status(&format!("job {}: fetching its attachments", job.id));
        let attachments = workspace.attachments(self.config.min_free_space);
        let unusable = |cause: String| format!("its attachments cannot be used: {cause}");
        let fetching = self.uplink.fetch(&job.id, attachments).map_err(&unusable)?;
        let agent = AgentLimits {
            global: self.config.global_timeout,
            output: None,
        };
        // They are a part of getting ready.
        let limit = limits(job, agent, Phase::Setup).global;
        let seconds = limit.unwrap_or_default();
        let deadline = limit.and_then(|limit| {
            let limit = Duration::from_secs(limit);
            Instant::now().checked_add(limit)
        });
        while !self.cancelled && self.stopping.is_none() {
            match self.next(None, deadline) {
                Event::Uplink(uplink::Event::Fetched(id, result)) if id == job.id => {
                    return result.map_err(&unusable);
                }
                Event::Deadline => {
                    let why = fetching.fault();
                    let why = why.map_or_else(String::new, |why| format!(": {why}"));
                    let cause = format!("they did not come in {seconds} s (global timeout){why}");
                    return Err(unusable(cause));
                }
                Event::Uplink(event) => self.note(&event),
                Event::Signal(signal) => self.signal(signal),
                _ => {}
            }
        }
        Ok(())
    }
}
