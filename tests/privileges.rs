//! Commands that run as another user than the agent.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use support::lab::{Lab, wait_until};
use support::means::another_user;
use support::program;
use testflinger_agent::job::Phase;

/// A lab whose commands run as that user; all that leads to their workspaces can be
/// gone through.
fn lab_of(user: &str) -> Lab {
    let lab = Lab::new();
    let root = lab.scratch.path("");
    fs::set_permissions(root, fs::Permissions::from_mode(0o711)).unwrap();
    lab.set("run_as", user)
}

/// The names of an archive's entries.
fn names(archive: &Path) -> String {
    let listed = Command::new("tar").arg("-tzf").arg(archive).output();
    String::from_utf8(listed.unwrap().stdout).unwrap()
}

#[test]
fn commands_run_as_a_user_of_their_own_and_can_become_no_other() {
    let Some(user) = another_user() else {
        return;
    };
    let again = "echo once > /dev/stdout; echo more | tee /dev/stderr > /dev/null";
    let report = "id -un; id -G; echo \"$HOME $USER $LOGNAME\"; grep -e NoNewPrivs -e CapEff \
                  -e CapPrm /proc/self/status; stat -c '%U %a' . testflinger.json; \
                  cat testflinger.json; ls /proc/self/fd | wc -l";
    let test = format!(
        "{report}; {again}; mkdir artifacts; echo kept > artifacts/kept; echo serial > test-serial.log; \
         echo '{{\"device_info\": {{\"device_ip\": \"10.0.0.7\"}}}}' > device-info.json; \
         cat test.log > artifacts/copy"
    );
    let lab = lab_of(user)
        .command("test", &test)
        .command("cleanup", "cat testflinger-outcome.json");
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    let body = lab.body(&job, Phase::Test);
    let groups = Command::new("id").args(["-G", user]).output().unwrap();
    let groups = String::from_utf8(groups.stdout).unwrap();
    let home = Command::new("sh")
        .args(["-c", &format!("echo ~{user}")])
        .output()
        .unwrap();
    let home = String::from_utf8(home.stdout).unwrap();
    let expected = format!(
        "{user}\n{groups}{} {user} {user}\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
         NoNewPrivs:\t1\n{user} 700\n{user} 600\n",
        home.trim()
    );
    assert!(body.starts_with(&expected), "{body}\n{expected}");
    assert!(body.contains(&job), "{body}");
    // Its three, and that of the directory that is listed.
    let end = "4\nonce\nmore\n";
    assert!(
        body.ends_with(&format!("}}{end}")) || body.ends_with(&format!("}}\n{end}")),
        "{body}"
    );
    assert_eq!(
        lab.body(&job, Phase::Cleanup),
        "{\"status\": {\"test\": 0}}"
    );
    let serial = lab.server.view(|view| view.serial(&job, Phase::Test));
    assert_eq!(serial, "serial\n");
    assert!(lab.server.result(&job).contains("10.0.0.7"));
    let names = names(&lab.server.artifact(&job).unwrap());
    assert!(
        names.contains("artifacts/kept") && names.contains("artifacts/copy"),
        "{names}"
    );
    wait_until("the workspace is gone", || {
        !lab.scratch.path("run").join(&job).exists()
    });
    let mode = |name: &str| fs::metadata(lab.scratch.path(name)).unwrap().mode() & 0o777;
    assert_eq!(
        (mode("run"), mode("results"), mode("logs")),
        (0o711, 0o700, 0o700)
    );
    assert_eq!(agent.log().matches("WARNING").count(), 0, "{}", agent.log());
}

/// Neither by its path nor by a link that the agent follows or reads.
#[test]
fn what_is_the_agents_is_out_of_reach() {
    let Some(user) = another_user() else {
        return;
    };
    let lab = lab_of(user);
    let secret = lab.scratch.path("secret");
    fs::write(&secret, "{\"device_info\": {\"a\": \"the agent's own\"}}").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let root = lab.scratch.path("");
    let root = root.display();
    // Where a kernel lets anybody link to what they cannot read, the links are there; this
    // one may not, so the test makes them.
    let test = format!(
        "mkdir artifacts artifacts/below; echo mine > artifacts/mine; \
         cat '{root}token' '{root}secret' '{root}logs'/* '{root}results'/*/*; ls '{root}run' '{root}results'; \
         kill -0 $PPID; echo ready > '{root}run/'$$; touch ready; \
         while [ ! -e go ]; do sleep 0.05; done"
    );
    let lab = lab.command("test", &test);
    let job = lab.submit_test();
    let agent = lab.agent();
    let workspace = lab.scratch.path("run").join(&job);
    wait_until("it has looked around", || workspace.join("ready").exists());
    let links = [
        "artifacts/stolen",
        "artifacts/below/stolen",
        "test-serial.log",
        "device-info.json",
    ];
    for link in links {
        fs::hard_link(&secret, workspace.join(link)).unwrap();
    }
    fs::write(workspace.join("go"), "").unwrap();
    lab.wait_until_complete(&job);
    let story = lab.story();
    assert_eq!(lab.status(&job, "test"), Some(0), "{story}");
    let body = lab.body(&job, Phase::Test);
    assert!(body.matches("ermission denied").count() >= 4, "{body}");
    assert!(!body.contains("refresh_token"), "{body}");
    assert!(!lab.server.result(&job).contains("agent's own"));
    let names = names(&lab.server.artifact(&job).unwrap());
    assert!(
        names.contains("artifacts/mine") && !names.contains("stolen"),
        "{names}"
    );
    let log = agent.log();
    for said in [
        "2 files of",
        "test-serial.log of job",
        "device-info.json of job",
        "belong",
    ] {
        assert!(log.contains(said), "{said}: {log}");
    }
    assert!(secret.exists());
}

