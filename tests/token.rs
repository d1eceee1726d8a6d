//! The refresh token, and what it buys.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::fs;
use std::path::Path;
use support::gate::Gate;
use support::lab::{Agent, Lab, is_alive, wait_until};
use testflinger_agent::job::Phase;
use testflinger_agent::local::Exchange;

const REFRESH: &str = "/v1/oauth2/refresh";

fn refreshes(exchanges: &[Exchange]) -> usize {
    exchanges.iter().filter(|one| one.path == REFRESH).count()
}

/// How many lines of the agent's log hold the text.
fn said(agent: &Agent, text: &str) -> usize {
    agent
        .log()
        .lines()
        .filter(|line| line.contains(text))
        .count()
}

fn write_token(lab: &Lab) {
    let token = format!("{{\"refresh_token\": \"{}\"}}", lab.server.refresh_token());
    fs::write(lab.scratch.path("token"), token).unwrap();
}

/// A job in whose middle the access token loses its worth: the server answers
/// with this status until the agent has another one.
fn a_token_that_dies_is_replaced(kill: impl Fn(&Lab), status: u16) {
    let lab = Lab::new();
    let gate = Gate::new(&lab.scratch, "test");
    let lab = lab.command("test", &format!("echo begun; {}; echo done", gate.words()));
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_for_output(&job, Phase::Test, "begun");
    kill(&lab);
    gate.open();
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Test), "begun\ndone\n");
    let exchanges = lab.server.exchanges();
    assert_eq!(refreshes(&exchanges), 2, "{}", lab.story());
    let failed = exchanges.iter().position(|one| one.status >= 400).unwrap();
    let replay: Vec<_> = exchanges[failed..]
        .iter()
        .take(3)
        .map(|one| (one.status, one.path.as_str()))
        .collect();
    let path = exchanges[failed].path.as_str();
    assert_eq!(replay, [(status, path), (200, REFRESH), (200, path)]);
    assert!(exchanges[failed + 1..].iter().all(|one| one.status < 400));
    assert!(!agent.log().contains("WARNING"), "{}", agent.log());
}

#[test]
fn row_27_a_token_that_expires_in_the_middle_of_a_job_is_refreshed_once() {
    a_token_that_dies_is_replaced(|lab| lab.server.expire_tokens(), 401);
}

#[test]
fn row_27_a_token_signed_with_an_old_key_is_refreshed_once() {
    a_token_that_dies_is_replaced(|lab| lab.server.rotate_key(), 403);
}

#[test]
fn row_27_a_token_file_may_come_later() {
    let lab = Lab::new().command("test", "echo tested");
    fs::remove_file(lab.scratch.path("token")).unwrap();
    let agent = lab.agent();
    lab.wait("two attempts without a token", |view| {
        let mut refused = view.exchanges().iter().filter(|one| one.status == 403);
        refused.nth(1).is_some()
    });
    assert_eq!(refreshes(&lab.server.exchanges()), 0);
    let job = lab.submit_test();
    write_token(&lab);
    lab.wait_until_complete(&job);
    let fault = "cannot post this agent's data: the server answered 403";
    assert_eq!(said(&agent, fault), 1, "{}", agent.log());
    let missing = format!(
        "(there is no refresh token in {})",
        lab.scratch.path("token").display()
    );
    assert!(said(&agent, &missing) >= 1, "{}", agent.log());
    assert_eq!(said(&agent, "can post this agent's data again, after "), 1);
}

#[test]
fn a_token_file_that_holds_none_is_named_and_read_again() {
    let lab = Lab::new().command("test", "echo tested");
    let path = lab.scratch.path("token");
    for wrong in ["", "{}", "not json", r#"{"refresh_token": 5}"#] {
        fs::write(&path, wrong).unwrap();
        let mut agent = lab.agent();
        let fault = format!(
            "cannot read the token file: {} does not hold {{\"refresh_token\": \"…\"}}",
            path.display()
        );
        agent.wait_for_log(&fault);
        let job = lab.submit_test();
        write_token(&lab);
        lab.wait_until_complete(&job);
        assert_eq!(said(&agent, &fault), 1, "{}", agent.log());
        agent.signal("TERM");
        assert_eq!(agent.wait(), 0);
    }
}

#[test]
fn a_revoked_token_is_said_once_and_the_agent_lives_on() {
    let lab = Lab::new();
    let agent = lab.agent();
    agent.wait_for_log("for the queues lab");
    lab.wait("the agent works", |view| {
        let mut exchanges = view.exchanges().iter();
        exchanges.any(|one| one.path.starts_with("/v1/job?"))
    });
    lab.server.revoke_refresh_token();
    lab.server.expire_tokens();
    lab.wait("three attempts in vain", |view| {
        let refused = view.exchanges().iter().filter(|one| one.status == 403);
        refused.count() >= 3
    });
    let fault = "cannot use the refresh token: the server answered 400 Refresh token revoked.; \
                 put a new one into the token file";
    assert_eq!(said(&agent, fault), 1, "{}", agent.log());
    assert_eq!(
        said(&agent, "cannot ask for a job: the server answered 403"),
        1
    );
    assert_eq!(refreshes(&lab.server.exchanges()), 2, "{}", lab.story());
    assert!(is_alive(agent.pid()));
}

/// Whether the text holds something that could be a token.
fn holds_a_token(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    text.split(|c| !is_part(c)).any(|word| word.len() >= 60)
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()
}

#[test]
fn row_38_no_token_shows_anywhere() {
    let lab = Lab::new();
    let gate = Gate::new(&lab.scratch, "test");
    let lab = lab
        .set("logging_level", "DEBUG")
        .command("setup", "env")
        .command("test", &format!("echo begun; {}", gate.words()));
    assert!(holds_a_token(&format!(
        "\"{}\"",
        lab.server.refresh_token()
    )));
    let job = lab.submit_test();
    let mut agent = lab.agent();
    lab.wait_for_output(&job, Phase::Test, "begun");
    for name in ["environ", "cmdline"] {
        let text = read(Path::new(&format!("/proc/{}/{name}", agent.pid())));
        assert!(!holds_a_token(&text), "{name}: {text}");
    }
    lab.server.expire_tokens();
    gate.open();
    lab.wait_until_complete(&job);
    let environment = lab.output(&job, Phase::Setup);
    assert!(environment.contains("token_file="), "{environment}");
    assert!(
        !holds_a_token(&lab.body(&job, Phase::Setup)),
        "{environment}"
    );
    lab.server.revoke_refresh_token();
    lab.server.rotate_key();
    agent.wait_for_log("cannot use the refresh token");
    agent.signal("TERM");
    assert_eq!(agent.wait(), 0);
    assert!(!holds_a_token(&agent.log()), "{}", agent.log());
    wait_until("the log is closed", || !is_alive(agent.pid()));
    let log = read(&lab.scratch.path("logs/testflinger-agent.log"));
    assert!(log.contains("cannot use the refresh token"));
    assert!(!holds_a_token(&log), "{log}");
}
