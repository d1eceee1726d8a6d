//! Jobs that cannot be run, jobs that are nobody's, and jobs that are called off.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use support::gate::Gate;
use support::lab::{Agent, Lab, is_alive, numbers, wait_until};
use testflinger_agent::job::Phase;

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    let name = |entry: fs::DirEntry| entry.file_name().to_str().unwrap().to_owned();
    entries.map(|entry| name(entry.unwrap())).collect()
}

/// How many lines of the agent's log hold the text.
fn said(agent: &Agent, text: &str) -> usize {
    agent
        .log()
        .lines()
        .filter(|line| line.contains(text))
        .count()
}

#[test]
fn row_40_a_job_without_a_proper_id_is_refused_and_the_next_one_runs() {
    let lab = Lab::new().command("test", "echo tested");
    let outside = format!("testflinger-escaped-{}", std::process::id());
    let bad = [
        r#"{"job_id": "../escaped", "test_data": {"test_cmds": "x"}}"#.to_owned(),
        format!(r#"{{"job_id": "../../{outside}", "test_data": {{"test_cmds": "x"}}}}"#),
        r#"{"job_id": ".", "test_data": {"test_cmds": "x"}}"#.to_owned(),
        r#"{"job_id": 7, "test_data": {"test_cmds": "x"}}"#.to_owned(),
    ];
    for document in &bad {
        lab.server.submit_raw(document.clone());
    }
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Test), "tested\n");
    for id in ["../escaped", &outside, "\".\"", "7"] {
        let said = agent.log().lines().any(|line| {
            line.contains("  ERROR: ") && line.contains(id) && line.contains("is not a UUID")
        });
        assert!(said, "{id}: {}", agent.log());
    }
    let scratch = names(&lab.scratch.path(""));
    let ours = |name: &&String| !name.starts_with("agent-");
    let made: Vec<_> = scratch.iter().filter(ours).collect();
    assert_eq!(made, ["logs", "results", "run", "server", "token"]);
    wait_until("the workspace is gone", || {
        names(&lab.scratch.path("run")).is_empty()
    });
    assert!(!std::env::temp_dir().join(&outside).exists());
    for exchange in lab.server.exchanges() {
        assert!(!exchange.path.contains("escaped"), "{exchange:?}");
    }
}

#[test]
fn a_job_that_is_cancelled_in_its_test_phase_is_ended_cleaned_up_and_complete() {
    let lab = Lab::new();
    let (pid, gate) = (lab.scratch.path("pid"), Gate::new(&lab.scratch, "never"));
    let test = format!(
        "echo $$ > '{}'; echo begun; {}",
        pid.display(),
        gate.words()
    );
    let lab = lab
        .command("test", &test)
        .command("reserve", "echo never")
        .command("cleanup", "echo cleaned");
    let job =
        lab.submit(r#""test_data": {"test_cmds": "x"}, "reserve_data": {"ssh_keys": ["lp:x"]}"#);
    let agent = lab.agent();
    lab.wait_for_output(&job, Phase::Test, "begun");
    let from = lab.server.exchanges().len();
    assert!(lab.server.cancel(&job));
    lab.wait_until_complete(&job);
    assert!(!is_alive(numbers(&pid)[0]));
    let statuses = lab.server.status(&job);
    let statuses: Vec<_> = statuses.iter().map(|(name, at)| (&name[..], *at)).collect();
    assert_eq!(statuses, [("cleanup", 0), ("test", 247)]);
    let wanted = "begun\n\nJob cancellation was requested, exiting.\n";
    assert_eq!(lab.body(&job, Phase::Test), wanted);
    assert_eq!(lab.body(&job, Phase::Cleanup), "cleaned\n");
    assert_eq!(lab.job_states(&job, from), ["complete"]);
    assert_eq!(said(&agent, "the job was cancelled"), 1);
    // It was this job only.
    let next = lab.submit(r#""reserve_data": {"ssh_keys": ["lp:x"]}"#);
    lab.wait_until_complete(&next);
    assert_eq!(lab.body(&next, Phase::Reserve), "never\n");
}

#[test]
fn a_job_that_is_cancelled_just_before_provision_is_not_provisioned() {
    let lab = Lab::new();
    let gate = Gate::new(&lab.scratch, "setup");
    let lab = lab
        .command("setup", &format!("echo begun; {}", gate.words()))
        .command("provision", "echo never")
        .command("cleanup", "echo cleaned");
    let job = lab.submit(r#""provision_data": {"distro": "x"}"#);
    let _agent = lab.agent();
    lab.wait_for_output(&job, Phase::Setup, "begun");
    let from = lab.server.exchanges().len();
    assert!(lab.server.cancel(&job));
    gate.open();
    lab.wait_until_complete(&job);
    assert_eq!(lab.status(&job, "provision"), None, "{}", lab.story());
    assert_eq!(lab.output(&job, Phase::Provision), "");
    assert_eq!(lab.body(&job, Phase::Cleanup), "cleaned\n");
    assert_eq!(lab.job_states(&job, from), ["complete"]);
}

#[test]
fn a_job_that_is_cancelled_while_it_provisions_ends_after_that() {
    let lab = Lab::new();
    let gate = Gate::new(&lab.scratch, "provision");
    let lab = lab
        .command("provision", &format!("echo begun; {}", gate.words()))
        .command("test", "echo never")
        .command("cleanup", "echo cleaned");
    let job = lab.submit(r#""provision_data": {"distro": "x"}, "test_data": {"test_cmds": "x"}"#);
    let agent = lab.agent();
    lab.wait_for_output(&job, Phase::Provision, "begun");
    let from = lab.server.exchanges().len();
    assert!(lab.server.cancel(&job));
    agent.wait_for_log("the job was cancelled");
    gate.open();
    lab.wait_until_complete(&job);
    let statuses = lab.server.status(&job);
    let statuses: Vec<_> = statuses.iter().map(|(name, at)| (&name[..], *at)).collect();
    assert_eq!(statuses, [("cleanup", 0), ("provision", 0)]);
    assert_eq!(lab.job_states(&job, from), ["complete"]);
}

#[test]
fn a_cancellation_is_not_overwritten_when_the_last_look_at_it_failed() {
    let lab = Lab::new();
    let gate = Gate::new(&lab.scratch, "setup");
    let never = Gate::new(&lab.scratch, "never");
    let lab = lab
        .command("setup", &format!("echo begun; {}", gate.words()))
        .command("test", &never.words())
        .command("cleanup", "echo cleaned");
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_for_output(&job, Phase::Setup, "begun");
    let path = format!("/v1/result/{job}");
    lab.server.answer("GET", &path, 1, 500, "");
    let from = lab.server.exchanges().len();
    assert!(lab.server.cancel(&job));
    lab.wait("the look at the job's state fails", |view| {
        let mut later = view.exchanges().iter().skip(from);
        later.any(|one| one.path == path && one.status == 500)
    });
    gate.open();
    lab.wait_until_complete(&job);
    assert_eq!(lab.job_states(&job, from), ["complete"], "{}", lab.story());
    assert_eq!(lab.status(&job, "test"), Some(247));
}
