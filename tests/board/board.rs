//! The board test: the agent under busybox's init on a real kernel, which has its
//! network, its clock and its watchdog from an emulator. `make board-test` lays
//! out what it needs; the small server on this machine hands out the jobs.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod cpio;

use cpio::Cpio;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use testflinger_agent::job::Phase;
use testflinger_agent::local::{Options, Server};

/// An emulator is slow, and so may the machine below it be.
const PATIENCE: Duration = Duration::from_secs(120);
/// What the agent says when it has started.
const STARTED: &str = "for the queues board";
/// A moment of 2030, in seconds since 1970.
const LATER: u64 = 1_900_000_000;
const LATER_DAY: &str = "2030-03-17";

/// A board that is on.
struct Board {
    emulator: Child,
    keyboard: ChildStdin,
    screen: Arc<(Mutex<String>, Condvar)>,
}

impl Board {
    fn boot(words: &[String]) -> Board {
        let mut emulator = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let screen = Arc::new((Mutex::new(String::new()), Condvar::new()));
        let shown = Arc::clone(&screen);
        let mut serial = emulator.stdout.take().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = serial.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]);
                shown.0.lock().unwrap().push_str(&text);
                shown.1.notify_all();
            }
        });
        Board {
            keyboard: emulator.stdin.take().unwrap(),
            emulator,
            screen,
        }
    }

    fn screen(&self) -> String {
        self.screen.0.lock().unwrap().clone()
    }

    /// Waits until the screen has shown a text so often.
    fn wait_for(&self, text: &str, times: usize) {
        let shown = self.screen.0.lock().unwrap();
        let is_missing = |shown: &mut String| shown.matches(text).count() < times;
        let waited = self
            .screen
            .1
            .wait_timeout_while(shown, PATIENCE, is_missing);
        let (shown, result) = waited.unwrap();
        assert!(!result.timed_out(), "no {text:?} on the screen:\n{shown}");
    }

    fn type_in(&mut self, line: &str) {
        self.keyboard.write_all(line.as_bytes()).unwrap();
        self.keyboard.write_all(b"\n").unwrap();
    }

    /// Waits until the board is off.
    fn wait_for_end(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.emulator.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "still on:\n{}", self.screen());
            // There is no way to wait for a child with a time limit but asking.
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let _ = self.emulator.kill();
        let _ = self.emulator.wait();
    }
}

/// Writes what differs from run to run into the board's files, and packs them.
fn pack(root: &Path, initrd: &Path, server: &Server) {
    let configuration = format!(
        "agent_id: board\n\
         server_address: http://10.0.2.2:{}\n\
         job_queues: [board]\n\
         polling_interval: 1\n\
         execution_basedir: /var/lib/testflinger-agent/run\n\
         results_basedir: /var/lib/testflinger-agent/results\n\
         logging_basedir: /var/lib/testflinger-agent/logs\n\
         watchdog_device: /dev/watchdog\n\
         test_command: date +%Y; cat /proc/self/oom_score_adj; mkdir artifacts; uname -a > artifacts/uname\n",
        server.address().port()
    );
    fs::write(root.join("etc/testflinger-agent.conf"), configuration).unwrap();
    let token = format!("{{\"refresh_token\": \"{}\"}}", server.refresh_token());
    let state = root.join("var/lib/testflinger-agent");
    fs::write(state.join("refresh_token"), token).unwrap();
    let mut cpio = Cpio::new(BufWriter::new(File::create(initrd).unwrap()));
    cpio.tree(root, "").unwrap();
    cpio.device("dev/console", (5, 1)).unwrap();
    cpio.device("dev/null", (1, 3)).unwrap();
    cpio.device("dev/watchdog", (10, 130)).unwrap();
    cpio.finish().unwrap();
}

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
    pack(root, initrd, &server);

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
