//! Servers of before 2025-12: live output is text that is shown once, and what lasts
//! of a job comes with its result.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::fs;
use std::path::PathBuf;
use support::gate::Gate;
use support::lab::{Agent, Lab, PATIENCE, wait_for_text, wait_until};
use support::proxy::Fault;
use testflinger_agent::job::{LogType, Phase};
use testflinger_agent::json::Json;
use testflinger_agent::local::{Era, Exchange};

const FRAGMENTS: &str = "/v1/result/*/log/output";
const TEXTS: &str = "/v1/result/*/output";
const OLD: [Era; 4] = [Era::Y2022, Era::Y2023, Era::Y2024, Era::Y2025];
const SAID: &str = "the server is of before 2025-12";
const INTERRUPTED: &str = "\nERROR: The agent was interrupted in the middle of this phase.\n";

/// A lab of that time: nobody has a token.
fn lab_of(era: Era) -> Lab {
    let lab = Lab::of(era).with_proxy();
    fs::remove_file(lab.scratch.path("token")).unwrap();
    lab
}

/// How many lines of the agent's log hold the text.
fn said(agent: &Agent, text: &str) -> usize {
    let log = agent.log();
    log.lines().filter(|line| line.contains(text)).count()
}

/// All that came of a job's log while it ran.
fn live(lab: &Lab, job: &str, log: LogType) -> String {
    lab.server.view(|view| view.texts(job, log)).concat()
}

fn wait_for_live(lab: &Lab, job: &str, text: &str) {
    lab.wait(&format!("{text:?} is shown"), |view| {
        view.texts(job, LogType::Output).concat().contains(text)
    });
}

/// A member of a job's result: a text, or a number as text.
fn member(lab: &Lab, job: &str, name: &str) -> Option<String> {
    let result = lab.server.result(job);
    let value = Json::parse(&result).unwrap().get(name)?;
    Some(value.string().unwrap_or_else(|| value.text().to_owned()))
}

/// A phase's output in the result, without the banner.
fn kept(lab: &Lab, job: &str, phase: Phase) -> String {
    let output = member(lab, job, &format!("{phase}_output")).unwrap();
    let mut lines = output.splitn(4, '\n');
    lines.nth(3).unwrap().to_owned()
}

fn status(lab: &Lab, job: &str, phase: Phase) -> Option<String> {
    member(lab, job, &format!("{phase}_status"))
}

fn count(exchanges: &[Exchange], is_one: impl Fn(&Exchange) -> bool) -> usize {
    exchanges.iter().filter(|one| is_one(one)).count()
}

fn journal(lab: &Lab, job: &str) -> PathBuf {
    lab.scratch.path("results").join(job).join("journal")
}

/// Waits until the record says that all that the test phase has said has arrived.
fn wait_until_sent(lab: &Lab, job: &str) {
    let journal = journal(lab, job);
    let length = fs::metadata(journal.with_file_name("test.log"))
        .unwrap()
        .len();
    let sent = format!("\"phase\": \"test\", \"log\": \"output\", \"bytes\": {length},");
    wait_for_text(&journal, &sent);
}

fn kill(mut agent: Agent) {
    agent.signal("KILL");
    assert_eq!(agent.wait(), 256 - 9);
}

/// A lab whose test phase says that it began, and goes on when the gate is open.
fn lab_with_gate(era: Era) -> (Lab, Gate) {
    let lab = lab_of(era);
    let gate = Gate::new(&lab.scratch, "test");
    let test = format!("echo begun; {}; echo done", gate.words());
    let lab = lab
        .command("setup", "echo set up")
        .command("test", &test)
        .command("cleanup", "echo cleaned");
    (lab, gate)
}

