//! What a phase starts: how it ends, and that all of it ends.

mod support;

use std::fs;
use std::path::Path;
use support::lab::{Lab, is_alive, numbers, wait_until};
use support::means::{fixture_command, fork_call, has_cgroups, is_native, strace, with_mounts};
use testflinger_agent::job::Phase;

/// Takes `kill -0` of every pid in these files; says who is there.
fn roll_call(files: &[&Path]) -> String {
    let files: Vec<_> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    format!(
        "for pid in $(cat {}); do kill -0 $pid 2>/dev/null && echo $pid is there; done; true",
        files.join(" ")
    )
}

/// What [`roll_call`] prints when these are all there.
fn all_there(pids: &[i32]) -> String {
    pids.iter().map(|pid| format!("{pid} is there\n")).collect()
}

/// The test phase does what its job says: a shell command.
const AS_THE_JOB_SAYS: &str =
    r#"eval "$(sed -n 's/.*"test_cmds": *"\([^"]*\)".*/\1/p' testflinger.json)""#;

fn submit(lab: &Lab, test_cmds: &str) -> String {
    lab.submit(&format!(r#""test_data": {{"test_cmds": "{test_cmds}"}}"#))
}

#[test]
fn row_01_a_phase_ends_with_its_shell_and_what_it_left_behind_after_the_cleanup() {
    let lab = Lab::new();
    let (sleeper, holder) = (lab.scratch.path("sleeper"), lab.scratch.path("holder"));
    let (sleeping, holding) = (sleeper.display(), holder.display());
    let hold_pipe = fixture_command(&format!("hold-pipe {holding}"));
    let lab = lab
        .command(
            "setup",
            &format!("echo before; sleep 1000 & echo $! > {sleeping}; echo after"),
        )
        .command("test", &format!("echo holding; {hold_pipe}; echo held"))
        .command("cleanup", &roll_call(&[&sleeper, &holder]));
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Setup), "before\nafter\n");
    assert_eq!(lab.body(&job, Phase::Test), "holding\nheld\n");
    let left = [numbers(&sleeper), numbers(&holder)].concat();
    let said = agent.log();
    let mut said = said
        .lines()
        .filter(|line| line.contains("the job left behind, and ended now: "));
    let said = said.next().unwrap_or_default();
    for pid in &left {
        assert!(said.contains(&format!("({pid})")), "{said}");
    }
    assert_eq!(lab.body(&job, Phase::Cleanup), all_there(&left));
    for phase in ["setup", "test", "cleanup"] {
        assert_eq!(lab.status(&job, phase), Some(0), "{phase}");
    }
    for pid in left {
        assert!(!is_alive(pid), "{pid} outlived its job\n{}", agent.log());
    }
}

#[test]
fn row_01_a_phase_ends_though_what_it_left_behind_never_stops_writing() {
    let lab = Lab::new()
        .command(
            "setup",
            "while :; do echo tick; sleep 0.1; done & echo over",
        )
        .command("test", "echo next");
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    assert!(lab.body(&job, Phase::Setup).contains("over\n"));
    assert_eq!(lab.body(&job, Phase::Test), "next\n");
    assert_eq!(lab.status(&job, "setup"), Some(0));
}

#[test]
fn row_01_what_a_phase_left_behind_can_go_on_writing_to_nobody() {
    let lab = Lab::new();
    let written = lab.scratch.path("written");
    let writer = format!(
        "(until [ -e go ]; do sleep 0.05; done; head -c 300000 /dev/zero; echo $? > {}) &",
        written.display()
    );
    let reader = format!(
        "touch go; until [ -s {0} ]; do sleep 0.05; done; cat {0}",
        written.display()
    );
    let lab = lab.command("setup", &writer).command("test", &reader);
    let job = submit(&lab, "none");
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Setup), "");
    assert_eq!(lab.body(&job, Phase::Test), "0\n");
}

