//! SIGHUP: the log is opened again, and the configuration read anew.

mod support;

use std::fs;
use std::process::Command;
use std::time::Duration;
use support::lab::{Lab, is_alive, wait_for_file, wait_until};
use support::means::is_native;
use support::proxy::Fault;
use testflinger_agent::job::Phase;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_hangup_brings_the_new_configuration_at_once_when_idle() {
    if !is_native("the agent cannot become a new image of a foreign binary") {
        return;
    }
    let lab = Lab::new().command("test", "echo the old way");
    let agent = lab.agent();
    lab.wait("the agent is idle", |view| {
        view.agent("lab-agent")
            .is_some_and(|agent| agent.state == "waiting")
    });
    let name = || fs::read_to_string(format!("/proc/{}/comm", agent.pid())).unwrap();
    assert_eq!(name(), "testflinger-age\n", "as much as the kernel keeps");
    agent.edit("the old way", "the new way");
    agent.signal("HUP");
    agent.wait_for_log("beginning anew");
    let job = lab.submit_test();
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Test), "the new way\n");
    assert!(is_alive(agent.pid()), "it is the same process");
    assert_eq!(name(), "testflinger-age\n", "and is called the same");
}

#[test]
fn a_hangup_in_a_job_waits_for_its_end() {
    if !is_native("the agent cannot become a new image of a foreign binary") {
        return;
    }
    let lab = Lab::new();
    let go = lab.scratch.path("go");
    let test = format!(
        "while [ ! -e '{}' ]; do sleep 0.01; done; echo the old way",
        go.display()
    );
    let lab = lab.command("test", &test).command("cleanup", "echo old");
    let first = lab.submit_test();
    let mut agent = lab.agent();
    lab.wait_for_output(&first, Phase::Test, "Starting");
    agent.edit("the old way", "the new way");
    agent.edit("echo old", "echo new");
    agent.signal("HUP");
    agent.wait_for_log("read anew when the agent is idle");
    fs::write(&go, "x").unwrap();
    lab.wait_until_complete(&first);
    assert_eq!(lab.body(&first, Phase::Test), "the old way\n");
    assert_eq!(lab.body(&first, Phase::Cleanup), "old\n");
    let second = lab.submit_test();
    lab.wait_until_complete(&second);
    assert_eq!(lab.body(&second, Phase::Test), "the new way\n");
    agent.signal("TERM");
    assert_eq!(agent.wait(), 0);
}

#[test]
fn a_broken_configuration_is_refused_and_the_old_one_stays() {
    let lab = Lab::new().command("test", "echo the old way");
    let agent = lab.agent();
    agent.wait_for_log("for the queues");
    agent.edit("test_command", "tset_command");
    agent.signal("HUP");
    agent.wait_for_log("did you mean `test_command`?; the configuration stays as it was");
    let job = lab.submit_test();
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Test), "the old way\n");
}

#[test]
fn a_log_that_was_moved_away_is_begun_anew() {
    let lab = Lab::new();
    let agent = lab.agent();
    let log = lab.scratch.path("logs").join("testflinger-agent.log");
    wait_for_file(&log);
    let moved = lab.scratch.path("logs").join("moved");
    fs::rename(&log, &moved).unwrap();
    agent.signal("HUP");
    wait_until("the new file is written to", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("SIGHUP"))
    });
    assert!(
        fs::read_to_string(&moved)
            .unwrap()
            .contains("for the queues lab")
    );
}

#[test]
fn a_configuration_that_could_not_be_started_with_is_refused_beforehand() {
    let lab = Lab::new().command("test", "echo the old way");
    let other = lab.agent_named("other");
    other.wait_for_log("for the queues");
    let agent = lab.agent();
    agent.wait_for_log("for the queues");
    agent.edit("the old way", "the new way");
    // Somebody else is called that.
    agent.edit("\"lab-agent\"", "\"other\"");
    agent.signal("HUP");
    agent.wait_for_log("another agent with the agent_id other runs");
    agent.edit("\"other\"", "\"lab-agent\"");
    // A place that cannot be a directory.
    let logs = lab.scratch.path("logs").to_str().unwrap().to_owned();
    agent.edit(&logs, "/dev/null/logs");
    agent.signal("HUP");
    agent.wait_for_log("cannot make the directory /dev/null/logs");
    let config = fs::read_to_string(&agent.config).unwrap();
    // One that waits for a writer.
    fs::remove_file(&agent.config).unwrap();
    let status = Command::new("mkfifo").arg(&agent.config).status().unwrap();
    assert!(status.success());
    agent.signal("HUP");
    agent.wait_for_log("cannot be read: not a regular file; the configuration stays as it was");
    drop(other);
    let job = lab.submit_test();
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Test), "the old way\n");
    if !is_native("the agent cannot become a new image of a foreign binary") {
        return;
    }
    fs::remove_file(&agent.config).unwrap();
    fs::write(&agent.config, config.replace("/dev/null/logs", &logs)).unwrap();
    agent.signal("HUP");
    agent.wait_for_log("beginning anew");
    let job = lab.submit_test();
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Test), "the new way\n");
}

