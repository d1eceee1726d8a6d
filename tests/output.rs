//! What a phase prints, on its way to the server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::fs;
use std::path::Path;
use support::lab::{Lab, ticks};
use support::means::{fixture_command, is_native};
use testflinger_agent::job::LogType;
use testflinger_agent::job::Phase;

/// No fragment may be larger, in bytes of text.
const LARGEST_FRAGMENT: u64 = 1 << 20;

/// Fragments count from 0 without a gap, in the order in which they came, and
/// none is too large.
fn assert_fragments(lab: &Lab, job: &str) {
    let fragments = lab.server.fragments(job);
    for (wanted, fragment) in (0..).zip(&fragments) {
        assert_eq!(fragment.log, LogType::Output);
        assert_eq!(fragment.number, wanted, "{fragments:?}");
        assert!(fragment.length <= LARGEST_FRAGMENT, "{fragment:?}");
    }
}

/// A test failed on a text of megabytes: where the two begin to differ says
/// more than both of them.
fn assert_same_text(left: &str, right: &str, what: &str) {
    let same = left
        .bytes()
        .zip(right.bytes())
        .take_while(|(left, right)| left == right)
        .count();
    let lengths = (left.len(), right.len());
    assert!(
        left == right,
        "{what} differs from byte {same} on: {lengths:?}"
    );
}

/// Sends bytes through the test phase.
fn through_a_phase(bytes: &[u8], what: &str) {
    let lab = Lab::new();
    let file = lab.scratch.path("bytes");
    fs::write(&file, bytes).unwrap();
    let lab = lab.command("test", &format!("cat {}", file.display()));
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    let text = String::from_utf8_lossy(bytes);
    assert_same_text(&lab.body(&job, Phase::Test), &text, what);
    assert_fragments(&lab, &job);
}

#[test]
fn row_12_bytes_that_are_no_text_arrive_as_replacement_characters() {
    // Broken, cut short at the end, and of every kind that there is.
    let hex = "ff fe 41 c3 28 e2 82 ac e2 82 f0 9f a6 80 f0 9f a6 c0 80 f4 90 80 80 0a 5a e2 82";
    let bytes: Vec<u8> = hex
        .split(' ')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    let text = String::from_utf8_lossy(&bytes);
    let raw = fixture_command(&format!("raw {hex}"));
    let lab = Lab::new()
        .command("setup", &raw)
        // A character that arrives in two pieces, and one that never does.
        .command(
            "test",
            &format!(
                "{0} e2; sleep 0.3; {0} 82ac; {0} e282; {0} 41",
                fixture_command("raw")
            ),
        )
        .command("cleanup", &raw);
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Setup), text);
    assert_eq!(lab.body(&job, Phase::Test), "€\u{fffd}A");
    assert_eq!(lab.body(&job, Phase::Cleanup), text);
    assert_fragments(&lab, &job);
}

#[test]
fn row_12_megabytes_of_arbitrary_bytes_arrive_as_the_same_text_however_they_are_cut() {
    // xorshift, with enough of ASCII and of long characters in between.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::new();
    while bytes.len() < 3 << 20 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match state % 4 {
            0 => bytes.extend_from_slice(&state.to_le_bytes()),
            1 => bytes.extend_from_slice("🦀漢".as_bytes()),
            _ => bytes.extend_from_slice(b"plain"),
        }
    }
    through_a_phase(&bytes, "noise");
    let euros = "€".repeat(1 << 20);
    through_a_phase(&euros.as_bytes()[1..], "a line of euros cut at its start");
}

#[test]
fn row_13_nul_escapes_and_surrogates_pass_and_never_a_lone_surrogate() {
    let bytes = b"nul \0 red \x1b[31m bell \x07 del \x7f c1 \xc2\x9b \xed\xa0\x80 \xed\xbf\xbf \
                  pair \xed\xa0\xbd\xed\xb8\x80 quote \" backslash \\ \r\n";
    through_a_phase(bytes, "control characters");
}

#[test]
fn row_13_a_line_of_megabytes_is_cut_by_size_and_numbers_rise_across_phases() {
    let line = |megabytes: usize| fixture_command(&format!("one-line {}", megabytes << 20));
    let lab = Lab::new()
        .command("setup", &line(1))
        .command("test", &format!("{}; echo; echo the end", line(4)))
        .command("cleanup", "echo cleaned up");
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_same_text(&lab.body(&job, Phase::Setup), &"x".repeat(1 << 20), "setup");
    let test = format!("{}\nthe end\n", "x".repeat(4 << 20));
    assert_same_text(&lab.body(&job, Phase::Test), &test, "test");
    assert_eq!(lab.body(&job, Phase::Cleanup), "cleaned up\n");
    assert_fragments(&lab, &job);
    let mut phases: Vec<_> = lab
        .server
        .fragments(&job)
        .iter()
        .map(|fragment| fragment.phase)
        .collect();
    phases.dedup();
    assert_eq!(phases, [Phase::Setup, Phase::Test, Phase::Cleanup]);
}

