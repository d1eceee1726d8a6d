//! After the allocate phase: the device is its parent job's until that is over.

use super::work::Running;
use super::{Agent, Event, Mode};
use crate::info;
use crate::job::Job;
use crate::uplink;

impl Agent {
    /// Tells the parent that the device is allocated, and waits until the parent is
    /// over. There is no limit to that but the job's cancellation and the agent's end.
    pub(super) fn wait_for_parent(&mut self, running: &Running) {
        let job = &running.job;
        if !self.waits_for_parent(job) {
            return;
        }
        match &job.parent {
            Some(parent) => info!("job {} is allocated to job {parent}", job.id),
            None => info!("job {} is allocated until it is cancelled", job.id),
        }
        self.say_status(&format!("job {}: allocated", job.id));
        self.uplink.allocated(job.parent.clone());
        while !self.cancelled && self.stopping.is_none() {
            match self.next(None, None) {
                Event::Uplink(uplink::Event::ParentOver(why)) => {
                    let parent = job.parent.as_deref().unwrap_or_default();
                    info!("job {parent}, the parent of job {}, is {why}", job.id);
                    break;
                }
                Event::Uplink(event) => self.note(&event),
                Event::Signal(signal) => self.signal(signal),
                _ => {}
            }
        }
        self.uplink.allocation_over();
    }

    /// Where one job is run on one machine, nobody would end its wait.
    pub(super) fn waits_for_parent(&self, job: &Job) -> bool {
        self.mode == Mode::Daemon || job.parent.is_some()
    }
}
