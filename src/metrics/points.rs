//! What is written to a database as it happens: how phases ended, and the agent's states.

use crate::warning;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// So many wait for a database that is away: a day of jobs.
const MOST: usize = 512;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// The phase, or the agent's state.
    pub phase: String,
    /// The phase's exit status.
    pub result: Option<i64>,
    /// When it happened.
    pub time: SystemTime,
}

/// Those that wait.
#[derive(Debug, Default)]
pub struct Points {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    is_wanted: bool,
    points: VecDeque<Point>,
    /// It was said that some are lost.
    lost: bool,
}

impl Points {
    /// Somebody takes them from now on.
    pub fn want(&self) {
        self.lock().is_wanted = true;
    }

    /// Something happened just now.
    pub fn push(&self, phase: &str, result: Option<i64>) {
        let mut queue = self.lock();
        if queue.is_wanted {
            queue.points.push_back(Point {
                phase: phase.to_owned(),
                result,
                time: SystemTime::now(),
            });
            queue.shorten();
            self.changed.notify_one();
        }
    }

    /// Waits for some.
    pub fn take(&self) -> Vec<Point> {
        let is_empty = |queue: &mut Queue| queue.points.is_empty();
        let waited = self.changed.wait_while(self.lock(), is_empty);
        let mut queue = waited.unwrap_or_else(PoisonError::into_inner);
        queue.points.drain(..).collect()
    }

    /// Those could not be written.
    pub fn put_back(&self, points: Vec<Point>) {
        let mut queue = self.lock();
        for point in points.into_iter().rev() {
            queue.points.push_front(point);
        }
        queue.shorten();
    }

    /// There is room again: what is lost from now on is said once more.
    pub fn written(&self) {
        self.lock().lost = false;
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// The oldest go.
    fn shorten(&mut self) {
        let excess = self.points.len().saturating_sub(MOST);
        self.points.drain(..excess);
        if excess > 0 && !self.lost {
            self.lost = true;
            warning!("{MOST} points wait for InfluxDB; the oldest are dropped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_and_nothing_is_kept_that_nobody_wants() {
        let points = Points::default();
        points.push("unwanted", Some(0));
        points.want();
        for number in 0..MOST + 10 {
            points.push(&number.to_string(), None);
        }
        assert_eq!(points.lock().points.len(), MOST);
        let taken = points.take();
        assert_eq!((taken.len(), &*taken[0].phase), (MOST, "10"));
        points.push("last", None);
        points.put_back(taken);
        let taken = points.take();
        assert_eq!((taken.len(), &*taken[0].phase), (MOST, "11"));
        assert_eq!(taken[MOST - 1].phase, "last");
    }
}
