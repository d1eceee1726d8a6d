//! The agent's days: it says who it is, waits, rests, restarts and stops.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::fs;
use std::time::Duration;
use support::gate::Gate;
use support::lab::{Lab, PATIENCE, is_alive, numbers, signal, wait_until};
use support::means::{is_native, strace};
use support::proxy::{Fault, Outcome};
use testflinger_agent::job::Phase;
use testflinger_agent::local::Exchange;

const NAME: &str = "/v1/agents/data/lab-agent";

fn is_question(exchange: &Exchange) -> bool {
    exchange.method == "GET" && exchange.path.starts_with("/v1/job?")
}

/// How many requests of a kind there have been.
fn count(exchanges: &[Exchange], method: &str, path: &str) -> usize {
    let same = |exchange: &&Exchange| exchange.method == method && exchange.path == path;
    exchanges.iter().filter(same).count()
}

/// Waits for so many more requests of a kind.
fn wait_for_more(lab: &Lab, more: usize, method: &str, path: &str) {
    let before = count(&lab.server.exchanges(), method, path);
    lab.wait(&format!("{more} more {method} {path}"), |view| {
        count(view.exchanges(), method, path) >= before + more
    });
}

/// Waits until the agent has been through a whole cycle that began after now.
fn wait_for_a_cycle(lab: &Lab) {
    wait_for_more(lab, 2, "GET", NAME);
}

/// Waits until the running job's state has been read twice more: what was read
/// before is too old by then to be relied upon.
fn wait_for_two_checks(lab: &Lab, job: &str) {
    wait_for_more(lab, 2, "GET", &format!("/v1/result/{job}"));
}

fn questions(lab: &Lab) -> usize {
    let exchanges = lab.server.exchanges();
    exchanges.iter().filter(|one| is_question(one)).count()
}

fn state_and_comment(lab: &Lab) -> (String, String) {
    let agent = lab.server.agent("lab-agent").unwrap();
    (agent.state, agent.comment)
}

fn words(state: &str, comment: &str) -> (String, String) {
    (state.to_owned(), comment.to_owned())
}

