//! What earlier jobs still owe: sent by a thread of its own over a connection of
//! its own, so that an old upload never holds up live output. The thread lives
//! only as long as something is owed.

use super::api::Api;
use super::common::Common;
use super::delivery::{Delivery, Step};
use super::webhook::Telling;
use crate::job::Record;
use crate::{info, warning};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A webhook that takes longer to answer is not waited for: others are owed something,
/// too.
const WEBHOOK_PATIENCE: Duration = Duration::from_secs(5);

/// Deliveries that wait for the thread.
#[derive(Debug, Default)]
pub(super) struct Arrears {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    new: Vec<Delivery>,
    running: bool,
    /// Nothing more is to be begun.
    settled: bool,
}

impl Arrears {
    /// Takes on what a job owes.
    pub(super) fn add(self: &Arc<Self>, delivery: Delivery, common: &Arc<Common>) {
        // There may be many of them, and long ones.
        delivery.record.rest();
        common.metrics.owed();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.new.push(delivery);
        self.changed.notify_all();
        if state.running || state.settled {
            return;
        }
        let (arrears, common) = (Arc::clone(self), Arc::clone(common));
        let thread = thread::Builder::new().name("arrears".into());
        let work = move || {
            super::leave_signals_to_the_agent();
            arrears.work(&common);
        };
        match thread.spawn(work) {
            Ok(_) => state.running = true,
            Err(error) => warning!(
                "cannot start the thread that sends what earlier jobs owe: {error}; it is tried \
                 again after the next job"
            ),
        }
    }

    /// Begins nothing more, and waits so long for what is under way.
    pub(super) fn settle(&self, within: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.settled = true;
        self.changed.notify_all();
        let running = |state: &mut State| state.running;
        // Either end of the wait is one.
        drop(self.changed.wait_timeout_while(state, within, running));
    }

    fn work(&self, common: &Arc<Common>) {
        let api = match Api::new(Arc::clone(common)) {
            Ok(api) => api,
            Err(error) => {
                warning!("cannot send what earlier jobs owe: {error}; it stays in its records");
                // The next job that owes something tries again, with all of it.
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.running = false;
                return;
            }
        };
        let mut open: Vec<Delivery> = Vec::new();
        while let Some(wait) = self.pause(&mut open) {
            if let Some(wait) = wait {
                let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if state.new.is_empty() && !state.settled {
                    // Either end of the wait is a reason to look again.
                    drop(self.changed.wait_timeout(state, wait));
                }
                continue;
            }
            open.retain_mut(|delivery| turn(delivery, &api));
        }
    }

    /// Takes over what is new. `None`: nothing is owed and the thread ends;
    /// otherwise how long there is nothing to do.
    fn pause(&self, open: &mut Vec<Delivery>) -> Option<Option<Duration>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        open.append(&mut state.new);
        if open.is_empty() || state.settled {
            state.running = false;
            self.changed.notify_all();
            return None;
        }
        let now = Instant::now();
        let rest = |delivery: &Delivery| match delivery.next(now) {
            Step::Wait(until) => until,
            _ => None,
        };
        let resting: Option<Vec<Instant>> = open.iter().map(rest).collect();
        let first = resting.and_then(|untils| untils.into_iter().min());
        Some(first.map(|until| until.saturating_duration_since(now)))
    }
}

/// One step of one delivery; false when it is over.
fn turn(delivery: &mut Delivery, api: &Api) -> bool {
    let now = Instant::now();
    match delivery.next(now) {
        Step::Done => {
            info!("delivered what job {} still owed", delivery.progress.job_id);
            // It was complete already, when an earlier life ended before it had told of it.
            if !delivery.is_end_told {
                tell_webhook(delivery, api);
            }
            close(&delivery.record, &delivery.progress.agent_id);
            api.common.metrics.delivered();
            false
        }
        Step::Wait(None) => {
            // The record of a job that is over has nothing to wait for.
            warning!(
                "{} cannot be delivered: it does not say how its job ended",
                delivery.record.directory().display()
            );
            false
        }
        // Another one has something to do.
        Step::Wait(Some(_)) => true,
        step => {
            let was_complete = delivery.progress.complete;
            delivery.take(step, api, now);
            if delivery.progress.complete && !was_complete {
                tell_webhook(delivery, api);
            }
            true
        }
    }
}

/// Who could not be told that a job is complete was not told of its last events either,
/// or an earlier life of the agent did not live to tell of them.
fn tell_webhook(delivery: &mut Delivery, api: &Api) {
    delivery.is_end_told = true;
    if delivery.progress.events.is_empty() {
        return;
    }
    if let Some(webhook) = delivery.record.job().and_then(|job| job.webhook) {
        let mut telling = Telling::new(webhook, &api.common.agent_id, &delivery.progress.job_id);
        telling.tell(&delivery.progress, &api.common);
        telling.finish(WEBHOOK_PATIENCE);
    }
}

/// Removes the record of a job of which the server has everything.
pub(super) fn close(record: &Record, agent_id: &str) {
    if record.has_refusals() {
        match record.put_aside(agent_id) {
            Ok(place) => warning!(
                "what the server refused of it is kept in {}",
                place.display()
            ),
            Err(error) => warning!(
                "cannot put {} aside: {error}; it stays there",
                record.directory().display()
            ),
        }
        return;
    }
    if let Err(error) = record.remove(agent_id) {
        warning!(
            "cannot remove {}: {error}; it can be removed by hand, its job is delivered",
            record.directory().display()
        );
    }
}
