//! Ending processes: TERM, a grace in which they are still read, KILL.

use super::environment::JOB_MARK;
use super::phase::Output;
use super::start::listed;
use super::{Agent, Event};
use crate::child::tree::{Leader, Process, Tree};
use crate::child::{Cgroup, Child};
use crate::{error, info, sys};
use std::time::{Duration, Instant};

/// How long a process may take to die of KILL: one that hangs in the kernel may
/// never do.
const PATIENCE: Duration = Duration::from_secs(5);
/// What they wrote last is read for this long: a process that could not be ended
/// may write for ever.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// So many looks that find nothing mean that there is nothing.
const LOOKS: u32 = 3;
/// Between two looks at the processes.
const TICK: Duration = Duration::from_millis(50);

impl Agent {
    /// Ends a tree of processes. The command's output is read meanwhile, so
    /// that nobody hangs in a full pipe and no last word is lost.
    pub(super) fn end(&mut self, tree: &Tree, mut reading: Option<(&mut Child, &mut Output)>) {
        let begun = Instant::now();
        let grace = self.config.stop_grace;
        tree.terminate();
        // Where other processes of the job may run, only looking helps; one look
        // may miss what forks and exits all the time.
        let mut empty_looks = 0;
        while !tree.is_gone() && empty_looks < LOOKS {
            let elapsed = begun.elapsed();
            let alive = tree.alive();
            match alive.is_empty() && !tree.has_group() {
                true => empty_looks += 1,
                false => empty_looks = 0,
            }
            if elapsed >= grace + PATIENCE || (self.abandoned && elapsed >= PATIENCE) {
                let left: Vec<_> = alive.iter().map(|p| p.pid.to_string()).collect();
                error!(
                    "cannot end process {}: KILL does nothing; going on",
                    left.join(", ")
                );
                break;
            }
            if elapsed >= grace || self.abandoned {
                // Again and again: between the look and the signal, a process
                // may have made another one.
                tree.kill();
            }
            self.tick(&mut reading);
        }
        // What the processes wrote before they ended.
        if let Some((child, output)) = reading {
            let deadline = Instant::now() + LAST_WORDS;
            while Instant::now() < deadline && self.read(child, output) {}
            child.pipe = None;
        }
    }

    /// Lets a moment pass, in which output is read and everything else noted.
    fn tick(&mut self, reading: &mut Option<(&mut Child, &mut Output)>) {
        let until = Instant::now() + TICK;
        loop {
            let pipe = reading.as_ref().and_then(|(child, _)| child.pipe.as_ref());
            match self.next(pipe, Some(until)) {
                Event::Output => {
                    if let Some((child, output)) = reading {
                        self.read(child, output);
                    }
                }
                Event::Uplink(event) => self.note(&event),
                Event::Signal(signal) => self.signal(signal),
                Event::Changed => {}
                // The shell is gone: perhaps all of it is.
                Event::Ended(_) | Event::Deadline => return,
            }
        }
    }

    /// Waits for the end of a process group that has got KILL.
    pub(super) fn see_die(&mut self, group: i32) {
        let deadline = Instant::now() + PATIENCE;
        while sys::group_exists(group) && Instant::now() < deadline {
            self.tick(&mut None);
        }
    }

    /// Ends what the phases of a job left running.
    pub(super) fn end_leftovers(&mut self, tree: &Tree) {
        if !tree.is_gone() {
            let left = tree.alive();
            if !left.is_empty() {
                info!(
                    "the job left behind, and ended now: {}",
                    listed(&left, Process::name)
                );
            }
            self.end(tree, None);
        }
    }

    /// Ends what is left of a job that ran before, under an agent that is gone.
    pub(super) fn end_earlier_run(&mut self, job_id: &str, leaders: &[Leader]) {
        let tree = Tree::of_an_earlier_life(leaders, &format!("{JOB_MARK}={job_id}"));
        self.end_leftovers(&tree.with_cgroup(Cgroup::find(job_id)));
    }
}
