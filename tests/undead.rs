//! Processes that do not end, and processes whose end nobody waits for.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::fs;
use std::time::{Duration, Instant};
use support::lab::{Agent, Lab, is_alive, numbers, signal, wait_until};
use support::means::{as_process_1, beside, is_native, strace, with_mounts};
use testflinger_agent::job::Phase;

/// A process in the state D cannot be had for a test. To the agent it is one to
/// whom signals can be sent and do nothing: so it is when the kernel is never
/// asked to send them.
#[test]
fn row_05_who_cannot_be_ended_is_given_up_and_the_agent_goes_on() {
    let Some(strace) = strace(&["kill:retval=0"]) else {
        return;
    };
    // A control group would end it by another way.
    let hidden = "[ ! -d /sys/fs/cgroup ] || mount -t tmpfs none /sys/fs/cgroup";
    let Some(mounts) = with_mounts(hidden) else {
        return;
    };
    let lab = Lab::new();
    let pid = lab.scratch.path("pid");
    let test = format!(
        "[ -e {0} ] && exec echo another job; echo $$ > {0}; echo stuck; exec sleep 1000",
        pid.display()
    );
    let lab = lab
        .set("global_timeout", "1")
        .set("stop_grace", "1")
        .command("test", &test)
        .command("cleanup", "echo cleaned up");
    let job = lab.submit_test();
    let words: Vec<_> = mounts.iter().chain(&strace).map(String::as_str).collect();
    let agent = lab.agent_under(&words, &lab.agent_id);
    let pid = numbers(&pid)[0];
    let begun = Instant::now();
    agent.wait_for_log(&format!("cannot end process {pid}: KILL does nothing"));
    let given_up = begun.elapsed();
    // A second for the timeout, one of grace, and the patience with KILL.
    let patience = Duration::from_secs(7);
    let late = Duration::from_secs(12);
    assert!(
        (patience - Duration::from_secs(1)..late).contains(&given_up),
        "{given_up:?}"
    );
    lab.wait_until_complete(&job);
    assert!(is_alive(pid));
    assert_eq!(lab.status(&job, "test"), Some(247));
    assert_eq!(
        lab.body(&job, Phase::Test),
        "stuck\n\nERROR: Global timeout reached! (1s)\n"
    );
    assert_eq!(lab.body(&job, Phase::Cleanup), "cleaned up\n");
    let next = lab.submit_test();
    lab.wait_until_complete(&next);
    assert_eq!(lab.body(&next, Phase::Test), "another job\n");
    assert_eq!(lab.status(&next, "test"), Some(0));
    // What an earlier job left is no part of this one.
    assert!(is_alive(pid));
    drop(agent);
    signal(pid, "KILL");
}

/// The process that `unshare` waits for.
fn process_1(unshare: &Agent) -> i32 {
    let pid = unshare.pid();
    let children = format!("/proc/{pid}/task/{pid}/children");
    let child = || fs::read_to_string(&children).ok()?.trim().parse().ok();
    wait_until("unshare has a child", || child().is_some());
    child().unwrap()
}

/// The zombies among the children of a process.
fn zombies(pid: i32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let children = children.split_whitespace().map(|n| n.parse().unwrap());
    children
        .filter(|child| {
            let stat = fs::read_to_string(format!("/proc/{child}/stat"));
            stat.is_ok_and(|stat| stat.contains(") Z "))
        })
        .collect()
}

#[test]
fn row_09_as_process_1_the_agent_reaps_every_orphan() {
    if !is_native("the process has the name of the emulator") {
        return;
    }
    let Some(words) = as_process_1() else {
        return;
    };
    // Orphans that end while their phase runs, one after the other; the phase
    // looks for zombies itself, where the agent is process 1.
    let orphans = "n=0; while [ $n -lt 100 ]; do (sleep 0.$n & sleep 0.$n &); n=$((n + 1)); done";
    let look = "sleep 1.2; cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z '; cat /proc/1/comm";
    let lab = Lab::new()
        .command("setup", orphans)
        .command("test", look)
        // One that outlives the job, in a session of its own.
        .command(
            "cleanup",
            "setsid sleep 1000 < /dev/null > /dev/null 2>&1 & echo $!",
        );
    let job = lab.submit_test();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let mut unshare = lab.agent_under(&words, &lab.agent_id);
    lab.wait_until_complete(&job);
    let name: String = "testflinger-agent".chars().take(15).collect();
    assert_eq!(lab.body(&job, Phase::Test), format!("0\n{name}\n"));
    let agent = process_1(&unshare);
    wait_until("nothing of the job is left", || {
        let children = fs::read_to_string(format!("/proc/{agent}/task/{agent}/children"));
        children.unwrap().trim().is_empty()
    });
    // Idle, it is the parent of what it never started.
    beside(agent, "sleep 0.2 & sleep 0.3 & sleep 0.4 &");
    let children = || fs::read_to_string(format!("/proc/{agent}/task/{agent}/children")).unwrap();
    wait_until("the orphans have come and gone", || {
        children().trim().is_empty()
    });
    assert_eq!(zombies(agent), [0; 0]);
    signal(agent, "TERM");
    assert_eq!(unshare.wait(), 0);
}
