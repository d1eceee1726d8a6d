//! What the agent takes of its machine, and what it does when that is refused.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::fs;
use std::time::{Duration, Instant};
use support::gate::Gate;
use support::lab::{Lab, PATIENCE, is_alive, numbers, wait_until, wait_until_within};
use support::means::{fixture_command, is_native, limit_descriptors};
use support::proxy::Fault;
use testflinger_agent::job::Phase;
use testflinger_agent::local::View;

const FRAGMENTS: &str = "/v1/result/*/log/output";

/// A line of proc_pid_status(5), in KiB.
fn kibibytes(pid: i32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn threads(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

/// Between two looks at what changes all the time.
const LOOK: Duration = Duration::from_millis(20);

/// A program without optimization is larger and wastes more.
const RESIDENT: u64 = if cfg!(debug_assertions) {
    16 << 10
} else {
    8 << 10
};

#[test]
fn row_11_a_flood_against_a_server_that_hangs_takes_no_memory_and_postpones_no_deadline() {
    if !is_native("memory and threads are those of the emulator") {
        return;
    }
    const LIMIT: u64 = 8 << 20;
    let seconds = Duration::from_secs(10);
    let lab = Lab::new().with_proxy();
    let pid = lab.scratch.path("pid");
    let lab = lab
        .set("output_limit", &LIMIT.to_string())
        .set("global_timeout", &seconds.as_secs().to_string())
        .command("test", &format!("echo $$ > '{}'; exec yes", pid.display()))
        .command("cleanup", "echo cleaned up");
    lab.proxy().on("POST", FRAGMENTS, 1, Fault::Hang);
    let job = lab.submit_test();
    let agent = lab.agent();
    let pid = numbers(&pid)[0];
    let begun = Instant::now();
    lab.proxy().wait_for("POST", FRAGMENTS, 1, PATIENCE);
    wait_until("the flood is ended", || !is_alive(pid));
    let late = begun.elapsed().saturating_sub(seconds);
    let resident = kibibytes(agent.pid(), "VmHWM:");
    println!("late by {late:?}, {resident} KiB resident at most");
    assert!(late < Duration::from_millis(500), "late by {late:?}");
    lab.proxy().release();
    lab.wait_until_complete(&job);
    assert_eq!(lab.status(&job, "test"), Some(247));
    let body = lab.body(&job, Phase::Test);
    let kept = usize::try_from(LIMIT).unwrap();
    assert_eq!(body[..kept], "y\n".repeat(kept / 2));
    let said = format!(
        " bytes of output left out: output_limit is {LIMIT}]\n\nERROR: Global timeout reached! ({}s)\n",
        seconds.as_secs()
    );
    let (left_out, last_words) = body[kept..].split_once(&said).unwrap();
    assert!(
        left_out
            .strip_prefix("\n[")
            .unwrap()
            .parse::<u64>()
            .unwrap()
            > LIMIT
    );
    assert!(last_words.len() < 100, "{last_words}");
    let resident = kibibytes(agent.pid(), "VmHWM:");
    assert!(resident < RESIDENT, "{resident} KiB resident");
}

#[test]
fn row_11_what_is_beyond_the_output_limit_is_counted_to_the_byte() {
    let lab = Lab::new()
        .set("output_limit", "1000000")
        .command(
            "test",
            &format!("{}; exit 4", fixture_command("flood 3000000")),
        )
        .command("cleanup", "echo cleaned up");
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    let body = lab.body(&job, Phase::Test);
    assert_eq!(
        &body[1_000_000..],
        "\n[2000000 bytes of output left out: output_limit is 1000000]\n"
    );
    assert_eq!(lab.status(&job, "test"), Some(4));
    // Each phase for itself.
    assert_eq!(lab.body(&job, Phase::Cleanup), "cleaned up\n");
}

/// `make soak` runs a thousand.
#[test]
fn row_45_two_hundred_jobs_with_outages_between_them_leave_nothing_in_the_agent() {
    if !is_native("memory and threads are those of the emulator") {
        return;
    }
    let jobs = std::env::var("TESTFLINGER_SOAK_JOBS");
    let jobs: usize = jobs.map_or(200, |jobs| jobs.parse().unwrap());
    let lab = Lab::new()
        .with_proxy()
        .command("test", "echo tested; mkdir artifacts; echo x > artifacts/x");
    let agent = lab.agent();
    let measure = || {
        let pid = agent.pid();
        // What was owed has a thread of its own, as long as it is owed.
        wait_until("the agent is idle", || threads(pid) == 2);
        // An idle agent opens something for a moment, too; what leaks stays open.
        let looks = (0..100).map(|_| {
            std::thread::sleep(LOOK);
            descriptors(pid)
        });
        (looks.min().unwrap(), kibibytes(pid, "VmRSS:"))
    };
    // They wait in the queue, so that the agent has no pause between them.
    let run_twenty = || {
        let jobs: Vec<_> = (0..20).map(|_| lab.submit_test()).collect();
        for (number, job) in jobs.iter().enumerate() {
            match number {
                5 => lab.proxy().on("POST", FRAGMENTS, 1, Fault::DropReply),
                10 => lab
                    .proxy()
                    .on("POST", "*/artifact", 1, Fault::CutRequest(1)),
                15 => lab.proxy().on("POST", "*", 2, Fault::DropReply),
                // The last one: else the outage could take a job that is on its
                // way.
                19 => {
                    lab.wait("the job runs", |view| {
                        matches!(view.job_state(job).as_deref(), Some("test" | "complete"))
                    });
                    lab.proxy().set_down(true);
                    lab.proxy().set_down(false);
                }
                _ => {}
            }
            lab.wait_until_complete(job);
            assert_eq!(lab.status(job, "test"), Some(0));
        }
    };
    let begun = Instant::now();
    // A tenth of them: then it has met everything.
    let first = jobs / 10;
    (0..first / 20).for_each(|_| run_twenty());
    let (descriptors_then, resident_then) = measure();
    (first / 20..jobs / 20).for_each(|_| run_twenty());
    let (descriptors, resident) = measure();
    println!(
        "{jobs} jobs in {:?}; after {first} of them {descriptors_then} descriptors and \
         {resident_then} KiB, at the end {descriptors} and {resident}",
        begun.elapsed()
    );
    assert!(
        descriptors <= descriptors_then + 1,
        "{descriptors_then} then {descriptors}"
    );
    assert!(
        resident <= resident_then + 512,
        "{resident_then} then {resident} KiB"
    );
    for name in ["run", "results"] {
        // The last record goes when the server has all of it.
        wait_until(&format!("nothing is left in {name}"), || {
            let left = fs::read_dir(lab.scratch.path(name)).unwrap().flatten();
            let is_seen =
                |entry: &fs::DirEntry| !entry.file_name().as_encoded_bytes().starts_with(b".");
            left.filter(is_seen).count() == 0
        });
    }
}

/// What an agent has without a job, and no more. (poll(2) wants to be allowed as
/// many as it is given.)
const FEW: usize = 11;

#[test]
fn row_46_without_descriptors_no_job_is_taken_until_there_are_some() {
    let lab = Lab::new().command("test", "echo tested");
    let agent = lab.agent();
    lab.wait("the agent is there", |view| {
        let agent = view.agent(&lab.agent_id);
        agent.is_some_and(|agent| agent.state == "waiting")
    });
    // None but those it has.
    if !limit_descriptors(agent.pid(), FEW) {
        return;
    }
    lab.wait("the server knows why", |view| {
        let agent = view.agent(&lab.agent_id);
        agent.is_some_and(|agent| agent.comment.contains("(os error 24)"))
    });
    let job = lab.submit_test();
    let cycles = lab.server.exchanges().len() + 3;
    lab.wait("some cycles", |view| view.exchanges().len() > cycles);
    assert_eq!(lab.server.job_state(&job).as_deref(), Some("waiting"));
    limit_descriptors(agent.pid(), 1024);
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Test), "tested\n", "{}", agent.log());
}

