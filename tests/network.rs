//! A network and a server that fail.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use support::gate::Gate;
use support::lab::{Agent, Lab, PATIENCE, is_alive, numbers, ticks, wait_until, wait_until_within};
use support::means::is_native;
use support::proxy::{Fault, Outcome};
use testflinger_agent::job::Phase;
use testflinger_agent::local::{Exchange, View};

const FRAGMENTS: &str = "/v1/result/*/log/output";
const RESULT: &str = "/v1/result/*-*-*-*-*";

/// How many lines of the agent's log hold the text.
fn said(agent: &Agent, text: &str) -> usize {
    agent
        .log()
        .lines()
        .filter(|line| line.contains(text))
        .count()
}

/// Waits until the record says that everything that was sent has arrived.
fn wait_until_sent(lab: &Lab, job: &str, bytes: usize) {
    let journal = lab.scratch.path("results").join(job).join("journal");
    let sent = format!("\"bytes\": {bytes},");
    wait_until("the output is sent", || {
        fs::read_to_string(&journal).is_ok_and(|text| text.contains(&sent))
    });
}

/// Waits until a file holds the text.
fn wait_for_text(path: &std::path::Path, text: &str) {
    wait_until(&format!("{} holds {text:?}", path.display()), || {
        fs::read_to_string(path).is_ok_and(|whole| whole.contains(text))
    });
}

/// The numbers of the fragments are 0, 1, 2, … in the order of their arrival.
fn fragments_rise(lab: &Lab, job: &str) {
    let numbers: Vec<_> = lab
        .server
        .fragments(job)
        .iter()
        .map(|one| one.number)
        .collect();
    let wanted: Vec<_> = (0..).take(numbers.len()).collect();
    assert_eq!(numbers, wanted);
}

/// A lab whose test phase ends when the gate is opened.
fn lab_with_gate() -> (Lab, Gate) {
    let lab = Lab::new().with_proxy();
    let gate = Gate::new(&lab.scratch, "test");
    let test = format!("echo begun; {}; echo done", gate.words());
    let lab = lab
        .command("test", &test)
        .command("cleanup", "echo cleaned");
    (lab, gate)
}

#[test]
fn row_24_an_agent_waits_for_a_server_that_is_down_at_its_start() {
    let lab = Lab::new().with_proxy().command("test", "echo tested");
    lab.proxy().set_down(true);
    let job = lab.submit_test();
    let agent = lab.agent();
    let fault = format!(
        "cannot reach {}: it refused the connection; trying again",
        lab.proxy().url()
    );
    agent.wait_for_log(&fault);
    // It comes back and goes again, which is the same fault still, by another
    // cause.
    lab.proxy().on("*", "*", 2, Fault::DropReply);
    lab.proxy().set_down(false);
    lab.wait_until_complete(&job);
    assert_eq!(said(&agent, &fault), 1, "{}", agent.log());
    assert_eq!(said(&agent, "cannot"), 2, "{}", agent.log());
    let over = format!("can reach {} again, after ", lab.proxy().url());
    assert_eq!(said(&agent, &over), 1, "{}", agent.log());
}