#[test]
fn an_idle_agent_says_who_it_is_and_then_makes_two_requests_a_cycle() {
    let lab = Lab::new()
        .set("identifier", "\"sn-4711\"")
        .set("location", "\"shelf 3\"")
        .set("provision_type", "\"noprovision\"")
        .set("advertised_queues", r#"{"lab": "for tests"}"#)
        .set(
            "advertised_images",
            r#"{"lab": {"noble": "url: http://x/y"}}"#,
        );
    let _agent = lab.agent();
    lab.wait("three cycles", |view| {
        let exchanges = view.exchanges().iter();
        exchanges.filter(|one| is_question(one)).count() >= 3
    });
    let exchanges = lab.server.exchanges();
    let seen: Vec<_> = exchanges
        .iter()
        .map(|one| (one.method.as_str(), one.path.as_str(), one.status))
        .collect();
    let first = [
        ("POST", "/v1/oauth2/refresh", 200),
        ("POST", NAME, 200),
        ("GET", NAME, 200),
        ("POST", NAME, 200),
        ("POST", "/v1/agents/queues", 200),
        ("POST", "/v1/agents/images", 200),
        ("GET", "/v1/job?queue=lab", 204),
    ];
    let cycle = [("GET", NAME, 200), ("GET", "/v1/job?queue=lab", 204)];
    let wanted = first.iter().chain(cycle.iter().cycle()).take(seen.len());
    assert_eq!(seen, wanted.copied().collect::<Vec<_>>());
    let bodies: Vec<_> = exchanges.iter().map(|one| &one.request_body).collect();
    assert_eq!(
        bodies[1],
        r#"{"queues": ["lab"], "location": "shelf 3", "provision_type": "noprovision", "identifier": "sn-4711"}"#
    );
    assert_eq!(bodies[3], r#"{"state": "waiting", "comment": ""}"#);
    assert_eq!(bodies[4], r#"{"lab": "for tests"}"#);
    assert_eq!(bodies[5], r#"{"lab": {"noble": "url: http://x/y"}}"#);
    for one in exchanges.iter().filter(|one| is_question(one)) {
        assert!(one.has_cookie, "{one:?}");
    }
}

#[test]
fn row_32_a_job_that_is_on_its_way_while_the_agent_is_told_to_stop_is_not_lost() {
    let lab = Lab::new()
        .with_proxy()
        .command("setup", "echo never")
        .command("test", "echo never")
        .command("cleanup", "echo cleaned");
    let job = lab.submit_test();
    let late = Fault::Delay(Duration::from_secs(3));
    lab.proxy().on("GET", "/v1/job", 1, late);
    let mut agent = lab.agent();
    lab.proxy().wait_for_arrival("GET", "/v1/job", 1, PATIENCE);
    agent.signal("TERM");
    agent.wait_for_log("told to stop");
    assert_eq!(agent.wait(), 0);
    assert_eq!(lab.server.job_state(&job).as_deref(), Some("complete"));
    assert_eq!(lab.status(&job, "setup"), Some(100), "{}", lab.story());
    assert_eq!(lab.status(&job, "test"), None);
    assert_eq!(lab.status(&job, "cleanup"), Some(0));
    let said = "ERROR: This job is not run: the agent was told to stop.\n";
    assert_eq!(lab.body(&job, Phase::Setup), said);
    assert_eq!(lab.body(&job, Phase::Cleanup), "cleaned\n");
}

#[test]
fn row_32_a_job_is_only_asked_for_right_after_a_request_that_worked() {
    let lab = Lab::new().with_proxy().command("test", "echo tested");
    for path in ["/v1/oauth2/refresh", NAME, NAME] {
        lab.proxy().on("*", path, 1, Fault::status(500));
    }
    let _agent = lab.agent();
    for _ in 0..2 {
        let job = lab.submit_test();
        lab.wait_until_complete(&job);
        lab.proxy().on("GET", NAME, 1, Fault::DropReply);
    }
    let before = questions(&lab);
    lab.wait("the agent asks again", |view| {
        let exchanges = view.exchanges().iter();
        exchanges.filter(|one| is_question(one)).count() > before
    });
    let seen = lab.proxy().seen();
    let mut looked = false;
    for pair in seen.windows(2) {
        let worked = |outcome: &Outcome| matches!(outcome, Outcome::Status(200..=299));
        looked |= pair[0].method == "GET" && pair[0].path == NAME && worked(&pair[0].outcome);
        if pair[1].path.starts_with("/v1/job?") {
            assert!(worked(&pair[0].outcome), "{seen:#?}");
            assert!(looked, "{seen:#?}");
            looked = false;
        }
    }
}

#[test]
fn an_agent_that_is_out_of_service_takes_no_job_until_it_is_back() {
    for state in ["offline", "maintenance"] {
        let lab = Lab::new().command("test", "echo tested");
        lab.server.set_agent("lab-agent", state, "the fan is loud");
        let first = lab.submit_test();
        let agent = lab.agent();
        wait_for_a_cycle(&lab);
        assert_eq!(questions(&lab), 0, "{}", lab.story());
        assert_eq!(state_and_comment(&lab), words(state, "the fan is loud"));
        agent.wait_for_log(&format!("{state} and takes no jobs: the fan is loud"));

        lab.server.set_agent("lab-agent", "waiting", "");
        lab.wait_until_complete(&first);

        // The cycle after the job may be under way.
        wait_for_a_cycle(&lab);
        lab.server
            .set_agent("lab-agent", state, "and now it smells");
        wait_for_a_cycle(&lab);
        let second = lab.submit_test();
        wait_for_a_cycle(&lab);
        assert_eq!(lab.server.job_state(&second).as_deref(), Some("waiting"));
        assert_eq!(state_and_comment(&lab), words(state, "and now it smells"));

        lab.server.set_agent("lab-agent", "waiting", "");
        lab.wait_until_complete(&second);
        let said = agent.log().matches("takes no jobs").count();
        assert_eq!(said, 2, "{}", agent.log());
    }
}

/// What an administrator has said holds, whoever stands before the server for a moment.
/// That the server has forgotten the agent is believed after a while.
#[test]
fn an_agent_that_is_out_of_service_stays_so_though_nobody_seems_to_know_it() {
    let lab = Lab::new().with_proxy().command("test", "echo tested");
    lab.server.set_agent("lab-agent", "offline", "do not touch");
    let job = lab.submit_test();
    let agent = lab.agent();
    agent.wait_for_log("offline and takes no jobs: do not touch");
    lab.proxy().on("GET", NAME, 2, Fault::status(404));
    agent.wait_for_log("cannot read this agent's state: the server answered 404; trying again");
    agent.wait_for_log("can read this agent's state again, after");
    wait_for_a_cycle(&lab);
    assert_eq!(state_and_comment(&lab), words("offline", "do not touch"));
    assert_eq!(lab.server.job_state(&job).as_deref(), Some("waiting"));
    let said = agent
        .log()
        .matches("cannot read this agent's state")
        .count();
    assert_eq!(said, 1, "{}", agent.log());
    lab.proxy().on("GET", NAME, 1_000, Fault::status(404));
    lab.wait_until_complete(&job);
}

#[test]
fn an_agent_taken_out_of_service_during_a_job_stays_so_after_it() {
    let lab = Lab::new().with_proxy();
    let gate = Gate::new(&lab.scratch, "setup");
    let lab = lab
        .command("setup", &gate.words())
        .command("test", "echo tested");
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait("the setup phase is shown", |view| {
        view.agent("lab-agent")
            .is_some_and(|agent| agent.state == "setup" && agent.job_id == job)
    });
    lab.server
        .set_agent("lab-agent", "maintenance", "a new cable");
    wait_for_two_checks(&lab, &job);
    let next = lab.submit_test();
    // What cannot be read now is not overwritten either.
    lab.proxy().on("GET", NAME, 1, Fault::status(503));
    gate.open();
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Test), "tested\n");
    wait_for_a_cycle(&lab);
    assert_eq!(
        state_and_comment(&lab),
        words("maintenance", "a new cable"),
        "{}",
        lab.story()
    );
    assert_eq!(lab.server.job_state(&next).as_deref(), Some("waiting"));
    assert_eq!(lab.server.agent("lab-agent").unwrap().job_id, "");
}

#[test]
fn a_restart_is_said_to_the_server_and_is_over_at_the_next_start() {
    let lab = Lab::new();
    for by_signal in [true, false] {
        let mut agent = lab.agent();
        wait_for_a_cycle(&lab);
        assert_eq!(state_and_comment(&lab), words("waiting", ""));
        if by_signal {
            agent.signal("USR1");
        } else {
            lab.server.set_agent("lab-agent", "restart", "redeployed");
        }
        assert_eq!(agent.wait(), 1);
        assert_eq!(state_and_comment(&lab).0, "restart");
    }
    let _agent = lab.agent();
    wait_for_a_cycle(&lab);
    assert_eq!(state_and_comment(&lab), words("waiting", ""));
}

#[test]
fn a_restart_wanted_during_a_job_comes_after_it() {
    for by_signal in [true, false] {
        let lab = Lab::new();
        let gate = Gate::new(&lab.scratch, "test");
        let lab = lab
            .command("test", &format!("echo begun; {}", gate.words()))
            .command("cleanup", "echo cleaned");
        let job = lab.submit_test();
        let mut agent = lab.agent();
        lab.wait_for_output(&job, Phase::Test, "begun");
        let next = lab.submit_test();
        if by_signal {
            agent.signal("USR1");
            agent.wait_for_log("SIGUSR1");
        } else {
            lab.server.set_agent("lab-agent", "restart", "");
            wait_for_two_checks(&lab, &job);
        }
        gate.open();
        assert_eq!(agent.wait(), 1);
        assert_eq!(lab.server.job_state(&job).as_deref(), Some("complete"));
        assert_eq!(lab.status(&job, "test"), Some(0));
        assert_eq!(lab.body(&job, Phase::Cleanup), "cleaned\n");
        assert_eq!(lab.server.job_state(&next).as_deref(), Some("waiting"));
        assert_eq!(state_and_comment(&lab).0, "restart", "{}", lab.story());
    }
}

#[test]
fn a_restart_waits_while_the_agent_is_offline() {
    let lab = Lab::new();
    lab.server.set_agent("lab-agent", "offline", "do not touch");
    let mut agent = lab.agent();
    wait_for_a_cycle(&lab);
    agent.signal("USR1");
    agent.wait_for_log("SIGUSR1");
    wait_for_a_cycle(&lab);
    assert!(is_alive(agent.pid()));
    assert_eq!(state_and_comment(&lab), words("offline", "do not touch"));
    lab.server.set_agent("lab-agent", "waiting", "");
    assert_eq!(agent.wait(), 1);
    assert_eq!(state_and_comment(&lab).0, "restart");
}

#[test]
fn an_idle_agent_that_is_told_to_stop_ends_with_0() {
    for signal in ["TERM", "INT"] {
        let lab = Lab::new();
        let mut agent = lab.agent();
        wait_for_a_cycle(&lab);
        agent.signal(signal);
        assert_eq!(agent.wait(), 0);
        assert_eq!(state_and_comment(&lab), words("waiting", ""));
    }
}

#[test]
fn an_agent_that_is_told_to_stop_ends_the_phase_cleans_up_and_delivers() {
    for signal in ["TERM", "INT"] {
        let lab = Lab::new();
        let pid = lab.scratch.path("pid");
        let gate = Gate::new(&lab.scratch, "never");
        let test = format!(
            "echo $$ > '{}'; echo begun; {}",
            pid.display(),
            gate.words()
        );
        let lab = lab
            .command("test", &test)
            .command("reserve", "echo never")
            .command("cleanup", "echo cleaned");
        let job = lab
            .submit(r#""test_data": {"test_cmds": "x"}, "reserve_data": {"ssh_keys": ["lp:x"]}"#);
        let mut agent = lab.agent();
        lab.wait_for_output(&job, Phase::Test, "begun");
        agent.signal(signal);
        assert_eq!(agent.wait(), 0);
        assert!(!is_alive(numbers(&pid)[0]));
        assert_eq!(lab.server.job_state(&job).as_deref(), Some("complete"));
        assert_eq!(lab.status(&job, "test"), Some(100));
        assert_eq!(lab.status(&job, "reserve"), None);
        assert_eq!(lab.status(&job, "cleanup"), Some(0));
        assert_eq!(lab.body(&job, Phase::Cleanup), "cleaned\n");
        let said = "begun\n\nERROR: The agent was told to stop, exiting.\n";
        assert_eq!(lab.body(&job, Phase::Test), said);
    }
}

#[test]
fn a_cleanup_that_the_second_signal_cuts_short_runs_again_at_the_next_start() {
    let lab = Lab::new();
    let gate = Gate::new(&lab.scratch, "cleanup");
    let lab = lab.command(
        "cleanup",
        &format!("echo cleaning; {}; echo cleaned", gate.words()),
    );
    let job = lab.submit("");
    let mut agent = lab.agent();
    lab.wait_for_output(&job, Phase::Cleanup, "cleaning\n");
    agent.signal("TERM");
    agent.wait_for_log("told to stop:");
    agent.signal("TERM");
    assert_eq!(agent.wait(), 0);
    gate.open();
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_eq!(lab.status(&job, "cleanup"), Some(0), "{}", agent.log());
    let output = lab.output(&job, Phase::Cleanup);
    assert!(output.ends_with("*\ncleaning\ncleaned\n"), "{output}");
}

#[test]
fn an_agent_that_is_told_to_stop_twice_ends_at_once_with_all_of_its_jobs_processes() {
    if !is_native("no PR_SET_CHILD_SUBREAPER, by which daemons are found") {
        return;
    }
    let lab = Lab::new();
    let (pid, daemon) = (lab.scratch.path("pid"), lab.scratch.path("daemon"));
    let gate = Gate::new(&lab.scratch, "never");
    let test = format!(
        "trap '' TERM; '{}' daemon '{}'; echo $$ > '{}'; {}",
        support::fixture().display(),
        daemon.display(),
        pid.display(),
        gate.words()
    );
    let cleaned = lab.scratch.path("cleaned");
    let lab = lab
        .command("test", &test)
        .command("cleanup", &format!("echo x > '{}'", cleaned.display()));
    let job = lab.submit_test();
    let mut agent = lab.agent();
    let pids = [numbers(&pid)[0], numbers(&daemon)[0]];
    agent.signal("TERM");
    agent.wait_for_log("told to stop: ");
    assert!(is_alive(pids[0]));
    agent.signal("TERM");
    assert_eq!(agent.wait(), 0);
    for pid in pids {
        assert!(!is_alive(pid), "{}", lab.story());
    }
    assert!(!cleaned.exists());
    assert_ne!(lab.server.job_state(&job).as_deref(), Some("complete"));
}

#[test]
fn an_agent_that_was_stopped_in_a_job_is_said_to_run_none() {
    let lab = Lab::new().command("test", "echo begun; sleep 1000");
    let job = lab.submit_test();
    let mut agent = lab.agent();
    lab.wait_for_output(&job, Phase::Test, "begun");
    agent.signal("TERM");
    assert_eq!(agent.wait(), 0);
    let known = lab.server.agent("lab-agent").unwrap();
    assert_eq!(
        (known.state.as_str(), known.job_id.as_str()),
        ("waiting", "")
    );
}

#[test]
fn a_job_is_told_that_no_record_can_be_made() {
    let lab = Lab::new().command("test", "echo tested");
    let agent = lab.agent();
    wait_for_a_cycle(&lab);
    // Neither a mode nor an owner: what even root cannot write to.
    let results = lab.scratch.path("results");
    fs::rename(&results, lab.scratch.path("away")).unwrap();
    fs::write(&results, "").unwrap();
    let said = format!("No jobs are taken: {} is no directory", results.display());
    agent.wait_for_log(&said);
    let job = lab.submit_test();
    lab.wait("the server knows why", |view| {
        view.agent("lab-agent")
            .is_some_and(|agent| agent.comment.starts_with("No jobs are taken"))
    });
    fs::remove_file(&results).unwrap();
    fs::rename(lab.scratch.path("away"), &results).unwrap();
    lab.wait_until_complete(&job);
    assert!(agent.log().contains("there is room for jobs again"));
    lab.wait("the comment is gone", |view| {
        view.agent("lab-agent")
            .is_some_and(|agent| agent.comment.is_empty())
    });
}

/// A terminal that was stopped with Ctrl-S, or a pipe that nobody reads.
#[test]
fn a_console_that_takes_nothing_holds_nothing_up() {
    let lab = Lab::new().command("test", "echo tested");
    let reader = lab.scratch.path("reader");
    let script = format!(
        "{{ head -c 65536 /dev/zero; exec \"$@\" 2>&1 >/dev/null; }} | \
         sh -c 'echo $$ > \"{}\"; exec sleep 1000'",
        reader.display()
    );
    let mut shell = lab.agent_under(&["sh", "-c", &script, "sh"], &lab.agent_id);
    let job = lab.submit_test();
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Test), "tested\n");
    let lock = lab.scratch.path("results").join(".lab-agent.lock");
    let agent = numbers(&lock)[0];
    signal(agent, "TERM");
    wait_until("the agent ends", || !is_alive(agent));
    signal(numbers(&reader)[0], "KILL");
    shell.wait();
}

/// systemd's journal is a socket.
#[test]
fn a_console_that_is_a_socket_holds_nothing_up_either() {
    let lab = Lab::new().command("test", "echo tested");
    let fixture = support::fixture();
    let words = [fixture.to_str().unwrap(), "full-socket"];
    let mut agent = lab.agent_under(&words, &lab.agent_id);
    let job = lab.submit_test();
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Test), "tested\n");
    agent.signal("TERM");
    assert_eq!(agent.wait(), 0);
}

