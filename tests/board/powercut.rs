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
    /// Waits until the agent has brought it home, or knows nothing of it: it was cut
    /// off before it had written down what the server does not give twice. Which.
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
    let begun = Instant::now();
    assert!(undisturbed.is_home(&server, &board));
    undisturbed.verdict(&server).unwrap();
    let life = u64::try_from(begun.elapsed().as_millis()).unwrap();
    println!("a job takes {life} ms");

    let (mut lost, mut board) = (0, board);
    for cut in 1..=cuts {
        let job = submit(&server);
        let is_taken = server.wait_for(PATIENCE, |view| {
            view.job_state(&job).as_deref() != Some("waiting")
        });
        assert!(is_taken, "{}", board.screen());
        // This is the moment that is random, and not a wait for something.
        let delay = random(&mut state, life);
        std::thread::sleep(Duration::from_millis(delay));
        drop(board);
        let victim = Victim {
            statuses: server.status(&job),
            job,
        };
        board = Board::boot(emulator);
        board.wait_for(STARTED, 1);
        if !victim.is_home(&server, &board) {
            println!("cut {cut}, {delay} ms after the job was handed over: lost on its way");
            lost += 1;
            continue;
        }
        println!(
            "cut {cut}, {delay} ms after the job was handed over: {:?}",
            server.status(&victim.job)
        );
        if let Err(fault) = victim.verdict(&server) {
            let outputs = PHASES.map(|phase| server.output(&victim.job, phase));
            panic!("{fault}\n{}\n{}", board.screen(), outputs.join("\n==\n"));
        }
    }
    println!("{cuts} power cuts: no outcome lost, {lost} jobs lost on their way to the disk");
    // A few milliseconds of the two seconds that a job takes.
    assert!(lost <= 1 + cuts / 20, "{lost}");
}
