//! Disks that are full, have no room for another file, or cannot be written to.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use support::gate::Gate;
use support::lab::{Agent, Lab};
use support::means::{self, beside, fixture_command, is_native, with_mounts};
use testflinger_agent::job::Phase;
use testflinger_agent::local::View;

/// Starts the agent with a small file system of its own for the results.
fn agent_on_a_small_disk(lab: &Lab, options: &str) -> Option<Agent> {
    let results = lab.scratch.path("results");
    let results = results.display();
    let words = with_mounts(&format!(
        "mkdir '{results}' && mount -t tmpfs -o mode=700,{options} none '{results}'"
    ))?;
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    Some(lab.agent_under(&words, &lab.agent_id))
}

/// A shell command that fills the disk of the results up to the last page.
fn fill(lab: &Lab) -> String {
    let results = lab.scratch.path("results");
    format!("cat /dev/zero > '{}/filler' 2>/dev/null", results.display())
}

/// And one that frees it.
fn free(lab: &Lab) -> String {
    format!("rm '{}/filler'", lab.scratch.path("results").display())
}

/// The text without the marks of what was left out, and how many bytes they
/// count.
fn without_marks(text: &str) -> (String, usize) {
    let (mut kept, mut left_out) = (String::new(), 0);
    let mut pieces = text.split("\n[");
    kept.push_str(pieces.next().unwrap());
    for piece in pieces {
        let mark = " bytes of output left out: the agent's disk was full]\n";
        let (count, rest) = piece.split_once(mark).unwrap();
        left_out += count.parse::<usize>().unwrap();
        kept.push_str(rest);
    }
    (kept, left_out)
}

/// Waits until the agent's comment at the server begins so.
fn wait_for_comment(lab: &Lab, comment: &str) {
    lab.wait(&format!("the comment {comment:?}"), |view| {
        let agent = view.agent(&lab.agent_id);
        agent.is_some_and(|agent| match comment {
            "" => agent.comment.is_empty(),
            _ => agent.comment.starts_with(comment),
        })
    });
}

#[test]
fn row_18_a_disk_that_is_full_in_a_phase_neither_ends_it_nor_hides_what_is_missing() {
    const FLOOD: usize = 4_000_000;
    let lab = Lab::new();
    let (full, freed) = (
        Gate::new(&lab.scratch, "full"),
        Gate::new(&lab.scratch, "freed"),
    );
    let flood = fixture_command(&format!("flood {FLOOD}"));
    let setup = format!(
        "echo before; {}; {}; {flood}; {}; echo after; {}; echo end",
        full.words(),
        fill(&lab),
        free(&lab),
        freed.words()
    );
    let serial = "head -c 300000 /dev/zero > test-serial.log";
    let test = format!("echo begun; {}; {serial}; {flood}; exit 3", fill(&lab));
    let lab = lab
        .command("setup", &setup)
        .command("test", &test)
        .command("cleanup", "echo cleaned up");
    let job = lab.submit_test();
    let Some(agent) = agent_on_a_small_disk(&lab, "size=3m") else {
        return;
    };
    lab.wait_for_output(&job, Phase::Setup, "before\n");
    full.open();
    // While the phase runs: there is room again, and it is used.
    lab.wait_for_output(&job, Phase::Setup, "after\n");
    freed.open();
    lab.wait_until_complete(&job);
    for (phase, name, status, rest) in [
        (Phase::Setup, "setup", 0, "before\nafter\nend\n"),
        (Phase::Test, "test", 3, "begun\n"),
    ] {
        assert_eq!(lab.status(&job, name), Some(status), "{}", agent.log());
        let body = lab.body(&job, phase);
        let (kept, left_out) = without_marks(&body);
        assert!(left_out > FLOOD / 2, "{name}: {left_out}");
        assert_eq!(kept.len() + left_out, FLOOD + rest.len(), "{name}");
        let said = format!("{left_out} bytes of the output of phase {name} of job {job} are lost");
        assert!(agent.log().contains(&said), "{said}\n{}", agent.log());
    }
    let said = format!("bytes of the serial log of phase test of job {job} are lost");
    assert!(agent.log().contains(&said), "{}", agent.log());
    assert_eq!(lab.status(&job, "cleanup"), Some(0));
    // Nothing else is taken before there is room.
    wait_for_comment(&lab, "No jobs are taken: less than ");
    let next = lab.submit("");
    agent.wait_for_log("No jobs are taken: less than ");
    beside(agent.pid(), &free(&lab));
    lab.wait_until_complete(&next);
    wait_for_comment(&lab, "");
    assert!(agent.log().contains("there is room for jobs again"));
}