/// A phase that leaves two daemons in sessions of their own and sleeps.
fn with_daemons(lab: Lab) -> (Lab, [std::path::PathBuf; 2]) {
    let files = ["quiet", "loud"].map(|name| lab.scratch.path(name));
    let [quiet, loud] = &files;
    let command = format!(
        "{}; {}; echo ready; sleep 1000",
        fixture_command(&format!("daemon {}", quiet.display())),
        fixture_command(&format!("daemon {} keep", loud.display()))
    );
    let lab = lab
        .command("test", &command)
        .command("cleanup", &roll_call(&[quiet, loud]));
    (lab, files)
}

fn assert_daemons_ended(lab: &Lab, job: &str, files: &[std::path::PathBuf; 2]) {
    assert_eq!(lab.status(job, "test"), Some(247));
    assert_eq!(lab.body(job, Phase::Cleanup), "", "a daemon lived on");
    for pid in files.iter().flat_map(|file| numbers(file)) {
        assert!(!is_alive(pid), "{pid} lives");
    }
}

#[test]
fn row_02_a_daemon_that_left_its_session_ends_when_its_phase_is_cancelled() {
    if !is_native("no PR_SET_CHILD_SUBREAPER, by which daemons are found") {
        return;
    }
    let (lab, files) = with_daemons(Lab::new());
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_for_output(&job, Phase::Test, "ready");
    assert!(lab.server.cancel(&job));
    lab.wait_until_complete(&job);
    assert_daemons_ended(&lab, &job, &files);
}

#[test]
fn row_02_a_daemon_that_left_its_session_ends_when_its_phase_times_out() {
    if !is_native("no PR_SET_CHILD_SUBREAPER, by which daemons are found") {
        return;
    }
    let (lab, files) = with_daemons(Lab::new().set("output_timeout", "2"));
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_daemons_ended(&lab, &job, &files);
}

#[test]
fn row_03_who_ignores_term_gets_kill_after_the_grace() {
    if !is_native("no PR_SET_CHILD_SUBREAPER, by which daemons are found") {
        return;
    }
    let lab = Lab::new();
    let (tree, daemon) = (lab.scratch.path("tree"), lab.scratch.path("daemon"));
    let lab = lab
        .command(
            "test",
            &format!(
                "trap '' TERM; {}; {} & {}",
                fixture_command(&format!("daemon {}", daemon.display())),
                fixture_command(&format!("tree 3 {}", tree.display())),
                fixture_command("ignore-term")
            ),
        )
        .command("cleanup", &roll_call(&[&tree, &daemon]));
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_for_output(&job, Phase::Test, "ready\nready\n");
    assert!(lab.server.cancel(&job));
    lab.wait_until_complete(&job);
    assert_eq!(lab.status(&job, "test"), Some(247));
    assert_eq!(
        lab.body(&job, Phase::Test),
        "ready\nready\n\nJob cancellation was requested, exiting.\n"
    );
    assert_eq!(lab.body(&job, Phase::Cleanup), "", "somebody lived on");
    let pids = [numbers(&tree), numbers(&daemon)].concat();
    assert_eq!(pids.len(), 4);
    for pid in pids {
        assert!(!is_alive(pid), "{pid} lives");
    }
}

#[test]
fn row_03_who_heeds_term_has_the_grace_for_its_last_words() {
    let farewell = "trap 'sleep 1; echo last words; exit 0' TERM; echo ready; \
                    while :; do sleep 1000 & wait; done";
    let lab = Lab::new().command("test", farewell);
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_for_output(&job, Phase::Test, "ready");
    assert!(lab.server.cancel(&job));
    lab.wait_until_complete(&job);
    let body = lab.body(&job, Phase::Test);
    assert!(body.ends_with("exiting.\nlast words\n"), "{body}");
}