#[test]
fn a_job_file_runs_with_commands_of_another_user() {
    let Some(user) = another_user() else {
        return;
    };
    let scratch = Lab::new().scratch;
    let base = scratch.path("agent");
    let base = base.display();
    let config = format!(
        "agent_id: pi-4\nserver_address: http://127.0.0.1:9\njob_queues: [elsewhere]\n\
         run_as: {user}\nresults_basedir: {base}/results\n\
         test_command: id -un; ls ../..; cat ../../refresh_token; mkdir artifacts; echo > artifacts/x\n"
    );
    fs::write(scratch.path("conf"), config).unwrap();
    fs::write(
        scratch.path("job"),
        "{\"test_data\": {\"test_cmds\": \"x\"}}",
    )
    .unwrap();
    let ended = program::run(&scratch.path(""), &["run", "job", "--config", "conf"]);
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(
        ended.stdout.contains(&format!(
            "
{user}
"
        )),
        "{ended:?}"
    );
    for denied in [
        "cannot open directory '../..'",
        "refresh_token: Permission denied",
    ] {
        assert!(ended.stdout.contains(denied), "{ended:?}");
    }
}

#[test]
fn a_user_who_cannot_be_become_is_named() {
    let Some(user) = another_user() else {
        return;
    };
    let start = |lab: &Lab| {
        let config = lab.scratch.path("conf");
        fs::write(&config, lab.configuration("lab-agent")).unwrap();
        let config = config.to_str().unwrap().to_owned();
        program::run(&lab.scratch.path(""), &["--check", "-c", &config])
    };
    let ended = start(&Lab::new().set("run_as", "nobody-of-that-name"));
    assert_eq!(ended.status, 2);
    assert!(
        ended
            .stderr
            .contains("there is no user nobody-of-that-name"),
        "{ended:?}"
    );
    let ended = start(&Lab::new().set("run_as", "root"));
    assert_eq!(ended.status, 2);
    assert!(ended.stderr.contains("may do everything"), "{ended:?}");
    // The way to its workspaces is barred.
    let lab = Lab::new().set("run_as", user);
    fs::set_permissions(lab.scratch.path(""), fs::Permissions::from_mode(0o700)).unwrap();
    let ended = start(&lab);
    assert_eq!(ended.status, 4);
    assert!(ended.stderr.contains("chmod o+x"), "{ended:?}");
    // Theirs is the way there.
    let lab = lab_of(user);
    let home = lab.scratch.path("home");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o777)).unwrap();
    let run = home.join("run");
    let lab = lab.set("execution_basedir", &format!("{run:?}"));
    let ended = start(&lab);
    assert_eq!(ended.status, 4);
    assert!(ended.stderr.contains("is theirs to change"), "{ended:?}");
    // Theirs is the place of the records.
    let lab = lab_of(user);
    let results = lab.scratch.path("results");
    fs::create_dir(&results).unwrap();
    let group = Command::new("id").args(["-g", user]).output().unwrap();
    let group = String::from_utf8(group.stdout).unwrap();
    std::os::unix::fs::chown(&results, None, group.trim().parse().ok()).unwrap();
    fs::set_permissions(&results, fs::Permissions::from_mode(0o770)).unwrap();
    let ended = start(&lab);
    assert_eq!(ended.status, 4);
    let said = format!("the commands of {user} could put records into");
    assert!(ended.stderr.contains(&said), "{ended:?}");
    // A place of everybody's stays what it is.
    let mode = fs::metadata("/tmp").unwrap().mode();
    let ended = start(&lab_of(user).set("execution_basedir", "/tmp"));
    assert_eq!(ended.status, 0, "{ended:?}");
    assert_eq!(fs::metadata("/tmp").unwrap().mode(), mode);
}