#[test]
fn a_disk_without_min_free_space_has_no_job_until_there_is_room() {
    let lab = Lab::new()
        .set("min_free_space", "400000")
        .command("test", "echo tested");
    // A tenth would be enough of a smaller one: 400,000 of 8 MiB is less than
    // that.
    let Some(agent) = agent_on_a_small_disk(&lab, "size=8m") else {
        return;
    };
    wait_for_comment(&lab, "");
    beside(agent.pid(), &format!("{}; true", fill(&lab)));
    wait_for_comment(&lab, "No jobs are taken: less than ");
    let job = lab.submit_test();
    let asked = |lab: &Lab| {
        let exchanges = lab.server.exchanges();
        exchanges
            .iter()
            .filter(|one| one.path.starts_with("/v1/job?"))
            .count()
    };
    let before = asked(&lab);
    let cycles = lab.server.exchanges().len() + 3;
    lab.wait("some cycles", |view| view.exchanges().len() > cycles);
    assert_eq!(asked(&lab), before, "{}", lab.story());
    beside(agent.pid(), &free(&lab));
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Test), "tested\n");
    wait_for_comment(&lab, "");
}

#[test]
fn row_19_without_inodes_no_job_is_taken_and_a_running_one_comes_home() {
    let lab = Lab::new();
    let results = lab.scratch.path("results");
    let results = results.display();
    let setup = format!(
        "n=0; while true > '{results}/file'$n; do n=$((n + 1)); done 2>/dev/null; echo full"
    );
    let cleaned = lab.scratch.path("cleaned");
    let lab = lab
        .command("setup", &setup)
        .command("test", "echo never")
        .command("cleanup", &format!("echo x > '{}'", cleaned.display()));
    let job = lab.submit_test();
    let Some(agent) = agent_on_a_small_disk(&lab, "size=8m,nr_inodes=300") else {
        return;
    };
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Setup), "full\n", "{}", agent.log());
    assert_eq!(lab.status(&job, "test"), Some(100));
    assert_eq!(lab.status(&job, "cleanup"), Some(0), "{}", agent.log());
    assert!(cleaned.exists(), "the cleanup ran without a log");
    wait_for_comment(
        &lab,
        "No jobs are taken: fewer than 30 more files can be made",
    );
    let next = lab.submit_test();
    beside(agent.pid(), &format!("rm '{results}'/file?*"));
    // This one fills it again.
    lab.wait_until_complete(&next);
    assert_eq!(lab.body(&next, Phase::Setup), "full\n");
}

#[test]
fn row_19_on_a_read_only_disk_no_job_is_taken_and_a_running_one_comes_home() {
    let lab = Lab::new();
    let results = lab.scratch.path("results");
    let results = results.display();
    // What a file is open on cannot be made read-only; its directory can.
    let close =
        format!("mount --bind '{results}' '{results}' && mount -o remount,bind,ro '{results}'");
    let cleaned = lab.scratch.path("cleaned");
    let lab = lab
        .command("setup", &format!("{close}; echo closed"))
        .command("test", "echo never")
        .command("cleanup", &format!("echo x >> '{}'", cleaned.display()));
    let job = lab.submit_test();
    let Some(agent) = agent_on_a_small_disk(&lab, "size=8m") else {
        return;
    };
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Setup), "closed\n", "{}", agent.log());
    assert_eq!(lab.status(&job, "test"), Some(100), "{}", agent.log());
    assert!(cleaned.exists(), "the cleanup ran without a log");
    let comment = format!("No jobs are taken: the file system of {results} is read-only");
    wait_for_comment(&lab, &comment);
    let next = lab.submit("");
    beside(agent.pid(), &format!("umount '{results}'"));
    lab.wait_until_complete(&next);
    assert_eq!(lab.status(&next, "cleanup"), Some(0), "{}", agent.log());
    assert_eq!(std::fs::read_to_string(cleaned).unwrap(), "x\nx\n");
}

