//! Replies that are lost: what the server has is read back, so that no text is
//! lost and none is there twice.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::thread;
use std::time::Duration;
use support::gate::Gate;
use support::lab::{Lab, wait_for_text, wait_until, wait_until_within};
use support::proxy::{Fault, Outcome};
use testflinger_agent::job::Phase;

const FRAGMENTS: &str = "/v1/result/*/log/output";
/// Side by side: each waits five seconds for every reply that is lost.
const LANES: usize = 10;
/// Of many, so many in a lane.
const IN_A_LANE: usize = 34;

/// A lab whose test phase prints `line 1`, `line 2`, … until the gate is open.
fn lab_that_counts() -> (Lab, Gate) {
    let lab = Lab::new().with_proxy();
    let gate = Gate::new(&lab.scratch, "test");
    let wait = gate.words();
    let condition = wait.strip_suffix("; do sleep 0.05; done").unwrap();
    let test = format!("n=0; {condition}; do n=$((n + 1)); echo \"line $n é\"; sleep 0.02; done");
    (lab.command("test", &test), gate)
}

/// Whether the text is all lines, once each and in order.
fn counts(text: &str) -> bool {
    let numbers = 1..;
    !text.is_empty()
        && text
            .lines()
            .zip(numbers)
            .all(|(line, number)| line == format!("line {number} é"))
}

fn faults(lab: &Lab) -> usize {
    let seen = lab.proxy().seen();
    let faults = seen
        .iter()
        .filter(|seen| matches!(seen.outcome, Outcome::Fault(_)));
    faults.count()
}

