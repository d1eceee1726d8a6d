//! The rooms of the Testflinger agent; README.md ("How it is built") is the map.
//!
//! The package is a library so that tests, benchmarks and fuzzers reach inside;
//! the program itself is `main.rs`, which turns one result into one exit status.

pub mod agent;
pub mod archive;
pub mod child;
pub mod cli;
pub mod config;
pub mod job;
pub mod json;
pub mod local;
pub mod log;
pub mod metrics;
pub mod run;
pub mod sys;
pub mod uplink;
pub mod yaml;