#[test]
fn where_queues_are_restricted_only_those_are_asked_for() {
    let lab = Lab::new().set("job_queues", "[lab, open, rpi]");
    let asked = |queues: &str| {
        let path = format!("/v1/job?{queues}");
        lab.wait(&format!("{queues} is asked for"), |view| {
            let last = view
                .exchanges()
                .iter()
                .rfind(|one| one.path.starts_with("/v1/job?"));
            last.is_some_and(|one| one.path == path)
        });
    };
    let agent = lab.agent();
    asked("queue=lab&queue=open&queue=rpi");
    lab.server.restrict("rpi", &["team"]);
    lab.server.restrict("elsewhere", &["team"]);
    asked("queue=rpi");
    agent.wait_for_log("only jobs of restricted queues are taken: rpi");
    lab.server.restrict("rpi", &[]);
    asked("queue=lab&queue=open&queue=rpi");
}

#[test]
fn an_administrator_sees_at_the_server_what_the_agent_warns_of() {
    let lab = Lab::new()
        .with_proxy()
        .command("test", "echo garbage > device-info.json");
    // It is told when the server can be told.
    lab.proxy().set_down(true);
    let agent = lab.agent();
    agent.wait_for_log("cannot reach");
    lab.proxy().set_down(false);
    lab.wait("the server knows of it", |view| {
        let agent = view.agent("lab-agent");
        agent.is_some_and(|agent| {
            let [line] = &agent.log[..] else { return false };
            line.contains(" WARNING: cannot reach http://127.0.0.1:")
        })
    });
    lab.wait("nothing else is changed by it", |view| {
        let agent = view.agent("lab-agent");
        agent.is_some_and(|agent| agent.state == "waiting")
    });
}