/// Both signals at once, again and again: the one that stops is never lost in
/// the moment in which the agent becomes another.
#[test]
fn a_signal_that_comes_with_a_hangup_is_not_lost() {
    let lab = Lab::new();
    for round in 0..10 {
        let mut agent = lab.agent();
        agent.wait_for_log("for the queues");
        let (name, status) = if round % 2 == 0 {
            ("TERM", 0)
        } else {
            ("USR1", 1)
        };
        // By one shell: a process for each would come too late.
        let both = format!("kill -HUP {0}; kill -{name} {0}", agent.pid());
        let sent = Command::new("sh").args(["-c", &both]).status().unwrap();
        assert!(sent.success());
        assert_eq!(agent.wait(), status, "{round}: {}", agent.log());
    }
}

/// What is still being sent is waited for before the agent begins anew: who is told then
/// to stop takes no job any more.
#[test]
fn a_signal_that_comes_while_a_hangup_is_heeded_is_for_the_next_life() {
    if !is_native("the agent cannot become a new image of a foreign binary") {
        return;
    }
    let lab = Lab::new()
        .with_proxy()
        .set("polling_interval", "3600")
        .command("test", "mkdir artifacts; echo x > artifacts/x");
    let upload = "/v1/result/*/artifact";
    lab.proxy().on("POST", upload, 1_000, Fault::Hang);
    let owing = lab.submit_test();
    let mut agent = lab.agent();
    lab.proxy().wait_for("POST", upload, 1, PATIENCE);
    agent.signal("KILL");
    agent.wait();
    for (name, status) in [("TERM", 0), ("USR1", 1)] {
        let seen = |part: &str| {
            let all = lab.proxy().seen();
            all.iter().filter(|one| one.path.contains(part)).count()
        };
        let (asked, sent) = (seen("/v1/job"), seen("/artifact"));
        let mut agent = lab.agent();
        lab.proxy().wait_for("GET", "/v1/job", asked + 1, PATIENCE);
        lab.proxy().wait_for("POST", upload, sent + 1, PATIENCE);
        let job = lab.submit_test();
        agent.signal("HUP");
        agent.wait_for_log("beginning anew");
        agent.signal(name);
        assert_eq!(agent.wait(), status, "{}", agent.log());
        let state = lab.server.job_state(&job);
        assert_eq!(state.as_deref(), Some("waiting"), "{}", agent.log());
        lab.server.cancel(&job);
    }
    lab.proxy().clear();
    lab.proxy().release();
    let next = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_until_complete(&next);
    lab.wait_until_complete(&owing);
}

/// While the agent waits for an answer, it is not idle; but its pause is no time to wait
/// for either.
#[test]
fn what_comes_in_the_middle_of_a_cycle_waits_for_its_end_only() {
    let may_reload = is_native("the agent cannot become a new image of a foreign binary");
    for (name, said) in [("HUP", "beginning anew"), ("USR1", "restarting")] {
        if name == "HUP" && !may_reload {
            continue;
        }
        let lab = Lab::new().with_proxy().set("polling_interval", "3600");
        let late = Fault::Delay(Duration::from_secs(2));
        lab.proxy().on("GET", "/v1/job", 1, late);
        let agent = lab.agent();
        lab.proxy().wait_for_arrival("GET", "/v1/job", 1, PATIENCE);
        agent.signal(name);
        agent.wait_for_log(said);
    }
}

/// Whoever begins anew must not forget what the server wants of it.
#[test]
fn a_restart_that_comes_with_a_hangup_is_a_restart() {
    let lab = Lab::new().set("polling_interval", "60");
    let mut agent = lab.agent();
    lab.wait("the agent is idle", |view| {
        let idle = view.agent("lab-agent");
        idle.is_some_and(|agent| agent.state == "waiting")
    });
    lab.server.set_agent("lab-agent", "restart", "redeployed");
    agent.signal("HUP");
    assert_eq!(agent.wait(), 1, "{}", agent.log());
}

#[test]
fn nothing_owed_is_left_behind_by_a_new_name() {
    let lab = Lab::new().command("test", "mkdir artifacts; echo x > artifacts/x");
    lab.server
        .answer("POST", "/v1/result/*/artifact", 1_000, 413, "");
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    agent.wait_for_log("not all of it is at the server");
    agent.edit("\"lab-agent\"", "\"renamed\"");
    agent.signal("HUP");
    agent.wait_for_log("are not wholly delivered");
    let next = lab.submit_test();
    lab.wait_until_complete(&next);
    assert!(lab.scratch.path("results").join(&job).exists());
}
