//! What is counted, and who may look: `-p`.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

#[path = "metrics/influx.rs"]
mod influx;
#[path = "metrics/page.rs"]
mod page;
#[path = "metrics/port.rs"]
mod port;
#[path = "metrics/prometheus.rs"]
mod prometheus;
#[path = "metrics/release.rs"]
mod release;
mod support;

use page::{page, place, value, wait_for_health, wait_for_value};
use std::fs;
use support::lab::Lab;
use support::proxy::Fault;
use testflinger_agent::job::Phase;

#[test]
fn jobs_and_failures_are_counted_under_the_originals_names() {
    let lab = Lab::new()
        .metrics("0")
        .set("identifier", "DEV-1")
        .command("setup", "mkdir artifacts && echo x > artifacts/x")
        .command("test", "echo 12345678; ! grep -q FAILS testflinger.json");
    let agent = lab.agent();
    let place = place(&agent);
    assert!(place.ip().is_loopback());
    let idle = r#"testflinger_agent_state{agent_id="lab-agent",state="idle"}"#;
    let page = wait_for_value(place, idle, 1.0);
    assert_eq!(
        value(&page, r#"jobs_total{agent_id="lab-agent"}"#),
        Some(0.0)
    );
    assert!(!page.contains("phase_duration_seconds_count"), "{page}");
    for words in ["passes", "FAILS"] {
        let job = lab.submit(&format!(r#""test_data": {{"test_cmds": "{words}"}}"#));
        lab.wait_until_complete(&job);
    }
    let page = wait_for_value(place, idle, 1.0);
    let is = |series: &str, wanted| assert_eq!(value(&page, series), Some(wanted), "{page}");
    is(r#"jobs_total{agent_id="lab-agent"}"#, 2.0);
    is(
        r#"failures_total{agent_id="lab-agent",test_phase="test"}"#,
        1.0,
    );
    is(
        r#"failures_total{agent_id="lab-agent",test_phase="setup"}"#,
        0.0,
    );
    is(r#"recovery_failures_total{agent_id="lab-agent"}"#, 0.0);
    let labels = r#"agent_id="lab-agent",test_phase="test",identifier="DEV-1",release="unknown""#;
    for end in ["60", "120", "300", "600", "1800", "3600", "7200", "14400"] {
        is(
            &format!("phase_duration_seconds_bucket{{{labels},le=\"{end}.0\"}}"),
            2.0,
        );
    }
    is(
        &format!("phase_duration_seconds_bucket{{{labels},le=\"+Inf\"}}"),
        2.0,
    );
    is(&format!("phase_duration_seconds_count{{{labels}}}"), 2.0);
    let seconds = value(&page, &format!("phase_duration_seconds_sum{{{labels}}}")).unwrap();
    assert!(seconds > 0.0 && seconds < 60.0, "{seconds}");
    let own = |name: &str| format!("testflinger_agent_{name}{{agent_id=\"lab-agent\"}}");
    is(&own("output_bytes_total"), 18.0);
    is(&own("artifacts_total"), 2.0);
    is(&own("unsent_records"), 0.0);
    is(&own("server_answers"), 1.0);
    assert!(value(&page, &own("artifact_bytes_total")).unwrap() > 100.0);
    let version = concat!(
        "\"lab-agent\",version=\"",
        env!("CARGO_PKG_VERSION"),
        "\"} 1\n"
    );
    assert!(page.contains(&format!("testflinger_agent_build_info{{agent_id={version}")));
    let endpoint = r#"agent_id="lab-agent",endpoint="POST /v1/result/*/artifact""#;
    is(
        &format!("testflinger_agent_requests_total{{{endpoint},status=\"2xx\"}}"),
        2.0,
    );
    is(
        &format!("testflinger_agent_request_seconds_count{{{endpoint}}}"),
        2.0,
    );
}

#[test]
fn status_46_is_a_recovery_that_failed_and_takes_the_agent_out_of_service() {
    let lab = Lab::new().metrics("0").command("provision", "exit 46");
    let job = lab.submit(r#""provision_data": {"url": "x"}"#);
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    let place = place(&agent);
    let state = r#"testflinger_agent_state{agent_id="lab-agent",state="out_of_service"}"#;
    let page = wait_for_value(place, state, 1.0);
    assert_eq!(
        value(&page, r#"recovery_failures_total{agent_id="lab-agent"}"#),
        Some(1.0)
    );
    let idle = r#"testflinger_agent_state{agent_id="lab-agent",state="idle"}"#;
    assert_eq!(value(&page, idle), Some(0.0));
}

#[test]
fn labels_may_hold_anything() {
    let lab = Lab::new()
        .metrics("0")
        .agent_id("a \"b\" \\c")
        .set("identifier", r#""line\nwith \"quotes\" and \\""#)
        .command("test", "true");
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    let wanted = "phase_duration_seconds_count{agent_id=\"a \\\"b\\\" \\\\c\",\
                  test_phase=\"test\",identifier=\"line\\nwith \\\"quotes\\\" and \\\\\",\
                  release=\"unknown\"} 1\n";
    let page = page(place(&agent));
    assert!(page.contains(wanted), "{wanted}\n{page}");
}

#[test]
fn health_is_whether_the_server_answers() {
    let lab = Lab::new().with_proxy().metrics("0").command("test", "true");
    lab.proxy().set_down(true);
    let agent = lab.agent();
    let place = place(&agent);
    wait_for_health(place, "503", "it refused the connection");
    let page = page(place);
    let answers = r#"testflinger_agent_server_answers{agent_id="lab-agent"}"#;
    assert_eq!(value(&page, answers), Some(0.0));
    let waits = r#"testflinger_agent_state{agent_id="lab-agent",state="waiting_for_server"}"#;
    wait_for_value(place, waits, 1.0);
    lab.proxy().set_down(false);
    wait_for_health(place, "200", "ok");
    let back = r#"testflinger_agent_reconnects_total{agent_id="lab-agent"}"#;
    wait_for_value(place, back, 1.0);
    lab.proxy().set_down(true);
    wait_for_health(place, "503", "no answer from the server for");
    lab.proxy().set_down(false);
    wait_for_health(place, "200", "ok");
    wait_for_value(place, back, 2.0);
}

#[test]
fn an_agent_that_is_told_to_stop_is_not_healthy_and_still_answers() {
    let lab = Lab::new();
    let go = lab.scratch.path("go");
    let wait = format!("while [ ! -e '{}' ]; do sleep 0.01; done", go.display());
    let lab = lab
        .metrics("0")
        .command("test", "true")
        .command("cleanup", &wait);
    let job = lab.submit_test();
    let mut agent = lab.agent();
    let place = place(&agent);
    lab.wait_for_output(&job, Phase::Cleanup, "Starting");
    wait_for_health(place, "200", "ok");
    let busy = r#"testflinger_agent_state{agent_id="lab-agent",state="busy"}"#;
    assert_eq!(value(&page(place), busy), Some(1.0));
    agent.signal("TERM");
    wait_for_health(place, "503", "the agent is stopping");
    fs::write(go, "x").unwrap();
    assert_eq!(agent.wait(), 0);
}

#[test]
fn what_is_owed_is_counted_until_it_is_delivered() {
    let lab = Lab::new()
        .with_proxy()
        .metrics("0")
        .command("test", "mkdir artifacts; echo x > artifacts/x");
    let refused = Fault::Answer {
        status: 413,
        headers: Vec::new(),
        body: Vec::new(),
    };
    lab.proxy()
        .on("POST", "/v1/result/*/artifact", 1_000, refused);
    let job = lab.submit_test();
    let agent = lab.agent();
    agent.wait_for_log("not all of it is at the server");
    let unsent = r#"testflinger_agent_unsent_records{agent_id="lab-agent"}"#;
    wait_for_value(place(&agent), unsent, 1.0);
    drop(agent);
    lab.proxy().clear();
    let agent = lab.agent();
    agent.wait_for_log(&format!("delivered what job {job} still owed"));
    wait_for_value(place(&agent), unsent, 0.0);
}