#[test]
fn whole_jobs_work_with_servers_of_all_times() {
    for era in OLD {
        let lab = lab_of(era)
            .command("setup", "echo set up")
            .command("provision", "seq 1 5000")
            .command(
                "test",
                "echo tested é; echo boot > test-serial.log; mkdir artifacts; \
                 echo x > artifacts/x; exit 3",
            )
            .command("cleanup", "echo cleaned")
            .set("identifier", "a board")
            .set("advertised_queues", "{lab: a lab}")
            .set("advertised_images", "{lab: {image: url}}");
        let data = r#""provision_data": {"url": "x"}, "test_data": {"test_cmds": "x"}"#;
        let jobs = [lab.submit(data), lab.submit(data)];
        let agent = lab.agent();
        let phases = [Phase::Setup, Phase::Provision, Phase::Test, Phase::Cleanup];
        for job in &jobs {
            lab.wait_until_complete(job);
            let mut all = String::new();
            for phase in phases {
                all += &member(&lab, job, &format!("{phase}_output")).unwrap();
                let wanted = if phase == Phase::Test { "3" } else { "0" };
                assert_eq!(status(&lab, job, phase).as_deref(), Some(wanted), "{phase}");
            }
            assert_eq!(live(&lab, job, LogType::Output), all, "{era:?}");
            assert!(kept(&lab, job, Phase::Provision).ends_with("\n4999\n5000\n"));
            assert_eq!(kept(&lab, job, Phase::Test), "tested é\n");
            assert_eq!(member(&lab, job, "job_state").as_deref(), Some("complete"));
            assert_eq!(member(&lab, job, "test_serial").as_deref(), Some("boot\n"));
            let shown = if era == Era::Y2025 { "boot\n" } else { "" };
            assert_eq!(live(&lab, job, LogType::Serial), shown, "{era:?}");
            assert!(lab.server.artifact(job).is_some());
            let states = lab.job_states(job, 0);
            assert_eq!(states, ["setup", "provision", "test", "complete"]);
        }
        // It goes on asking, and is told as often what there is not.
        lab.proxy()
            .wait_for("GET", "/v1/job", jobs.len() + 3, PATIENCE);
        let exchanges = lab.server.exchanges();
        let is_older = |than: Era| usize::from(era < than);
        // The first fragment, and the question why; that again for the serial log.
        let questions = count(&exchanges, |one| one.path.contains("/log/"));
        assert_eq!(questions, 2 + is_older(Era::Y2025), "{era:?}");
        let takes_text = |one: &Exchange| one.method == "GET" && one.path.ends_with("output");
        assert_eq!(count(&exchanges, takes_text), 0, "that would be lost");
        let is_map = |one: &Exchange| one.request_body.contains("\"status\"");
        assert_eq!(count(&exchanges, is_map), 0, "none of them knows that");
        assert_eq!(said(&agent, SAID), 1, "{}", agent.log());
        let lacks = |what: &str| said(&agent, &format!("the server has no {what}"));
        assert_eq!(
            lacks("live serial log"),
            is_older(Era::Y2025),
            "{}",
            agent.log()
        );
        assert_eq!(lacks("agent data"), is_older(Era::Y2023), "{}", agent.log());
        let little = usize::from(era == Era::Y2024);
        assert_eq!(lacks("comments of agents"), little, "{}", agent.log());
        assert_eq!(lacks("descriptions of agents"), little, "{}", agent.log());
        let known = lab.server.view(|view| view.agent("lab-agent"));
        let known = known.map(|known| (known.state, known.queues));
        let is_known = (era > Era::Y2022).then(|| ("waiting".into(), vec!["lab".into()]));
        assert_eq!(known, is_known, "{era:?}");
        assert_eq!(said(&agent, "cannot"), 0, "{}", agent.log());
        assert_eq!(said(&agent, "WARNING"), 0, "{}", agent.log());
    }
}

