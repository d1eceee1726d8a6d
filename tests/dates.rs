//! Boards without a clock of their own, whose date jumps, and those that live after 2038,
//! where 32 bits hold no date. Run with a program for 32-bit ARM, these are the proof
//! that it keeps 64.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};
use support::gate::Gate;
use support::lab::{Agent, Lab, wait_until};
use support::means::{at_any_date, at_date, set_date};
use testflinger_agent::job::Phase;

/// A job that leaves a file of a date of its own.
const TEST: &str = "echo tested; mkdir artifacts; touch -d '2100-02-03 04:05:06Z' artifacts/late; \
                    touch -d '1960-01-01 00:00:00Z' artifacts/early";

/// What GNU tar says of the artifacts: dates and names.
fn listed(lab: &Lab, job: &str) -> String {
    let archive = lab.server.artifact(job).unwrap();
    let list = Command::new("tar")
        .args(["--utc", "--full-time", "-tvzf"])
        .arg(archive)
        .output()
        .unwrap();
    assert!(list.status.success());
    String::from_utf8(list.stdout).unwrap()
}

/// Lets the agent wake up in the middle of a phase and say something, which has this date.
fn wakes_up_at(agent: &Agent, date: &str) {
    agent.signal("HUP");
    wait_until(&format!("the agent believes that it is {date}"), || {
        let log = agent.log();
        let mut lines = log.lines().filter(|line| line.starts_with(date));
        lines.any(|line| line.ends_with("the configuration stays as it was"))
    });
}

/// A phase is silent while the date goes years forwards, and once more while it goes back:
/// that is no silence of years, and the one that follows is noticed when it is due.
#[test]
fn row_15_a_clock_that_jumps_by_years_moves_no_deadline() {
    let lab = Lab::new();
    let [forwards, back] = ["forwards", "back"].map(|name| Gate::new(&lab.scratch, name));
    let test = format!(
        "echo begun; {}; echo in 2040; {}; echo in 1975; exec sleep 1000",
        forwards.words(),
        back.words()
    );
    let lab = lab.command("test", &test).command("cleanup", "echo clean");
    set_date(&lab, "2026-02-03 04:05:06");
    let Some(lab) = at_any_date(lab) else {
        return;
    };
    let limited = r#""test_data": {"test_cmds": "none"}, "output_timeout": 10"#;
    let job = lab.submit(limited);
    let agent = lab.agent();
    lab.wait_for_output(&job, Phase::Test, "begun");
    // It says so whenever it is told to read that.
    agent.edit("cleanup_command", "no_such_command");
    for (date, shown, gate) in [
        ("2040-02-03 04:05:06", "[40-02-03 ", forwards),
        ("1975-02-03 04:05:06", "[75-02-03 ", back),
    ] {
        set_date(&lab, date);
        wakes_up_at(&agent, shown);
        gate.open();
        lab.wait_for_output(&job, Phase::Test, &format!("in {}", &date[..4]));
    }
    let silent = Instant::now();
    lab.wait_until_complete(&job);
    assert!(silent.elapsed() > Duration::from_secs(5), "{}", agent.log());
    assert_eq!(lab.status(&job, "test"), Some(247));
    let body = lab.body(&job, Phase::Test);
    let said = "begun\nin 2040\nin 1975\n\nERROR: Output timeout reached! (10s)\n";
    assert_eq!(body, said);
    let next = lab.submit("");
    lab.wait_until_complete(&next);
    assert_eq!(lab.body(&next, Phase::Cleanup), "clean\n");
}

#[test]
fn row_16_files_from_after_2038_keep_their_dates_in_the_archive() {
    let lab = Lab::new().command("test", TEST);
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    let list = listed(&lab, &job);
    assert!(
        list.contains("2100-02-03 04:05:06 artifacts/late"),
        "{list}"
    );
    // tar has no portable form of a date before 1970.
    assert!(
        list.contains("1970-01-01 00:00:00 artifacts/early"),
        "{list}"
    );
}

#[test]
fn row_16_an_agent_does_its_job_in_2040() {
    let lab = Lab::new().command("test", TEST);
    let Some(lab) = at_date(lab, "2040-02-03 04:05:06") else {
        return;
    };
    does_its_job_in_2040(&lab);
}

#[cfg(feature = "tls")]
#[test]
fn row_16_a_certificate_that_is_valid_from_2039_on_is_accepted_in_2040() {
    use support::tls::{Authority, LOOPBACK, Terminator, server};

    let authority = Authority::new();
    let identity = authority.issue(&LOOPBACK, (2039, 2041));
    let lab = Lab::new().command("test", TEST);
    let terminator = Terminator::start(lab.server.address(), server(&identity, None));
    let certificate = lab.scratch.path("ca.pem");
    fs::write(&certificate, &authority.certificate).unwrap();
    let certificate = support::lab::quoted(certificate.to_str().unwrap());
    let lab = lab
        .behind(&terminator.url())
        .set("ca_certificate", &certificate);
    let Some(lab) = at_date(lab, "2040-02-03 04:05:06") else {
        return;
    };
    does_its_job_in_2040(&lab);
}

fn does_its_job_in_2040(lab: &Lab) {
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_eq!(lab.status(&job, "test"), Some(0), "{}", agent.log());
    assert_eq!(lab.body(&job, Phase::Test), "tested\n");
    let exchanges = lab.server.exchanges();
    let dated = |one: &str| one.contains("\"timestamp\": \"2040-02-03T");
    assert!(exchanges.iter().any(|one| dated(&one.request_body)));
    let log = agent.log();
    assert!(
        log.lines().all(|line| line.starts_with("[40-02-03 ")),
        "{log}"
    );
    assert!(listed(lab, &job).contains("2100-02-03 04:05:06 artifacts/late"));
}
