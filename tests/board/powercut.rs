//! Power cuts: a board whose agent keeps its state on a disk loses its power at a
//! random moment of a job, is booted again, and the job comes home; again and again,
//! on the same disk. `make powercut` lays out what it needs.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helper fails as loudly as the test"
)]

mod cpio;
mod machine;
#[path = "../support/random.rs"]
#[allow(unreachable_pub, reason = "the tests use it too")]
mod random;

use machine::{Board, PATIENCE, STARTED, pack};
use random::random;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};
use testflinger_agent::job::Phase;
use testflinger_agent::local::{Options, Server, View};

/// Lines that each phase prints.
const LINES: usize = 100;
const PHASES: [Phase; 3] = [Phase::Setup, Phase::Test, Phase::Cleanup];
/// After so many cuts there is one more, while a job is handed over.
const HAND_OVER: usize = 20;

/// Shell commands that print what can be counted, and last a while.
fn commands() -> String {
    let count =
        |name: &str| format!("i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo {name} $i; done");
    let phase = |name: &str| format!("echo begin {name}; {}; sleep 0.4", count(name));
    format!(
        "setup_command: {}; mkdir artifacts; ({}) > artifacts/kept\n\
         test_command: {}\n\
         cleanup_command: {}\n",
        phase("setup"),
        count("kept"),
        phase("test"),
        phase("cleanup")
    )
}

fn lines(name: &str) -> Vec<String> {
    (1..=LINES)
        .map(|number| format!("{name} {number}"))
        .collect()
}

/// A job that was under way when the power went.
struct Victim {
    job: String,
    /// What the server knew of it by then.
    statuses: BTreeMap<String, i64>,
}

impl Victim {
    /// Waits until the agent has brought it home, or knows nothing of it. Which.
    fn is_home(&self, server: &Server, board: &Board) -> bool {
        let asked = |view: View<'_>| {
            let paths = view
                .exchanges()
                .iter()
                .map(|exchange| exchange.path.as_str());
            paths.filter(|path| path.starts_with("/v1/job?")).count()
        };
        let state = |view: View<'_>| view.job_state(&self.job).unwrap_or_default();
        let before = server.view(asked);
        let is_over = server.wait_for(PATIENCE, |view| {
            let is_idle = asked(view) > before + 2;
            state(view) == "complete" || (is_idle && state(view) == "running")
        });
        assert!(
            is_over,
            "it does not come home: {}\n{}",
            server.view(state),
            board.screen()
        );
        server.view(state) == "complete"
    }

    /// What is wrong with what became of it, if anything is.
    fn verdict(&self, server: &Server) -> Result<(), String> {
        let statuses = server.status(&self.job);
        for (phase, status) in &self.statuses {
            if statuses.get(phase) != Some(status) {
                return Err(format!("{phase} had ended with {status}"));
            }
        }
        for phase in PHASES {
            let name = phase.name();
            let output = server.output(&self.job, phase);
            let all = lines(name);
            let printed = |text: &str| -> Vec<String> {
                let lines = text.lines().filter(|line| line.starts_with(name));
                lines.map(str::to_owned).collect()
            };
            let begin = format!("begin {name}\n");
            let begun = output.matches(&begin).count();
            // Where it ran again, what counts is the last time.
            let last = output.rsplit(&begin).next().unwrap_or_default();
            match statuses.get(name) {
                Some(0) if printed(last) != all => {
                    return Err(format!("{name} ended well, and its output is not whole"));
                }
                Some(0) if begun == 1 || phase == Phase::Cleanup => {}
                Some(100) if phase != Phase::Cleanup && begun <= 1 => {
                    if !all.starts_with(&printed(&output)) {
                        return Err(format!("{name} has lines that are lost or doubled"));
                    }
                }
                None if phase == Phase::Test && statuses.get("setup") == Some(&100) => {}
                other => return Err(format!("{name}: {other:?}, begun {begun} times")),
            }
        }
        if statuses.get("setup") == Some(&0) {
            let artifact = server.artifact(&self.job).ok_or("no artifacts")?;
            let tar = Command::new("tar")
                .arg("-xzOf")
                .arg(artifact)
                .arg("artifacts/kept")
                .output()
                .map_err(|error| error.to_string())?;
            let kept = String::from_utf8_lossy(&tar.stdout);
            let is_whole = kept.lines().eq(lines("kept"));
            // Of a job that was cut short, all that was on the disk.
            if !is_whole && statuses.values().all(|status| *status == 0) {
                return Err("the artifacts are not whole".into());
            }
        }
        Ok(())
    }
}

