//! Files that a job's owner attached to it.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::fs;
use std::process::Command;
use std::time::Duration;
use support::lab::{Lab, wait_until};
use support::means::another_user;
use support::proxy::Fault;
use testflinger_agent::job::Phase;

const WITH_FILE: &str = r#""test_data": {"test_cmds": "x", "attachments": [{"agent": "file"}]}"#;
const MINUTE: Duration = Duration::from_secs(60);

/// A tar.gz with these files, as GNU tar makes it.
fn packed(lab: &Lab, files: &[(&str, &str)]) -> Vec<u8> {
    let from = lab.scratch.path("to-attach");
    fs::create_dir_all(&from).unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(&from).args(["--owner=4711", "-czf", "-"]);
    for (name, content) in files {
        let path = from.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        tar.arg(name);
    }
    let output = tar.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

fn submit(lab: &Lab, members: &str, archive: &[u8]) -> String {
    let job = lab.submit(members);
    lab.server.attach(&job, archive).unwrap();
    job
}

#[test]
fn every_phase_finds_what_was_attached() {
    let show = "cd attachments && find . | sort && cat provision/image test/tools/run";
    let lab = Lab::new()
        .command("setup", show)
        .command("provision", "echo never")
        .command("test", &format!("{show}; stat -c '%U %a' . test"));
    let archive = packed(
        &lab,
        &[("provision/image", "image\n"), ("test/tools/run", "run\n")],
    );
    // Nothing but attachments: there is nothing to provision.
    let job = submit(
        &lab,
        r#""provision_data": {"attachments": [{"agent": "image"}]},
           "test_data": {"test_cmds": "x", "attachments": [{"agent": "tools/run"}]}"#,
        &archive,
    );
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    let found = ".\n./provision\n./provision/image\n./test\n./test/tools\n./test/tools/run\n\
                 image\nrun\n";
    assert_eq!(lab.body(&job, Phase::Setup), found);
    let body = lab.body(&job, Phase::Test);
    let rest = body.strip_prefix(found).unwrap();
    assert!(
        rest.ends_with(" 700\nroot 755\n") || !rest.contains("root"),
        "{rest}"
    );
    assert_eq!(lab.status(&job, "provision"), None);
    wait_until("the workspace is gone", || {
        !lab.scratch.path("run").join(&job).exists()
    });
}

#[test]
fn row_36_a_job_with_a_bad_archive_fails_in_its_setup_and_is_cleaned_up() {
    let lab = Lab::new()
        .command("setup", "echo never")
        .command("test", "echo never")
        .command("cleanup", "echo cleaned up");
    let outside = packed(&lab, &[("elsewhere/file", "x")]);
    let good = packed(&lab, &[("test/file", "x")]);
    let agent = lab.agent();
    for (archive, why) in [
        (
            &outside[..],
            "is not below provision/, firmware_update/, test/",
        ),
        (&good[..good.len() - 9], "it is broken"),
        (b"<html>", "it is broken"),
    ] {
        let job = submit(&lab, WITH_FILE, archive);
        lab.wait_until_complete(&job);
        let body = lab.body(&job, Phase::Setup);
        let start = "ERROR: This job is not run: its attachments cannot be used: ";
        assert!(body.starts_with(start) && body.contains(why), "{body}");
        let statuses = lab.server.status(&job);
        let statuses: Vec<_> = statuses.iter().map(|(name, at)| (&name[..], *at)).collect();
        assert_eq!(statuses, [("cleanup", 0), ("setup", 100)]);
        assert_eq!(lab.body(&job, Phase::Cleanup), "cleaned up\n");
    }
    drop(agent);
    let left = fs::read_dir(lab.scratch.path("run")).unwrap().count();
    assert_eq!(left, 0);
}

#[test]
fn what_does_not_come_at_first_is_asked_for_again() {
    let lab = Lab::new()
        .with_proxy()
        .command("test", "cat attachments/test/file");
    let archive = packed(&lab, &[("test/file", "content\n")]);
    let job = submit(&lab, WITH_FILE, &archive);
    let path = "/v1/job/*/attachments";
    let proxy = lab.proxy();
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
    let short = [head.as_bytes(), &archive[..20]].concat();
    proxy.on("GET", path, 1, Fault::status(503));
    proxy.on("GET", path, 1, Fault::Garbage(short));
    proxy.on("GET", path, 1, Fault::DropReply);
    let page = Fault::Answer {
        status: 200,
        headers: vec![("Content-Type".into(), "text/html".into())],
        body: b"<html>".to_vec(),
    };
    proxy.on("GET", path, 1, page);
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Test), "content\n", "{}", agent.log());
}

#[test]
fn a_job_can_be_cancelled_while_its_attachments_do_not_come() {
    let lab = Lab::new()
        .with_proxy()
        .command("setup", "echo never")
        .command("cleanup", "echo cleaned up");
    let archive = packed(&lab, &[("test/file", "content\n")]);
    let path = "/v1/job/*/attachments";
    lab.proxy().on("GET", path, 100, Fault::Hang);
    let job = submit(&lab, WITH_FILE, &archive);
    let agent = lab.agent();
    lab.proxy().wait_for_arrival("GET", path, 1, MINUTE);
    lab.server.cancel(&job);
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Cleanup), "cleaned up\n");
    assert_eq!(lab.status(&job, "setup"), None);
    // The next one has its time, and then that is over; meanwhile the server knows of it.
    lab.proxy().clear();
    lab.proxy().on("GET", path, 100, Fault::status(503));
    let job = submit(
        &lab,
        &format!("{WITH_FILE}, \"global_timeout\": 1"),
        &archive,
    );
    lab.wait_until_complete(&job);
    let body = lab.body(&job, Phase::Setup);
    assert!(
        body.contains("did not come in 1 s (global timeout): the server answered 503"),
        "{body}"
    );
    let exchanges = lab.server.exchanges();
    let at = |part: &str| {
        exchanges
            .iter()
            .position(|one| one.request_body.contains(part))
    };
    let (named, begun) = (
        at(&format!("{{\"job_id\": \"{job}\"}}")),
        at("\"state\": \"setup\""),
    );
    assert!(named.is_some() && named < begun, "{}", lab.story());
    assert_eq!(lab.status(&job, "setup"), Some(100), "{}", agent.log());
}

#[test]
fn what_was_attached_is_the_commands_user_s() {
    let Some(user) = another_user() else {
        return;
    };
    let lab = Lab::new()
        .set("run_as", user)
        .command("test", "stat -c %U attachments attachments/test attachments/test/file; echo more >> attachments/test/file");
    let root = lab.scratch.path("");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    fs::set_permissions(root, mode).unwrap();
    let job = submit(&lab, WITH_FILE, &packed(&lab, &[("test/file", "x")]));
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Test), format!("{user}\n").repeat(3));
    assert_eq!(lab.status(&job, "test"), Some(0));
}
