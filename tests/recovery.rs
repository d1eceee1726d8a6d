//! An agent that was ended in the middle of a job, and its next life.

mod support;

use std::fs;
use std::path::PathBuf;
use support::gate::Gate;
use support::lab::{Agent, Lab, is_alive, numbers, wait_for_file, wait_until};
use support::means::{fixture_command, has_cgroups, is_native};
use support::proxy::Fault;
use testflinger_agent::job::Phase;

const INTERRUPTED: &str = "\nERROR: The agent was interrupted in the middle of this phase.\n";

/// Ends the agent as a crash would.
fn kill(mut agent: Agent) {
    agent.signal("KILL");
    assert_eq!(agent.wait(), 256 - 9);
}

fn record(lab: &Lab, job: &str) -> PathBuf {
    lab.scratch.path("results").join(job)
}

/// Nothing of the job is left on the disk, and it is complete at the server.
fn is_home(lab: &Lab, job: &str) {
    lab.wait_until_complete(job);
    wait_until("the record is gone", || !record(lab, job).exists());
    assert!(!lab.scratch.path("run").join(job).exists());
}

fn lines(path: &std::path::Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[test]
fn row_33_a_job_is_taken_up_where_a_killed_agent_left_it() {
    let lab = Lab::new();
    let (pids, ran) = (lab.scratch.path("pids"), lab.scratch.path("ran"));
    let (pids, ran) = (pids.display(), ran.display());
    let gate = Gate::new(&lab.scratch, "never");
    // A child, a daemon that left the session, and one that ignores TERM.
    let test = format!(
        "echo test >> '{ran}'; echo $$ >> '{pids}'; \
         setsid sh -c 'echo $$ >> \"{pids}\"; exec sleep 1000' & \
         sh -c 'trap \"\" TERM; echo $$ >> \"{pids}\"; while sleep 1; do :; done' & \
         echo begun; {}",
        gate.words()
    );
    let lab = lab
        .command(
            "setup",
            &format!("echo setup >> '{ran}'; mkdir artifacts; echo x > artifacts/a"),
        )
        .command("test", &test)
        .command("reserve", &format!("echo reserve >> '{ran}'"))
        .command(
            "cleanup",
            &format!("echo cleanup >> '{ran}'; cat testflinger-outcome.json"),
        )
        .set("stop_grace", "1");
    let job = lab.submit(r#""test_data": {"test_cmds": "x"}, "reserve_data": {"ssh_keys": ["y"]}"#);
    let agent = lab.agent();
    lab.wait_for_output(&job, Phase::Test, "begun\n");
    wait_until("all processes run", || {
        lines(&lab.scratch.path("pids")) == 3
    });
    let processes = numbers(&lab.scratch.path("pids"));
    kill(agent);
    assert!(processes.iter().all(|pid| is_alive(*pid)));
    let agent = lab.agent();
    is_home(&lab, &job);
    assert!(
        !processes.iter().any(|pid| is_alive(*pid)),
        "{}",
        agent.log()
    );
    let ran = fs::read_to_string(lab.scratch.path("ran")).unwrap();
    assert_eq!(
        ran, "setup\ntest\ncleanup\n",
        "nothing runs twice, nothing later runs"
    );
    assert_eq!(lab.status(&job, "setup"), Some(0));
    assert_eq!(lab.status(&job, "test"), Some(100));
    assert_eq!(lab.status(&job, "reserve"), None);
    assert_eq!(lab.status(&job, "cleanup"), Some(0));
    assert_eq!(lab.body(&job, Phase::Test), format!("begun\n{INTERRUPTED}"));
    let outcome = "{\"status\": {\"setup\": 0, \"test\": 100}}";
    assert_eq!(lab.body(&job, Phase::Cleanup), outcome);
    assert!(lab.server.artifact(&job).is_some());
    // The next one is nobody's concern of all this.
    let next = lab.submit("");
    lab.wait_until_complete(&next);
}

#[test]
fn row_33_a_cleanup_that_was_cut_short_runs_again() {
    let lab = Lab::new();
    let (times, gate) = (
        lab.scratch.path("times"),
        Gate::new(&lab.scratch, "cleanup"),
    );
    let cleanup = format!(
        "echo x >> '{}'; echo cleaning; {}",
        times.display(),
        gate.words()
    );
    let lab = lab
        .command("test", "echo tested")
        .command("cleanup", &cleanup);
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_for_output(&job, Phase::Cleanup, "cleaning\n");
    kill(agent);
    let agent = lab.agent();
    wait_until("it runs again", || lines(&times) == 2);
    gate.open();
    is_home(&lab, &job);
    assert_eq!(lab.status(&job, "test"), Some(0), "{}", agent.log());
    assert_eq!(lab.status(&job, "cleanup"), Some(0));
    let output = lab.body(&job, Phase::Cleanup);
    assert!(
        output.starts_with(&format!("cleaning\n{INTERRUPTED}***")),
        "{output}"
    );
    assert!(output.ends_with("*\ncleaning\n"), "{output}");
}

/// As one that brings its whole board down.
#[test]
fn row_33_a_cleanup_that_ends_its_agent_each_time_is_not_run_for_ever() {
    let lab = Lab::new();
    let times = lab.scratch.path("times");
    let cleanup = format!("echo x >> '{}'; kill -9 $PPID; sleep 1000", times.display());
    let lab = lab
        .command("test", "echo tested")
        .command("cleanup", &cleanup);
    let job = lab.submit_test();
    for _ in 0..5 {
        assert_eq!(lab.agent().wait(), 256 - 9);
    }
    let agent = lab.agent();
    is_home(&lab, &job);
    assert_eq!(lines(&times), 5, "{}", agent.log());
    assert_eq!(lab.status(&job, "test"), Some(0));
    assert_eq!(lab.status(&job, "cleanup"), Some(100));
    let output = lab.body(&job, Phase::Cleanup);
    let said = "ERROR: That has happened too often: it is not run again.\n";
    assert!(output.ends_with(said), "{output}");
}

/// Its commands may print what is in the copy in its workspace.
#[test]
fn row_38_a_job_whose_document_is_lost_keeps_its_secrets() {
    let lab = Lab::new();
    let gate = Gate::new(&lab.scratch, "never");
    let lab = lab
        .command("test", &format!("echo begun; {}", gate.words()))
        .command("cleanup", "cat testflinger.json");
    let secret = "correct-horse-battery";
    let job = lab.submit(&format!(
        r#""test_data": {{"test_cmds": "x", "secrets": {{"KEY": "{secret}"}}}}"#
    ));
    let agent = lab.agent();
    lab.wait_for_output(&job, Phase::Test, "begun\n");
    kill(agent);
    fs::remove_file(record(&lab, &job).join("job.json")).unwrap();
    let agent = lab.agent();
    is_home(&lab, &job);
    let output = lab.body(&job, Phase::Cleanup);
    assert!(output.contains("\"KEY\": \"**"), "{output}");
    assert!(!output.contains(secret), "{output}");
    assert!(
        agent.log().contains("is lost from its record"),
        "{}",
        agent.log()
    );
}

/// `execution_basedir` may be in memory, and gone after a power cut.
#[test]
fn row_34_a_job_whose_workspace_is_gone_comes_home() {
    let lab = Lab::new();
    let gate = Gate::new(&lab.scratch, "never");
    let lab = lab
        .command("test", &format!("echo begun; {}", gate.words()))
        .command("cleanup", "ls; cat testflinger.json");
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_for_output(&job, Phase::Test, "begun\n");
    kill(agent);
    fs::remove_dir_all(lab.scratch.path("run")).unwrap();
    let agent = lab.agent();
    is_home(&lab, &job);
    assert_eq!(lab.status(&job, "test"), Some(100), "{}", agent.log());
    assert_eq!(lab.status(&job, "cleanup"), Some(0));
    let output = lab.body(&job, Phase::Cleanup);
    assert!(output.contains("testflinger-outcome.json\n"), "{output}");
    assert!(
        output.contains(&job),
        "the job's document is what it was: {output}"
    );
}

/// The server gives a job only once, and the agent may end before it has put that
/// on record.
/// After a power cut, the disk may have less of a log than the server: what is added
/// to it then is not taken for what the server has.
#[test]
fn row_34_what_comes_after_a_log_that_the_disk_has_lost_is_not_lost() {
    let lab = Lab::new();
    let gate = Gate::new(&lab.scratch, "gate");
    let times = lab.scratch.path("times");
    let wait = |text: &str| {
        let times = times.display();
        format!(
            "seq 1 1000; echo {text}; echo x >> '{times}'; {}",
            gate.words()
        )
    };
    let lab = lab
        .with_proxy()
        .command("test", &wait("tested"))
        .command("cleanup", &wait("cleaned"));
    // What was not synced: the end of a phase's log, and what was said of its fragments.
    let forget = |record: PathBuf, log: &str, kept: u64| {
        let file = fs::File::options().write(true).open(record.join(log));
        file.unwrap().set_len(kept).unwrap();
        let journal = record.join("journal");
        let text = fs::read_to_string(&journal).unwrap();
        let lines = text.split_inclusive('\n');
        let kept: String = lines.filter(|line| !line.contains("\"sent\"")).collect();
        fs::write(journal, kept).unwrap();
    };
    let all: String = (1..=1000).map(|number| format!("{number}\n")).collect();
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_for_output(&job, Phase::Test, "tested\n");
    kill(agent);
    forget(record(&lab, &job), "test.log", 100);
    // And again, before anything could be read back.
    lab.proxy().set_down(true);
    let agent = lab.agent();
    wait_until("cleanup runs", || lines(&times) == 2);
    kill(agent);
    lab.proxy().set_down(false);
    let agent = lab.agent();
    lab.wait_for_output(&job, Phase::Cleanup, "cleaned\n");
    wait_until("cleanup runs again", || lines(&times) == 3);
    kill(agent);
    forget(record(&lab, &job), "cleanup.log", 0);
    let agent = lab.agent();
    wait_until("cleanup runs once more", || lines(&times) == 4);
    gate.open();
    is_home(&lab, &job);
    assert_eq!(
        lab.body(&job, Phase::Test),
        format!("{all}tested\n{INTERRUPTED}"),
        "{}",
        agent.log()
    );
    let output = lab.output(&job, Phase::Cleanup);
    let last = format!("*\n{all}cleaned\n");
    assert!(output.ends_with(&last), "{output}");
    let pieces: Vec<_> = output.split(INTERRUPTED).collect();
    assert_eq!(pieces.len(), 3, "{output}");
    assert!(
        pieces[1].ends_with(&last),
        "what the server had stays: {output}"
    );
}

#[test]
fn row_33_a_job_that_was_taken_and_not_put_on_record_is_brought_to_its_end() {
    let lab = Lab::new()
        .command("setup", "echo never")
        .command("cleanup", "echo clean");
    let document = |id: &str| format!("{{\"job_id\": \"{id}\", \"job_queue\": \"other\"}}");
    for written in ["", "{\"job_id\": ", "whole"] {
        // From a queue that is not this agent's: it is not handed out.
        let job = lab.server.submit(r#"{"job_queue": "other"}"#).unwrap();
        let half_made = lab
            .scratch
            .path("results")
            .join(format!(".lab-agent.{job}"));
        fs::create_dir_all(&half_made).unwrap();
        let text = if written == "whole" {
            document(&job)
        } else {
            written.to_owned()
        };
        fs::write(half_made.join("job.json"), text).unwrap();
        let mut agent = lab.agent();
        is_home(&lab, &job);
        assert!(!half_made.exists());
        assert_eq!(lab.status(&job, "setup"), Some(100), "{}", agent.log());
        assert_eq!(lab.status(&job, "cleanup"), Some(0));
        let output = lab.body(&job, Phase::Setup);
        assert!(
            output.contains("This job is not run: the agent ended before"),
            "{output}"
        );
        agent.signal("TERM");
        assert_eq!(agent.wait(), 0);
    }
}

/// Again and again, wherever it is: it ends complete all the same.
#[test]
fn row_33_an_agent_that_is_killed_while_it_takes_a_job_up_takes_it_up_again() {
    let lab = Lab::new();
    let times = lab.scratch.path("times");
    let gate = Gate::new(&lab.scratch, "cleanup");
    let cleanup = format!("echo x >> '{}'; {}", times.display(), gate.words());
    let lab = lab
        .command("test", &fixture_command("flood 300000"))
        .command("cleanup", &cleanup);
    let job = lab.submit_test();
    for life in 1..=4 {
        let agent = lab.agent();
        wait_until("the cleanup runs", || lines(&times) == life);
        kill(agent);
    }
    gate.open();
    let agent = lab.agent();
    is_home(&lab, &job);
    assert_eq!(lab.status(&job, "test"), Some(0), "{}", agent.log());
    assert_eq!(lab.body(&job, Phase::Test).len(), 300_000);
    let output = lab.body(&job, Phase::Cleanup);
    assert_eq!(
        output.matches("interrupted in the middle").count(),
        4,
        "{output}"
    );
    // Whatever was on record of the fragments: their numbers rise.
    let fragments = lab.server.fragments(&job);
    let numbers: Vec<_> = fragments.iter().map(|one| one.number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
}

/// A process of a later time may have the number of one of the job's.
#[test]
fn row_33_nobody_else_is_ended() {
    let lab = Lab::new();
    let gate = Gate::new(&lab.scratch, "never");
    let pid = lab.scratch.path("pid");
    let test = format!("echo $$ > '{}'; {}", pid.display(), gate.words());
    let lab = lab.command("test", &test);
    let job = lab.submit_test();
    let agent = lab.agent();
    wait_for_file(&pid);
    let journal = record(&lab, &job).join("journal");
    wait_until("the process is on record", || {
        fs::read_to_string(&journal).unwrap().contains("spawned")
    });
    kill(agent);
    let mut bystander = std::process::Command::new("setsid")
        .args(["sleep", "1000"])
        .spawn()
        .unwrap();
    let stranger = i32::try_from(bystander.id()).unwrap();
    // The record says that its number was the job's, at another time.
    let text = fs::read_to_string(&journal).unwrap();
    let old = format!("\"pid\": {}", numbers(&pid)[0]);
    assert!(text.contains(&old), "{text}");
    fs::write(
        &journal,
        text.replace(&old, &format!("\"pid\": {stranger}")),
    )
    .unwrap();
    let agent = lab.agent();
    is_home(&lab, &job);
    assert!(is_alive(stranger), "{}", agent.log());
    // Of its own it knows the others by their environment.
    assert!(!is_alive(numbers(&pid)[0]));
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

/// Between the end of the cleanup and the entry that says that all is over.
#[test]
fn row_33_nothing_is_done_twice_when_all_but_the_delivery_was_over() {
    let lab = Lab::new().with_proxy();
    let times = lab.scratch.path("times");
    let lab = lab
        .command("test", "mkdir artifacts; echo x > artifacts/a")
        .command("cleanup", &format!("echo x >> '{}'", times.display()));
    lab.proxy()
        .on("POST", "*/artifact", 1_000, Fault::status(503));
    let job = lab.submit_test();
    let agent = lab.agent();
    let journal = record(&lab, &job).join("journal");
    wait_until("all is over", || {
        fs::read_to_string(&journal).is_ok_and(|text| text.contains("\"finished\""))
    });
    kill(agent);
    // As if it had been killed just before that.
    let text = fs::read_to_string(&journal).unwrap();
    let kept = text.lines().filter(|line| !line.contains("\"finished\""));
    let kept: String = kept.map(|line| format!("{line}\n")).collect();
    fs::write(&journal, kept).unwrap();
    lab.proxy().clear();
    let _agent = lab.agent();
    is_home(&lab, &job);
    assert_eq!(lines(&times), 1, "the cleanup has run");
    assert_eq!(lab.status(&job, "cleanup"), Some(0));
    assert!(
        lab.server.artifact(&job).is_some(),
        "what was moved is found"
    );
}

/// Neither its session nor its environment tells whose it is; its control group does.
#[test]
fn row_33_a_daemon_that_left_everything_behind_is_found_by_its_control_group() {
    if !has_cgroups() || !is_native("what it starts is in no control group of its own") {
        return;
    }
    let lab = Lab::new();
    let (pids, gate) = (lab.scratch.path("pids"), Gate::new(&lab.scratch, "never"));
    let test = format!(
        "setsid env -i sh -c 'setsid sh -c \"echo \\$\\$ > {}; exec sleep 1000\" &' & echo begun; {}",
        pids.display(),
        gate.words()
    );
    let lab = lab.command("test", &test);
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_for_output(&job, Phase::Test, "begun\n");
    let daemon = numbers(&pids)[0];
    kill(agent);
    assert!(is_alive(daemon));
    let agent = lab.agent();
    is_home(&lab, &job);
    assert!(!is_alive(daemon), "{}", agent.log());
    let name = format!("testflinger-agent-{job}");
    let groups = std::process::Command::new("find")
        .args(["/sys/fs/cgroup", "-name", &name])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&groups.stdout), "", "it is removed");
}

/// A device that could not be recovered is given no job by the next life either.
#[test]
fn row_07_status_46_is_not_forgotten_when_the_agent_is_killed_before_the_server_knows() {
    let setup = Lab::new().with_proxy();
    let gate = Gate::new(&setup.scratch, "provision");
    let lab = setup
        .command(
            "provision",
            &format!("echo begun; {}; exit 46", gate.words()),
        )
        .command("test", "echo tested");
    let broken = lab.submit(r#""provision_data": {"distro": "x"}"#);
    let agent = lab.agent();
    lab.wait_for_output(&broken, Phase::Provision, "begun");
    lab.proxy().set_down(true);
    gate.open();
    agent.wait_for_log("the agent goes offline");
    let word = lab.scratch.path("results/.lab-agent.offline");
    assert!(word.exists());
    drop(agent);
    lab.proxy().set_down(false);
    let waiting = lab.submit_test();
    let agent = lab.agent();
    lab.wait_until_complete(&broken);
    let comment =
        format!("Set to offline by agent. Recovery failed during job '{broken}' execution.");
    lab.wait("the agent is offline", |view| {
        view.agent("lab-agent")
            .is_some_and(|agent| agent.state == "offline" && agent.comment == comment)
    });
    agent.wait_for_log("is offline and takes no jobs");
    wait_until("the word is delivered", || !word.exists());
    assert_eq!(lab.server.job_state(&waiting).as_deref(), Some("waiting"));
    // What an administrator says from then on counts, in the next life as well.
    lab.server.set_agent("lab-agent", "waiting", "");
    lab.wait_until_complete(&waiting);
    drop(agent);
    let third = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_until_complete(&third);
}
