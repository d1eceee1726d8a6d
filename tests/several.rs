//! Several agents on one host.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use support::gate::Gate;
use support::lab::{Lab, is_alive, wait_until};
use support::program::{self, Program};
use testflinger_agent::job::Phase;
use testflinger_agent::sys::files::escape_name;

/// Writes the configuration of an agent down; its path.
fn config(lab: &Lab, agent_id: &str) -> String {
    let path = lab.scratch.path("second.conf");
    fs::write(&path, lab.configuration(agent_id)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn row_35_the_second_agent_of_an_id_says_who_holds_the_lock_and_ends_with_3() {
    let lab = Lab::new().command("test", "echo tested");
    let mut first = lab.agent();
    first.wait_for_log("for the queues lab");
    let conf = config(&lab, "lab-agent");
    let second = Program::start(
        &lab.scratch.path(""),
        &["-c", &conf, "--token-file", "token"],
    );
    let (holder, lock) = (first.pid(), lab.scratch.path("results/.lab-agent.lock"));
    let wanted = format!(
        "testflinger-agent: another agent with the agent_id lab-agent runs (process {holder}): \
         it holds {}\n",
        lock.display()
    );
    let job = lab.scratch.path("job.yaml");
    fs::write(&job, "test_data:\n  test_cmds: echo x\n").unwrap();
    let run = program::run(&lab.scratch.path(""), &["run", "job.yaml", "-c", &conf]);
    assert_eq!((run.status, run.stderr.as_str()), (3, wanted.as_str()));
    let second = second.wait();
    assert_eq!(
        (second.status, second.stderr.as_str()),
        (3, wanted.as_str())
    );

    assert!(is_alive(first.pid()));
    let job = lab.submit_test();
    lab.wait_until_complete(&job);
    first.signal("TERM");
    assert_eq!(first.wait(), 0);
    let _third = lab.agent();
    let job = lab.submit_test();
    lab.wait_until_complete(&job);
}

/// The fork of a killed agent has its lock for a moment.
#[test]
fn row_35_a_lock_that_is_given_back_at_once_holds_nobody_up() {
    let lab = Lab::new();
    let path = lab.scratch.path("results/.lab-agent.lock");
    let results = path.parent().unwrap();
    fs::DirBuilder::new().mode(0o700).create(results).unwrap();
    let lock = fs::File::create(&path).unwrap();
    lock.lock().unwrap();
    let agent = lab.agent();
    let descriptors = format!("/proc/{}/fd", agent.pid());
    wait_until("it has met the lock", || {
        let descriptors = fs::read_dir(&descriptors).into_iter().flatten().flatten();
        descriptors
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|target| target == path)
    });
    drop(lock);
    agent.wait_for_log("for the queues lab");
}

/// As who clears `/tmp` of what is old does.
#[test]
fn row_35_a_lock_that_is_removed_is_made_anew_and_one_that_is_lost_ends_the_agent() {
    let lab = Lab::new();
    let mut agent = lab.agent();
    agent.wait_for_log("for the queues lab");
    let path = lab.scratch.path("results/.lab-agent.lock");
    fs::remove_file(&path).unwrap();
    wait_until("it is there again", || path.exists());
    let conf = config(&lab, "lab-agent");
    let words = ["-c", &conf, "--token-file", "token", "--check"];
    let second = program::run(&lab.scratch.path(""), &words);
    assert_eq!(second.status, 3, "{}", second.stderr);
    // Another one is faster.
    let other = lab.scratch.path("results/other");
    let lock = fs::File::create(&other).unwrap();
    lock.lock().unwrap();
    fs::rename(&other, &path).unwrap();
    assert_eq!(agent.wait(), 3);
    let said = "another agent with the agent_id lab-agent runs";
    assert!(agent.log().contains(said), "{}", agent.log());
}

#[test]
fn row_35_agents_of_different_ids_work_side_by_side_in_the_same_directories() {
    let lab = Lab::new();
    let gate = Gate::new(&lab.scratch, "test");
    let lab = lab.command("test", &format!("echo $agent_id; {}", gate.words()));
    let ids = ["lab-agent", "../an agent/7.b"];
    let mut agents = Vec::new();
    for id in ids {
        let agent = lab.agent_named(id);
        agent.wait_for_log("for the queues lab");
        agents.push(agent);
    }
    let jobs = [lab.submit_test(), lab.submit_test()];
    lab.wait("both jobs run at once", |view| {
        jobs.iter()
            .all(|job| view.output(job, Phase::Test).lines().count() == 4)
    });
    let runners: Vec<_> = jobs.iter().map(|job| lab.body(job, Phase::Test)).collect();
    for id in ids {
        assert!(runners.contains(&format!("{id}\n")), "{runners:?}");
        let agent = lab.server.agent(id).unwrap();
        assert!(jobs.contains(&agent.job_id), "{agent:?}");
    }
    for job in &jobs {
        assert!(lab.scratch.path("results").join(job).is_dir());
        assert!(lab.scratch.path("run").join(job).is_dir());
    }
    gate.open();
    jobs.iter().for_each(|job| lab.wait_until_complete(job));
    for agent in &mut agents {
        agent.signal("TERM");
        assert_eq!(agent.wait(), 0);
        assert!(!agent.log().contains("WARNING"), "{}", agent.log());
    }
    let logs = lab.scratch.path("logs");
    let log = |name: &str| fs::read_to_string(logs.join(name)).unwrap();
    let own = format!("testflinger-agent-{}.log", escape_name(ids[1]));
    assert_eq!(own, "testflinger-agent-%2E.%2Fan%20agent%2F7.b.log");
    assert!(log("testflinger-agent.log").contains("is lab-agent at"));
    assert!(!log("testflinger-agent.log").contains(ids[1]));
    assert!(log(&own).contains(&format!("is {} at", ids[1])));
    assert!(!log(&own).contains("is lab-agent at"));
    assert!(log(&own).contains(&format!("this one's log is {own}")));
}

#[test]
fn row_35_an_agent_leaves_the_records_of_another_alone() {
    let lab = Lab::new().command("test", "echo tested");
    let owed = "11111111-1111-4111-8111-111111111111";
    let torn = "22222222-2222-4222-8222-222222222222";
    let mut journals = Vec::new();
    for (id, more) in [
        (owed, "{\"entry\": \"finished\"}\n"),
        (torn, "{\"entry\": \"started\", \"pha"),
    ] {
        let record = lab.scratch.path("results").join(id);
        fs::create_dir_all(&record).unwrap();
        let text = format!(
            "{{\"entry\": \"taken\", \"job_id\": \"{id}\", \"agent_id\": \"other\"}}\n{more}"
        );
        fs::write(record.join("journal"), &text).unwrap();
        journals.push((record.join("journal"), text));
    }
    let agent = lab.agent();
    let job = lab.submit_test();
    lab.wait_until_complete(&job);
    for (path, text) in &journals {
        assert_eq!(&fs::read_to_string(path).unwrap(), text);
    }
    assert!(!agent.log().contains("WARNING"), "{}", agent.log());
    let other = lab.agent_named("other");
    wait_until("the owed job is delivered", || !journals[0].0.exists());
    other.wait_for_log(&format!("job {owed} is over and not wholly delivered"));
    other.wait_for_log(&format!("the agent ended in the middle of job {torn}"));
    wait_until("the torn job is brought home", || !journals[1].0.exists());
}
