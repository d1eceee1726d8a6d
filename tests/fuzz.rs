//! What the fuzzers have found once (`make fuzz`), and what they begin with: the same
//! code looks at it.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

#[path = "fuzz/bodies/mod.rs"]
mod bodies;

use std::fs;
use testflinger_agent::uplink::fuzzing::ENDPOINTS;

/// Tries every file of a corpus.
fn replay(target: &str, try_it: impl Fn(&[u8])) {
    let corpus = format!("tests/fuzz/corpus/{target}");
    let mut count = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        try_it(&fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 0, "there is nothing to try");
}

#[test]
fn json() {
    replay("json", bodies::json::try_it);
}

#[test]
fn config() {
    replay("config", bodies::config::try_it);
}

#[test]
fn masker() {
    replay("masker", bodies::masker::try_it);
}

#[test]
fn journal() {
    replay("journal", bodies::journal::try_it);
}

#[test]
fn answers() {
    replay("answers", bodies::answers::try_it);
}

#[test]
fn attachments() {
    replay("attachments", bodies::attachments::try_it);
}

/// A megabyte of headers, whichever call it answers: too large to be kept as a file.
#[test]
fn row_30_a_megabyte_of_headers_ends_no_call() {
    let header = format!("X-Header: {}\r\n", "x".repeat(1_000));
    for head in [
        header.repeat(1_000),
        format!("X: {}\r\n", "x".repeat(1 << 20)),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{head}Content-Length: 2\r\n\r\nOK");
        for endpoint in 0..ENDPOINTS {
            bodies::answers::try_it(&[&[endpoint], answer.as_bytes()].concat());
        }
    }
}
