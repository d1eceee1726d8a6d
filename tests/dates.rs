//! Boards that live after 2038, where 32 bits hold no date. Run with a program
//! for 32-bit ARM, these are the proof that it keeps 64.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::fs;
use std::process::Command;
use support::lab::Lab;
use support::means::at_date;
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