#[test]
fn row_46_a_job_that_runs_out_of_descriptors_says_so_and_the_next_one_runs() {
    let lab = Lab::new();
    let gate = Gate::new(&lab.scratch, "setup");
    let cleaned = lab.scratch.path("cleaned");
    let lab = lab
        .command("setup", &format!("echo begun; {}", gate.words()))
        .command("test", "echo tested")
        .command("cleanup", &format!("echo x >> '{}'", cleaned.display()));
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_for_output(&job, Phase::Setup, "begun");
    if !limit_descriptors(agent.pid(), FEW) {
        return;
    }
    gate.open();
    agent.wait_for_log(&format!("phase cleanup of job {job} ended with "));
    assert!(agent.log().contains("(os error 24)"), "{}", agent.log());
    limit_descriptors(agent.pid(), 1024);
    lab.wait_until_complete(&job);
    assert_eq!(lab.status(&job, "setup"), Some(0));
    assert_eq!(lab.status(&job, "test"), Some(100));
    let next = lab.submit_test();
    lab.wait_until_complete(&next);
    assert_eq!(lab.body(&next, Phase::Test), "tested\n", "{}", agent.log());
    assert_eq!(fs::read_to_string(cleaned).unwrap(), "x\n");
}

/// The only way to learn of a cancellation is to read all that the job has printed.
#[test]
fn row_26_two_hundred_megabytes_of_output_are_read_in_little_memory_and_not_often() {
    if !is_native("memory and threads are those of the emulator") {
        return;
    }
    const BYTES: usize = 200_000_000;
    let lab = Lab::new();
    let gate = Gate::new(&lab.scratch, "never");
    let test = format!("yes 'fifteen letters' | head -c {BYTES}; {}", gate.words());
    let lab = lab.command("test", &test).set("stop_grace", "1");
    let job = lab.submit_test();
    let agent = lab.agent();
    let readings = |view: View<'_>| {
        let gets = view.exchanges().iter().filter(|one| one.method == "GET");
        let at = gets
            .filter(|one| one.path.ends_with(&job))
            .map(|one| one.at);
        at.collect::<Vec<_>>()
    };
    let length = |view: View<'_>| {
        let fragments = view.fragments(&job);
        fragments.iter().map(|one| one.length).sum::<u64>()
    };
    wait_until_within("all of it is there", PATIENCE * 5, || {
        lab.server.view(length) >= BYTES as u64
    });
    let before = lab.server.view(readings).len();
    wait_until_within("it is read", PATIENCE * 5, || {
        lab.server.view(readings).len() > before
    });
    assert!(lab.server.cancel(&job));
    wait_until_within("the job comes home", PATIENCE * 5, || {
        !lab.scratch.path("results").join(&job).exists()
    });
    assert_eq!(lab.status(&job, "test"), Some(247), "{}", agent.log());
    let resident = kibibytes(agent.pid(), "VmHWM");
    assert!(resident < RESIDENT, "{resident} KiB");
}

