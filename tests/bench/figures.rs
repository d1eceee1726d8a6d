//! The figures, one function each.

use crate::measure::{cpu, median, memory};
use crate::now;
use crate::support::lab::{
    Agent, Lab, PATIENCE, is_alive, numbers, quoted, wait_for_file, wait_until, wait_until_within,
};
use crate::support::proxy::Fault;
use crate::support::tls::{Authority, LOOPBACK, NOW, Terminator, server};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use testflinger_agent::job::Phase;
use testflinger_agent::local::Exchange;

/// A row of the table.
struct Figure {
    what: &'static str,
    original: &'static str,
    wanted: &'static str,
    measure: fn() -> String,
}

const fn figure(
    what: &'static str,
    original: &'static str,
    wanted: &'static str,
    measure: fn() -> String,
) -> Figure {
    Figure {
        what,
        original,
        wanted,
        measure,
    }
}

/// What is measured, what the original took, what is wanted, and how.
const FIGURES: &[Figure] = &[
    figure(
        "six echo phases, taken to complete",
        "24.3 s",
        "< 0.5 s",
        six_phases,
    ),
    figure(
        "a line printed, to stored at the server",
        "5.9 s",
        "< 0.6 s",
        line_to_server,
    ),
    figure(
        "output timeout due, to TERM sent",
        "6.0 s",
        "< 0.05 s",
        timeout_to_term,
    ),
    figure(
        "descendants alive after a kill (of 3)",
        "3",
        "0",
        alive_after_kill,
    ),
    figure(
        "the same of every kind (of 4), a second after the grace",
        "not measured",
        "0",
        alive_after_grace,
    ),
    figure(
        "a pipe that is held open delays the end of its phase by",
        "not measured",
        "< 1 s",
        held_pipe,
    ),
    figure("cancelled, to TERM", "8.0 s", "< 2.5 s", cancel_to_term),
    figure(
        "50 MB of output",
        "> 700 s, 301 MiB",
        "< 10 s, < 8 MiB",
        flood,
    ),
    figure(
        "500 MB of artifacts, half random",
        "7.0 CPU s, 556 MiB, 273 MB of disk",
        "< 4 CPU s, < 8 MiB, none",
        artifacts,
    ),
    figure(
        "60 s of `yes`, the server hangs: memory, and how late the timeout",
        "not measured",
        "< 8 MiB, < 0.1 s",
        flood_against_a_hanging_server,
    ),
    figure("idle, resident memory", "35 MiB", "< 5 MiB", idle_memory),
    figure(
        "idle after polls over HTTPS, resident memory",
        "not measured",
        "< 3 MB (static)",
        idle_memory_over_tls,
    ),
    figure(
        "1 GB of artifacts over HTTPS, peak memory",
        "not measured",
        "< 5 MB (static)",
        artifacts_over_tls,
    ),
    figure("requests per idle cycle", "6 to 7", "2", idle_requests),
    figure(
        "start to first request",
        "0.36 s",
        "< 0.02 s",
        first_request,
    ),
];

