//! How long something took, by size.

use std::time::Duration;

/// The upper ends of the buckets, in seconds: the original's.
pub(super) const BUCKETS: [u64; 8] = [60, 120, 300, 600, 1_800, 3_600, 7_200, 14_400];

/// A Prometheus histogram.
#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    /// Each has what is in the ones before it as well.
    buckets: [u64; BUCKETS.len()],
    count: u64,
    total: Duration,
}

impl Histogram {
    pub(super) fn observe(&mut self, time: Duration) {
        for (end, bucket) in BUCKETS.iter().zip(&mut self.buckets) {
            *bucket += u64::from(time <= Duration::from_secs(*end));
        }
        self.count += 1;
        self.total += time;
    }

    /// The ends of the buckets and how much is in them.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        BUCKETS.into_iter().zip(self.buckets)
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn total(&self) -> Duration {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_end_and_all_below() {
        let mut histogram = Histogram::default();
        for milliseconds in [0, 60_000, 60_001, 14_400_000, 14_400_001] {
            histogram.observe(Duration::from_millis(milliseconds));
        }
        let counts: Vec<_> = histogram.buckets().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 3, 3, 3, 3, 3, 3, 4]);
        assert_eq!(histogram.count(), 5);
        assert_eq!(histogram.total(), Duration::from_millis(28_920_002));
    }
}