/// The server takes the job for the agent's.
fn wait_until_handed_over(server: &Server, board: &Board, job: &str) {
    let is_taken = server.wait_for(PATIENCE, |view| {
        view.job_state(job).as_deref() != Some("waiting")
    });
    assert!(is_taken, "{}", board.screen());
}

/// The agent speaks of the job, which it does only when it has written it down.
fn wait_until_on_record(server: &Server, board: &Board, job: &str) {
    let is_known = server.wait_for(PATIENCE, |view| {
        let mut exchanges = view.exchanges().iter();
        exchanges.any(|exchange| exchange.path.contains(job))
    });
    assert!(is_known, "{}", board.screen());
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap()
}

fn submit(server: &Server) -> String {
    let job = r#"{"job_queue": "board", "test_data": {"test_cmds": "none"}}"#;
    server.submit(job).unwrap()
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [root, initrd, cuts, emulator @ ..] = &words[..] else {
        eprintln!("make powercut calls this");
        std::process::exit(2);
    };
    let (root, initrd) = (Path::new(root), Path::new(initrd));
    let cuts: usize = cuts.parse().unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seed = std::env::var("TESTFLINGER_SEED")
        .map_or_else(|_| now.unwrap().as_secs(), |seed| seed.parse().unwrap());
    println!("seed: {seed} (TESTFLINGER_SEED)");
    let mut state = seed;
    let server = Server::start(Options {
        directory: initrd.with_file_name("server"),
        keep_exchanges: true,
        ..Options::default()
    })
    .unwrap();
    pack(root, initrd, &server, &commands());
    // The state of the agent lies on the disk, and so does its token.
    let disk = initrd.with_file_name("disk");
    let _ = std::fs::remove_file(&disk);
    let made = Command::new("/sbin/mke2fs")
        .args(["-q", "-t", "ext4", "-d"])
        .arg(root.join("var/lib/testflinger-agent"))
        .arg(&disk)
        .arg("32M")
        .status()
        .unwrap();
    assert!(made.success());

    // How long a job takes that nobody cuts short.
    let board = Board::boot(emulator);
    board.wait_for(STARTED, 1);
    let undisturbed = Victim {
        job: submit(&server),
        statuses: BTreeMap::new(),
    };
    wait_until_handed_over(&server, &board, &undisturbed.job);
    let begun = Instant::now();
    wait_until_on_record(&server, &board, &undisturbed.job);
    let hand_over = milliseconds(begun).max(1);
    assert!(undisturbed.is_home(&server, &board));
    undisturbed.verdict(&server).unwrap();
    let life = milliseconds(begun) - hand_over;
    println!("a job takes {life} ms, after {hand_over} ms in which it is handed over");

    let (mut cut, mut extra, mut lost, mut board) = (0, 0, 0, board);
    while cut < cuts {
        let in_hand_over = cut / HAND_OVER > extra;
        let job = submit(&server);
        wait_until_handed_over(&server, &board, &job);
        if in_hand_over {
            extra += 1;
        } else {
            cut += 1;
            wait_until_on_record(&server, &board, &job);
        }
        // This is the moment that is random, and not a wait for something.
        let delay = random(&mut state, if in_hand_over { hand_over } else { life });
        std::thread::sleep(Duration::from_millis(delay));
        drop(board);
        let victim = Victim {
            statuses: server.status(&job),
            job,
        };
        board = Board::boot(emulator);
        board.wait_for(STARTED, 1);
        let is_home = victim.is_home(&server, &board);
        let statuses = server.status(&victim.job);
        if in_hand_over {
            println!("cut in the hand-over, after {delay} ms: {statuses:?}");
            lost += usize::from(!is_home);
        } else {
            println!("cut {cut}, {delay} ms after the job was on record: {statuses:?}");
            assert!(is_home, "its agent knows nothing of it: {}", board.screen());
        }
        if !is_home {
            continue;
        }
        if let Err(fault) = victim.verdict(&server) {
            let outputs = PHASES.map(|phase| server.output(&victim.job, phase));
            panic!("{fault}\n{}\n{}", board.screen(), outputs.join("\n==\n"));
        }
    }
    println!("{cuts} power cuts: no outcome lost, no job left running");
    println!(
        "{extra} more while a job was handed over, which the server does once: {lost} jobs lost"
    );
}