#[test]
fn row_24_what_a_phase_says_while_the_server_is_down_arrives_whole_and_in_order() {
    let lab = Lab::new().with_proxy();
    let (first, last) = (
        Gate::new(&lab.scratch, "first"),
        Gate::new(&lab.scratch, "last"),
    );
    let test = format!(
        "echo begun; {}; seq 1 20000; {}; echo done",
        first.words(),
        last.words()
    );
    let lab = lab
        .command("test", &test)
        .command("reserve", "echo reserved");
    let job =
        lab.submit(r#""test_data": {"test_cmds": "x"}, "reserve_data": {"ssh_keys": ["lp:x"]}"#);
    let agent = lab.agent();
    lab.wait_for_output(&job, Phase::Test, "begun");
    wait_until_sent(&lab, &job, lab.output(&job, Phase::Test).len());
    lab.proxy().set_down(true);
    first.open();
    wait_for_text(
        &lab.scratch.path("run").join(&job).join("test.log"),
        "\n20000\n",
    );
    agent.wait_for_log("it refused the connection; trying again");
    assert!(!lab.output(&job, Phase::Test).contains("20000"));
    lab.proxy().set_down(false);
    lab.wait_for_output(&job, Phase::Test, "\n20000\n");
    last.open();
    lab.wait_until_complete(&job);
    let lines: String = (1..=20_000).map(|line| format!("{line}\n")).collect();
    assert!(lab.body(&job, Phase::Test) == format!("begun\n{lines}done\n"));
    assert_eq!(lab.body(&job, Phase::Reserve), "reserved\n");
    assert_eq!(lab.status(&job, "test"), Some(0));
    fragments_rise(&lab, &job);
}

#[test]
fn row_24_an_outage_of_ninety_seconds_delays_no_limit_and_loses_nothing() {
    let lab = Lab::new().with_proxy();
    let gate = Gate::new(&lab.scratch, "test");
    let never = Gate::new(&lab.scratch, "never");
    let (stopped, cleaned) = (lab.scratch.path("stopped"), lab.scratch.path("cleaned"));
    let test = format!(
        "trap 'touch {}; exit 1' TERM; echo begun; {}; seq 1 5000; {}",
        stopped.display(),
        gate.words(),
        never.words()
    );
    let lab = lab.command("test", &test).command(
        "cleanup",
        &format!("echo cleaned; touch {}", cleaned.display()),
    );
    let job = lab.submit(r#""test_data": {"test_cmds": "x"}, "output_timeout": 10"#);
    let _agent = lab.agent();
    lab.wait_for_output(&job, Phase::Test, "begun");
    wait_until_sent(&lab, &job, lab.output(&job, Phase::Test).len());
    lab.proxy().set_down(true);
    let down = Instant::now();
    gate.open();
    // All of it while nobody can be told.
    let log = lab.scratch.path("run").join(&job).join("test.log");
    wait_for_text(&log, "\n5000\n");
    wait_until("the limit is reached", || stopped.exists());
    wait_until("cleanup has run", || cleaned.exists());
    let outage = Duration::from_secs(90);
    assert!(down.elapsed() < outage, "{:?}", down.elapsed());
    wait_until_within("ninety seconds are over", outage, || {
        down.elapsed() > outage
    });
    lab.proxy().set_down(false);
    wait_until_within("the job is complete", Duration::from_secs(400), || {
        lab.server.job_state(&job).as_deref() == Some("complete")
    });
    let lines: String = (1..=5_000).map(|line| format!("{line}\n")).collect();
    let said = "\nERROR: Output timeout reached! (10s)\n";
    // What the shell says of its own end comes after that.
    let body = lab.body(&job, Phase::Test);
    assert!(body.starts_with(&format!("begun\n{lines}{said}")), "{body}");
    assert_eq!(lab.body(&job, Phase::Cleanup), "cleaned\n");
    assert_eq!(lab.status(&job, "test"), Some(247));
    fragments_rise(&lab, &job);
    // Nobody looks at a job that is complete: its last line comes before that.
    let exchanges = lab.server.exchanges();
    let last = |is_it: &dyn Fn(&Exchange) -> bool| exchanges.iter().rposition(is_it).unwrap();
    let line = last(&|one| one.path.ends_with("/log/output"));
    let complete = last(&|one| one.request_body.contains("\"complete\""));
    assert!(line < complete, "{line} {complete}");
}

#[test]
fn row_29_a_server_that_asks_for_patience_gets_it() {
    let lab = Lab::new();
    let gate = Gate::new(&lab.scratch, "test");
    let lab = lab.command("test", &format!("echo tested; {}", gate.words()));
    let asked = [
        ("POST", FRAGMENTS, 429, Duration::from_secs(2)),
        ("GET", "/v1/result/*", 503, Duration::from_secs(2)),
        ("POST", "/v1/result/*", 503, Duration::from_secs(2)),
    ];
    for (method, path, status, wait) in asked {
        let seconds = wait.as_secs().to_string();
        let headers = [("Retry-After", seconds.as_str())];
        lab.server
            .answer_with(method, path, 1, status, &headers, "");
    }
    lab.server.answer("POST", FRAGMENTS, 1, 500, "");
    let job = lab.submit_test();
    let agent = lab.agent();
    agent.wait_for_log("can send a job's output again, after ");
    gate.open();
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Test), "tested\n");
    assert_eq!(lab.status(&job, "test"), Some(0));
    fragments_rise(&lab, &job);
    let exchanges = lab.server.exchanges();
    let mut obeyed = 0;
    for (at, exchange) in exchanges.iter().enumerate() {
        if [429, 503].contains(&exchange.status) {
            // Asked for patience with one thing, it goes on with the others.
            let same =
                |next: &&Exchange| (&next.method, &next.path) == (&exchange.method, &exchange.path);
            let next = exchanges[at + 1..].iter().find(same).unwrap();
            let waited = next.at - exchange.at;
            assert!(waited >= Duration::from_secs(2), "{waited:?} {next:?}");
            obeyed += 1;
        }
    }
    assert_eq!(obeyed, 3, "{}", lab.story());
    // Each answer is said, and the end of each of the three faults.
    assert_eq!(said(&agent, "; trying again"), 4, "{}", agent.log());
    assert_eq!(said(&agent, " again, after "), 3, "{}", agent.log());
}

