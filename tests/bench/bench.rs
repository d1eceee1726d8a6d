//! What the agent costs and how fast it is: `make bench` prints a table of
//! medians, beside what the original was measured at. The peer in the same run
//! is the small server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a benchmark fails as loudly as a test"
)]

mod figures;
mod measure;
#[path = "../support/mod.rs"]
mod support;

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        // The commands of the phases that are measured.
        ["lines", count] => lines(count.parse().unwrap()),
        ["flood", bytes] => flood(bytes.parse().unwrap()),
        ["artifacts", bytes] => artifacts(bytes.parse().unwrap()),
        // `cargo bench` passes `--bench`, and perhaps the name of a figure.
        rest => figures::print(rest.iter().find(|word| !word.starts_with('-')).copied()),
    }
}

/// Nanoseconds since 1970.
fn now() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos()
}

/// Prints the time, now and then, out of step with any interval.
fn lines(count: u64) {
    for number in 0..count {
        println!("printed at {}", now());
        std::thread::sleep(Duration::from_millis(300 + number * 137 % 500));
    }
}

/// Prints this many bytes of text.
fn flood(bytes: usize) {
    let line = "the quick brown fox jumps over the lazy dog, again and again\n";
    let block = line.repeat(1_000);
    let mut stdout = std::io::stdout().lock();
    let mut left = bytes;
    while left > 0 {
        let part = &block.as_bytes()[..left.min(block.len())];
        stdout.write_all(part).unwrap();
        left -= part.len();
    }
}

/// Writes this many bytes of artifacts, half of them random.
fn artifacts(bytes: u64) {
    std::fs::create_dir("artifacts").unwrap();
    let mut random = std::fs::File::create("artifacts/random").unwrap();
    let source = std::fs::File::open("/dev/urandom").unwrap();
    std::io::copy(&mut std::io::Read::take(source, bytes / 2), &mut random).unwrap();
    let mut text = std::io::BufWriter::new(std::fs::File::create("artifacts/text").unwrap());
    let mut written = 0;
    let mut number: u64 = 0;
    while written < bytes / 2 {
        let line = format!("[{number:>9}] kernel: usb {}-1: new device\n", number % 7);
        text.write_all(line.as_bytes()).unwrap();
        written += line.len() as u64;
        number += 1;
    }
}
