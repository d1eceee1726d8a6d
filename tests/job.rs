//! The main job: taken from the queue, run, brought home.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::fs;
use std::process::Command;
use support::lab::Lab;
use testflinger_agent::archive::TarGz;
use testflinger_agent::job::Phase;
use testflinger_agent::local::Exchange;

#[test]
fn a_job_goes_through_its_phases_and_comes_home() {
    let lab = Lab::new()
        .command("setup", "echo setting up")
        .command("provision", "echo provisioning; echo oops >&2")
        .command("firmware_update", "echo never")
        .command("test", "echo agent=$agent_id; cat testflinger-outcome.json; mkdir artifacts; echo x > artifacts/x; exit 7")
        .command("reserve", "cat testflinger-outcome.json")
        .command("cleanup", "ls");
    let job = lab.submit(
        r#""provision_data": {"distro": "x"}, "firmware_update_data": {"skip": true},
           "test_data": {"test_cmds": "none"}, "reserve_data": {"ssh_keys": []}"#,
    );
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_eq!(
        lab.output(&job, Phase::Setup),
        "*************************************************\n\
         * Starting testflinger setup phase on lab-agent *\n\
         *************************************************\n\
         setting up\n"
    );
    assert_eq!(lab.body(&job, Phase::Provision), "provisioning\noops\n");
    assert_eq!(
        lab.body(&job, Phase::Test),
        "agent=lab-agent\n{\"status\": {\"setup\": 0, \"provision\": 0}}"
    );
    assert_eq!(
        lab.body(&job, Phase::Reserve),
        "{\"status\": {\"setup\": 0, \"provision\": 0, \"test\": 7}}"
    );
    let statuses = lab.server.status(&job);
    let statuses: Vec<_> = statuses
        .iter()
        .map(|(name, status)| (name.as_str(), *status))
        .collect();
    assert_eq!(
        statuses,
        [
            ("cleanup", 0),
            ("provision", 0),
            ("reserve", 0),
            ("setup", 0),
            ("test", 7)
        ]
    );
    assert!(lab.server.artifact(&job).is_some());
    for exchange in lab.server.exchanges() {
        assert!(exchange.status < 400, "{exchange:?}");
    }
}

/// Whatever a job can ask for, at once.
#[test]
fn a_job_with_everything_is_told_everywhere_what_it_should_be() {
    let lab = Lab::new();
    lab.server
        .answer("POST", "/v1/job/*/events", u32::MAX, 200, "OK");
    let test = "cat attachments/test/data; echo \"key $KEY\"; echo serial > test-serial.log; \
                mkdir artifacts; cp attachments/test/data artifacts/copy; exit 3";
    let provision = "cat attachments/provision/image; \
                     echo '{\"device_info\": {\"device_ip\": \"10.0.0.7\"}}' > device-info.json";
    let lab = lab
        .command("setup", "echo set up")
        .command("provision", provision)
        .command("firmware_update", "echo updated")
        .command("test", test)
        .command("reserve", "cat testflinger-outcome.json")
        .command("cleanup", "ls artifacts");
    let job = lab.submit(
        r#""job_status_webhook": "https://hook.example/x",
           "provision_data": {"distro": "x", "attachments": [{"agent": "image"}]},
           "firmware_update_data": {"version": "latest"},
           "test_data": {"test_cmds": "x", "attachments": [{"agent": "data"}],
                         "secrets": {"KEY": "correct-horse"}},
           "reserve_data": {"ssh_keys": ["lp:x"]}"#,
    );
    let from = lab.scratch.path("from");
    for (folder, name, text) in [
        ("provision", "image", "an image\n"),
        ("test", "data", "data\n"),
    ] {
        fs::create_dir_all(from.join(folder)).unwrap();
        fs::write(from.join(folder).join(name), text).unwrap();
    }
    let archive = TarGz::new(&from, ".").unwrap();
    lab.server.attach(&job, archive).unwrap();
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    for (phase, status, body) in [
        (Phase::Setup, 0, "set up\n"),
        (Phase::Provision, 0, "an image\n"),
        (Phase::FirmwareUpdate, 0, "updated\n"),
        (Phase::Test, 3, "data\nkey **9dca66**\n"),
        (
            Phase::Reserve,
            0,
            "{\"status\": {\"setup\": 0, \"provision\": 0, \"firmware_update\": 0, \"test\": 3}}",
        ),
        (Phase::Cleanup, 0, "copy\n"),
    ] {
        assert_eq!(lab.body(&job, phase), body, "{phase}");
        assert_eq!(lab.status(&job, phase.name()), Some(status), "{phase}");
    }
    let serial = lab.server.view(|view| view.serial(&job, Phase::Test));
    assert_eq!(serial, "serial\n");
    assert!(lab.server.result(&job).contains("10.0.0.7"));
    let listed = Command::new("tar")
        .arg("-xOzf")
        .arg(lab.server.artifact(&job).unwrap())
        .arg("artifacts/copy")
        .output()
        .unwrap();
    assert_eq!(listed.stdout, b"data\n");
    let logs = lab.server.view(|view| view.provision_logs("lab-agent"));
    assert_eq!(logs.len(), 1);
    lab.wait("the webhook knows the end", |view| {
        let mut all = view.exchanges().iter();
        all.any(|one| one.path.ends_with("/events") && one.request_body.contains("\"normal_exit\""))
    });
    let told = |one: &Exchange| one.request_body.contains("correct-horse");
    assert!(!lab.server.exchanges().iter().any(told));
}
