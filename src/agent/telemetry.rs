//! What is counted of the agent's work, and who looks at it: part of the one place
//! where the agent waits, so that looking works as long as its main loop turns.

use super::Agent;
use super::environment::JOB_MARK;
use super::release::{self, Lookup};
use super::work::Running;
use crate::info;
use crate::job::Phase;
use crate::metrics::{Listener, Metrics, UNKNOWN};
use crate::sys::Exit;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// The counters, the port, and the device's release in between.
#[derive(Debug, Default)]
pub(super) struct Telemetry {
    pub(super) metrics: Metrics,
    listener: Option<Listener>,
    /// What runs on the device of this job, as far as it is known.
    release: Option<String>,
    lookup: Option<Lookup>,
    /// How long phases lasted that wait for its end.
    waiting: Vec<(Phase, Duration)>,
    /// Why the release is not known, as it was said last.
    said: String,
}

impl Telemetry {
    /// Counts here, and shows it at this address if there is one.
    pub(super) fn start(metrics: Metrics, address: Option<SocketAddr>) -> Telemetry {
        let listen = |address| Listener::start(address, metrics.clone(), Instant::now());
        Telemetry {
            listener: address.map(listen),
            metrics,
            ..Telemetry::default()
        }
    }

    /// What is waited for until it can be read.
    pub(super) fn reading(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let listener = self.listener.iter().flat_map(Listener::reading);
        listener.chain(self.lookup.as_ref().and_then(Lookup::as_fd))
    }

    /// What is waited for until it can be written.
    pub(super) fn writing(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.listener.iter().flat_map(Listener::writing)
    }

    /// The nearest moment at which [`Telemetry::tend`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        let listener = self.listener.as_ref().and_then(Listener::due);
        let lookup = self.lookup.as_ref().map(Lookup::until);
        listener.into_iter().chain(lookup).min()
    }

    /// Does what has come due.
    pub(super) fn tend(&mut self, now: Instant) {
        if self.due().is_some_and(|due| due <= now) {
            self.attend(now);
        }
    }

    /// Does whatever can be done at once.
    pub(super) fn attend(&mut self, now: Instant) {
        if let Some(listener) = &mut self.listener {
            listener.attend(now);
        }
        if let Some(lookup) = &mut self.lookup
            && let Err(reason) = lookup.attend(now)
        {
            self.know(Err(reason));
        }
    }

    /// A child has ended that nobody else waits for.
    pub(super) fn reaped(&mut self, pid: i32, exit: Exit) {
        if let Some(lookup) = self.lookup.take_if(|lookup| lookup.pid() == Some(pid)) {
            self.know(lookup.ended(exit, Instant::now()));
        }
    }

    /// The look-up is over, for better or for worse.
    fn know(&mut self, found: Result<String, String>) {
        // If its process still is there, that ends with it.
        self.lookup = None;
        match &found {
            Ok(release) => info!("the device runs {release}"),
            Err(reason) if *reason == self.said => {}
            Err(reason) => info!("it is not known what the device runs: {reason}"),
        }
        self.said = found.as_ref().err().cloned().unwrap_or_default();
        self.release = found.ok();
        self.show();
    }

    /// A phase's command ran so long.
    fn lasted(&mut self, phase: Phase, time: Duration) {
        self.waiting.push((phase, time));
        if self.lookup.is_none() {
            self.show();
        }
    }

    fn show(&mut self) {
        let release = self.release.as_deref().unwrap_or(UNKNOWN);
        for (phase, time) in self.waiting.drain(..) {
            self.metrics.phase_lasted(phase, time, release);
        }
    }

    /// A job was taken: nobody knows what runs on its device.
    pub(super) fn job_begins(&mut self) {
        self.release = None;
        self.metrics.job_taken();
    }

    /// All phases of the job are over. The process of a look-up that is given up with
    /// that, and is about to end.
    pub(super) fn job_over(&mut self) -> Option<i32> {
        let pid = self.lookup.as_ref().and_then(Lookup::pid);
        if self.lookup.is_some() {
            self.know(Err("its job was over before it said so".into()));
        }
        pid
    }
}

impl Agent {
    /// The command of a phase has ended. After a provision that succeeded, the device is
    /// asked what it runs, beside everything else; until it has answered, nobody knows
    /// under which release the time is to be counted.
    pub(super) fn measure(&mut self, running: &Running, phase: Phase, status: i64) {
        let time = self.phase_begun.elapsed();
        let host = running.device_info.ip().unwrap_or_default();
        let telemetry = &mut self.events.telemetry;
        let is_watched = telemetry.listener.is_some();
        if is_watched && phase == Phase::Provision && status == 0 && !host.is_empty() {
            let user = release::user_of(&running.job.text);
            let mut environment = self.environment.clone();
            environment.push((JOB_MARK.into(), running.job.id.clone().into()));
            let now = Instant::now();
            match Lookup::start(&user, &host, &environment, self.user.as_ref(), now) {
                Ok(lookup) => telemetry.lookup = Some(lookup),
                Err(reason) => telemetry.know(Err(reason)),
            }
        }
        telemetry.lasted(phase, time);
    }
}