#[test]
fn row_23_a_server_that_hangs_does_not_delay_a_timeout() {
    let lab = Lab::new().with_proxy();
    let (pid, never) = (lab.scratch.path("pid"), Gate::new(&lab.scratch, "never"));
    let test = format!(
        "echo $$ > '{}'; echo begun; {}",
        pid.display(),
        never.words()
    );
    let lab = lab
        .command("test", &test)
        .command("cleanup", "echo cleaned");
    lab.proxy().on("POST", FRAGMENTS, 1, Fault::Hang);
    let job = lab.submit(r#""output_timeout": 1, "test_data": {"test_cmds": "x"}"#);
    let agent = lab.agent();
    let pid = numbers(&pid)[0];
    lab.proxy().wait_for("POST", FRAGMENTS, 1, PATIENCE);
    wait_until("the command is ended", || !is_alive(pid));
    agent.wait_for_log("phase cleanup of job");
    let fragments = |seen: &support::proxy::Seen| seen.path.ends_with("/log/output");
    let seen: Vec<_> = lab.proxy().seen().into_iter().filter(fragments).collect();
    assert_eq!(seen.len(), 1, "it hangs still: {seen:?}");
    lab.proxy().release();
    lab.wait_until_complete(&job);
    assert_eq!(lab.status(&job, "test"), Some(247));
    let wanted = "begun\n\nERROR: Output timeout reached! (1s)\n";
    assert_eq!(lab.body(&job, Phase::Test), wanted);
    assert_eq!(lab.body(&job, Phase::Cleanup), "cleaned\n");
}

#[test]
fn row_24_a_job_that_ends_while_the_server_is_down_is_brought_home_beside_the_next() {
    let (lab, gate) = lab_with_gate();
    let owed = lab.submit_test();
    let agent = lab.agent();
    lab.wait_for_output(&owed, Phase::Test, "begun");
    wait_until_sent(&lab, &owed, lab.output(&owed, Phase::Test).len());
    lab.proxy().set_down(true);
    gate.open();
    agent.wait_for_log("the job is over, but not all of it is at the server");
    let record = lab.scratch.path("results").join(&owed);
    assert!(record.join("journal").exists());
    let next = lab.submit_test();
    lab.proxy().set_down(false);
    lab.wait_until_complete(&next);
    lab.wait_until_complete(&owed);
    for job in [&owed, &next] {
        assert_eq!(lab.body(job, Phase::Test), "begun\ndone\n");
        assert_eq!(lab.body(job, Phase::Cleanup), "cleaned\n");
        assert_eq!(lab.status(job, "test"), Some(0));
        fragments_rise(&lab, job);
    }
    agent.wait_for_log(&format!("delivered what job {owed} still owed"));
    wait_until("the record is gone", || !record.exists());
}

/// A server that answers, and takes nothing: whatever the job waits for, the agent does
/// not look again and again whether that is over.
#[test]
fn row_24_what_is_owed_waits_without_working() {
    let lab = Lab::new()
        .command("test", "echo tested")
        .set("polling_interval", "60");
    // What the server has can be read back, which is no success.
    lab.server.answer("POST", FRAGMENTS, 1_000, 503, "");
    let owed = lab.submit_test();
    let agent = lab.agent();
    agent.wait_for_log("the job is over, but not all of it is at the server");
    let count = |view: View<'_>| {
        let posts = view.exchanges().iter().filter(|one| one.method == "POST");
        posts.filter(|one| one.path.contains(&owed)).count()
    };
    let (before, first) = (ticks(agent.pid()), lab.server.view(count));
    lab.wait("it is tried again twice", |view| count(view) > first + 1);
    let used = ticks(agent.pid()) - before;
    if is_native("processor time is that of the emulator") {
        // Each time it is five seconds before what the server has is read back.
        assert!(used < 100, "{used} ticks of processor time");
    }
}