/// The server puts a line end between two pieces, and people's programs ask for them
/// every ten seconds.
#[test]
fn output_is_shown_in_few_pieces_of_whole_lines() {
    let lab = lab_of(Era::Y2023);
    let gate = Gate::new(&lab.scratch, "provision");
    let provision = format!("printf 'a line\nhalf'; {}; echo ' of one'", gate.words());
    let lab = lab.command("provision", &provision).command(
        "test",
        "for n in 1 2 3 4 5 6 7 8; do echo $n; sleep 0.5; done",
    );
    let texts = |job: &str| lab.server.view(|view| view.texts(job, LogType::Output));
    let first = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_until_complete(&first);
    // Its beginning and its end, and more where the machine is slow.
    assert!(texts(&first).len() <= 4, "{:?}", texts(&first));
    // The agent knows its server by now.
    let job = lab.submit(r#""provision_data": {"url": "x"}"#);
    wait_for_live(&lab, &job, "a line\n");
    gate.open();
    lab.wait_until_complete(&job);
    let is_whole = |piece: &String| piece.ends_with('\n');
    assert!(texts(&job).iter().all(is_whole), "{:?}", texts(&job));
    assert_eq!(kept(&lab, &job, Phase::Provision), "a line\nhalf of one\n");
}

#[test]
fn the_result_has_the_last_mebibyte_of_an_output_and_whole_characters() {
    let lab = lab_of(Era::Y2023).command(
        "test",
        "yes é | head -n 600000 | tr -d '\\n'; printf z; echo",
    );
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    let whole = format!("{}z\n", "é".repeat(600_000));
    assert!(live(&lab, &job, LogType::Output).contains(&whole));
    let output = member(&lab, &job, "test_output").unwrap();
    // One byte less: half a character was left out.
    let wanted = format!("{}z\n", "é".repeat((1 << 19) - 1));
    assert!(output == wanted, "{} bytes", output.len());
}

#[test]
fn a_cancellation_ends_the_phase() {
    for era in [Era::Y2023, Era::Y2025] {
        let (lab, _gate) = lab_with_gate(era);
        let job = lab.submit_test();
        let agent = lab.agent();
        wait_for_live(&lab, &job, "begun\n");
        assert!(lab.server.cancel(&job));
        lab.wait_until_complete(&job);
        let log = agent.log();
        assert_eq!(
            status(&lab, &job, Phase::Test).as_deref(),
            Some("247"),
            "{log}"
        );
        assert!(kept(&lab, &job, Phase::Test).contains("Job cancellation was requested"));
        assert_eq!(kept(&lab, &job, Phase::Cleanup), "cleaned\n");
    }
}

#[test]
fn what_a_phase_says_in_an_outage_is_shown_afterwards_once_and_in_order() {
    for era in OLD {
        let (lab, gate) = lab_with_gate(era);
        let job = lab.submit_test();
        let agent = lab.agent();
        wait_for_live(&lab, &job, "begun\n");
        wait_until_sent(&lab, &job);
        lab.proxy().set_down(true);
        gate.open();
        agent.wait_for_log("it refused the connection; trying again");
        lab.proxy().set_down(false);
        lab.wait_until_complete(&job);
        let phases = [Phase::Setup, Phase::Test, Phase::Cleanup];
        let all = phases.map(|phase| member(&lab, &job, &format!("{phase}_output")).unwrap());
        assert_eq!(
            live(&lab, &job, LogType::Output),
            all.concat(),
            "{}",
            agent.log()
        );
        assert_eq!(kept(&lab, &job, Phase::Test), "begun\ndone\n");
    }
}

/// Nothing can be read back: what was sent is gone as soon as it is looked at.
#[test]
fn a_piece_whose_reply_is_lost_is_shown_again_and_marked_and_the_result_is_exact() {
    let (lab, gate) = lab_with_gate(Era::Y2023);
    let job = lab.submit_test();
    let agent = lab.agent();
    wait_for_live(&lab, &job, "begun\n");
    wait_until_sent(&lab, &job);
    lab.proxy().on("POST", TEXTS, 1, Fault::DropReply);
    gate.open();
    lab.wait_until_complete(&job);
    let shown = live(&lab, &job, LogType::Output);
    let (before, after) = shown.split_once("what follows may repeat]\n").unwrap();
    assert!(before.contains("begun\ndone\n"), "{shown}");
    assert!(after.starts_with("done\n"), "{shown}\n{}", agent.log());
    assert_eq!(kept(&lab, &job, Phase::Test), "begun\ndone\n");
}

#[test]
fn a_job_is_taken_up_where_a_killed_agent_left_it() {
    for era in OLD {
        let (lab, _gate) = lab_with_gate(era);
        let job = lab.submit_test();
        let agent = lab.agent();
        wait_for_live(&lab, &job, "begun\n");
        kill(agent);
        let agent = lab.agent();
        lab.wait_until_complete(&job);
        let log = agent.log();
        let status = |phase| status(&lab, &job, phase);
        assert_eq!(status(Phase::Setup).as_deref(), Some("0"), "{log}");
        assert_eq!(status(Phase::Test).as_deref(), Some("100"), "{log}");
        assert_eq!(status(Phase::Cleanup).as_deref(), Some("0"), "{log}");
        assert_eq!(kept(&lab, &job, Phase::Setup), "set up\n");
        assert_eq!(
            kept(&lab, &job, Phase::Test),
            format!("begun\n{INTERRUPTED}")
        );
        assert_eq!(kept(&lab, &job, Phase::Cleanup), "cleaned\n");
        wait_until("the record is gone", || !journal(&lab, &job).exists());
        // What was shown is not shown again, but for what nobody can know.
        let shown = live(&lab, &job, LogType::Output);
        assert_eq!(shown.matches("set up\n").count(), 1, "{shown}");
        assert!(shown.ends_with("cleaned\n"), "{shown}");
        assert_eq!(said(&agent, "WARNING") + said(&agent, "ERROR"), 1, "{log}");
    }
}

/// Nothing but the result is owed, and nobody has asked yet of which time the server
/// is: the journal says it.
#[test]
fn a_result_that_could_not_be_delivered_comes_after_the_next_start() {
    let (lab, gate) = lab_with_gate(Era::Y2025);
    let job = lab.submit_test();
    let agent = lab.agent();
    wait_for_live(&lab, &job, "begun\n");
    let result = format!("/v1/result/{job}");
    lab.proxy().on("POST", &result, 1_000, Fault::status(503));
    gate.open();
    wait_for_text(
        &journal(&lab, &job),
        "\"entry\": \"reported\", \"phase\": \"cleanup\"",
    );
    kill(agent);
    lab.proxy().clear();
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_eq!(kept(&lab, &job, Phase::Setup), "set up\n");
    assert_eq!(kept(&lab, &job, Phase::Test), "begun\ndone\n");
    assert_eq!(status(&lab, &job, Phase::Test).as_deref(), Some("0"));
    assert_eq!(said(&agent, "refused"), 0, "{}", agent.log());
    wait_until("the record is gone", || !journal(&lab, &job).exists());
}

/// All that the new server is to have, in its own form.
fn is_whole_today(lab: &Lab, job: &str, test: &str) {
    lab.wait_until_complete(job);
    assert_eq!(lab.body(job, Phase::Setup), "set up\n", "{}", lab.story());
    assert_eq!(lab.body(job, Phase::Test), test);
    assert_eq!(lab.body(job, Phase::Cleanup), "cleaned\n");
    assert_eq!(lab.status(job, "setup"), Some(0));
    assert_eq!(lab.status(job, "cleanup"), Some(0));
    let fragments = lab.server.fragments(job);
    let numbers: Vec<_> = fragments.iter().map(|one| one.number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    // Looked at by whoever cancelled, or waits: it does not begin again.
    let mut states = lab.job_states(job, 0);
    states.dedup();
    assert_eq!(states, ["setup", "test", "complete"]);
}

/// A lab whose server will want tokens.
fn lab_to_be_upgraded() -> (Lab, Gate) {
    let (lab, gate) = lab_with_gate(Era::Y2025);
    let token = format!("{{\"refresh_token\": \"{}\"}}", lab.server.refresh_token());
    fs::write(lab.scratch.path("token"), token).unwrap();
    (lab, gate)
}

#[test]
fn a_server_that_is_upgraded_in_the_middle_of_a_job_has_all_of_it_in_the_end() {
    let (lab, gate) = lab_to_be_upgraded();
    let job = lab.submit_test();
    let agent = lab.agent();
    wait_for_live(&lab, &job, "begun\n");
    lab.server.set_era(Era::Today);
    gate.open();
    is_whole_today(&lab, &job, "begun\ndone\n");
    assert_eq!(lab.status(&job, "test"), Some(0));
    assert_eq!(said(&agent, SAID), 1, "{}", agent.log());
    assert_eq!(said(&agent, "of 2025-12 or later now"), 1);
    assert_eq!(said(&agent, "was upgraded in the middle of job"), 1);
    // And the next one goes today's way at once.
    let before = lab.server.exchanges().len();
    let next = lab.submit_test();
    lab.wait_until_complete(&next);
    assert_eq!(lab.body(&next, Phase::Test), "begun\ndone\n");
    let later = lab.server.exchanges().split_off(before);
    assert_eq!(count(&later, |one| one.status == 404), 0, "{later:?}");
}

#[test]
fn a_server_that_is_upgraded_before_the_result_has_all_of_the_job_in_the_end() {
    let (lab, gate) = lab_to_be_upgraded();
    let job = lab.submit_test();
    let agent = lab.agent();
    wait_for_live(&lab, &job, "begun\n");
    let result = format!("/v1/result/{job}");
    lab.proxy().on("POST", &result, 1_000, Fault::status(503));
    gate.open();
    wait_for_text(
        &journal(&lab, &job),
        "\"entry\": \"reported\", \"phase\": \"cleanup\"",
    );
    lab.server.set_era(Era::Today);
    lab.proxy().clear();
    is_whole_today(&lab, &job, "begun\ndone\n");
    assert_eq!(said(&agent, "refused"), 0, "{}", agent.log());
}

#[test]
fn a_server_that_is_upgraded_while_the_agent_is_away_has_all_of_the_job_in_the_end() {
    let (lab, _gate) = lab_to_be_upgraded();
    let job = lab.submit_test();
    let agent = lab.agent();
    wait_for_live(&lab, &job, "begun\n");
    kill(agent);
    lab.server.set_era(Era::Today);
    let _agent = lab.agent();
    is_whole_today(&lab, &job, &format!("begun\n{INTERRUPTED}"));
    assert_eq!(lab.status(&job, "test"), Some(100));
}

#[test]
fn a_page_that_is_not_found_once_makes_no_server_an_old_one() {
    let lab = Lab::new().with_proxy().command("test", "echo tested");
    lab.proxy().on("POST", FRAGMENTS, 1, Fault::status(404));
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Test), "tested\n");
    assert_eq!(lab.status(&job, "test"), Some(0));
    assert_eq!(live(&lab, &job, LogType::Output), "");
    // That one, and the question.
    let fragments = lab.server.fragments(&job).len();
    let seen = lab.proxy().seen();
    let posts = seen.iter().filter(|one| one.path.ends_with("/log/output"));
    assert_eq!(posts.count(), fragments + 2);
    assert_eq!(said(&agent, SAID), 0, "{}", agent.log());
    assert_eq!(said(&agent, "going on without"), 0, "{}", agent.log());
}

