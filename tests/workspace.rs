//! The directory and the environment in which a job's commands run, and what a
//! job may do to them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use support::gate::Gate;
use support::lab::{Lab, is_alive, wait_until};
use support::means::{as_user, beside, dead_mount, with_mounts};
use testflinger_agent::job::Phase;

/// The names in a directory but the hidden ones.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect()
}

/// Nothing of any job is left where the agent keeps what it works with.
fn assert_nothing_is_left(lab: &Lab) {
    for name in ["run", "results"] {
        let directory = lab.scratch.path(name);
        wait_until(&format!("{} is empty", directory.display()), || {
            names(&directory).is_empty()
        });
    }
}

#[test]
fn row_39_a_job_and_its_workspace_are_for_the_agent_alone_and_gone_afterwards() {
    let lab = Lab::new();
    let seen = lab.scratch.path("seen");
    let look = format!(
        "umask; stat -c '%a %n' . testflinger.json testflinger-outcome.json test.log; \
         stat -c %a ../../results/*; cp testflinger.json {}",
        seen.display()
    );
    let lab = lab.command("test", &look);
    let id = "0b1f8c9e-5a3d-4f43-9a58-7d6f7b3c2a10";
    // Blanks, order and escapes as no program would write them.
    let document = format!(
        "{{\"test_data\" : {{\"test_password\": \"pa\\u0073s\\/w\u{f6}rd\", \"test_cmds\":\"x\"}},\n \
         \"job_id\":\"{id}\",\"job_queue\": \"lab\"}}"
    );
    lab.server.submit_raw(document.clone());
    // A careless umask must not open what the agent makes itself.
    let _agent = lab.agent_under(&["sh", "-c", "umask 0; exec \"$@\"", "sh"], &lab.agent_id);
    lab.wait_until_complete(id);
    assert_eq!(lab.status(id, "test"), Some(0), "{}", lab.story());
    assert_eq!(
        lab.body(id, Phase::Test),
        "0000\n700 .\n600 testflinger.json\n600 testflinger-outcome.json\n600 test.log\n700\n"
    );
    assert_eq!(fs::read_to_string(seen).unwrap(), document);
    assert_nothing_is_left(&lab);
}

/// Runs a job that does this to its workspace in its setup, and another time in
/// its test phase; both phases and the cleanup must not suffer by it. `OUTSIDE`
/// stands for a directory outside, which stays as it is.
fn abused(abuse: &str) -> (Lab, String) {
    let lab = Lab::new();
    let outside = lab.scratch.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "kept").unwrap();
    let abuse = abuse.replace("OUTSIDE", outside.to_str().unwrap());
    let lab = lab
        .command("setup", &format!("echo one; {abuse}; echo two"))
        .command("test", &format!("echo three; {abuse}; echo four; exit 4"))
        .command("cleanup", "echo cleaned up");
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Setup), "one\ntwo\n");
    assert_eq!(lab.body(&job, Phase::Test), "three\nfour\n");
    assert_eq!(lab.body(&job, Phase::Cleanup), "cleaned up\n");
    for (phase, status) in [("setup", 0), ("test", 4), ("cleanup", 0)] {
        assert_eq!(lab.status(&job, phase), Some(status), "{phase}");
    }
    assert_nothing_is_left(&lab);
    assert_eq!(names(&outside), ["file"], "{}", agent.log());
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "kept");
    drop(agent);
    (lab, job)
}

/// What GNU tar finds in a job's artifacts; their lines in order.
fn artifacts(lab: &Lab, job: &str) -> Vec<String> {
    let archive = lab.server.artifact(job).expect("artifacts");
    let output = std::process::Command::new("tar")
        .arg("-tzf")
        .arg(archive)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut lines: Vec<_> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort_unstable();
    lines
}

#[test]
fn a_job_may_remove_everything_in_its_workspace() {
    let (lab, job) = abused("rm -rf * .[!.]*");
    assert!(lab.server.artifact(&job).is_none());
}

#[test]
fn a_job_may_empty_its_logs() {
    abused(": > setup.log; : > test.log; truncate -s 1000000 test.log");
}

#[test]
fn a_job_may_put_links_in_the_place_of_the_agents_files() {
    abused(
        "for name in setup.log test.log cleanup.log testflinger-outcome.json testflinger.json \
         device-connector-error.json; do ln -sf OUTSIDE/file $name; done",
    );
}

#[test]
fn a_job_may_put_directories_and_fifos_in_the_place_of_the_agents_files() {
    abused(
        "rm -rf test.log cleanup.log testflinger-outcome.json device-info.json; \
         mkdir -p test.log/full cleanup.log/full; mkfifo testflinger-outcome.json device-info.json",
    );
}