#[test]
fn row_33_an_agent_killed_with_a_job_to_deliver_delivers_it_at_the_next_start() {
    let (lab, gate) = lab_with_gate();
    let job = lab.submit_test();
    let mut agent = lab.agent();
    lab.wait_for_output(&job, Phase::Test, "begun");
    wait_until_sent(&lab, &job, lab.output(&job, Phase::Test).len());
    lab.proxy().set_down(true);
    gate.open();
    let journal = lab.scratch.path("results").join(&job).join("journal");
    wait_for_text(&journal, "\"finished\"");
    agent.signal("KILL");
    assert_eq!(agent.wait(), 256 - 9);
    lab.proxy().set_down(false);
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Test), "begun\ndone\n");
    assert_eq!(lab.body(&job, Phase::Cleanup), "cleaned\n");
    assert_eq!(lab.status(&job, "test"), Some(0));
    fragments_rise(&lab, &job);
    wait_until("the record is gone", || !journal.exists());
    let wanted = format!("job {job} is over and not wholly delivered: sending the rest");
    assert_eq!(said(&agent, &wanted), 1, "{}", agent.log());
    assert_eq!(said(&agent, "WARNING"), 0, "{}", agent.log());
}

#[test]
fn row_28_a_job_whose_output_is_refused_is_complete_all_the_same() {
    for (status, times, body) in [
        (422, 1, r#"{"detail": {}, "message": "Validation error"}"#),
        // Of this job's pages only; and somebody else may have said so once.
        (404, 3, "no such page"),
        (400, 1, r#"{"detail": {}, "message": "Invalid job id"}"#),
    ] {
        let lab = Lab::new()
            .command("setup", "echo set up")
            .command("test", "echo tested");
        let job = lab.submit_test();
        let fragments = format!("/v1/result/{job}/log/output");
        lab.server.answer("POST", &fragments, times, status, body);
        let agent = lab.agent();
        lab.wait_until_complete(&job);
        assert_eq!(lab.status(&job, "setup"), Some(0), "{}", lab.story());
        assert_eq!(lab.status(&job, "test"), Some(0));
        assert_eq!(lab.output(&job, Phase::Setup), "");
        assert_eq!(lab.body(&job, Phase::Test), "tested\n");
        let fault = format!(
            "cannot deliver of job {job} the output of its setup phase: the server answered {status}"
        );
        assert_eq!(said(&agent, &fault), 1, "{}", agent.log());
        let retried = usize::from(times > 1);
        assert_eq!(said(&agent, "cannot"), 1 + retried, "{}", agent.log());
        agent.wait_for_log("what the server refused of it is kept in");
        let next = lab.submit_test();
        lab.wait_until_complete(&next);
        assert_eq!(lab.body(&next, Phase::Setup), "set up\n");
    }
}

#[test]
fn row_28_what_is_refused_of_a_result_is_kept_with_the_reason() {
    let lab = Lab::new().command("test", "echo tested");
    let body = r#"{"detail": {}, "message": "Validation error"}"#;
    lab.server.answer("POST", RESULT, 1_000, 422, body);
    let job = lab.submit_test();
    let _agent = lab.agent();
    let kept = lab.scratch.path("results").join("refused").join(&job);
    wait_until("it is kept", || kept.join("journal").exists());
    let reasons = std::fs::read_to_string(kept.join("refused.txt")).unwrap();
    for what in ["the status of its test phase", "its final result"] {
        let reason = format!(" {what}: the server answered 422 Validation error");
        assert!(reasons.contains(&reason), "{reasons}");
    }
}

/// A board boots before its network is there, and its clock is set last.
#[test]
fn row_25_another_cause_of_the_same_outage_is_said_as_well() {
    let lab = Lab::new().with_proxy();
    lab.proxy().set_down(true);
    let agent = lab.agent();
    agent.wait_for_log("it refused the connection; trying again");
    lab.proxy().on("*", "*", 1_000, Fault::DropReply);
    lab.proxy().set_down(false);
    agent.wait_for_log("the connection was cut; trying again");
    lab.proxy().clear();
    agent.wait_for_log("again, after ");
    assert_eq!(said(&agent, "cannot reach"), 2, "{}", agent.log());
}

#[test]
fn row_28_a_fragment_that_is_too_large_is_halved() {
    let lab = Lab::new().command("test", "seq 1 60000");
    lab.server.answer("POST", FRAGMENTS, 2, 413, "");
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    let lines: String = (1..=60_000).map(|line| format!("{line}\n")).collect();
    assert!(lab.body(&job, Phase::Test) == lines, "{}", lab.story());
    let fragments = lab.server.fragments(&job);
    assert!(fragments.iter().all(|one| one.length <= 64 << 10));
    fragments_rise(&lab, &job);
    assert_eq!(said(&agent, "WARNING"), 0, "{}", agent.log());
}

#[test]
fn row_31_a_redirect_is_explained_and_no_token_leaves_the_host() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let place = format!("http://{}/elsewhere", elsewhere.local_addr().unwrap());
    for path in ["/v1/oauth2/refresh", "/v1/agents/data/*", "/v1/job", RESULT] {
        let lab = Lab::new().with_proxy().command("test", "echo tested");
        let answer = Fault::Answer {
            status: if path == RESULT { 307 } else { 302 },
            headers: vec![("Location".into(), place.clone())],
            body: Vec::new(),
        };
        lab.proxy().on("*", path, 1, answer);
        let job = lab.submit_test();
        let agent = lab.agent();
        lab.wait_until_complete(&job);
        let wanted = format!("points to {place}; change server_address");
        assert_eq!(said(&agent, &wanted), 1, "{}", agent.log());
    }
    let nobody = elsewhere.accept().unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::WouldBlock);
}