#[test]
fn row_14_a_command_that_closes_its_output_runs_on_and_the_agent_rests() {
    let close = fixture_command("close-output 3");
    for command in [&close, "exec >&- 2>&-; sleep 3; exit 5"] {
        let lab = Lab::new().command("test", &format!("echo ready; {command}"));
        let job = lab.submit_test();
        let agent = lab.agent();
        lab.wait_for_output(&job, Phase::Test, "ready");
        let before = ticks(agent.pid());
        lab.wait_until_complete(&job);
        let used = ticks(agent.pid()) - before;
        if is_native("processor time is that of the emulator") {
            assert!(used < 30, "{command}: {used} ticks of processor time");
        }
        assert_eq!(lab.body(&job, Phase::Test), "ready\n");
        let status = i64::from(command != close) * 5;
        assert_eq!(lab.status(&job, "test"), Some(status), "{command}");
    }
}

#[test]
fn every_byte_postpones_the_output_timeout() {
    // Half a character is a byte, too; ten seconds in all.
    let lab = Lab::new().set("output_timeout", "4").command(
        "test",
        "for n in 1 2 3 4 5; do printf .; sleep 1; printf '\\342'; sleep 1; done",
    );
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_eq!(lab.status(&job, "test"), Some(0), "{}", lab.story());
    assert_eq!(lab.body(&job, Phase::Test), ".\u{fffd}".repeat(5));
}

#[test]
fn a_phase_that_is_not_test_may_be_silent_for_longer_than_the_output_timeout() {
    let lab = Lab::new()
        .set("output_timeout", "1")
        .command("setup", "sleep 2; echo over");
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_eq!(lab.status(&job, "setup"), Some(0));
    assert_eq!(lab.body(&job, Phase::Setup), "over\n");
}

/// The posts of a job's results, as `what` and the phases it speaks of.
fn posts(lab: &Lab, job: &str) -> Vec<String> {
    let prefix = format!("/v1/result/{job}");
    let exchanges = lab.server.exchanges();
    let posts = exchanges
        .iter()
        .filter(|exchange| exchange.method == "POST");
    posts
        .filter_map(|exchange| {
            assert_eq!(exchange.status, 200, "{exchange:?}");
            let body = &exchange.request_body;
            match exchange.path.strip_prefix(&prefix)? {
                "/log/output" => {
                    let (_, rest) = body.split_once("\"phase\": \"").unwrap();
                    Some(format!("output {}", rest.split('"').next().unwrap()))
                }
                "/artifact" => Some("artifact".to_owned()),
                "" if body.contains("complete") => Some("complete".to_owned()),
                "" if body.contains("\"status\"") => {
                    let (before, _) = body.rsplit_once("\": ").unwrap();
                    let (_, last) = before.rsplit_once('"').unwrap();
                    Some(format!("status {last}"))
                }
                "" => None,
                other => panic!("{other}"),
            }
        })
        .collect()
}

#[test]
fn a_status_follows_its_phases_output_and_complete_is_last() {
    let lab = Lab::new()
        .command("setup", &fixture_command("flood 2000000"))
        .command(
            "test",
            "mkdir artifacts; echo x > artifacts/x; echo one; sleep 1; echo two; exit 3",
        )
        .command("cleanup", "echo cleaned up");
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    lab.wait("the agent has gone on", |view| {
        let asked = view
            .exchanges()
            .iter()
            .rev()
            .take_while(|exchange| !exchange.path.contains(&job));
        asked.count() > 0
    });
    let mut posts = posts(&lab, &job);
    posts.dedup();
    assert_eq!(
        posts,
        [
            "output setup",
            "status setup",
            "output test",
            "status test",
            "output cleanup",
            "status cleanup",
            "artifact",
            "complete"
        ]
    );
}

/// What GNU find says of a tree: names, kinds, modes, link targets.
fn listing(directory: &Path) -> String {
    let output = std::process::Command::new("find")
        .arg(directory)
        .args(["-printf", "%P %y %m %l\n"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

#[test]
fn artifacts_arrive_as_they_were_left() {
    let lab = Lab::new();
    let wanted = lab.scratch.path("wanted");
    let lab = lab.command(
        "test",
        &format!(
            "umask 022; mkdir -p artifacts/deep/er artifacts/empty && cd artifacts && \
             head -c 3000000 /dev/urandom > random && seq 100000 > deep/numbers && \
             printf 'a\\nb' > 'deep/er/with blank ü' && : > nothing && ln -s deep/numbers link && \
             echo '#!/bin/sh' > script && chmod 755 script && cd .. && cp -a artifacts {}",
            wanted.display()
        ),
    );
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_eq!(
        lab.status(&job, "test"),
        Some(0),
        "{}",
        lab.body(&job, Phase::Test)
    );
    let archive = lab.server.artifact(&job).unwrap();
    let unpacked = lab.scratch.path("unpacked");
    fs::create_dir(&unpacked).unwrap();
    let run = |program: &str, words: &[&Path]| {
        let output = std::process::Command::new(program)
            .args(words)
            .output()
            .unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
    };
    let path = Path::new;
    run("tar", &[path("-xzpf"), &archive, path("-C"), &unpacked]);
    let arrived = unpacked.join("artifacts");
    run(
        "diff",
        &[path("-r"), path("--no-dereference"), &wanted, &arrived],
    );
    assert_eq!(listing(&wanted), listing(&arrived));
}

#[test]
fn an_empty_artifacts_directory_is_not_sent() {
    let lab = Lab::new().command("test", "mkdir artifacts");
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    assert!(lab.server.artifact(&job).is_none());
    assert!(!posts(&lab, &job).contains(&"artifact".to_owned()));
}
