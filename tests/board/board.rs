//! The board test: the agent under busybox's init on a real kernel, which has its
//! network, its clock and its watchdog from an emulator. `make board-test` lays
//! out what it needs; the small server on this machine hands out the jobs.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod cpio;
mod machine;

use machine::{Board, PATIENCE, STARTED, pack};
use std::path::Path;
use std::time::Instant;
use testflinger_agent::job::Phase;
use testflinger_agent::local::{Options, Server};

/// A moment of 2030, in seconds since 1970.
const LATER: u64 = 1_900_000_000;
const LATER_DAY: &str = "2030-03-17";

const SETTINGS: &str = "watchdog_device: /dev/watchdog\n\
    test_command: date +%Y; cat /proc/self/oom_score_adj; mkdir artifacts; \
    uname -a > artifacts/uname\n";

/// Runs a job that shows the board's year, which it is told to be.
fn run_job(server: &Server, board: &Board, year: &str, day: &str) {
    let job = server
        .submit(r#"{"job_queue": "board", "test_data": {"test_cmds": "none"}}"#)
        .unwrap();
    let is_complete = server.wait_for(PATIENCE, |view| {
        view.job_state(&job).as_deref() == Some("complete")
    });
    assert!(is_complete, "no job came home:\n{}", board.screen());
    let output = server.output(&job, Phase::Test);
    let wanted = format!("*\n{year}\n500\n");
    assert!(output.ends_with(&wanted), "{output}");
    assert_eq!(server.status(&job).get("test"), Some(&0));
    assert!(server.artifact(&job).is_some());
    for fragment in server.fragments(&job) {
        assert!(fragment.timestamp.starts_with(day), "{fragment:?}");
    }
    let is_idle = server.wait_for(PATIENCE, |view| {
        let agent = view.agent("board");
        agent.is_some_and(|agent| agent.state == "waiting" && agent.job_id.is_empty())
    });
    assert!(is_idle, "{}", board.screen());
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [root, initrd, emulator @ ..] = &words[..] else {
        eprintln!("make board-test calls this");
        std::process::exit(2);
    };
    let (root, initrd) = (Path::new(root), Path::new(initrd));
    let server = Server::start(Options {
        directory: initrd.with_file_name("server"),
        ..Options::default()
    })
    .unwrap();
    pack(root, initrd, &server, SETTINGS);

    let begun = Instant::now();
    let done = |what: &str| println!("{:5.1} s  {what}", begun.elapsed().as_secs_f64());
    let mut board = Board::boot(emulator);
    board.wait_for(STARTED, 1);
    done("booted; the agent runs");
    run_job(&server, &board, "1970", "1970-01-01");
    done("a job is done, in 1970");
    board.type_in("kill -9 $(pidof testflinger-agent)");
    board.wait_for(STARTED, 2);
    done("the agent was killed; init has started it again");
    board.type_in(&format!("date -s @{LATER}"));
    board.wait_for("2030", 1);
    run_job(&server, &board, "2030", LATER_DAY);
    board.wait_for("[30-03-17 ", 1);
    done("the clock was set; the next job is done, in 2030");
    board.type_in("poweroff");
    board.wait_for("(agent)| stopped", 1);
    board.wait_for_end();
    done("powered off in order");

    if root.join("lib/modules/softdog.ko").exists() {
        let mut board = Board::boot(emulator);
        board.wait_for("the watchdog /dev/watchdog is fed every", 1);
        run_job(&server, &board, "1970", "1970-01-01");
        // Long enough for it to bite, if it were not fed.
        board.type_in("kill -STOP $(pidof testflinger-agent)");
        board.wait_for("Initiating system reboot", 1);
        board.wait_for_end();
        done("booted again; the watchdog has reset a board whose agent hangs");
    }
}
