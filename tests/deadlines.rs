//! What takes long, or for ever: names, handshakes, uploads.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support::gate::Gate;
use support::lab::{Agent, Lab, PATIENCE, is_alive, numbers, wait_until};
use support::means;
use testflinger_agent::job::Phase;
use testflinger_agent::local::View;

/// How many lines of the agent's log hold the text.
fn said(agent: &Agent, text: &str) -> usize {
    agent
        .log()
        .lines()
        .filter(|line| line.contains(text))
        .count()
}

const NAME: &str = "lab-server.invalid";

/// A lab whose server has a name, the file that says which address that is, and
/// the words before an agent that believes the file.
fn lab_with_name(resolver: &str) -> Option<(Lab, PathBuf, Vec<String>)> {
    let lab = Lab::new().with_proxy();
    let url = lab.proxy().url().replace("127.0.0.1", NAME);
    let (hosts, resolv) = (lab.scratch.path("hosts"), lab.scratch.path("resolv.conf"));
    fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    fs::write(&resolv, resolver).unwrap();
    let wrapper = means::with_mounts(&format!(
        "mount --bind {} /etc/hosts && mount --bind {} /etc/resolv.conf",
        hosts.display(),
        resolv.display()
    ))?;
    Some((lab.behind(&url), hosts, wrapper))
}

/// The name has an address from now on.
fn make_known(hosts: &Path) {
    fs::write(hosts, format!("127.0.0.1 localhost\n127.0.0.1 {NAME}\n")).unwrap();
}

#[test]
fn row_25_a_name_that_nobody_knows_is_said_once_and_asked_for_again() {
    // Nobody is at this port: the answer comes at once, and is none.
    let Some((lab, hosts, wrapper)) = lab_with_name("nameserver 127.0.0.2\n") else {
        return;
    };
    let lab = lab.command("test", "echo tested");
    let job = lab.submit_test();
    let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
    let agent = lab.agent_under(&wrapper, &lab.agent_id);
    let url = lab.proxy().url().replace("127.0.0.1", NAME);
    agent.wait_for_log(&format!(
        "cannot reach {url}: its name cannot be looked up (DNS): "
    ));
    // A few attempts more.
    std::thread::sleep(Duration::from_secs(3));
    make_known(&hosts);
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Test), "tested\n");
    assert_eq!(said(&agent, "cannot"), 1, "{}", agent.log());
    let over = format!("can reach {url} again, after ");
    assert_eq!(said(&agent, &over), 1, "{}", agent.log());
}

