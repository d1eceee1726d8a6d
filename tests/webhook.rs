//! What others are told of a job on its way: its webhook, and the agent's statistics
//! of provisioning.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::time::Duration;
use support::gate::Gate;
use support::lab::{Lab, wait_until, webhook_posts};
use support::proxy::Fault;
use testflinger_agent::job::Phase;
use testflinger_agent::json::Json;

const HOOK: &str = r#""job_status_webhook": "https://hook.example/x""#;
const EVENTS: &str = "/v1/job/*/events";
const MINUTE: Duration = Duration::from_secs(60);

/// A server whose webhook takes what it is given.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.server.answer("POST", EVENTS, u32::MAX, 200, "OK");
    lab
}

fn posts(lab: &Lab, job: &str) -> Vec<String> {
    lab.server.view(|view| webhook_posts(view, job))
}

/// What the webhook knows in the end: names, with details where there are some.
fn events(lab: &Lab, job: &str) -> Vec<String> {
    wait_until("the webhook knows the end", || {
        posts(lab, job)
            .last()
            .is_some_and(|body| body.contains("job_end"))
    });
    let body = posts(lab, job).pop().unwrap();
    let body = Json::parse(&body).unwrap();
    let text = |json: Json<'_>, name: &str| json.get(name).unwrap().string().unwrap();
    assert_eq!(text(body, "agent_id"), lab.agent_id);
    assert_eq!(text(body, "job_queue"), "lab");
    assert_eq!(text(body, "job_status_webhook"), "https://hook.example/x");
    let mut last = String::new();
    let events = body.get("events").unwrap().items().map(|event| {
        let at = text(event, "timestamp");
        assert!(last <= at, "{last} {at}");
        last = at;
        let (name, detail) = (text(event, "event_name"), text(event, "detail"));
        format!("{name} {detail}").trim_end().to_owned()
    });
    events.collect()
}

#[test]
fn a_webhook_is_told_the_whole_story_in_its_order() {
    let lab = lab()
        .command("setup", "echo set up")
        .command("provision", "echo provisioned")
        .command("test", "exit 3");
    let job = lab.submit(&format!(
        r#"{HOOK}, "provision_data": {{"distro": "x"}}, "test_data": {{"test_cmds": "x"}}"#
    ));
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    let start = format!("job_start {}/jobs/{job}", lab.server.url());
    let expected = [
        &start[..],
        "setup_start",
        "setup_success",
        "provision_start",
        "provision_success",
        "firmware_update_start",
        "firmware_update_success",
        "test_start",
        "test_fail",
        "allocate_start",
        "allocate_success",
        "reserve_start",
        "reserve_success",
        "cleanup_start",
        "cleanup_success",
        "job_end normal_exit",
    ];
    assert_eq!(events(&lab, &job), expected);
    // Each list goes on where the last one ended.
    let posts = posts(&lab, &job);
    assert!(
        posts.len() > 1 && posts.is_sorted_by_key(String::len),
        "{posts:?}"
    );
    let logs = lab.server.view(|view| view.provision_logs("lab-agent"));
    assert_eq!(logs.len(), 1);
    let log = (
        &logs[0].job_id,
        logs[0].exit_code,
        logs[0].detail.as_deref(),
    );
    assert_eq!(log, (&job, 0, Some("provision_success")));
}

#[test]
fn a_webhook_is_told_why_a_device_failed_and_no_secret() {
    let error = r#"{"provision_exception_info": {"exception_name": "ProvisioningError",
        "exception_message": "no answer to correct-horse", "exception_cause": "OSError()"}}"#;
    let lab = lab().command(
        "provision",
        &format!("echo '{error}' >> device-connector-error.json; exit 46"),
    );
    let job = lab.submit(&format!(
        r#"{HOOK}, "provision_data": {{"distro": "x"}},
           "test_data": {{"test_cmds": "x", "secrets": {{"KEY": "correct-horse"}}}}"#
    ));
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    let events = events(&lab, &job);
    assert_eq!(
        events[1..],
        [
            "setup_start",
            "setup_success",
            "provision_start",
            "recovery_fail ProvisioningError: no answer to **9dca66** caused by OSError()",
            "cleanup_start",
            "cleanup_success",
            "job_end recovery_fail",
        ]
    );
    let logs = lab.server.view(|view| view.provision_logs("lab-agent"));
    assert_eq!(logs[0].detail.as_deref(), Some("recovery_fail"));
}

