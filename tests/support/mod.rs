//! What the integration tests share: a network that fails as it is told to,
//! and programs that misbehave.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test program takes what it needs of this"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helper fails as loudly as the test"
)]

pub mod gate;
pub mod lab;
pub mod means;
pub mod program;
pub mod proxy;
pub mod random;
#[cfg(feature = "tls")]
pub mod tls;

use std::path::{Path, PathBuf};

/// The program of `tests/fixtures/fixture.rs`.
pub fn fixture() -> PathBuf {
    example("fixture")
}

/// A file that cargo makes of one of the examples.
///
/// `cargo test` builds them; `cargo test --test NAME` alone does not.
pub fn example(name: &str) -> PathBuf {
    let agent = Path::new(env!("CARGO_BIN_EXE_testflinger-agent"));
    let path = agent.with_file_name("examples").join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --examples`",
        path.display()
    );
    path
}