/// Answers that are none.
fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    let with_length = |body: &str| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    let text = |text: &str| text.as_bytes().to_vec();
    let large = "x".repeat(1 << 20);
    vec![
        ("HTML", with_length("<html><body>Welcome!</body></html>")),
        ("an array", with_length("[1, 2]")),
        ("100,000 levels", with_length(&"[".repeat(100_000))),
        ("not UTF-8", {
            let mut bytes = with_length("{\"state\": \"??\"}");
            bytes
                .iter_mut()
                .filter(|b| **b == b'?')
                .for_each(|b| *b = 0xff);
            bytes
        }),
        (
            "cut",
            text("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"sta"),
        ),
        (
            "a cut chunk",
            text("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n900\r\n{\"sta"),
        ),
        (
            "two lengths",
            text("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 7\r\n\r\n{}"),
        ),
        ("no length", text("HTTP/1.1 200 OK\r\n\r\n{}")),
        (
            "a header of a megabyte",
            format!("HTTP/1.1 200 OK\r\nX: {large}\r\nContent-Length: 2\r\n\r\n{{}}").into_bytes(),
        ),
        ("no HTTP", text("SSH-2.0-OpenSSH_9.6\r\n")),
        ("nothing", Vec::new()),
    ]
}

/// A job in a lab where the first answer on these paths is garbage.
fn survive(what: &str, answer: &[u8], paths: &[(&str, &str)]) {
    let lab = Lab::new().with_proxy().command("test", "echo tested");
    for (method, path) in paths {
        lab.proxy()
            .on(method, path, 1, Fault::Garbage(answer.to_vec()));
    }
    let job = lab.submit_test();
    let mut agent = lab.agent();
    lab.wait_until_complete(&job);
    let met = |seen: &support::proxy::Seen| matches!(seen.outcome, Outcome::Fault(_));
    let met = lab.proxy().seen().iter().filter(|one| met(one)).count();
    assert_eq!(met, paths.len(), "{what}: {:#?}", lab.proxy().seen());
    assert_eq!(lab.status(&job, "test"), Some(0), "{what}");
    agent.signal("TERM");
    assert_eq!(agent.wait(), 0, "{what}: {}", agent.log());
    assert!(!agent.log().contains("panicked"), "{what}: {}", agent.log());
}

#[test]
fn row_30_no_answer_can_end_the_agent_while_it_is_idle() {
    thread::scope(|scope| {
        for (what, answer) in garbage() {
            let paths = [("GET", "/v1/agents/data/*"), ("GET", "/v1/job")];
            scope.spawn(move || survive(what, &answer, &paths));
        }
    });
}

