//! Secrets of jobs: where they are found, and where they are not.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::fs;
use std::path::Path;
use support::gate::Gate;
use support::lab::{Agent, Lab, Scratch, quoted, wait_for_file, wait_until};
use support::means::is_native;
use support::program::run;
use testflinger_agent::job::Phase;

/// In two halves, as some phases print it: `${KEY%horse}`, `${KEY#correct-}`.
const SECRET: &str = "correct-horse";
/// The first digits of its SHA-256, as sha256sum(1) has them.
const MASK: &str = "**9dca66**";
const WITH_SECRET: &str =
    r#""test_data": {"test_cmds": "x", "secrets": {"KEY": "correct-horse", "NONE": ""}}"#;

/// All that the agent told anybody: the server, its console, its log.
fn told(lab: &Lab, agent: &Agent) -> String {
    let mut told = agent.log();
    for exchange in lab.server.exchanges() {
        told.push_str(&exchange.path);
        told.push_str(&exchange.request_body);
    }
    told + &fs::read_to_string(lab.scratch.path("logs/testflinger-agent.log")).unwrap()
}

/// What stands in all files below a directory.
fn written(directory: &Path) -> String {
    let mut text = String::new();
    // What goes while it is read is not there.
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => text.push_str(&written(&path)),
            path => text.push_str(&String::from_utf8_lossy(
                &fs::read(path).unwrap_or_default(),
            )),
        }
    }
    text
}

#[test]
fn row_38_a_secret_in_two_pieces_is_masked_and_what_stands_before_it_is_not_delayed() {
    let lab = Lab::new();
    let gate = Gate::new(&lab.scratch, "test");
    let test = format!(
        "printf 'before %s' \"${{KEY%horse}}\"; {}; printf '%s after\\n' \"${{KEY#correct-}}\"",
        gate.words()
    );
    let lab = lab.command("test", &test);
    let job = lab.submit(WITH_SECRET);
    let _agent = lab.agent();
    lab.wait_for_output(&job, Phase::Test, "before ");
    gate.open();
    lab.wait_until_complete(&job);
    assert_eq!(
        lab.body(&job, Phase::Test),
        format!("before {MASK} after\n")
    );
}