/// Orphans that die by the hundred, and files that change all the while: the limits are
/// looked at between them.
#[test]
fn a_crowd_of_orphans_and_changes_postpones_no_limit() {
    let lab = Lab::new().set("stop_grace", "1").command(
        "test",
        "for n in 1 2 3 4; do (while :; do echo x > a; echo x > b; done) & done; \
         for n in $(seq 1000); do (true & true) & done; echo begun; wait",
    );
    let job = lab.submit(r#""test_data": {"test_cmds": "x"}, "global_timeout": 2"#);
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_eq!(lab.status(&job, "test"), Some(247), "{}", agent.log());
    let body = lab.body(&job, Phase::Test);
    assert!(body.starts_with("begun\n"), "{body}");
    assert!(body.contains("Global timeout reached! (2s)"), "{body}");
}

#[test]
fn a_limit_of_what_a_file_may_have_is_a_disk_that_is_full() {
    const FLOOD: usize = 300_000;
    let lab = Lab::new().command("test", &fixture_command(&format!("flood {FLOOD}")));
    let job = lab.submit_test();
    let mut agent = lab.agent_under(&["prlimit", "--fsize=100000:"], &lab.agent_id);
    lab.wait_until_complete(&job);
    assert_eq!(lab.status(&job, "test"), Some(0), "{}", agent.log());
    let body = lab.body(&job, Phase::Test);
    assert!(body.len() < FLOOD, "{}", body.len());
    let said = "bytes of the output of phase test of job";
    assert!(agent.log().contains(said), "{}", agent.log());
    agent.signal("TERM");
    assert_eq!(agent.wait(), 0);
}