#[test]
fn a_job_may_make_artifacts_of_everything() {
    let (lab, job) = abused("mkdir -p artifacts; mv -f *.json *.log artifacts/ 2>/dev/null");
    let artifacts = artifacts(&lab, &job);
    for name in [
        "artifacts/testflinger.json",
        "artifacts/setup.log",
        "artifacts/test.log",
    ] {
        assert!(
            artifacts.iter().any(|line| line == name),
            "{name}: {artifacts:?}"
        );
    }
}

#[test]
fn a_job_may_forbid_everything() {
    let (lab, job) = abused(
        "mkdir -p deep/er artifacts/deep; touch deep/er/x artifacts/deep/x; \
         chmod 000 deep/er deep artifacts/deep/x artifacts/deep artifacts .",
    );
    let artifacts = artifacts(&lab, &job);
    assert!(
        artifacts.contains(&"artifacts/deep/x".to_owned()),
        "{artifacts:?}"
    );
}

/// Root may do everything anyway; the agent of another user has to give itself
/// the right to remove what the job closed.
#[test]
fn a_job_of_an_ordinary_user_may_forbid_everything() {
    const NOBODY: u32 = 65_534;
    let user = NOBODY.to_string();
    let Some(words) = as_user(&user) else {
        return;
    };
    let lab = Lab::new()
        .command(
            "test",
            "id -u; mkdir -p deep/er artifacts; touch deep/er/x; echo kept > artifacts/x; \
             chmod 000 deep/er deep; chmod 555 artifacts; chmod 000 .",
        )
        .command("cleanup", "echo cleaned up");
    for name in ["run", "results", "logs"] {
        let directory = lab.scratch.path(name);
        fs::create_dir(&directory).unwrap();
        std::os::unix::fs::chown(&directory, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let token = lab.scratch.path("token");
    std::os::unix::fs::chown(&token, Some(NOBODY), Some(NOBODY)).unwrap();
    let job = lab.submit_test();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let _agent = lab.agent_under(&words, &lab.agent_id);
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Test), format!("{user}\n"));
    assert_eq!(lab.body(&job, Phase::Cleanup), "cleaned up\n");
    assert!(lab.server.artifact(&job).is_some(), "{}", lab.story());
    assert_nothing_is_left(&lab);
}

#[test]
fn a_job_may_make_links_of_its_directories() {
    let (lab, job) = abused("ln -sfn OUTSIDE artifacts; ln -sfn OUTSIDE more");
    assert!(lab.server.artifact(&job).is_none());
    let log = fs::read_to_string(lab.scratch.path("logs/testflinger-agent.log")).unwrap();
    let why = "they are no directory, and a link to one is not followed";
    assert!(log.contains(why), "{log}");
}

/// Such as the host's `/dev` in a tree that was to become a device's root.
#[test]
fn what_a_job_left_mounted_in_its_workspace_is_not_removed() {
    let Some(words) = with_mounts("true") else {
        return;
    };
    let lab = Lab::new();
    let outside = lab.scratch.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "kept").unwrap();
    let test = format!(
        "mkdir -p root/dev root/etc; echo x > root/etc/x; mount --bind {} root/dev",
        outside.display()
    );
    let lab = lab.command("test", &test);
    let job = lab.submit_test();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let agent = lab.agent_under(&words, &lab.agent_id);
    lab.wait_until_complete(&job);
    wait_until("the agent says what stays", || {
        agent.log().contains("unmount that first")
    });
    assert_eq!(lab.status(&job, "test"), Some(0), "{}", lab.story());
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "kept");
    let workspace = lab.scratch.path("run").join(&job);
    assert_eq!(names(&workspace), ["root"]);
    assert_eq!(names(&workspace.join("root")), ["dev"]);
}

/// A device's files over the network, and nobody there any more: whatever looks at them
/// waits for good.
#[test]
fn what_is_mounted_and_does_not_answer_holds_no_job_up() {
    let Some(words) = with_mounts("true") else {
        return;
    };
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let lab = Lab::new();
    let gate = Gate::new(&lab.scratch, "mounted");
    let lab = lab.command(
        "test",
        &format!(
            "mkdir -p \"root/a b\" artifacts/nfs; echo x | tee root/x artifacts/x; {}",
            gate.words()
        ),
    );
    let agent = lab.agent_under(&words, &lab.agent_id);
    for (place, left, said) in [
        ("root/a b", "root", "unmount that first"),
        (
            "artifacts/nfs",
            "",
            "was left out: something is mounted on it",
        ),
        (
            "artifacts",
            "artifacts",
            "something is mounted on them; it goes home without",
        ),
    ] {
        let job = lab.submit_test();
        lab.wait_for_output(&job, Phase::Test, "x\n");
        let workspace = lab.scratch.path("run").join(&job);
        let Some(_dead) = dead_mount(agent.pid(), &workspace.join(place)) else {
            return;
        };
        gate.open();
        lab.wait_until_complete(&job);
        agent.wait_for_log(said);
        assert_eq!(lab.status(&job, "test"), Some(0), "{}", lab.story());
        assert_eq!(lab.server.artifact(&job).is_some(), place != "artifacts");
        wait_until("all else is removed", || match left {
            "" => !workspace.exists(),
            left => names(&workspace) == [left],
        });
        gate.shut();
    }
}

