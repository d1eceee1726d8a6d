//! Jobs of several devices: a parent, and children that allocate theirs to it.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::fs;
use std::time::Duration;
use support::gate::Gate;
use support::lab::{Lab, Scratch};
use support::program::run;
use support::proxy::Fault;
use testflinger_agent::job::Phase;

const MINUTE: Duration = Duration::from_secs(60);
/// As the stock connectors: what they know of the device, and then they fail.
const ALLOCATE: &str = "echo '{\"device_info\": {\"device_ip\": \"10.0.0.7\"}}' \
                        > device-info.json; echo allocating; exit 1";

fn wait_for_looks(lab: &Lab, parent: &str, count: usize) {
    let path = format!("/v1/result/{parent}");
    lab.proxy().wait_for("GET", &path, count, MINUTE);
}

/// A job that allocates its device to that one.
fn child(lab: &Lab, parent: &str) -> String {
    lab.submit(&format!(
        r#""allocate_data": {{"allocate": true}}, "parent_job_id": "{parent}""#
    ))
}

#[test]
fn a_parent_and_two_children_work_on_three_devices_together() {
    let lab = Lab::new();
    let gate = Gate::new(&lab.scratch, "parent");
    let lab = lab
        .command("provision", &format!("echo together; {}", gate.words()))
        .command("allocate", ALLOCATE)
        .command("reserve", "echo never")
        .command("cleanup", "echo cleaned up");
    let parent = lab.submit(r#""provision_data": {"jobs": 2}"#);
    let _first = lab.agent();
    lab.wait_for_output(&parent, Phase::Provision, "together");
    let _others = ["second", "third"].map(|id| lab.agent_named(id));
    let children = [child(&lab, &parent), child(&lab, &parent)];
    // What the parent's connector waits for.
    for child in &children {
        lab.wait_for_state(child, "allocated");
        assert!(lab.server.result(child).contains("10.0.0.7"));
        assert_eq!(lab.status(child, "allocate"), Some(1));
        assert_eq!(lab.status(child, "cleanup"), None);
    }
    gate.open();
    lab.wait_until_complete(&parent);
    for child in &children {
        lab.wait_until_complete(child);
        assert_eq!(lab.body(child, Phase::Allocate), "allocating\n");
        assert_eq!(lab.body(child, Phase::Cleanup), "cleaned up\n");
        // What failed ends the job, but not before its parent.
        assert_eq!(lab.output(child, Phase::Reserve), "");
        let states = lab.job_states(child, 0);
        assert_eq!(states, ["allocate", "allocated", "complete"]);
    }
}

#[test]
fn the_wait_for_a_parent_ends_with_a_cancellation_or_with_an_unknown_parent() {
    let lab = Lab::new()
        .command("allocate", ALLOCATE)
        .command("cleanup", "echo cleaned up");
    let parent = lab.server.submit(r#"{"job_queue": "nobody's"}"#).unwrap();
    let cancelled = child(&lab, &parent);
    let agent = lab.agent();
    lab.wait_for_state(&cancelled, "allocated");
    lab.server.cancel(&cancelled);
    lab.wait_until_complete(&cancelled);
    // Without a parent, too.
    let alone = lab.submit(r#""allocate_data": {"allocate": true}"#);
    lab.wait_for_state(&alone, "allocated");
    lab.server.cancel(&alone);
    lab.wait_until_complete(&alone);
    assert_eq!(lab.body(&alone, Phase::Cleanup), "cleaned up\n");
    let orphan = child(&lab, "4a01916a-c18b-4c2c-87bb-7da770768044");
    lab.wait_until_complete(&orphan);
    let states = lab.job_states(&orphan, 0);
    assert_eq!(states, ["allocate", "allocated", "complete"]);
    agent.wait_for_log("is unknown to the server");
}

#[test]
fn a_device_is_not_allocated_before_its_information_has_arrived() {
    let lab = Lab::new().with_proxy().command("allocate", ALLOCATE);
    let parent = lab.server.submit(r#"{"job_queue": "nobody's"}"#).unwrap();
    let job = child(&lab, &parent);
    let path = format!("/v1/result/{job}");
    // The first one is the state, the others are the information.
    lab.proxy()
        .on("POST", &path, 1, Fault::Delay(Duration::ZERO));
    for status in [500, 422, 503, 422] {
        lab.proxy().on("POST", &path, 1, Fault::status(status));
    }
    let _agent = lab.agent();
    lab.wait_for_state(&job, "allocated");
    assert!(lab.server.result(&job).contains("10.0.0.7"));
    lab.server.cancel(&parent);
    lab.wait_until_complete(&job);
    wait_for_looks(&lab, &parent, 1);
}

#[test]
fn a_job_file_without_a_parent_does_not_wait_for_one() {
    let lab = Scratch::new();
    let base = lab.path("agent");
    let config = format!(
        "agent_id: pi-4\nserver_address: http://127.0.0.1:9\njob_queues: [elsewhere]\n\
         results_basedir: {}/results\nallocate_command: echo allocating\n\
         reserve_command: echo reserved\n",
        base.display()
    );
    fs::write(lab.path("conf"), config).unwrap();
    let job = r#"{"allocate_data": {"a": 1}, "reserve_data": {"ssh_keys": []}}"#;
    fs::write(lab.path("job"), job).unwrap();
    let ended = run(&lab.path(""), &["run", "job", "--config", "conf"]);
    assert_eq!(ended.status, 0, "{ended:?}");
    let said = "allocating\n\nThe device is allocated. There is no parent job to wait for.\n";
    assert!(ended.stdout.contains(said), "{ended:?}");
    assert!(ended.stdout.ends_with("reserved\n"), "{ended:?}");
}
