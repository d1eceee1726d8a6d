//! What the fuzzers try with what they make up: the same code as the tests run on
//! what was found (tests/fuzz.rs).
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each target uses one of these, and fails as loudly as a test"
)]

pub mod answers;
pub mod attachments;
pub mod config;
pub mod journal;
pub mod json;
pub mod masker;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory for as long as something is tried.
pub struct Place(PathBuf);

impl Place {
    pub fn new() -> Place {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("testflinger-fuzz-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Place(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = testflinger_agent::sys::remove_tree(&self.0);
    }
}

/// The pieces of something, whose lengths go round.
pub fn pieces<'a>(whole: &'a [u8], lengths: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = whole;
    lengths.iter().cycle().map_while(move |length| {
        let (piece, more) = rest.split_at_checked(*length).unwrap_or((rest, &[]));
        rest = more;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Lengths of pieces that the input itself chooses.
pub fn own_lengths(data: &[u8]) -> Vec<usize> {
    data.iter().map(|byte| usize::from(byte % 32) + 1).collect()
}