/// Lets so many fragments of a job meet a fault.
fn run_with(fault: &Fault, times: usize) {
    let (lab, gate) = lab_that_counts();
    lab.proxy().on("POST", FRAGMENTS, times, fault.clone());
    let job = lab.submit_test();
    let _agent = lab.agent();
    let patience = Duration::from_secs(60 + 20 * times as u64);
    wait_until_within("all of the faults", patience, || faults(&lab) == times);
    gate.open();
    wait_until_within("the job is complete", patience, || {
        lab.server.job_state(&job).as_deref() == Some("complete")
    });
    let body = lab.body(&job, Phase::Test);
    assert!(counts(&body), "{body}\n{}", lab.story());
    let fragments = lab.server.fragments(&job);
    let numbers: Vec<_> = fragments.iter().map(|one| one.number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
}

/// `make soak-replies` loses a thousand.
#[test]
fn row_21_no_text_is_lost_or_doubled_when_replies_are_lost() {
    let times = std::env::var("TESTFLINGER_LOST_REPLIES");
    let times: usize = times.map_or(20, |times| times.parse().unwrap());
    let lanes = LANES.max(times.div_ceil(IN_A_LANE));
    thread::scope(|scope| {
        for lane in 0..lanes {
            let share = times / lanes + usize::from(lane < times % lanes);
            scope.spawn(move || run_with(&Fault::DropReply, share));
        }
    });
    println!("{times} replies lost: nothing lost, nothing doubled");
}

#[test]
fn row_22_a_fragment_that_is_cut_before_its_end_is_sent_again() {
    run_with(&Fault::CutRequest(1), 2);
}

/// A server that is overloaded may have stored what it answers with an error.
#[test]
fn row_21_an_error_after_the_fact_doubles_nothing() {
    let (lab, gate) = lab_that_counts();
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_for_output(&job, Phase::Test, "line 1 é\n");
    // Stored, and the reply lost, and then errors of somebody before the server.
    lab.proxy().on("POST", FRAGMENTS, 1, Fault::DropReply);
    lab.proxy().on("POST", FRAGMENTS, 1, Fault::status(502));
    lab.proxy()
        .wait_for("POST", FRAGMENTS, 1, Duration::from_secs(60));
    wait_until_within("both", Duration::from_secs(60), || faults(&lab) >= 1);
    thread::sleep(Duration::from_millis(200));
    gate.open();
    lab.wait_until_complete(&job);
    let body = lab.body(&job, Phase::Test);
    assert!(counts(&body), "{body}\n{}", agent.log());
}

/// What an earlier run under the same id left there is not this run's.
#[test]
fn row_21_the_output_of_an_earlier_run_is_not_taken_for_this_one_s() {
    let (lab, gate) = lab_that_counts();
    let id = "3a01916a-c18b-4c2c-87bb-7da770768044";
    let again = format!(r#""job_id": "{id}", "test_data": {{"test_cmds": "x"}}"#);
    gate.open();
    let lab = lab.command("setup", "seq 1 5000");
    let job = lab.submit(&again);
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    let once = lab.output(&job, Phase::Setup);
    lab.proxy().on("POST", FRAGMENTS, 1, Fault::CutRequest(1));
    lab.submit(&again);
    lab.wait("it is complete again", |view| {
        view.output(&job, Phase::Setup).len() >= 2 * once.len()
            && view.job_state(&job).as_deref() == Some("complete")
    });
    // One after the other, because the numbers go on.
    assert_eq!(
        lab.output(&job, Phase::Setup),
        once.repeat(2),
        "{}",
        agent.log()
    );
}

/// Before the agent could see what was there, it is killed: what is there then is not of
/// this run.
#[test]
fn row_21_an_agent_that_was_killed_before_it_looked_takes_nothing_for_its_own() {
    let lab = Lab::new().with_proxy();
    let gate = Gate::new(&lab.scratch, "test");
    let lab = lab
        .command("setup", "seq 1 5000")
        .command("test", &format!("seq 1 5000; {}", gate.words()));
    let id = "5c11916a-c18b-4c2c-87bb-7da770768044";
    let again = format!(r#""job_id": "{id}", "test_data": {{"test_cmds": "x"}}"#);
    let job = lab.submit(&again);
    gate.open();
    let mut agent = lab.agent();
    lab.wait_until_complete(&job);
    agent.signal("TERM");
    assert_eq!(agent.wait(), 0);
    let once = [Phase::Setup, Phase::Test].map(|phase| lab.output(&job, phase));
    assert!(
        once[1].ends_with("\n5000\n"),
        "{}{}",
        agent.log(),
        lab.story()
    );
    gate.shut();
    lab.proxy().on("GET", "/v1/result/*", 1_000, Fault::Hang);
    lab.submit(&again);
    let mut agent = lab.agent();
    agent.wait_for_log("phase test of job 5c11916a-c18b-4c2c-87bb-7da770768044 begins");
    let log = lab.scratch.path("results").join(&job).join("test.log");
    wait_for_text(&log, "5000\n");
    agent.signal("KILL");
    assert_eq!(agent.wait(), 256 - 9);
    lab.proxy().clear();
    lab.proxy().release();
    let agent = lab.agent();
    let record = log.parent().unwrap();
    wait_until("all of it is delivered", || !record.exists());
    let [setup, test] = [Phase::Setup, Phase::Test].map(|phase| lab.output(&job, phase));
    assert_eq!(setup, once[0].repeat(2), "{}", agent.log());
    let interrupted = "\nERROR: The agent was interrupted in the middle of this phase.\n";
    assert_eq!(test, once[1].repeat(2) + interrupted, "{}", agent.log());
}

/// Where nothing can be read back, nothing is lost, and what may be there twice is
/// marked.
#[test]
fn row_21_what_cannot_be_read_back_is_repeated_and_marked() {
    let (lab, gate) = lab_that_counts();
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_for_output(&job, Phase::Test, "line 1 é\n");
    lab.proxy()
        .on("GET", "/v1/result/*", 1_000, Fault::status(500));
    lab.proxy().on("POST", FRAGMENTS, 1, Fault::DropReply);
    agent.wait_for_log("what it did not acknowledge is sent again");
    lab.wait_for_output(&job, Phase::Test, "what follows may repeat]\n");
    lab.proxy().clear();
    gate.open();
    lab.wait_until_complete(&job);
    let body = lab.body(&job, Phase::Test);
    let (before, after) = body.split_once("\n[the agent could not find out").unwrap();
    let after = after.split_once("]\n").unwrap().1;
    // From some line on, twice.
    let first = after.lines().next().unwrap();
    let (kept, _) = before.split_once(first).unwrap();
    assert!(counts(&format!("{kept}{after}")), "{body}");
}