/// Whoever stands before a server that is away may know no page at all.
#[test]
fn a_proxy_that_knows_no_pages_for_a_while_makes_no_server_an_old_one() {
    let lab = Lab::new().with_proxy();
    let gate = Gate::new(&lab.scratch, "test");
    let test = format!("echo begun; {}; echo done", gate.words());
    let lab = lab.command("test", &test);
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_for_output(&job, Phase::Test, "begun\n");
    wait_until_sent(&lab, &job);
    lab.proxy().on("POST", TEXTS, 1_000, Fault::status(404));
    gate.open();
    agent.wait_for_log(
        "cannot find where the server takes logs: the server answered 404; trying again",
    );
    lab.proxy().clear();
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Test), "begun\ndone\n");
    assert_eq!(lab.status(&job, "test"), Some(0));
    assert_eq!(said(&agent, SAID), 0, "{}", agent.log());
    assert_eq!(said(&agent, "upgraded"), 0, "{}", agent.log());
}

/// The answer to the first posts of the result, and what is left of it.
fn result_after(era: Era, status: u16, times: u32) -> (Lab, Agent, String) {
    let lab = lab_of(era);
    let gate = Gate::new(&lab.scratch, "cleanup");
    let lab = lab
        .command(
            "test",
            "echo boot > test-serial.log; seq 1 200000; echo end",
        )
        .command("cleanup", &format!("echo cleaning; {}", gate.words()));
    let job = lab.submit_test();
    let agent = lab.agent();
    wait_for_live(&lab, &job, "cleaning\n");
    lab.server
        .answer("POST", &format!("/v1/result/{job}"), times, status, "{}");
    gate.open();
    lab.wait_until_complete(&job);
    assert_eq!(member(&lab, &job, "job_state").as_deref(), Some("complete"));
    (lab, agent, job)
}

