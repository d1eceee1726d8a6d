//! What the agent says, to the server and in its log, has the form that others
//! expect.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::fs;
use support::lab::Lab;
use support::means::is_native;
use testflinger_agent::json::{Json, Kind};
use testflinger_agent::local::Exchange;

/// A method, a path in which `*` stands for one step, and the keys that its body
/// may have; `*` for any.
type Allowed = (&'static str, &'static str, &'static [&'static str]);

/// What the API has for agents.
#[rustfmt::skip] // A table reads best with one row a line.
const ALLOWED: [Allowed; 15] = [
    ("POST", "/v1/oauth2/refresh", &["refresh_token"]),
    ("GET", "/v1", &[]),
    ("GET", "/v1/agents/data/*", &[]),
    ("POST", "/v1/agents/data/*", &["identifier", "job_id", "location", "provision_type", "state", "comment", "queues", "log"]),
    ("POST", "/v1/agents/queues", &["*"]),
    ("POST", "/v1/agents/images", &["*"]),
    ("POST", "/v1/agents/provision_logs/*", &["job_id", "exit_code", "detail"]),
    ("GET", "/v1/job", &[]),
    ("GET", "/v1/job/*/attachments", &[]),
    ("POST", "/v1/job/*/events", &["job_status_webhook", "agent_id", "job_queue", "events"]),
    ("GET", "/v1/result/*", &[]),
    ("POST", "/v1/result/*", &["status", "device_info", "job_state"]),
    ("POST", "/v1/result/*/log/output", &["fragment_number", "timestamp", "phase", "log_data"]),
    ("POST", "/v1/result/*/log/serial", &["fragment_number", "timestamp", "phase", "log_data"]),
    ("POST", "/v1/result/*/artifact", &[]),
];

fn fits(pattern: &str, path: &str) -> bool {
    let path = path.split('?').next().unwrap_or_default();
    let (pattern, path) = (pattern.split('/'), path.split('/'));
    pattern.clone().count() == path.clone().count()
        && pattern
            .zip(path)
            .all(|(wanted, step)| wanted == "*" || wanted == step)
}

fn is_allowed(exchange: &Exchange) -> bool {
    let Some((_, path, keys)) = ALLOWED
        .iter()
        .find(|(method, path, _)| *method == exchange.method && fits(path, &exchange.path))
    else {
        return false;
    };
    if path.ends_with("/artifact") {
        return exchange.request_body.contains("form-data; name=\"file\"");
    }
    if exchange.method == "GET" {
        return exchange.request_body.is_empty();
    }
    let body = Json::parse(&exchange.request_body).unwrap();
    let mut members = body.members();
    body.kind() == Kind::Object
        && members.all(|(key, _)| keys.contains(&"*") || keys.contains(&key.as_str()))
}

/// Two jobs with all that a job can be, one of which takes the device with it.
fn full_day() -> (Lab, [String; 2]) {
    let lab = Lab::new()
        .set("logging_level", "DEBUG")
        .set("identifier", "\"sn-4711\"")
        .set("location", "\"shelf 3\"")
        .set("provision_type", "\"noprovision\"")
        .set("advertised_queues", r#"{"lab": "for tests"}"#)
        .set("advertised_images", r#"{"lab": {"noble": "url: x"}}"#)
        .set("control_host", "\"of no use\"")
        .command("setup", "echo set up; seq 1 9999")
        .command("provision", "test ! -e ../broken || exit 46")
        .command("firmware_update", "echo updated")
        .command("test", "mkdir artifacts; echo x > artifacts/x; exit 3")
        .command("reserve", "touch ../broken")
        .command("cleanup", "echo cleaned");
    let mut agent = lab.agent();
    let jobs = [(); 2].map(|()| {
        let job = lab.submit(
            r#""name": "full", "global_timeout": 100, "output_timeout": 100,
               "provision_data": {"distro": "x"}, "firmware_update_data": {"version": "1"},
               "test_data": {"test_cmds": "x"}, "reserve_data": {"ssh_keys": ["lp:x"]}"#,
        );
        lab.wait_until_complete(&job);
        job
    });
    lab.wait("the agent is offline and idle", |view| {
        let agent = view.agent("lab-agent");
        agent.is_some_and(|agent| agent.state == "offline" && agent.job_id.is_empty())
    });
    agent.signal("HUP");
    agent.wait_for_log("SIGHUP");
    agent.signal("TERM");
    assert_eq!(agent.wait(), 0);
    (lab, jobs)
}

/// Whether a line of the log has the original's form:
/// `[26-11-22 10:49:01]    INFO: (agent)| took job …`.
fn is_well_formed(line: &str) -> bool {
    let Some((time, rest)) = line.split_at_checked(20) else {
        return false;
    };
    let form = "[00-00-00 00:00:00] ".chars();
    let time = time.chars().zip(form).all(|(c, wanted)| match wanted {
        '0' => c.is_ascii_digit(),
        _ => c == wanted,
    });
    let Some((level, rest)) = rest.split_once(": (") else {
        return false;
    };
    let levels = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];
    let aligned = levels.iter().any(|name| level == format!("{name:>7}"));
    let Some((module, message)) = rest.split_once(")| ") else {
        return false;
    };
    let plain = |c: char| c.is_ascii_lowercase() || c == '_';
    time && aligned && !module.is_empty() && module.chars().all(plain) && !message.is_empty()
}

#[test]
fn the_agent_asks_for_nothing_that_the_api_has_not_and_its_log_is_well_formed() {
    if !is_native("the agent cannot become a new image of a foreign binary") {
        return;
    }
    let (lab, jobs) = full_day();
    assert_eq!(lab.status(&jobs[0], "reserve"), Some(0), "{}", lab.story());
    assert_eq!(lab.status(&jobs[1], "provision"), Some(46));
    assert!(lab.server.artifact(&jobs[0]).is_some());
    let exchanges = lab.server.exchanges();
    for exchange in &exchanges {
        assert!(is_allowed(exchange), "{exchange:?}");
        assert!(exchange.status < 400, "{exchange:?}");
    }
    let numbers: Vec<_> = lab
        .server
        .fragments(&jobs[0])
        .iter()
        .map(|one| one.number)
        .collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    let comment = lab.server.agent("lab-agent").unwrap().comment;
    let wanted = format!(
        "Set to offline by agent. Recovery failed during job '{}' execution.",
        jobs[1]
    );
    assert_eq!(comment, wanted);

    let log = fs::read_to_string(lab.scratch.path("logs/testflinger-agent.log")).unwrap();
    for line in log.lines() {
        assert!(is_well_formed(line), "{line}");
    }
    assert!(log.ends_with("stopped\n"), "{log}");
    for level in ["   INFO", "WARNING"] {
        assert!(log.contains(&format!("] {level}: (")), "{log}");
    }
}