#[test]
fn row_38_a_secret_shows_nowhere_and_is_in_the_environment_of_its_phase_only() {
    let lab = Lab::new();
    let gate = Gate::new(&lab.scratch, "test");
    let scratch = lab.scratch.path("");
    let scratch = scratch.display();
    // As it is, in base64, in the document, on the serial line, of the device.
    let test = format!(
        "env | grep -e ^KEY -e ^NONE; echo \"$KEY$KEY\"; printf %s \"x$KEY\" | base64; \
         echo \"serial $KEY\" > test-serial.log; \
         echo \"{{\\\"device_info\\\": {{\\\"$KEY\\\": [\\\"$KEY.\\\"]}}}}\" > device-info.json; \
         echo printed; {}; cat test.log > '{scratch}/copy'; cat /proc/$$/cmdline /proc/$PPID/cmdline > '{scratch}/words'",
        gate.words()
    );
    let other = "echo \"key: ${KEY-none}\"; cat testflinger.json";
    let lab = lab
        .set("logging_level", "DEBUG")
        .command("setup", other)
        .command("test", &test)
        .command("cleanup", other);
    let job = lab.submit(WITH_SECRET);
    let agent = lab.agent();
    lab.wait_for_output(&job, Phase::Test, "printed\n");
    let record = lab.scratch.path("results").join(&job);
    for file in [
        record.join("job.json"),
        lab.scratch.path("run").join(&job).join("testflinger.json"),
    ] {
        assert!(fs::read_to_string(&file).unwrap().contains(SECRET));
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
    let logs = ["setup.log", "test.log", "journal"];
    let logs = logs.map(|name| fs::read_to_string(record.join(name)).unwrap());
    assert!(!logs.concat().contains(SECRET), "{logs:?}");
    gate.open();
    lab.wait_until_complete(&job);
    let body = lab.body(&job, Phase::Test);
    let lines = format!("KEY={MASK}\nNONE=\n{MASK}{MASK}\neG");
    assert!(
        body.starts_with(&lines) && body.contains("printed\n"),
        "{body}"
    );
    let serial = lab.server.view(|view| view.serial(&job, Phase::Test));
    assert_eq!(serial, format!("serial {MASK}\n"));
    for phase in [Phase::Setup, Phase::Cleanup] {
        let body = lab.body(&job, phase);
        assert!(body.starts_with("key: none\n"), "{body}");
        assert!(body.contains(&format!("\"KEY\": \"{MASK}\"")), "{body}");
    }
    let copy = wait_for_file(&lab.scratch.path("copy"));
    assert!(copy.contains(&lines), "{copy}");
    let words = wait_for_file(&lab.scratch.path("words"));
    assert!(!words.contains(SECRET), "{words}");
    let told = told(&lab, &agent);
    let device = format!("{{\"device_info\": {{\"{MASK}\": [\"{MASK}.\"]}}}}");
    assert!(told.contains(&device), "{}", lab.story());
    assert!(
        !told.contains(SECRET) && !told.contains("NvcnJlY3QtaG9yc2"),
        "{told}"
    );
    let results = lab.scratch.path("results");
    wait_until("the record is gone", || !written(&results).contains(SECRET));
    for directory in ["run", "logs"] {
        assert!(
            !written(&lab.scratch.path(directory)).contains(SECRET),
            "{directory}"
        );
    }
}

#[test]
fn row_38_what_the_agent_says_does_not_part_a_secret() {
    let lab = Lab::new().set("output_timeout", "1").command(
        "test",
        "exec 2>/dev/null; trap 'printf %s \"${KEY#correct-}\"; exit' TERM; printf 'before %s' \"${KEY%horse}\"; \
         while :; do sleep 0.1; done",
    );
    let job = lab.submit(WITH_SECRET);
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    let stopped = "before \nERROR: Output timeout reached! (1s)\n";
    assert_eq!(lab.body(&job, Phase::Test), format!("{stopped}{MASK}"));
    assert_eq!(lab.status(&job, "test"), Some(247));
}

#[test]
fn row_38_what_turns_out_to_be_no_secret_is_not_lost_at_the_end() {
    let half = "printf 'before %s' \"${KEY%horse}\"";
    let ends = lab_that_prints(half);
    assert_eq!(ends, "before correct-");
    let stopped = lab_that_prints(&format!("{half}; sleep 1000"));
    let said = "\nERROR: Global timeout reached! (3s)\n";
    assert_eq!(stopped, format!("before {said}correct-"));
}

fn lab_that_prints(test: &str) -> String {
    let lab = Lab::new().set("global_timeout", "3").command("test", test);
    let job = lab.submit(WITH_SECRET);
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    lab.body(&job, Phase::Test)
}

#[test]
fn row_33_half_a_secret_is_gone_with_the_agent_and_its_job_keeps_the_secret() {
    let lab = Lab::new();
    let gate = Gate::new(&lab.scratch, "never");
    let test = format!("printf 'before %s' \"${{KEY%horse}}\"; {}", gate.words());
    let lab = lab
        .command("test", &test)
        .command("cleanup", "cat testflinger.json");
    let job = lab.submit(WITH_SECRET);
    let mut agent = lab.agent();
    lab.wait_for_output(&job, Phase::Test, "before ");
    agent.signal("KILL");
    assert_eq!(agent.wait(), 256 - 9);
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    let interrupted = "\nERROR: The agent was interrupted in the middle of this phase.\n";
    assert_eq!(lab.body(&job, Phase::Test), format!("before {interrupted}"));
    let cleanup = lab.body(&job, Phase::Cleanup);
    assert!(
        cleanup.contains(&format!("\"KEY\": \"{MASK}\"")),
        "{cleanup}"
    );
    assert!(!told(&lab, &agent).contains(SECRET));
}

/// A job names its files and processes, and the agent speaks of them: in its log, and
/// to the server.
#[test]
fn row_38_what_a_job_names_by_a_secret_is_said_without_it() {
    let lab = Lab::new().set("polling_interval", "60").command(
        "test",
        "mkdir artifacts && mkfifo \"artifacts/$KEY\" && echo x > artifacts/x\n\
         cp \"$(command -v sleep)\" \"./$KEY\" && { setsid \"./$KEY\" 1000 & }",
    );
    let job = lab.submit(WITH_SECRET);
    let mut agent = lab.agent();
    lab.wait_until_complete(&job);
    agent.wait_for_log(&format!("\"artifacts/{MASK}\" was left out"));
    if is_native("processes have the emulator's name") {
        agent.wait_for_log(&format!("left behind, and ended now: {MASK} ("));
    }
    // What it has not told the server by then, it tells at its end.
    agent.signal("TERM");
    assert_eq!(agent.wait(), 0);
    let told = told(&lab, &agent);
    let warning = format!("WARNING: artifacts: \\\"artifacts/{MASK}\\\" was left out");
    assert!(told.contains(&warning), "{told}");
    assert!(!told.contains(SECRET), "{told}");
}

/// The kernel shortens the names of programs, and the agent quotes those of files.
#[test]
fn row_38_a_secret_that_is_shortened_or_quoted_in_a_name_is_said_without_it() {
    let (long, accent, escape) = (
        "supersecretpassword-0123",
        "pa\u{308}sswo\u{308}rd-geheim",
        "tok\u{1b}en-geheim",
    );
    let lab = Lab::new().set("polling_interval", "60").command(
        "test",
        "mkdir artifacts && mkfifo \"artifacts/$B\" \"artifacts/$C\"\n\
         cp \"$(command -v sleep)\" \"./$A\" && { setsid \"./$A\" 1000 & }",
    );
    let [a, b, c] = [long, accent, escape].map(quoted);
    let job = lab.submit(&format!(
        r#""test_data": {{"test_cmds": "x", "secrets": {{"A": {a}, "B": {b}, "C": {c}}}}}"#
    ));
    let mut agent = lab.agent();
    lab.wait_until_complete(&job);
    agent.wait_for_log("was left out: it is a FIFO");
    if is_native("processes have the emulator's name") {
        agent.wait_for_log("left behind, and ended now: **");
    }
    agent.signal("TERM");
    assert_eq!(agent.wait(), 0);
    let told = told(&lab, &agent);
    for part in ["supersecret", "ssw", "geheim"] {
        assert!(!told.contains(part), "{told}");
    }
}

#[test]
fn row_38_a_short_secret_is_one_without_the_end_of_its_line() {
    let lab = Lab::new().command("test", "echo $A; echo \"[$(printenv B)]\"; echo \"$A\"");
    let job = lab.submit(
        r#""test_data": {"test_cmds": "x", "secrets": {"A": "kurz\n", "B": "hunter2\r\n"}}"#,
    );
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    let body = lab.body(&job, Phase::Test);
    assert_eq!(body.matches("**").count(), 6, "{body}");
    let told = told(&lab, &agent);
    assert!(!body.contains("kurz") && !body.contains("hunter"), "{told}");
}

#[test]
fn row_41_a_secret_with_a_name_that_means_something_fails_its_phase() {
    let lab = Lab::new()
        .command("setup", "echo set up")
        .command("test", "echo never")
        .command("reserve", "echo \"reserved $KEY\"")
        .command("cleanup", "echo \"cleaned $KEY$IFS$LD_PRELOAD\"");
    let agent = lab.agent();
    // Today's servers know secrets of the test phase only.
    let done = |number: u32, members: &str| {
        let id = format!("0b1f8c9e-5a3d-4f43-9a58-7d6f7b3c2a{number:02}");
        lab.server.submit_raw(format!(
            r#"{{"job_id": "{id}", "job_queue": "lab", {members}}}"#
        ));
        lab.wait_until_complete(&id);
        assert_eq!(lab.status(&id, "cleanup"), Some(0));
        id
    };
    let powerful = "would change what the shell or the loader of its command does";
    let table = [
        ("LD_PRELOAD", powerful),
        ("PATH", powerful),
        ("no name", "has no name that a variable can have"),
        (
            "TESTFLINGER_AGENT_JOB",
            "has the name of a variable of the agent",
        ),
    ];
    for (number, (name, reason)) in (10..).zip(table) {
        let job = done(
            number,
            &format!(
                r#""test_data": {{"secrets": {{"A": "fine", "{name}": "{SECRET}"}}}},
                   "reserve_data": {{"secrets": {{"KEY": "{SECRET}"}}}}"#
            ),
        );
        assert_eq!(lab.status(&job, "test"), Some(100), "{}", lab.story());
        let expected = format!("ERROR: This phase is not run: its secret \"{name}\" {reason}.\n");
        assert_eq!(lab.body(&job, Phase::Test), expected);
        assert_eq!(lab.body(&job, Phase::Reserve), format!("reserved {MASK}\n"));
    }
    // Cleanup runs for every job, and goes without.
    let job = done(
        20,
        &format!(
            r#""cleanup_data": {{"secrets": {{"KEY": "{SECRET}", "LD_PRELOAD": "/tmp/x.so"}}}}"#
        ),
    );
    let body = lab.body(&job, Phase::Cleanup);
    let said =
        format!("ERROR: This phase goes without one: its secret \"LD_PRELOAD\" {powerful}.\n");
    assert!(body.starts_with(&said), "{body}");
    assert!(
        body.contains(&format!("\ncleaned {MASK}")) && !body.contains("/tmp/x"),
        "{body}"
    );
    assert!(!told(&lab, &agent).contains(SECRET));
}

/// No server of today hands out such.
#[test]
fn row_38_a_secret_that_is_no_text_fails_its_phase_and_is_masked() {
    let lab = Lab::new()
        .command("test", "echo never")
        .command("cleanup", "cat testflinger.json");
    let id = "0b1f8c9e-5a3d-4f43-9a58-7d6f7b3c2a10";
    lab.server.submit_raw(format!(
        r#"{{"job_id": "{id}", "job_queue": "lab", "test_data": {{"secrets": {{"PIN": 271828, "L": ["{SECRET}"]}}}}}}"#
    ));
    let _agent = lab.agent();
    lab.wait_until_complete(id);
    assert_eq!(lab.status(id, "test"), Some(100));
    let test = lab.body(id, Phase::Test);
    assert!(
        test.contains("its secret \"PIN\" is not a text.\n"),
        "{test}"
    );
    let cleanup = lab.body(id, Phase::Cleanup);
    assert!(cleanup.contains(MASK), "{cleanup}");
    assert!(
        !cleanup.contains(SECRET) && !cleanup.contains("271828"),
        "{cleanup}"
    );
}

#[test]
fn a_job_file_that_is_run_may_have_secrets() {
    let scratch = Scratch::new();
    let job =
        format!("test_data:\n  test_cmds: echo \"it is $KEY\"\n  secrets:\n    KEY: {SECRET}\n");
    fs::write(scratch.path("job.yaml"), job).unwrap();
    let ended = run(&scratch.path(""), &["run", "job.yaml"]);
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(
        ended.stdout.ends_with(&format!("\nit is {MASK}\n")),
        "{ended:?}"
    );
    assert!(!written(&scratch.path("results")).contains(SECRET));
}