#[test]
fn row_04_who_is_stopped_ends_all_the_same() {
    let lab = Lab::new()
        .command(
            "test",
            &format!("{}; echo never", fixture_command("stop-self")),
        )
        .command("cleanup", "echo cleaned up");
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait("the fixture says its pid", |view| {
        view.output(&job, Phase::Test)
            .trim_end()
            .ends_with(|last: char| last.is_ascii_digit())
    });
    let pid: i32 = lab.body(&job, Phase::Test).trim().parse().unwrap();
    assert!(lab.server.cancel(&job));
    lab.wait_until_complete(&job);
    assert_eq!(lab.status(&job, "test"), Some(247));
    assert!(!is_alive(pid));
    assert!(!lab.body(&job, Phase::Test).contains("never"));
    assert_eq!(lab.body(&job, Phase::Cleanup), "cleaned up\n");
}

/// And does not take the next phase with it.
#[test]
fn row_04_who_freezes_its_control_group_ends_all_the_same() {
    if !has_cgroups() || !is_native("what it starts is in no control group of its own") {
        return;
    }
    let lab = Lab::new();
    let place = lab.scratch.path("place");
    let freeze = format!(
        "p=$(awk '/ - cgroup2 / {{ print $5; exit }}' /proc/self/mountinfo); \
         p=$p$(sed -n 's/^0:://p' /proc/self/cgroup); echo $p > '{}'; \
         echo 1 > $p/cgroup.freeze; echo never",
        place.display()
    );
    let lab = lab
        .command("test", &freeze)
        .command("cleanup", "echo cleaned up");
    let job = lab.submit_test();
    let _agent = lab.agent();
    wait_until("the job is frozen", || {
        let group = fs::read_to_string(&place).unwrap_or_default();
        let events = Path::new(group.trim()).join("cgroup.events");
        fs::read_to_string(events).is_ok_and(|text| text.contains("frozen 1"))
    });
    assert!(lab.server.cancel(&job));
    lab.wait_until_complete(&job);
    assert_eq!(lab.status(&job, "test"), Some(247));
    assert!(!lab.body(&job, Phase::Test).contains("never"));
    assert_eq!(lab.body(&job, Phase::Cleanup), "cleaned up\n");
}

#[test]
fn row_06_the_status_of_a_signal_is_256_minus_its_number() {
    let lab = Lab::new().command("test", AS_THE_JOB_SAYS);
    let ends = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ABRT", 6),
        ("KILL", 9),
        ("SEGV", 11),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
    ];
    let jobs = ends.map(|(name, number)| {
        let job = submit(
            &lab,
            &format!("exec {}", fixture_command(&format!("signal {number}"))),
        );
        (name, number, job)
    });
    let _agent = lab.agent();
    for (name, number, job) in jobs {
        lab.wait_until_complete(&job);
        assert_eq!(lab.status(&job, "test"), Some(256 - number), "{name}");
    }
}

/// A command that makes a success of the TERM, and says so.
const MAKES_NOTHING_OF_TERM: &str =
    "trap 'echo fine; exit 0' TERM; echo ready; while :; do sleep 1000 & wait; done";

fn assert_watchdog(lab: &Lab, job: &str, message: &str) {
    lab.wait_until_complete(job);
    assert_eq!(lab.status(job, "test"), Some(247));
    let body = lab.body(job, Phase::Test);
    assert_eq!(body, format!("ready\n\n{message}\nfine\n"));
    assert_eq!(lab.body(job, Phase::Cleanup), "cleaned up\n");
}

