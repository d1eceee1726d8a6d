//! What device connectors write: serial logs and what is known of the device.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use support::gate::Gate;
use support::lab::{Agent, Lab};
use testflinger_agent::job::{LogType, Phase};
use testflinger_agent::local::View;

#[test]
fn a_serial_log_goes_to_the_server_while_its_phase_runs() {
    let lab = Lab::new();
    let gate = Gate::new(&lab.scratch, "test");
    let test = format!(
        "printf 'U-Boot \\377\\342\\202' > test-serial.log; {}; printf '\\254 done' >> test-serial.log",
        gate.words()
    );
    let lab = lab
        .command("setup", "echo from setup > setup-serial.log")
        .command("test", &test);
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait("the beginning of the serial log", |view| {
        view.serial(&job, Phase::Test) == "U-Boot \u{fffd}"
    });
    gate.open();
    lab.wait_until_complete(&job);
    let serial = |phase| lab.server.view(|view| view.serial(&job, phase));
    assert_eq!(serial(Phase::Test), "U-Boot \u{fffd}€ done");
    assert_eq!(serial(Phase::Setup), "from setup\n");
    // Each type counts for itself, across phases.
    for log in [LogType::Output, LogType::Serial] {
        let fragments = lab.server.fragments(&job);
        let numbers = fragments.iter().filter(|fragment| fragment.log == log);
        let numbers: Vec<_> = numbers.map(|fragment| fragment.number).collect();
        let expected: Vec<_> = (0..).take(numbers.len()).collect();
        assert_eq!(numbers, expected, "{log:?}");
    }
    // A phase's status comes after all that was logged in it.
    let exchanges = lab.server.exchanges();
    let last = |what: &str| {
        let found = exchanges.iter().rposition(|exchange| {
            let line = format!("{} {}", exchange.path, exchange.request_body);
            what.split('|').all(|part| line.contains(part))
        });
        found.unwrap_or_else(|| panic!("{what}\n{}", lab.story()))
    };
    assert!(last("/log/serial|\"phase\": \"setup\"") < last("{\"status\": {\"setup\": 0}}"));
    assert!(last("/log/serial|\"phase\": \"test\"") < last("\"test\": 0}}"));
}

