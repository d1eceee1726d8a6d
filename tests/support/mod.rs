//! What the integration tests share: a network that fails as it is told to.
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

pub mod proxy;