#[test]
fn row_30_no_answer_can_end_the_agent_while_a_job_runs() {
    thread::scope(|scope| {
        for (what, answer) in garbage() {
            let paths = [("GET", "/v1/result/*"), ("POST", "/v1/agents/data/*")];
            scope.spawn(move || survive(what, &answer, &paths));
        }
    });
}

#[test]
fn row_30_a_server_that_hands_out_no_jobs_but_pages_is_not_asked_without_a_pause() {
    let lab = Lab::new().command("test", "echo tested");
    let page = "<html><body>Welcome!</body></html>";
    lab.server.answer("GET", "/v1/job*", 2, 200, page);
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    let fault = "cannot ask for a job: the answer cannot be used: it is neither a job nor empty";
    assert_eq!(said(&agent, fault), 1, "{}", agent.log());
    let exchanges = lab.server.exchanges();
    let asked: Vec<_> = exchanges
        .iter()
        .filter(|one| one.path.starts_with("/v1/job?"))
        .collect();
    for pair in asked.windows(2).take(2) {
        // The polling interval is a second, more or less.
        assert!(pair[1].at - pair[0].at >= Duration::from_millis(900));
    }
}

#[test]
fn row_22_artifacts_that_were_cut_on_their_way_are_sent_again() {
    let lab = Lab::new()
        .with_proxy()
        .command("test", "mkdir artifacts; seq 1 100000 > artifacts/numbers");
    let path = "/v1/result/*/artifact";
    lab.proxy().on("POST", path, 1, Fault::CutRequest(1));
    lab.proxy().on("POST", path, 1, Fault::CutRequest(20_000));
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    lab.proxy().wait_for("POST", path, 3, PATIENCE);
    let packed = Command::new("tar")
        .arg("-xzOf")
        .arg(lab.server.artifact(&job).unwrap())
        .arg("artifacts/numbers")
        .output()
        .unwrap();
    let lines: String = (1..=100_000).map(|line| format!("{line}\n")).collect();
    assert!(packed.stdout == lines.as_bytes());
    assert_eq!(lab.status(&job, "test"), Some(0));
}

/// Row 32: the server gives a job only once, however long it takes to do so.
#[test]
fn row_32_a_slow_answer_to_the_question_for_a_job_is_waited_for() {
    let lab = Lab::new().with_proxy().command("test", "echo tested");
    let slow = Fault::Delay(Duration::from_secs(35));
    lab.proxy().on("GET", "/v1/job", 1, slow);
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_eq!(lab.status(&job, "test"), Some(0));
}

/// Row 30: a portal on the way answers for the server.
#[test]
fn row_30_a_page_of_html_acknowledges_nothing() {
    let lab = Lab::new().command("test", "echo tested");
    lab.server
        .answer("POST", FRAGMENTS, 2, 200, "<html>please log in</html>");
    lab.server.answer("POST", "/v1/result/*", 1, 204, "");
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Test), "tested\n");
    assert!(
        agent
            .log()
            .contains("it is a page of HTML, not the server's")
    );
}

#[test]
fn what_cannot_be_advertised_is_no_reason_to_take_no_jobs() {
    let lab = Lab::new()
        .command("test", "echo tested")
        .set("advertised_images", "{lab: {image: url}}");
    lab.server
        .answer("POST", "/v1/agents/images", 1_000, 500, "");
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
}

#[test]
fn a_state_that_cannot_be_posted_holds_up_no_output() {
    let lab = Lab::new();
    let gate = Gate::new(&lab.scratch, "test");
    let lab = lab.command("test", &format!("echo begun; {}", gate.words()));
    let agent = lab.agent();
    lab.wait("the agent is idle", |view| {
        view.agent("lab-agent")
            .is_some_and(|agent| agent.state == "waiting")
    });
    lab.server
        .answer("POST", "/v1/agents/data/*", 1_000, 500, "");
    let job = lab.submit_test();
    lab.wait_for_output(&job, Phase::Test, "begun");
    assert!(is_alive(agent.pid()));
    gate.open();
    lab.wait_until_complete(&job);
}

