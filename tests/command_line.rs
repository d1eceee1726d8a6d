//! What the program says to whoever starts it.

mod support;

use std::fs;
use std::time::{Duration, Instant};
use support::lab::{Lab, Scratch};
use support::program::{Program, run};
use testflinger_agent::cli::HELP;

/// How long the program waits before it gives up, so that an init which starts
/// it again and again does not spin.
const RESPAWN_PAUSE: Duration = Duration::from_secs(10);

#[test]
fn help_and_version_are_printed() {
    let scratch = Scratch::new();
    for line in [["--help"].as_slice(), &["-h"], &["run", "--help"]] {
        let ended = run(&scratch.path(""), line);
        assert_eq!((ended.status, ended.stdout.as_str()), (0, HELP), "{line:?}");
        assert_eq!(ended.stderr, "");
    }
    let version = concat!("testflinger-agent ", env!("CARGO_PKG_VERSION"), "\n");
    for line in ["--version", "-V"] {
        let ended = run(&scratch.path(""), &[line]);
        assert_eq!((ended.status, ended.stdout.as_str()), (0, version));
    }
}

#[test]
fn a_wrong_command_line_is_explained_at_once() {
    let scratch = Scratch::new();
    let begun = Instant::now();
    for (line, wanted) in [
        (["--confg", "x"].as_slice(), "unknown argument --confg"),
        (&["start"], "unknown argument start"),
        (&["-c"], "--config wants a value"),
        (
            &["-p", "http"],
            "--metrics_port is http; wanted: a port from 0 to 65535, alone or after an address, \
             such as 0.0.0.0:8000 or [::]:8000",
        ),
        (&["run"], "run wants a job file"),
        (&["run", "a", "b"], "unknown argument b"),
    ] {
        let ended = run(&scratch.path(""), line);
        let said = format!("testflinger-agent: {wanted}; --help lists what there is\n");
        assert_eq!((ended.status, ended.stderr.as_str()), (2, said.as_str()));
        assert_eq!(ended.stdout, "");
    }
    // Six of them; the pause is for those that an init starts.
    assert!(begun.elapsed() < RESPAWN_PAUSE * 6);
}

#[test]
fn a_configuration_that_cannot_be_used_is_explained_and_not_tried_again_at_once() {
    let scratch = Scratch::new();
    fs::write(
        scratch.path("wrong.conf"),
        "agent_id: a\nserver_adress: b\n",
    )
    .unwrap();
    fs::write(scratch.path("short.conf"), "agent_id: a\n").unwrap();
    let begun = Instant::now();
    let programs = [
        (&[][..], "testflinger-agent.conf: cannot be read: "),
        (
            &["-c", "wrong.conf"],
            "wrong.conf:2:1: unknown key `server_adress`; did you mean `server_address`?",
        ),
        (
            &["-c", "short.conf"],
            "short.conf: server_address is missing; wanted: ",
        ),
    ]
    .map(|(line, wanted)| (Program::start(&scratch.path(""), line), wanted));
    for (program, wanted) in programs {
        let ended = program.wait();
        assert_eq!(ended.status, 2);
        let said = format!("testflinger-agent: {wanted}");
        assert!(ended.stderr.starts_with(&said), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
    assert!(begun.elapsed() >= RESPAWN_PAUSE);
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let lab = Lab::new().set("execution_basedir", "/dev/null/run");
    fs::write(lab.scratch.path("agent.conf"), lab.configuration("a")).unwrap();
    let ended = run(&lab.scratch.path(""), &["-c", "agent.conf"]);
    assert_eq!(ended.status, 4);
    let said = "testflinger-agent: cannot make the directory /dev/null/run: ";
    assert!(ended.stderr.starts_with(said), "{}", ended.stderr);
}

#[test]
fn a_check_says_at_once_what_keeps_the_agent_from_starting() {
    let lab = Lab::new();
    let here = lab.scratch.path("");
    let begun = Instant::now();
    let check = |text: &str| {
        fs::write(here.join("agent.conf"), text).unwrap();
        run(&here, &["-c", "agent.conf", "--token-file=t", "--check"])
    };
    let right = lab.configuration(&lab.agent_id);
    let ended = check(&right);
    assert_eq!((ended.status, &*ended.stderr, &*ended.stdout), (0, "", ""));
    let ended = check("agent_id: a\n");
    assert_eq!(ended.status, 2);
    let said = "testflinger-agent: agent.conf: server_address is missing; wanted: ";
    assert!(ended.stderr.starts_with(said), "{}", ended.stderr);
    let logs = lab.scratch.path("logs");
    let ended = check(&right.replace(logs.to_str().unwrap(), "/dev/null/logs"));
    assert_eq!(ended.status, 4);
    assert!(ended.stderr.contains("/dev/null/logs"), "{}", ended.stderr);
    let (run, results) = (lab.scratch.path("run"), lab.scratch.path("results"));
    let (run, results) = (run.to_str().unwrap(), results.to_str().unwrap());
    let ended = check(&right.replace(run, &format!("{run}/../results")));
    assert_eq!(ended.status, 4);
    assert!(ended.stderr.contains("one directory"), "{}", ended.stderr);
    let ended = check(&right.replace(results, "/tmp"));
    assert_eq!(ended.status, 4);
    let said = "everybody could put records into /tmp";
    assert!(ended.stderr.contains(said), "{}", ended.stderr);
    assert!(begun.elapsed() < RESPAWN_PAUSE);

    let agent = lab.agent();
    agent.wait_for_log("for the queues");
    let ended = check(&right);
    assert_eq!(ended.status, 3);
    assert!(ended.stderr.contains("another agent"), "{}", ended.stderr);
}