#[test]
fn what_is_known_of_the_device_is_posted_when_it_is_new() {
    let lab = Lab::new()
        .command(
            "setup",
            r#"echo '{"device_info": {"device_ip": "10.0.0.7"}}' > device-info.json"#,
        )
        .command("provision", "true")
        .command(
            "test",
            r#"echo '{"device_info": {"device_ip": "10.0.0.8"}, "x": 1}' > device-info.json"#,
        )
        .command("cleanup", "echo '{' > device-info.json");
    let job = lab.submit(r#""provision_data": {"a": "b"}, "test_data": {"test_cmds": "x"}"#);
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    let exchanges = lab.server.exchanges();
    let posted = exchanges
        .iter()
        .map(|exchange| exchange.request_body.as_str())
        .filter(|body| body.contains("device_info"));
    let expected = [
        "{\"device_info\": {\"device_ip\": \"10.0.0.7\"}}",
        "{\"device_info\": {\"device_ip\": \"10.0.0.8\"}}",
    ];
    assert_eq!(posted.collect::<Vec<_>>(), expected);
    assert_eq!(
        agent.log().matches("device-info.json of job").count(),
        1,
        "{}",
        agent.log()
    );
    for exchange in exchanges {
        assert!(exchange.status < 400, "{exchange:?}");
    }
}

/// Row 42: whatever a command leaves there, the job comes home.
#[test]
fn row_42_garbage_for_the_device_is_ignored_with_a_message() {
    let lab = Lab::new()
        .command("setup", "mkfifo device-info.json setup-serial.log")
        .command("provision", "rm device-info.json; head -c 2000000 /dev/zero > device-info.json")
        .command("test", "rm device-info.json; ln -s /etc/passwd device-info.json; ln -s /etc/passwd test-serial.log");
    let job = lab.submit(r#""provision_data": {"a": "b"}, "test_data": {"test_cmds": "x"}"#);
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    for phase in ["setup", "provision", "test"] {
        assert_eq!(lab.status(&job, phase), Some(0));
    }
    let log = agent.log();
    assert!(
        log.contains("not a regular file") && log.contains("more than"),
        "{log}"
    );
    assert!(!lab.server.result(&job).contains("root:"));
}

/// The directory goes, and with it whoever told of changes in it: the rest of
/// the log arrives all the same.
#[test]
fn a_serial_log_in_a_workspace_that_was_made_anew_arrives_while_its_phase_runs() {
    let lab = Lab::new();
    let [first, gate] = ["first", "gate"].map(|name| Gate::new(&lab.scratch, name));
    let test = format!(
        "echo one > test-serial.log; {}; w=$PWD; cd ..; rm -r $w; mkdir $w; \
         echo two > $w/test-serial.log; {}",
        first.words(),
        gate.words()
    );
    let lab = lab.command("test", &test);
    let job = lab.submit_test();
    let _agent = lab.agent();
    // By now the agent has the log open.
    lab.wait("the first serial log", |view| {
        view.serial(&job, Phase::Test) == "one\n"
    });
    first.open();
    lab.wait("the second serial log", |view| {
        view.serial(&job, Phase::Test).ends_with("two\n")
    });
    gate.open();
    lab.wait_until_complete(&job);
}

/// How often the agent's main thread has gone to sleep so far, and the hundredths
/// of a second that it has worked; another one looks for cancellations.
fn worked(agent: &Agent) -> (u32, u32) {
    let file = |name| {
        let path = format!("/proc/{0}/task/{0}/{name}", agent.pid());
        std::fs::read_to_string(path).unwrap()
    };
    let (status, stat) = (file("status"), file("stat"));
    let line = status.lines().find(|line| line.starts_with("voluntary"));
    let slept = line.unwrap().split_whitespace().last().unwrap();
    // proc_pid_stat(5): utime and stime are the 14th and 15th, the 2nd has blanks.
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let ticks = rest.split(' ').skip(11).take(2);
    let ticks = ticks.map(|ticks| ticks.parse::<u32>().unwrap());
    (slept.parse().unwrap(), ticks.sum())
}

/// Holds that the agent's main thread sleeps while a command is silent, once
/// `kept` bytes of its serial log have arrived.
fn sleeps(lab: Lab, before: &str, kept: usize) {
    let gate = Gate::new(&lab.scratch, "test");
    let ready = lab.scratch.path("ready");
    let test = format!("{before} touch '{}'; {}", ready.display(), gate.words());
    let lab = lab.command("test", &test);
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_for_output(&job, Phase::Test, "Starting");
    support::lab::wait_until("the phase is silent", || ready.exists());
    lab.wait("the serial log", |view| {
        view.serial(&job, Phase::Test).len() >= kept
    });
    let checks = |view: View<'_>| {
        let is_check = |path: &str| path.starts_with("/v1/result/");
        let gets = view.exchanges().iter().filter(|one| one.method == "GET");
        gets.filter(|one| is_check(&one.path)).count()
    };
    let ((slept, ticks), first) = (worked(&agent), lab.server.view(checks));
    lab.wait("three looks for a cancellation", |view| {
        checks(view) > first + 2
    });
    let now = worked(&agent);
    // Half a dozen seconds; every half one would be a dozen.
    assert!(now.0 - slept <= 4, "{} times", now.0 - slept);
    assert!(now.1 - ticks <= 100, "{} ticks", now.1 - ticks);
    gate.open();
    lab.wait_until_complete(&job);
}

/// A phase that is silent costs nothing: the agent sleeps until something is
/// written, and does not look now and then.
#[test]
fn an_agent_with_nothing_to_read_sleeps() {
    sleeps(Lab::new(), "", 0);
}

/// So does one whose serial log is longer than what is kept of it: a hundred
/// gigabytes of nothing take a moment to make.
#[test]
fn an_agent_that_has_read_its_fill_sleeps() {
    let lab = Lab::new().set("output_limit", "100000");
    let serial = "yes | head -c 300000 > test-serial.log; truncate -s 100G test-serial.log;";
    sleeps(lab, serial, 100_000);
}

/// What a phase left behind writes on, until the cleanup is over: its phase ends all the
/// same, with the serial log that was there.
#[test]
fn a_serial_log_that_is_still_written_to_holds_no_phase_up() {
    let writer = "(while :; do printf x; done >> test-serial.log) > /dev/null 2>&1 &";
    let written = "while [ ! -s test-serial.log ]; do sleep 0.01; done";
    let lab = Lab::new().command("test", &format!("{writer} {written}; echo over"));
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    let serial = lab.server.view(|view| view.serial(&job, Phase::Test));
    let rest = serial.trim_start_matches('x');
    assert!(serial.starts_with('x') && rest.is_empty(), "{rest}");
}

/// There is more in the serial log than a moment reads: the output of the phase does not
/// wait for that, and is not taken for silence.
#[test]
fn a_serial_log_that_is_long_keeps_no_output_waiting() {
    let serial = "truncate -s 256M long; mv long test-serial.log;";
    let speak = "for i in 1 2 3 4 5 6 7 8 9 10; do echo $i; sleep 0.3; done";
    let lab = Lab::new().command("test", &format!("{serial} {speak}"));
    // It is about the reading only.
    lab.server
        .answer("POST", "/v1/result/*/log/serial", 1, 400, "");
    let job = lab.submit(r#""test_data": {"test_cmds": "none"}, "output_timeout": 1"#);
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_eq!(lab.status(&job, "test"), Some(0));
    assert_eq!(
        lab.body(&job, Phase::Test),
        "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n"
    );
}