/// What was made of its record would be a job that was taken and never begun.
#[test]
fn a_job_whose_record_is_half_made_comes_home_once() {
    let Some(strace) = means::strace(&[]) else {
        return;
    };
    if !is_native("strace would see the emulator's calls") {
        return;
    }
    // Of the record's beginning, of what is in it, and of its name.
    for sync in 1..=3 {
        let lab = Lab::new().command("test", "echo never");
        let fault = format!("inject=fsync:error=EIO:when={sync}");
        let fault = ["-f", "-b", "execve", "-e", &fault].map(str::to_owned);
        let words = [strace.clone(), fault.to_vec()].concat();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let job = lab.submit_test();
        let mut agent = lab.agent_under(&words, &lab.agent_id);
        lab.wait_until_complete(&job);
        agent.signal("TERM");
        assert_eq!(agent.wait(), 0);
        let log = agent.log();
        assert!(log.contains("the agent cannot make a record"), "{log}");
        let left: Vec<_> = fs::read_dir(lab.scratch.path("results"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(left, [".lab-agent.lock"], "{sync}: {log}");
    }
}

/// Cards wear out, and each sync takes its time.
#[test]
fn a_job_of_six_phases_is_synced_twenty_times_at_most() {
    let Some(strace) = means::strace(&[]) else {
        return;
    };
    if !is_native("strace would see the emulator's calls") {
        return;
    }
    // Where artifacts were moved to is made durable as well, with the job's end.
    for (setup, moved) in [("true", 0), ("mkdir artifacts; echo x > artifacts/x", 1)] {
        let mut lab = Lab::new().command("setup", setup);
        for phase in ["provision", "firmware_update", "test", "reserve", "cleanup"] {
            lab = lab.command(phase, "seq 1 1000");
        }
        let syncs = lab.scratch.path("syncs");
        let calls = "trace=?sync,?syncfs,?fsync,?fdatasync,?sync_file_range,?msync";
        let output = [
            "-f",
            "-y",
            "-b",
            "execve",
            "-e",
            calls,
            "-o",
            syncs.to_str().unwrap(),
        ];
        let words: Vec<_> = strace.iter().map(String::as_str).chain(output).collect();
        let job = lab.submit(
            r#""provision_data": {"a": "b"}, "firmware_update_data": {"a": "b"},
               "test_data": {"test_cmds": "x"}, "reserve_data": {"ssh_keys": ["x"]}"#,
        );
        let mut agent = lab.agent_under(&words, &lab.agent_id);
        lab.wait_until_complete(&job);
        agent.signal("TERM");
        assert_eq!(agent.wait(), 0);
        assert_eq!(lab.server.status(&job).len(), 6, "{}", lab.story());
        let syncs = fs::read_to_string(syncs).unwrap();
        let count = syncs.lines().filter(|line| line.contains("sync")).count();
        println!("{count} syncs");
        // The job's beginning, its phases, its end.
        assert!((10..=20).contains(&count), "{count}:\n{syncs}");
        let record = lab.scratch.path("results").join(&job);
        let is_record = |line: &str| {
            line.contains(" syncfs(") && line.contains(&format!("<{}>)", record.display()))
        };
        let places = syncs.lines().filter(|line| is_record(line)).count();
        assert_eq!(places, moved, "{syncs}");
    }
}

/// Everything that the agent writes to a card.
fn state_of(directory: &Path) -> Vec<(PathBuf, u64, SystemTime)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let metadata = entry.metadata().unwrap();
        found.push((entry.path(), metadata.len(), metadata.modified().unwrap()));
        if metadata.is_dir() {
            found.extend(state_of(&entry.path()));
        }
    }
    found.sort();
    found
}

#[test]
fn an_idle_agent_writes_nothing() {
    let lab = Lab::new().command("test", "echo tested");
    let agent = lab.agent();
    let job = lab.submit_test();
    lab.wait_until_complete(&job);
    let questions = |view: View<'_>| {
        let paths = view
            .exchanges()
            .iter()
            .map(|exchange| exchange.path.as_str());
        paths.filter(|path| path.starts_with("/v1/job?")).count()
    };
    let wait_for_cycles = |cycles: usize| {
        let before = lab.server.view(questions);
        lab.wait("idle cycles", |view| questions(view) >= before + cycles);
    };
    wait_for_cycles(2);
    let everything = || {
        let directories = ["run", "results", "logs"].map(|name| state_of(&lab.scratch.path(name)));
        (directories.concat(), agent.log())
    };
    let before = everything();
    wait_for_cycles(4);
    assert_eq!(everything(), before);
}

/// The document, which has the job's secrets, is in nobody's way afterwards.
#[test]
fn row_18_a_workspace_that_has_no_room_is_gone_with_its_job() {
    let lab = Lab::new().command("test", "echo tested");
    let run = lab.scratch.path("run");
    let run = run.display();
    let mounted = with_mounts(&format!(
        "mkdir '{run}' && mount -t tmpfs -o mode=700,size=4m none '{run}'"
    ));
    let Some(words) = mounted else {
        return;
    };
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let large = "x".repeat(5_000_000);
    let job = lab.submit(&format!(r#""test_data": {{"test_cmds": "{large}"}}"#));
    let agent = lab.agent_under(&words, &lab.agent_id);
    lab.wait_until_complete(&job);
    let setup = lab.body(&job, Phase::Setup);
    assert!(setup.contains("cannot make a workspace"), "{setup}");
    beside(agent.pid(), &format!("test -z \"$(ls -A '{run}')\""));
    let next = lab.submit_test();
    lab.wait_until_complete(&next);
    assert_eq!(lab.body(&next, Phase::Test), "tested\n", "{}", agent.log());
}