#[test]
fn row_06_the_global_timeout_is_247_whatever_the_command_made_of_it() {
    let lab = Lab::new()
        .command("test", MAKES_NOTHING_OF_TERM)
        .command("cleanup", "echo cleaned up");
    let job = lab.submit(r#""test_data": {"test_cmds": "x"}, "global_timeout": 2"#);
    let _agent = lab.agent();
    assert_watchdog(&lab, &job, "ERROR: Global timeout reached! (2s)");
}

#[test]
fn row_06_the_output_timeout_is_247_whatever_the_command_made_of_it() {
    let lab = Lab::new()
        .command("test", MAKES_NOTHING_OF_TERM)
        .command("cleanup", "echo cleaned up");
    let job = lab.submit(r#""test_data": {"test_cmds": "x"}, "output_timeout": 2"#);
    let _agent = lab.agent();
    assert_watchdog(&lab, &job, "ERROR: Output timeout reached! (2s)");
}

#[test]
fn row_06_a_cancellation_is_247_whatever_the_command_made_of_it() {
    let lab = Lab::new()
        .command("test", MAKES_NOTHING_OF_TERM)
        .command("cleanup", "echo cleaned up");
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_for_output(&job, Phase::Test, "ready");
    assert!(lab.server.cancel(&job));
    assert_watchdog(&lab, &job, "Job cancellation was requested, exiting.");
}

#[test]
fn row_07_every_exit_status_is_reported_exactly() {
    let lab = Lab::new().command("test", AS_THE_JOB_SAYS);
    let statuses = (0..=255).filter(|status| *status != 46);
    let jobs: Vec<_> = statuses
        .map(|status| (status, submit(&lab, &format!("exit {status}"))))
        .collect();
    let _agent = lab.agent();
    for (status, job) in jobs {
        lab.wait_until_complete(&job);
        assert_eq!(lab.status(&job, "test"), Some(status));
    }
}

#[test]
fn row_07_status_46_takes_the_agent_out_of_service_until_somebody_puts_it_back() {
    let lab = Lab::new()
        .command("provision", "exit 46")
        .command("test", AS_THE_JOB_SAYS);
    let broken =
        lab.submit(r#""provision_data": {"distro": "x"}, "test_data": {"test_cmds": "x"}"#);
    let waiting = submit(&lab, "exit 0");
    let agent = lab.agent();
    let comment =
        format!("Set to offline by agent. Recovery failed during job '{broken}' execution.");
    lab.wait("the agent is offline", |view| {
        view.agent("lab-agent")
            .is_some_and(|agent| agent.state == "offline" && agent.comment == comment)
    });
    lab.wait_until_complete(&broken);
    assert_eq!(lab.status(&broken, "provision"), Some(46));
    assert_eq!(lab.status(&broken, "test"), None);
    agent.wait_for_log("is offline and takes no jobs");
    assert_eq!(lab.server.job_state(&waiting).as_deref(), Some("waiting"));
    lab.server.set_agent("lab-agent", "waiting", "");
    lab.wait_until_complete(&waiting);
    assert_eq!(lab.status(&waiting, "test"), Some(0));
}

#[test]
fn row_08_a_fork_that_fails_fails_its_phase_and_cleanup_still_runs() {
    for (error, text) in [("EAGAIN", "(os error 11)"), ("ENOMEM", "(os error 12)")] {
        let Some(strace) = strace(&[&format!("{}:error={error}:when=1", fork_call())]) else {
            return;
        };
        let lab = Lab::new()
            .command("setup", "echo never")
            .command("test", "echo never")
            .command("cleanup", "echo cleaned up");
        let job = lab.submit_test();
        let words: Vec<_> = strace.iter().map(String::as_str).collect();
        let agent = lab.agent_under(&words, &lab.agent_id);
        lab.wait_until_complete(&job);
        assert_eq!(lab.status(&job, "setup"), Some(100), "{}", agent.log());
        assert_eq!(lab.status(&job, "test"), None);
        assert_eq!(lab.body(&job, Phase::Cleanup), "cleaned up\n");
        let body = lab.body(&job, Phase::Setup);
        assert!(
            body.starts_with("ERROR: The command could not be started: "),
            "{body}"
        );
        assert!(body.contains(text), "{body}");
        let log = agent.log();
        let said = format!("cannot start the command of phase setup of job {job}: ");
        let mut lines = log.lines().filter(|line| line.contains(&said));
        assert!(lines.any(|line| line.contains(text)), "{log}");
    }
}

#[test]
fn row_08_without_a_shell_every_phase_says_so_and_the_job_comes_home() {
    let Some(words) = with_mounts("mount --bind /dev/null /bin/sh") else {
        return;
    };
    let lab = Lab::new()
        .command("setup", "true")
        .command("cleanup", "true");
    let job = lab.submit_test();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let agent = lab.agent_under(&words, &lab.agent_id);
    lab.wait_until_complete(&job);
    for (name, phase) in [("setup", Phase::Setup), ("cleanup", Phase::Cleanup)] {
        assert_eq!(lab.status(&job, name), Some(100));
        let body = lab.body(&job, phase);
        assert!(
            body.contains("could not be started") && body.contains("/bin/sh"),
            "{body}"
        );
        let said = format!("cannot start the command of phase {name}");
        assert!(agent.log().contains(&said), "{}", agent.log());
    }
}

#[test]
fn row_08_without_its_workspace_a_phase_fails_and_cleanup_still_runs() {
    let lab = Lab::new()
        .command("setup", "rm -rf \"$PWD\"")
        .command("provision", "echo never")
        .command("cleanup", "ls; cat testflinger-outcome.json");
    let job = lab.submit(r#""provision_data": {"distro": "x"}"#);
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_eq!(lab.status(&job, "setup"), Some(0));
    assert_eq!(lab.status(&job, "provision"), Some(100));
    let body = lab.body(&job, Phase::Provision);
    assert!(
        body.contains("could not be started") && body.contains(&job),
        "{body}"
    );
    assert!(
        agent
            .log()
            .contains("cannot start the command of phase provision"),
        "{}",
        agent.log()
    );
    assert_eq!(lab.status(&job, "cleanup"), Some(0));
    let body = lab.body(&job, Phase::Cleanup);
    assert!(body.contains("testflinger.json\n"), "{body}");
    assert!(
        body.ends_with(r#"{"status": {"setup": 0, "provision": 100}}"#),
        "{body}"
    );
}

#[test]
fn row_10_a_command_inherits_nothing_but_its_pipe_and_the_umask() {
    let lab = Lab::new();
    let dump = lab.scratch.path("dump");
    let lab = lab.command(
        "test",
        &format!(
            "exec {}",
            fixture_command(&format!("dump {}", dump.display()))
        ),
    );
    let job = lab.submit_test();
    // An agent that somebody started as carelessly as can be.
    let careless = [
        "env",
        "--ignore-signal=HUP,INT,PIPE,USR1,TTOU",
        "--block-signal=TERM,CHLD,USR2,ALRM",
        "sh",
        "-c",
        "umask 026; exec \"$@\" </dev/zero 7</dev/zero 8>/dev/null",
        "sh",
    ];
    let mut agent = lab.agent_under(&careless, &lab.agent_id);
    lab.wait_until_complete(&job);
    assert_eq!(lab.status(&job, "test"), Some(0), "{}", lab.story());
    let seen = fs::read_to_string(&dump).unwrap();
    let fields = |name: &str| -> Vec<String> {
        let prefix = format!("{{\"{name}\": ");
        let lines = seen
            .lines()
            .filter_map(|line| line.strip_prefix(&prefix)?.strip_suffix('}'));
        lines
            .map(|value| value.trim_matches('"').to_owned())
            .collect()
    };
    let descriptors = fields("fd");
    assert_eq!(descriptors.len(), 3, "{seen}");
    assert!(
        descriptors[0].starts_with("0, \"target\": \"/dev/null"),
        "{seen}"
    );
    for (number, descriptor) in [1, 2].into_iter().zip(&descriptors[1..]) {
        assert!(
            descriptor.starts_with(&format!("{number}, \"target\": \"pipe:")),
            "{seen}"
        );
    }
    assert_eq!(fields("stdin"), ["/dev/null"]);
    for mask in ["SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"] {
        let signals = u64::from_str_radix(&fields(mask)[0], 16).unwrap();
        // Signals 32 to 34 are the C library's own: it lets nobody touch them.
        assert_eq!(signals & !(0b111 << 31), 0, "{mask}: {signals:x}");
    }
    assert_eq!(fields("Umask"), ["0026"]);
    let [pid, session, group] = ["pid", "session", "group"].map(|name| fields(name)[0].clone());
    assert_eq!((&session, &group), (&pid, &pid));
    assert_ne!(session, agent.pid().to_string());
    let workspace = lab.scratch.path("run").join(&job);
    assert_eq!(fields("cwd"), [workspace.to_str().unwrap()]);
    // Blocked or not, it is told to stop by this.
    agent.signal("TERM");
    assert_eq!(agent.wait(), 0);
}

#[test]
fn provision_is_not_interrupted_by_a_cancellation_but_nothing_follows_it() {
    let lab = Lab::new();
    let go = lab.scratch.path("go");
    let lab = lab
        .command(
            "provision",
            &format!(
                "echo begun; until [ -e {} ]; do sleep 0.05; done; echo done",
                go.display()
            ),
        )
        .command("test", "echo never")
        .command("cleanup", "echo cleaned up");
    let job = lab.submit(r#""provision_data": {"distro": "x"}, "test_data": {"test_cmds": "x"}"#);
    let agent = lab.agent();
    lab.wait_for_output(&job, Phase::Provision, "begun");
    assert!(lab.server.cancel(&job));
    agent.wait_for_log("the job was cancelled");
    fs::write(&go, "").unwrap();
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Provision), "begun\ndone\n");
    assert_eq!(lab.status(&job, "provision"), Some(0));
    assert_eq!(lab.status(&job, "test"), None);
    assert_eq!(lab.output(&job, Phase::Test), "");
    assert_eq!(lab.status(&job, "cleanup"), Some(0));
    assert_eq!(lab.body(&job, Phase::Cleanup), "cleaned up\n");
}

#[test]
fn a_cancellation_does_not_reach_the_cleanup() {
    let lab = Lab::new();
    let go = lab.scratch.path("go");
    let lab = lab.command("test", "echo tested").command(
        "cleanup",
        &format!(
            "echo begun; until [ -e {} ]; do sleep 0.05; done; echo done",
            go.display()
        ),
    );
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_for_output(&job, Phase::Cleanup, "begun");
    assert!(lab.server.cancel(&job));
    agent.wait_for_log("the job was cancelled");
    fs::write(&go, "").unwrap();
    lab.wait_until_complete(&job);
    assert_eq!(lab.status(&job, "cleanup"), Some(0));
    assert_eq!(lab.body(&job, Phase::Cleanup), "begun\ndone\n");
}

#[test]
fn a_job_that_is_cancelled_before_its_first_phase_runs_only_the_cleanup() {
    let lab = Lab::new();
    let go = lab.scratch.path("go");
    let lab = lab
        .command(
            "setup",
            &format!(
                "echo begun; until [ -e {} ]; do sleep 0.05; done",
                go.display()
            ),
        )
        .command("provision", "echo never")
        .command("cleanup", "echo cleaned up");
    let job = lab.submit(r#""provision_data": {"distro": "x"}"#);
    let _agent = lab.agent();
    lab.wait_for_output(&job, Phase::Setup, "begun");
    // Provision asks once more, because it cannot be cancelled.
    assert!(lab.server.cancel(&job));
    fs::write(&go, "").unwrap();
    lab.wait_until_complete(&job);
    assert_eq!(lab.status(&job, "provision"), None);
    assert_eq!(lab.body(&job, Phase::Cleanup), "cleaned up\n");
    wait_until("the workspace is gone", || {
        !lab.scratch.path("run").join(&job).exists()
    });
}