/// Prints the table, or the rows whose name holds the word.
pub(crate) fn print(word: Option<&str>) {
    println!("| what | the Python agent | wanted | here |\n|---|---|---|---|");
    for Figure {
        what,
        original,
        wanted,
        measure,
    } in FIGURES
    {
        if word.is_none_or(|word| what.contains(word)) {
            println!("| {what} | {original} | {wanted} | {} |", measure());
        }
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// This program, as a phase's command.
fn own(arguments: &str) -> String {
    format!("{} {arguments}", std::env::current_exe().unwrap().display())
}

fn mebibytes(kibibytes: u64) -> String {
    format!("{:.1} MiB", kibibytes as f64 / 1024.0)
}

/// How long a job took, by the requests of its agent.
fn taken_to_complete(lab: &Lab) -> Duration {
    let find = |exchanges: &[Exchange], is_it: &dyn Fn(&Exchange) -> bool| {
        let found = exchanges
            .iter()
            .find(|exchange| exchange.status == 200 && is_it(exchange));
        found.map(|exchange| exchange.at)
    };
    let is_complete = |exchange: &Exchange| {
        exchange
            .request_body
            .contains("\"job_state\": \"complete\"")
    };
    lab.wait("the last request", |view| {
        find(view.exchanges(), &is_complete).is_some()
    });
    let exchanges = lab.server.exchanges();
    let taken = find(&exchanges, &|exchange| {
        exchange.path.starts_with("/v1/job?")
    });
    find(&exchanges, &is_complete).unwrap() - taken.unwrap()
}

fn six_phases() -> String {
    let once = || {
        let lab = [
            "setup",
            "provision",
            "firmware_update",
            "test",
            "reserve",
            "cleanup",
        ]
        .into_iter()
        .fold(Lab::new(), |lab, phase| {
            lab.command(phase, &format!("echo {phase}"))
        });
        let job = lab.submit(
            r#""provision_data": {"x": "y"}, "firmware_update_data": {"x": "y"},
               "test_data": {"test_cmds": "x"}, "reserve_data": {"ssh_keys": []}"#,
        );
        let _agent = lab.agent();
        lab.wait_until_complete(&job);
        seconds(taken_to_complete(&lab))
    };
    format!("{:.3} s", median((0..11).map(|_| once()).collect()))
}

fn line_to_server() -> String {
    let lab = Lab::new().command("test", &own("lines 21"));
    let job = lab.submit_test();
    let (sender, receiver) = mpsc::channel();
    lab.server.on_output(move |_, _, text| {
        let stored = now();
        for line in text.lines() {
            let printed = line
                .strip_prefix("printed at ")
                .and_then(|at| at.parse::<u128>().ok());
            if let Some(printed) = printed {
                let _ = sender.send((stored - printed) as f64 / 1e9);
            }
        }
    });
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    let delays: Vec<f64> = receiver.try_iter().collect();
    let longest = delays.iter().copied().fold(0.0, f64::max);
    format!("{:.2} s (longest {longest:.2} s)", median(delays))
}

/// A command that writes the time of its TERM to a file.
fn tells_its_term(lab: &Lab, first: &str) -> String {
    let file = lab.scratch.path("term").display().to_string();
    format!("trap 'date +%s%N > {file}; exit 0' TERM; {first}; while :; do sleep 0.01; done")
}

fn nanoseconds(path: &std::path::Path) -> u128 {
    wait_for_file(path).trim().parse().unwrap()
}

fn timeout_to_term() -> String {
    let once = || {
        let lab = Lab::new().set("output_timeout", "1");
        let started = lab.scratch.path("started");
        let first = format!("date +%s%N > {}; echo begun", started.display());
        let command = tells_its_term(&lab, &first);
        let lab = lab.command("test", &command);
        let job = lab.submit_test();
        let _agent = lab.agent();
        lab.wait_until_complete(&job);
        let due = nanoseconds(&started) + 1_000_000_000;
        (nanoseconds(&lab.scratch.path("term")).saturating_sub(due)) as f64 / 1e9
    };
    let delay = median((0..5).map(|_| once()).collect());
    format!("{delay:.3} s (with the 0.01 s of the shell's own loop)")
}

fn alive_after_kill() -> String {
    let lab = Lab::new().set("output_timeout", "1");
    let file = lab.scratch.path("pids");
    let command = format!(
        "for i in 1 2 3; do sleep 1000 & echo $! >> {}; done; wait",
        file.display()
    );
    let lab = lab.command("test", &command);
    let job = lab.submit_test();
    let _agent = lab.agent();
    lab.wait("the test has its status", |view| {
        view.status(&job).contains_key("test")
    });
    let pids = numbers(&file);
    assert_eq!(pids.len(), 3);
    pids.into_iter()
        .filter(|&pid| is_alive(pid))
        .count()
        .to_string()
}

/// A child, one in a session of its own, one that forked twice, and one that ignores
/// TERM.
fn alive_after_grace() -> String {
    let lab = Lab::new().set("output_timeout", "1").set("stop_grace", "1");
    let file = lab.scratch.path("pids");
    let tell = format!("echo $$ >> {}; exec sleep 1000", file.display());
    let ignore = format!(
        "trap '' TERM; echo $$ >> {}; while :; do sleep 1; done",
        file.display()
    );
    let command = format!(
        "sh -c {0} & setsid sh -c {0} & (setsid sh -c {0} &) & sh -c {1} & wait",
        shell(&tell),
        shell(&ignore)
    );
    let lab = lab.command("test", &command);
    let job = lab.submit_test();
    let _agent = lab.agent();
    wait_until("all run", || file.exists() && numbers(&file).len() == 4);
    lab.wait("the test has its status", |view| {
        view.status(&job).contains_key("test")
    });
    let alive = numbers(&file).into_iter().filter(|&pid| is_alive(pid));
    alive.count().to_string()
}

/// A word of a shell's.
fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn held_pipe() -> String {
    let once = || {
        let lab = Lab::new();
        let end = lab.scratch.path("end");
        let command = format!("sleep 1000 & date +%s%N > {}", end.display());
        let lab = lab.command("test", &command);
        let job = lab.submit_test();
        let _agent = lab.agent();
        lab.wait("the test has its status", |view| {
            view.status(&job).contains_key("test")
        });
        (now() - nanoseconds(&end)) as f64 / 1e9
    };
    format!("{:.2} s", median((0..5).map(|_| once()).collect()))
}

fn cancel_to_term() -> String {
    let once = |number: u64| {
        let lab = Lab::new();
        let command = tells_its_term(&lab, "echo begun");
        let lab = lab.command("test", &command);
        let job = lab.submit_test();
        let _agent = lab.agent();
        lab.wait_for_output(&job, Phase::Test, "begun");
        // Out of step with the agent's questions.
        std::thread::sleep(Duration::from_millis(number * 370));
        let cancelled = now();
        assert!(lab.server.cancel(&job));
        let term = nanoseconds(&lab.scratch.path("term"));
        (term - cancelled) as f64 / 1e9
    };
    let delays: Vec<f64> = (0..5).map(once).collect();
    let longest = delays.iter().copied().fold(0.0, f64::max);
    format!("{:.2} s (longest {longest:.2} s)", median(delays))
}

fn flood() -> String {
    let lab = Lab::new().command("test", &own("flood 50000000"));
    let job = lab.submit_test();
    let agent = lab.agent();
    let begun = Instant::now();
    lab.wait_until_complete(&job);
    let took = seconds(begun.elapsed());
    assert!(lab.body(&job, Phase::Test).len() == 50_000_000);
    format!("{took:.2} s, {}", mebibytes(memory(agent.pid(), "VmHWM")))
}

/// The same as `memory` in megabytes of ten to the sixth.
fn megabytes(kibibytes: u64) -> String {
    format!("{:.2} MB", kibibytes as f64 * 1024.0 / 1e6)
}

/// A lab behind TLS, with an authority of its own beside those of the system.
fn lab_behind_tls() -> (Lab, Terminator) {
    let authority = Authority::new();
    let lab = Lab::new();
    let file = lab.scratch.path("authority.pem");
    std::fs::write(&file, &authority.certificate).unwrap();
    let identity = server(&authority.issue(&LOOPBACK, NOW), None);
    let terminator = Terminator::start(lab.server.address(), identity);
    let lab = lab
        .behind(&terminator.url())
        .set("ca_certificate", &quoted(file.to_str().unwrap()));
    (lab, terminator)
}

fn idle_memory_over_tls() -> String {
    let (lab, _terminator) = lab_behind_tls();
    let agent = idle(&lab);
    megabytes(memory(agent.pid(), "VmRSS"))
}

fn artifacts_over_tls() -> String {
    const SIZE: u64 = 1_000_000_000;
    let (lab, _terminator) = lab_behind_tls();
    let lab = lab.command("test", &own(&format!("artifacts {SIZE}")));
    let job = lab.submit_test();
    let agent = lab.agent();
    wait_until_within("the job is complete", PATIENCE * 10, || {
        lab.server.job_state(&job).as_deref() == Some("complete")
    });
    assert!(lab.server.artifact(&job).is_some());
    megabytes(memory(agent.pid(), "VmHWM"))
}

fn artifacts() -> String {
    const SIZE: u64 = 500_000_000;
    let lab = Lab::new().command("test", &own(&format!("artifacts {SIZE}")));
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait("the test is over", |view| {
        view.status(&job).contains_key("test")
    });
    let before = cpu(agent.pid());
    // What lies in the agent's directories beside the artifacts themselves.
    let extra = std::cell::Cell::new(0);
    wait_until("the job is complete", || {
        let beside = usage(&lab.scratch.path("run")) + usage(&lab.scratch.path("results"));
        extra.set(beside.saturating_sub(SIZE).max(extra.get()));
        lab.server.job_state(&job).as_deref() == Some("complete")
    });
    let used = cpu(agent.pid()) - before;
    let memory = mebibytes(memory(agent.pid(), "VmHWM"));
    format!(
        "{used:.2} CPU s, {memory}, {:.1} MB",
        extra.get() as f64 / 1e6
    )
}

/// Bytes in a directory.
fn usage(directory: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => usage(&entry.path()),
        Ok(metadata) => metadata.len(),
        // Gone since it was listed.
        Err(_) => 0,
    };
    entries.map(size).sum()
}

fn flood_against_a_hanging_server() -> String {
    let lab = Lab::new().with_proxy().set("global_timeout", "60");
    let started = lab.scratch.path("started");
    let term = lab.scratch.path("term");
    let command = format!(
        "trap 'date +%s%N > {}; exit 0' TERM; date +%s%N > {}; yes & wait",
        term.display(),
        started.display()
    );
    let lab = lab.command("test", &command);
    lab.proxy()
        .on("POST", "/v1/result/*/log/output", usize::MAX, Fault::Hang);
    let _job = lab.submit_test();
    let agent = lab.agent();
    wait_until_within("the command is ended", Duration::from_secs(90), || {
        term.exists()
    });
    let due = nanoseconds(&started) + 60_000_000_000;
    let late = nanoseconds(&term).saturating_sub(due) as f64 / 1e9;
    let memory = mebibytes(memory(agent.pid(), "VmHWM"));
    lab.proxy().clear();
    lab.proxy().release();
    format!("{memory}, {late:.3} s")
}

/// An agent that has looked for a job a few times in vain.
fn idle(lab: &Lab) -> Agent {
    let agent = lab.agent();
    lab.wait("the agent is idle", |view| {
        let asked = |path: &str| path.starts_with("/v1/job?");
        view.exchanges()
            .iter()
            .filter(|exchange| asked(&exchange.path))
            .count()
            >= 5
    });
    agent
}

fn idle_memory() -> String {
    let lab = Lab::new();
    let agent = idle(&lab);
    mebibytes(memory(agent.pid(), "VmRSS"))
}

fn idle_requests() -> String {
    let lab = Lab::new();
    let _agent = idle(&lab);
    let exchanges = lab.server.exchanges();
    let asked: Vec<usize> = exchanges
        .iter()
        .enumerate()
        .filter(|(_, exchange)| exchange.path.starts_with("/v1/job?"))
        .map(|(at, _)| at)
        .collect();
    let cycles = asked.windows(2).map(|pair| (pair[1] - pair[0]) as f64);
    format!("{}", median(cycles.collect()))
}

fn first_request() -> String {
    let once = || {
        let lab = Lab::new();
        let begun = Instant::now();
        let _agent = lab.agent();
        lab.wait("a request", |view| !view.exchanges().is_empty());
        let first = lab.server.exchanges().remove(0).at;
        seconds(first - begun)
    };
    format!("{:.4} s", median((0..11).map(|_| once()).collect()))
}