#[test]
fn row_25_a_name_server_that_is_silent_delays_no_timeout() {
    let Some((silent, address)) = means::silent_name_server() else {
        return;
    };
    let resolver = format!("nameserver {address}\noptions timeout:5 attempts:2\n");
    let Some((lab, hosts, wrapper)) = lab_with_name(&resolver) else {
        return;
    };
    make_known(&hosts);
    let (gate, pid) = (Gate::new(&lab.scratch, "test"), lab.scratch.path("pid"));
    let test = format!(
        "echo $$ > '{}'; echo begun; for i in 1 2 3 4 5 6 7 8 9; do echo; sleep 0.5; done; \
         {}; echo last; exec sleep 1000",
        pid.display(),
        gate.words()
    );
    let lab = lab.command("test", &test).command("cleanup", "echo clean");
    let job = lab.submit(r#""output_timeout": 4, "test_data": {"test_cmds": "x"}"#);
    let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
    let agent = lab.agent_under(&wrapper, &lab.agent_id);
    lab.wait_for_output(&job, Phase::Test, "begun");
    fs::write(&hosts, "").unwrap();
    lab.proxy().set_down(true);
    lab.proxy().set_down(false);
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut question = [0; 512];
    silent.recv(&mut question).unwrap();
    gate.open();
    let pid = numbers(&pid)[0];
    wait_until("the command says its last", || {
        fs::read_to_string(lab.scratch.path("run").join(&job).join("test.log"))
            .is_ok_and(|text| text.contains("last"))
    });
    let begun = Instant::now();
    wait_until("the command is ended", || !is_alive(pid));
    let took = begun.elapsed();
    let wanted = Duration::from_millis(3_500)..Duration::from_secs(6);
    assert!(wanted.contains(&took), "{took:?}");
    agent.wait_for_log("phase cleanup of job");
    assert_eq!(
        lab.status(&job, "test"),
        None,
        "the server knows it already"
    );
    make_known(&hosts);
    lab.wait_until_complete(&job);
    assert_eq!(lab.status(&job, "test"), Some(247));
    assert!(lab.body(&job, Phase::Test).contains("\nlast\n"));
    assert_eq!(lab.body(&job, Phase::Cleanup), "clean\n");
    // Once; that it was cut before, as well.
    let unknown = "its name cannot be looked up (DNS)";
    assert_eq!(said(&agent, unknown), 1, "{}", agent.log());
    assert!(said(&agent, "cannot reach") <= 2, "{}", agent.log());
}

#[cfg(feature = "tls")]
mod tls {
    use super::*;
    use support::lab::{quoted, wait_for_file, wait_until_within};
    use support::tls::{Authority, LOOPBACK, NOW, Terminator, server};

    fn lab_behind_tls() -> (Lab, Terminator) {
        let (lab, authority) = (Lab::new(), Authority::new());
        let config = server(&authority.issue(&LOOPBACK, NOW), None);
        let terminator = Terminator::start(lab.server.address(), config);
        let trusted = lab.scratch.path("authority.pem");
        fs::write(&trusted, &authority.certificate).unwrap();
        let lab = lab
            .behind(&terminator.url())
            .set("ca_certificate", &quoted(trusted.to_str().unwrap()));
        (lab, terminator)
    }

    /// Threads and descriptors.
    fn possessions(agent: &Agent) -> (usize, usize) {
        let count = |what: &str| {
            let directory = format!("/proc/{}/{what}", agent.pid());
            fs::read_dir(directory).unwrap().count()
        };
        (count("task"), count("fd"))
    }

    #[test]
    fn row_23_a_handshake_that_falls_silent_delays_no_timeout() {
        let (lab, terminator) = lab_behind_tls();
        let (test, cleanup) = (
            Gate::new(&lab.scratch, "test"),
            Gate::new(&lab.scratch, "cleanup"),
        );
        let pid = lab.scratch.path("pid");
        let words = format!(
            "echo $$ > '{}'; echo begun; {}",
            pid.display(),
            test.words()
        );
        let lab = lab
            .command("test", &words)
            .command("cleanup", &format!("echo clean; {}", cleanup.words()));
        let job = lab.submit(r#""output_timeout": 2, "test_data": {"test_cmds": "x"}"#);
        let agent = lab.agent();
        lab.wait_for_output(&job, Phase::Test, "begun");
        terminator.fall_silent(true);
        let (pid, begun) = (numbers(&pid)[0], Instant::now());
        wait_until("the command is ended", || !is_alive(pid));
        // A handshake has more.
        assert!(begun.elapsed() < Duration::from_secs(9));
        agent.wait_for_log("phase cleanup of job");
        let printed = lab.scratch.path("run").join(&job).join("cleanup.log");
        wait_for_file(&printed);
        // In the middle of a handshake, and of the next.
        let next = || {
            let before = terminator.accepted();
            wait_until("it tries again", || terminator.accepted() > before);
            possessions(&agent)
        };
        let before = next();
        let cause = format!("cannot reach {}: ", terminator.url());
        agent.wait_for_log(&cause);
        let after = next();
        if means::is_native("threads and descriptors are those of the emulator") {
            assert_eq!(after, before);
        }
        terminator.fall_silent(false);
        cleanup.open();
        lab.wait_until_complete(&job);
        assert_eq!(lab.status(&job, "test"), Some(247));
        assert_eq!(lab.body(&job, Phase::Cleanup), "clean\n");
        let silent = "it did not answer in time; trying again";
        assert_eq!(said(&agent, silent), 1, "{}", agent.log());
        assert!(said(&agent, "cannot reach") <= 2, "{}", agent.log());
    }

    /// A megabyte a second; `make soak-upload` asks for more of them.
    const RATE: u64 = 1_000_000;

    #[test]
    fn a_slow_upload_of_artifacts_is_not_cut_off() {
        let seconds = std::env::var("TESTFLINGER_SLOW_UPLOAD");
        let seconds: u64 = seconds.map_or(50, |seconds| seconds.parse().unwrap());
        let (lab, terminator) = lab_behind_tls();
        let size = seconds * RATE;
        let test = format!("mkdir artifacts; head -c {size} /dev/urandom > artifacts/random");
        let lab = lab.command("test", &test).command("cleanup", "echo clean");
        terminator.slow_down(RATE);
        let job = lab.submit_test();
        let agent = lab.agent();
        agent.wait_for_log("phase cleanup of job");
        let begun = Instant::now();
        let patience = PATIENCE + Duration::from_secs(2 * seconds);
        let is_complete = |view: View<'_>| view.job_state(&job).as_deref() == Some("complete");
        let arrived = lab.server.wait_for(patience, is_complete);
        assert!(arrived, "{}", lab.story());
        let took = begun.elapsed();
        assert!(took > Duration::from_secs(seconds * 9 / 10), "{took:?}");
        println!("{size} bytes took {took:?}");
        let artifact = lab.server.artifact(&job).unwrap();
        assert!(fs::metadata(artifact).unwrap().len() >= size);
        let uploads = lab.server.exchanges();
        let uploads = uploads
            .iter()
            .filter(|one| one.path.ends_with("/artifact"))
            .count();
        assert_eq!(uploads, 1, "{}", lab.story());
        assert_eq!(said(&agent, "cannot"), 0, "{}", agent.log());
    }

    /// With the limits that are shipped.
    #[test]
    fn row_23_an_upload_that_stalls_is_noticed_within_a_minute() {
        let (lab, terminator) = lab_behind_tls();
        let test = "mkdir artifacts; head -c 20000000 /dev/urandom > artifacts/random";
        let lab = lab.command("test", test);
        terminator.slow_down(RATE);
        let job = lab.submit_test();
        let agent = lab.agent();
        wait_until("some of the artifacts are there", || {
            lab.server.receiving() > Some(RATE)
        });
        terminator.stall(true);
        let begun = Instant::now();
        let noticed = "cannot send a job's artifacts: it did not answer in time";
        wait_until_within("the stall is noticed", PATIENCE * 6, || {
            said(&agent, noticed) == 1
        });
        let took = begun.elapsed();
        println!("noticed after {took:?}");
        assert!(took < Duration::from_secs(60), "{took:?}");
        terminator.slow_down(0);
        terminator.stall(false);
        lab.wait_until_complete(&job);
        assert!(lab.server.artifact(&job).is_some());
    }
}