/// What the server was told once stays there until somebody takes it back.
#[test]
fn a_location_that_is_no_more_in_the_configuration_goes_from_the_server() {
    let lab = Lab::new().set("location", "\"shelf 3\"");
    let location = |lab: &Lab| lab.server.agent("lab-agent").map(|agent| agent.location);
    let mut agent = lab.agent();
    wait_until("the location is known", || {
        location(&lab).as_deref() == Some("shelf 3")
    });
    agent.signal("TERM");
    assert_eq!(agent.wait(), 0);
    let lab = lab.set("location", "\"\"");
    let _agent = lab.agent();
    wait_until("the location is gone", || {
        location(&lab).as_deref() == Some("")
    });
}

/// As who clears `/tmp` does.
#[test]
fn directories_that_are_removed_are_made_anew() {
    let lab = Lab::new();
    let all = ["run", "results", "logs"].map(|name| lab.scratch.path(name));
    let [run, results, logs] = all.each_ref().map(|path| path.display().to_string());
    let lab = lab
        .command(
            "test",
            &format!("echo begun; rm -rf '{run}' '{results}' '{logs}'"),
        )
        .command("cleanup", "echo cleaned up");
    let agent = lab.agent();
    let job = lab.submit_test();
    lab.wait_until_complete(&job);
    assert_eq!(lab.status(&job, "cleanup"), Some(0), "{}", agent.log());
    // And while it does nothing.
    wait_until("they are there", || all.iter().all(|path| path.is_dir()));
    for path in &all {
        fs::remove_dir_all(path).unwrap();
        let job = lab.submit_test();
        lab.wait_until_complete(&job);
        assert_eq!(lab.status(&job, "cleanup"), Some(0), "{}", agent.log());
    }
    let log = fs::read_to_string(all[2].join("testflinger-agent.log")).unwrap();
    assert!(log.contains("was removed, and is made anew"), "{log}");
}

#[test]
fn an_agent_that_cannot_wait_ends_with_1() {
    let Some(words) = strace(&["poll:error=ENOMEM:when=12"]) else {
        return;
    };
    if !is_native("strace would see the emulator's calls") {
        return;
    }
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let lab = Lab::new();
    let mut agent = lab.agent_under(&words, &lab.agent_id);
    assert_eq!(agent.wait(), 1, "{}", agent.log());
    assert!(
        agent.log().contains("cannot wait for events"),
        "{}",
        agent.log()
    );
}