#[test]
fn a_result_that_is_refused_is_made_smaller_until_it_is_taken() {
    for refusals in 1..=3 {
        let (lab, _agent, job) = result_after(Era::Y2025, 422, refusals);
        let has = |name: &str| member(&lab, &job, name).is_some();
        assert!(!has("test_serial"), "{refusals}");
        assert_eq!(has("test_output"), refusals < 2, "{refusals}");
        assert_eq!(has("test_status"), refusals < 3, "{refusals}");
        let refused = lab.scratch.path("results").join("refused").join(&job);
        wait_for_text(&refused.join("refused.txt"), "its result with all logs");
    }
}

#[test]
fn a_result_that_is_too_large_is_halved() {
    let (lab, _agent, job) = result_after(Era::Y2025, 413, 2);
    let output = member(&lab, &job, "test_output").unwrap();
    assert!(output.len() <= 1 << 18 && output.len() > 1 << 17);
    assert!(output.ends_with("\n199999\n200000\nend\n"));
    assert_eq!(member(&lab, &job, "test_serial").as_deref(), Some("boot\n"));
    assert_eq!(status(&lab, &job, Phase::Test).as_deref(), Some("0"));
}

#[test]
fn what_an_old_server_has_no_place_for_is_said_once() {
    let lab = lab_of(Era::Y2023)
        .command("test", "echo tested")
        .set("advertised_queues", "{lab: a lab}")
        .set("advertised_images", "{lab: {image: url}}");
    for path in ["queues", "images", "data/*"] {
        let path = format!("/v1/agents/{path}");
        lab.server.answer("POST", &path, 1_000, 405, "");
    }
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    lab.proxy()
        .wait_for("POST", "/v1/agents/data/*", 6, PATIENCE);
    for what in ["queues", "images", "agent data"] {
        let what = format!("the server has no {what} (");
        assert_eq!(said(&agent, &what), 1, "{}", agent.log());
    }
    assert_eq!(said(&agent, "WARNING"), 0, "{}", agent.log());
}

/// The server does not say that the agent is offline, so the agent has to know.
#[test]
fn a_device_that_cannot_be_recovered_takes_no_job_until_the_agent_is_started_again() {
    let lab = lab_of(Era::Y2023).command("provision", "exit 46");
    let job = lab.submit(r#""provision_data": {"url": "x"}"#);
    let mut agent = lab.agent();
    lab.wait_until_complete(&job);
    agent.wait_for_log("takes no jobs: Set to offline by agent");
    lab.wait("the agent has no job", |view| {
        let agent = view.agent(&lab.agent_id);
        agent.is_some_and(|agent| agent.job_id.is_empty())
    });
    let next = lab.submit_test();
    let asked = lab.proxy().seen().len();
    lab.proxy()
        .wait_for("GET", "/v1/agents/data/*", asked, PATIENCE);
    assert_eq!(lab.server.job_state(&next).as_deref(), Some("waiting"));
    agent.signal("TERM");
    assert_eq!(agent.wait(), 0);
    let _agent = lab.agent();
    lab.wait_until_complete(&next);
}