/// The next life of the agent goes on where the last one was.
#[test]
fn a_job_that_was_cut_short_has_its_story_told_to_the_end_and_once() {
    let setup = lab();
    let gate = Gate::new(&setup.scratch, "cleanup");
    let lab = setup
        .command("provision", "exit 5")
        .command("cleanup", &format!("echo begun; {}", gate.words()));
    let job = lab.submit(&format!(r#"{HOOK}, "provision_data": {{"distro": "x"}}"#));
    let agent = lab.agent();
    lab.wait_for_output(&job, Phase::Cleanup, "begun");
    drop(agent);
    gate.open();
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_eq!(
        events(&lab, &job)[1..],
        [
            "setup_start",
            "setup_success",
            "provision_start",
            "provision_fail",
            "cleanup_start",
            // It runs again.
            "cleanup_start",
            "cleanup_success",
            "job_end provision_fail",
        ]
    );
}

/// With the job, when the server is there again: to another life of the agent.
#[test]
fn a_story_that_ends_while_the_server_is_away_is_told_to_its_end() {
    let setup = Lab::new().with_proxy();
    setup.server.answer("POST", EVENTS, u32::MAX, 200, "OK");
    let gate = Gate::new(&setup.scratch, "cleanup");
    let lab = setup.command("cleanup", &format!("echo begun; {}", gate.words()));
    let job = lab.submit(HOOK);
    let agent = lab.agent();
    lab.wait_for_output(&job, Phase::Cleanup, "begun");
    lab.proxy().set_down(true);
    gate.open();
    agent.wait_for_log("the job is over, but not all of it is at the server");
    drop(agent);
    lab.proxy().set_down(false);
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_eq!(
        events(&lab, &job).split_off(13),
        ["cleanup_start", "cleanup_success", "job_end normal_exit"]
    );
}

#[test]
fn a_long_reason_is_cut_and_holds_no_half_of_a_secret() {
    let message = format!("{}correct-horse", "x".repeat(1_990));
    let error = format!(r#"{{"setup_exception_info": {{"exception_message": "{message}"}}}}"#);
    let lab = lab().command(
        "setup",
        &format!("echo '{error}' >> device-connector-error.json; exit 1"),
    );
    let job = lab.submit(&format!(
        r#"{HOOK}, "test_data": {{"test_cmds": "x", "secrets": {{"KEY": "correct-horse"}}}}"#
    ));
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    let events = events(&lab, &job);
    assert_eq!(
        events[2],
        format!("setup_fail {}**9dca66**", "x".repeat(1_990))
    );
}

/// What was not run has not succeeded.
#[test]
fn a_job_that_was_cancelled_or_interrupted_tells_of_no_later_phase() {
    let setup = lab();
    let gate = Gate::new(&setup.scratch, "test");
    let lab = setup
        .set("stop_grace", "1")
        .command("test", &format!("echo begun; {}", gate.words()));
    let mut agent = lab.agent();
    let members = format!(r#"{HOOK}, "test_data": {{"test_cmds": "x"}}"#);
    for (job, how) in [
        (lab.submit(&members), "cancelled"),
        (lab.submit(&members), "stopped"),
    ] {
        lab.wait_for_output(&job, Phase::Test, "begun");
        match how {
            "cancelled" => drop(lab.server.cancel(&job)),
            _ => agent.signal("TERM"),
        }
        lab.wait_until_complete(&job);
        let events = events(&lab, &job);
        let later = |event: &String| event.contains("allocate") || event.contains("reserve");
        assert!(!events.iter().any(later), "{how}: {events:?}");
        assert!(
            events.contains(&"test_fail".to_owned()),
            "{how}: {events:?}"
        );
    }
    assert_eq!(agent.wait(), 0);
}

#[test]
fn a_webhook_is_told_of_timeouts_and_cancellations() {
    let lab = lab();
    let gate = Gate::new(&lab.scratch, "test");
    let lab = lab
        .set("stop_grace", "1")
        .command("setup", "true")
        .command("test", &format!("echo begun; {}", gate.words()))
        .command("reserve", "echo never");
    let reserve = r#""reserve_data": {"ssh_keys": []}"#;
    let agent = lab.agent();
    let members = format!(r#"{HOOK}, "test_data": {{"test_cmds": "x"}}"#);
    let slow = lab.submit(&format!(r#"{members}, "global_timeout": 1"#));
    lab.wait_until_complete(&slow);
    let events_of = |job: &str| {
        let mut events = events(&lab, job);
        events.retain(|event| !event.contains("firmware") && !event.contains("provision"));
        events.split_off(3)
    };
    assert_eq!(
        events_of(&slow)[..3],
        [
            "test_start",
            "global_timeout ERROR: Global timeout reached! (1s)",
            "test_fail",
        ]
    );
    let silent = lab.submit(&format!(r#"{members}, "output_timeout": 1"#));
    lab.wait_until_complete(&silent);
    assert_eq!(
        events_of(&silent)[1],
        "output_timeout ERROR: Output timeout reached! (1s)"
    );
    let cancelled = lab.submit(&format!("{members}, {reserve}"));
    lab.wait_for_output(&cancelled, Phase::Test, "begun");
    lab.server.cancel(&cancelled);
    lab.wait_until_complete(&cancelled);
    assert_eq!(
        events_of(&cancelled),
        [
            "test_start",
            "cancelled Job cancellation was requested, exiting.",
            "test_fail",
            "cleanup_start",
            "cleanup_success",
            "job_end cancelled",
        ],
        "{}",
        agent.log()
    );
}

#[test]
fn a_server_without_a_webhook_is_told_each_thing_once() {
    let lab = Lab::new().command("test", "echo tested");
    let job = lab.submit(&format!(r#"{HOOK}, "test_data": {{"test_cmds": "x"}}"#));
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    let events = events(&lab, &job);
    let posts = posts(&lab, &job);
    assert!(posts.len() <= events.len(), "{posts:?}");
    for (at, post) in posts.iter().enumerate() {
        assert!(!posts[at + 1..].contains(post), "{post}");
    }
    let said = "cannot tell a job's webhook: the server answered 500 Webhook URL not configured";
    assert_eq!(agent.log().matches(said).count(), 1, "{}", agent.log());
}

#[test]
fn a_webhook_that_hangs_is_in_nobody_s_way() {
    let lab = Lab::new().with_proxy().command("test", "echo tested");
    lab.proxy().on("POST", EVENTS, 1_000, Fault::Hang);
    let agent = lab.agent();
    for _ in 0..3 {
        let job = lab.submit(&format!(r#"{HOOK}, "test_data": {{"test_cmds": "x"}}"#));
        lab.wait_until_complete(&job);
        assert_eq!(lab.body(&job, Phase::Test), "tested\n");
    }
    drop(agent);
}

/// Each takes as long as somebody else's server likes.
#[test]
fn webhooks_that_hang_take_few_threads() {
    const JOBS: usize = 12;
    let lab = Lab::new().with_proxy().command("test", "echo tested");
    lab.proxy().on("POST", EVENTS, 1_000, Fault::Hang);
    let agent = lab.agent();
    let tasks = format!("/proc/{}/task", agent.pid());
    for _ in 0..JOBS {
        let job = lab.submit(&format!(r#"{HOOK}, "test_data": {{"test_cmds": "x"}}"#));
        lab.wait_until_complete(&job);
    }
    let names = std::fs::read_dir(tasks).unwrap().flatten();
    let names = names.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    assert_eq!(names.filter(|name| name == "webhook\n").count(), 8);
    agent.wait_for_log("hears nothing: 8 others have not answered yet");
}

#[test]
fn how_provision_ended_is_counted_once() {
    let lab = Lab::new().with_proxy().command("provision", "exit 7");
    let path = "/v1/agents/provision_logs/*";
    let provision = r#""provision_data": {"distro": "x"}"#;
    let proxy = lab.proxy();
    // It has arrived, but nobody says so.
    proxy.on("POST", path, 1, Fault::DropReply);
    let first = lab.submit(provision);
    let _agent = lab.agent();
    lab.wait_until_complete(&first);
    // It has not, and that is said.
    proxy.on("POST", path, 1, Fault::status(429));
    let second = lab.submit(provision);
    lab.wait_until_complete(&second);
    proxy.wait_for("POST", path, 3, MINUTE);
    let third = lab.submit("");
    lab.wait_until_complete(&third);
    let logs = lab.server.view(|view| view.provision_logs("lab-agent"));
    let logs: Vec<_> = logs
        .iter()
        .map(|log| (&log.job_id, log.exit_code))
        .collect();
    assert_eq!(logs, [(&first, 7), (&second, 7)]);
}
