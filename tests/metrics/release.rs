//! What the device runs, found out by an ssh of the tests' own.

use crate::page::{page, place, value, wait_for_value};
use crate::support::lab::{Lab, is_alive, numbers, wait_for_file, wait_until};
use crate::support::means::{another_user, is_native};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use testflinger_agent::job::Phase;

/// Provision, that leaves this address.
fn provision(ip: &str) -> String {
    format!("echo '{{\"device_info\": {{\"device_ip\": \"{ip}\"}}}}' > device-info.json")
}

const JOB: &str = r#""provision_data": {"url": "x"}, "test_data": {"test_username": "lab"}"#;

/// An ssh that is found before every other one; `HERE` is the lab's directory.
fn with_ssh(lab: Lab, script: &str) -> Lab {
    let here = lab.scratch.path("");
    let script = script.replace("HERE", here.to_str().unwrap());
    let ssh = lab.scratch.path("bin").join("ssh");
    fs::create_dir(ssh.parent().unwrap()).unwrap();
    fs::write(&ssh, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", ssh.parent().unwrap().display());
    lab.environment("PATH", &path)
}

/// A command that waits for a file in the lab's directory.
fn until(lab: &Lab, name: &str) -> String {
    let file = lab.scratch.path(name);
    format!("while [ ! -e '{}' ]; do sleep 0.01; done", file.display())
}

/// How often a phase was counted under a release.
fn count(phase: &str, release: &str) -> String {
    format!(
        "phase_duration_seconds_count{{agent_id=\"lab-agent\",test_phase=\"{phase}\",\
         identifier=\"\",release=\"{release}\"}}"
    )
}

#[test]
fn a_device_is_asked_what_it_runs_and_no_phase_waits_for_the_answer() {
    let lab = Lab::new();
    let (answer, end) = (until(&lab, "answer"), until(&lab, "end"));
    let script = format!(
        "for word; do echo \"$word\"; done > HERE/words\nreadlink /proc/self/fd/0 >> HERE/words\n\
         echo \"$TESTFLINGER_AGENT_JOB\" >> HERE/words\n{answer}\n\
         echo 'VERSION_ID=\"22.04\"'; echo 'VERSION=\"22.04.4 LTS (Jammy Jellyfish)\"'\n\
         echo VERSION_ID=9 >&2"
    );
    let lab = with_ssh(lab, &script)
        .metrics("0")
        .command("setup", "true")
        .command("provision", &provision("10.0.0.7"))
        .command("test", &format!("echo under way; {end}"))
        .command("cleanup", "true");
    let job = lab.submit(JOB);
    let agent = lab.agent();
    let place = place(&agent);
    lab.wait_for_output(&job, Phase::Test, "under way");
    let page = page(place);
    assert_eq!(
        value(&page, &count("setup", "unknown")),
        Some(1.0),
        "{page}"
    );
    assert!(
        !page.contains("test_phase=\"provision\",identifier"),
        "{page}"
    );
    fs::write(lab.scratch.path("answer"), "x").unwrap();
    wait_for_value(place, &count("provision", "22.04.4"), 1.0);
    fs::write(lab.scratch.path("end"), "x").unwrap();
    lab.wait_until_complete(&job);
    let page = wait_for_value(place, &count("cleanup", "22.04.4"), 1.0);
    assert_eq!(value(&page, &count("test", "22.04.4")), Some(1.0), "{page}");
    assert!(agent.log().contains("the device runs 22.04.4"));
    let words = fs::read_to_string(lab.scratch.path("words")).unwrap();
    let wanted = format!(
        "-o\nBatchMode=yes\n-o\nStrictHostKeyChecking=no\n-o\nUserKnownHostsFile=/dev/null\n-o\n\
         ConnectTimeout=10\n-o\nControlPath=none\n-o\nLogLevel=ERROR\nlab@10.0.0.7\ncat\n/etc/os-release\n/dev/null\n{job}\n"
    );
    assert_eq!(words, wanted);
}

#[test]
fn a_device_that_does_not_answer_is_forgotten_with_its_job_and_leaves_no_process() {
    let lab = Lab::new();
    let asked = until(&lab, "asked");
    let script = "trap '' TERM; sleep 1000 & echo $$ $! > HERE/new; mv HERE/new HERE/asked; wait";
    let lab = with_ssh(lab, script)
        .metrics("0")
        .command("provision", &provision("device-7.lab"))
        .command("test", &asked);
    let job = lab.submit(JOB);
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    let place = place(&agent);
    let page = wait_for_value(place, &count("provision", "unknown"), 1.0);
    assert_eq!(value(&page, &count("test", "unknown")), Some(1.0), "{page}");
    let processes = numbers(&lab.scratch.path("asked"));
    assert_eq!(processes.len(), 2);
    wait_until("both have ended", || {
        !processes.iter().any(|pid| is_alive(*pid))
    });
    agent.wait_for_log("it is not known what the device runs: its job was over");
    assert!(!agent.log().contains("left behind"), "that was not the job");
}

#[test]
fn a_board_without_ssh_says_so_once() {
    if !is_native("it is not found without a PATH") {
        return;
    }
    let lab = Lab::new();
    let ends = lab.scratch.path("").display().to_string();
    // With nothing but what the shell has itself.
    let lab = lab
        .environment("PATH", "/nonexistent")
        .metrics("0")
        .command("provision", &provision("10.0.0.7"))
        .command(
            "test",
            &format!("while [ ! -e '{ends}'/$TESTFLINGER_AGENT_JOB ]; do :; done"),
        );
    let agent = lab.agent();
    let place = place(&agent);
    for number in [1.0, 2.0] {
        let job = lab.submit(JOB);
        wait_for_value(place, &count("provision", "unknown"), number);
        fs::write(lab.scratch.path(&job), "x").unwrap();
        lab.wait_until_complete(&job);
    }
    let log = agent.log();
    let said = "INFO: (agent)| it is not known what the device runs: there is no ssh here";
    assert_eq!(log.matches(said).count(), 1, "{log}");
}

/// The log of an agent that calls no ssh for a job that has come to its test phase.
fn calls_none(lab: Lab) -> String {
    let lab = with_ssh(lab, "echo called > HERE/called").command("test", "echo under way");
    let job = lab.submit(JOB);
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    assert!(lab.body(&job, Phase::Test).contains("under way"));
    assert!(!lab.scratch.path("called").exists());
    agent.log()
}

#[test]
fn only_what_is_an_address_gets_to_ssh_and_only_for_metrics() {
    let lab = |ip| Lab::new().command("provision", &provision(ip));
    for ip in ["-oProxyCommand=x", "10.0.0.7 x", "$(true)"] {
        let log = calls_none(lab(ip).metrics("0"));
        let said = "its device_ip is no address";
        assert!(log.contains(said), "{log}");
    }
    let log = calls_none(lab("10.0.0.7"));
    assert!(!log.contains("what the device runs"), "{log}");
    let failed = format!("{}; exit 1", provision("10.0.0.7"));
    let lab = with_ssh(Lab::new(), "echo called > HERE/called");
    let lab = lab
        .metrics("0")
        .command("provision", &failed)
        .command("cleanup", "true");
    let job = lab.submit(JOB);
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    assert!(!lab.scratch.path("called").exists());
}

#[test]
fn a_device_is_asked_by_the_commands_user() {
    let Some(user) = another_user() else {
        return;
    };
    let lab = Lab::new();
    let open = |path: &str, mode| {
        fs::set_permissions(lab.scratch.path(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    open("", 0o711);
    fs::create_dir(lab.scratch.path("who")).unwrap();
    open("who", 0o777);
    let asked = until(&lab, "who/is");
    let script = "id -un > HERE/who/new; echo $HOME >> HERE/who/new; mv HERE/who/new HERE/who/is";
    let lab = with_ssh(lab, script)
        .metrics("0")
        .set("run_as", user)
        .command("provision", &provision("10.0.0.7"))
        .command("test", &asked);
    let job = lab.submit(JOB);
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    let is = wait_for_file(&lab.scratch.path("who/is"));
    assert!(is.starts_with(&format!("{user}\n/")), "{is}");
    assert!(!is.contains("/root"), "{is}");
}