/// Where it cannot be told what is mounted, whoever looks hangs: an agent that is to stop
/// does not, and the next one clears up.
#[test]
fn a_chore_that_never_ends_is_left_to_itself() {
    let Some(words) = with_mounts("true") else {
        return;
    };
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let lab = Lab::new();
    let gate = Gate::new(&lab.scratch, "mounted");
    let test = format!(
        "mkdir artifacts; echo x | tee artifacts/x; {}",
        gate.words()
    );
    let lab = lab.command("test", &test).command("cleanup", "echo clean");
    let mut agent = lab.agent_under(&words, &lab.agent_id);
    let job = lab.submit_test();
    lab.wait_for_output(&job, Phase::Test, "x\n");
    let list = format!("/proc/{}/mountinfo", agent.pid());
    beside(agent.pid(), &format!("mount --bind /dev/null {list}"));
    let workspace = lab.scratch.path("run").join(&job);
    let Some(dead) = dead_mount(agent.pid(), &workspace.join("artifacts")) else {
        return;
    };
    gate.open();
    agent.signal("TERM");
    assert_eq!(agent.wait(), 0);
    let log = agent.log();
    assert!(log.contains("artifacts takes too long"), "{log}");
    assert!(log.contains("is cleared after the next start"), "{log}");
    assert_eq!(lab.body(&job, Phase::Cleanup), "clean\n");
    drop(dead);
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    assert!(lab.server.artifact(&job).is_some());
    wait_until("the workspace is removed", || !workspace.exists());
}

#[test]
fn commands_find_the_configuration_in_their_environment_and_nothing_of_the_supervisor() {
    let lab = Lab::new();
    let seen = lab.scratch.path("environment");
    let lab = lab
        .set("location", "\"the lab\"")
        .set("provision_type", "noprovision")
        .command("test", &format!("env -0 > {}", seen.display()))
        .environment("PROBE", "passed on")
        .environment("location", "another one")
        .environment("NOTIFY_SOCKET", "/nowhere/notify")
        .environment("WATCHDOG_USEC", "30000000")
        .environment("WATCHDOG_PID", "1")
        .environment("LISTEN_FDS", "1")
        .environment("LISTEN_PID", "1")
        .environment("INFLUX_HOST", "nowhere.example")
        .environment("INFLUX_PW", "pass");
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    let text = fs::read_to_string(&seen).unwrap();
    let variables: HashMap<_, _> = text
        .split('\0')
        .filter_map(|line| line.split_once('='))
        .collect();
    let shown = |name: &str| lab.scratch.path(name).to_str().unwrap().to_owned();
    for (name, value) in [
        ("agent_id", "lab-agent".to_owned()),
        ("server_address", lab.server.url()),
        ("location", "the lab".into()),
        ("provision_type", "noprovision".into()),
        ("test_command", format!("env -0 > {}", seen.display())),
        ("provision_command", String::new()),
        ("execution_basedir", shown("run")),
        ("results_basedir", shown("results")),
        ("logging_basedir", shown("logs")),
        ("token_file", shown("token")),
        ("PROBE", "passed on".into()),
        ("PWD", shown(&format!("run/{job}"))),
    ] {
        assert_eq!(variables.get(name), Some(&value.as_str()), "{name}");
    }
    for name in ["job_queues", "polling_interval"] {
        assert!(!variables.contains_key(name), "{name} is no text");
    }
    for start in ["NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_", "INFLUX_"] {
        let found = variables.keys().find(|name| name.starts_with(start));
        assert_eq!(found, None);
    }
}

/// One that came here before, under an agent that nobody knows of any more.
#[test]
fn processes_of_an_earlier_run_of_a_job_are_ended() {
    let id = "0b1f8c9e-5a3d-4f43-9a58-7d6f7b3c2a10";
    let lab = Lab::new().command("test", "echo tested");
    fs::create_dir_all(lab.scratch.path("run").join(id)).unwrap();
    let mut left = std::process::Command::new("sleep")
        .arg("1000")
        .env("TESTFLINGER_AGENT_JOB", id)
        .spawn()
        .unwrap();
    let pid = i32::try_from(left.id()).unwrap();
    lab.server.submit_raw(format!(
        r#"{{"job_id": "{id}", "job_queue": "lab", "test_data": {{"test_cmds": "x"}}}}"#
    ));
    let agent = lab.agent();
    wait_until("it is ended", || !is_alive(pid));
    left.wait().unwrap();
    lab.wait_until_complete(id);
    assert_eq!(lab.body(id, Phase::Test), "tested\n", "{}", agent.log());
}