#[test]
fn a_server_that_asks_for_patience_with_output_is_asked_about_cancellation_all_the_same() {
    let lab = Lab::new();
    let pid = lab.scratch.path("pid");
    let test = format!("echo $$ > '{}'; echo begun; sleep 1000", pid.display());
    let lab = lab.command("test", &test);
    let later = [("Retry-After", "3000")];
    lab.server
        .answer_with("POST", FRAGMENTS, 1, 503, &later, "");
    let job = lab.submit_test();
    let _agent = lab.agent();
    let pid = numbers(&pid)[0];
    lab.wait("the server has asked for patience", |view| {
        view.exchanges()
            .iter()
            .any(|exchange| exchange.status == 503)
    });
    assert!(lab.server.cancel(&job));
    wait_until("the command is ended", || !is_alive(pid));
    // What is owed waits; the next job does not.
    let next = lab.submit("");
    lab.wait_until_complete(&next);
}

/// The first look at what the server has of a job may have to wait; what comes after the
/// job need not.
#[test]
fn a_server_that_asks_for_patience_with_a_result_holds_up_no_next_job() {
    let lab = Lab::new().command("test", "echo tested");
    let later = [("Retry-After", "3000")];
    lab.server
        .answer_with("GET", "/v1/result/*", 1, 503, &later, "");
    lab.submit_test();
    let agent = lab.agent();
    agent.wait_for_log("not all of it is at the server");
    let next = lab.submit_test();
    lab.wait_until_complete(&next);
    assert_eq!(lab.body(&next, Phase::Test), "tested\n");
}

#[test]
fn row_24_what_a_job_says_of_its_device_in_an_outage_arrives_after_it() {
    let lab = Lab::new().with_proxy();
    let gate = Gate::new(&lab.scratch, "provision");
    let lab = lab.command(
        "provision",
        &format!(
            "echo begun; {}; echo '{{\"device_info\": {{\"device_ip\": \"10.1.2.3\"}}}}' > \
             device-info.json",
            gate.words()
        ),
    );
    let job = lab.submit(r#""provision_data": {"url": "x"}"#);
    let agent = lab.agent();
    lab.wait_for_output(&job, Phase::Provision, "begun");
    // More often than anything but an outage is borne.
    lab.proxy().on("POST", RESULT, 5, Fault::CutRequest(1));
    gate.open();
    lab.wait_until_complete(&job);
    let result = lab.server.result(&job);
    assert!(result.contains("10.1.2.3"), "{result}\n{}", agent.log());
}

#[test]
fn artifacts_go_with_their_length_where_chunks_are_refused() {
    for status in [400, 411] {
        let lab = Lab::new().command(
            "test",
            "mkdir artifacts; echo kept > artifacts/x; head -c 3000000 /dev/urandom > artifacts/y",
        );
        lab.server
            .answer("POST", "/v1/result/*/artifact", 1, status, "");
        let job = lab.submit_test();
        let agent = lab.agent();
        lab.wait_until_complete(&job);
        let packed = lab.server.artifact(&job).expect("the artifacts");
        let listed = std::process::Command::new("tar")
            .arg("-tzf")
            .arg(packed)
            .output()
            .unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert_eq!(listed, "artifacts/\nartifacts/x\nartifacts/y\n");
        assert!(
            agent.log().contains("they are packed twice"),
            "{}",
            agent.log()
        );
    }
}

/// Who stands before a server that is being replaced knows no page at all.
#[test]
fn row_28_pages_that_nobody_knows_at_the_end_of_a_job_cost_no_result() {
    let setup = Lab::new().with_proxy();
    let gate = Gate::new(&setup.scratch, "cleanup");
    let lab = setup
        .command("test", "exit 3")
        .command("cleanup", &format!("echo begun; {}", gate.words()));
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_for_output(&job, Phase::Cleanup, "begun\n");
    let proxy = lab.proxy();
    proxy.on("POST", RESULT, 1_000, Fault::status(404));
    proxy.on("POST", FRAGMENTS, 1_000, Fault::status(404));
    gate.open();
    agent.wait_for_log("cannot post a job's state: the server answered 404; trying again");
    proxy.clear();
    lab.wait_until_complete(&job);
    assert_eq!(lab.status(&job, "test"), Some(3), "{}", agent.log());
    assert_eq!(lab.body(&job, Phase::Cleanup), "begun\n");
    assert_eq!(said(&agent, "going on without"), 0, "{}", agent.log());
}
