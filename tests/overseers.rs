//! Those who watch over the agent: the init that started it, the board's
//! watchdog, and the kernel when memory runs out.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};
use support::lab::{Lab, PATIENCE, is_alive, wait_until};
use support::means::{is_native, limit_descriptors, strace};
use testflinger_agent::job::Phase;

/// What stands for an init: a socket, and what came through it. Its queue is short, and
/// what finds no room there is not sent: so a thread of its own empties it.
struct Init {
    messages: Receiver<String>,
    heard: Vec<String>,
}

impl Init {
    fn at(path: &Path) -> Init {
        Init::of(UnixDatagram::bind(path).unwrap())
    }

    fn of(socket: UnixDatagram) -> Init {
        let (sender, messages) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok(length) = socket.recv(&mut buffer) {
                let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        Init {
            messages,
            heard: Vec::new(),
        }
    }

    /// The next message.
    fn hear(&mut self) -> String {
        self.hear_within(PATIENCE)
    }

    fn hear_within(&mut self, patience: Duration) -> String {
        let message = self.messages.recv_timeout(patience);
        let message = message.unwrap_or_else(|error| panic!("{error}; heard {:?}", self.heard));
        self.heard.push(message.clone());
        message
    }

    /// Listens until a message is as wanted; others do not prolong that.
    fn wait_for(&mut self, is_wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self.hear_within(deadline.saturating_duration_since(Instant::now()));
            if is_wanted(&message) {
                return message;
            }
        }
    }
}

fn notify_path(lab: &Lab) -> String {
    lab.scratch.path("notify").to_str().unwrap().to_owned()
}

#[test]
fn the_init_hears_that_the_agent_is_ready_before_there_is_a_server() {
    let lab = Lab::new().behind("http://127.0.0.1:1");
    let path = notify_path(&lab);
    let lab = lab.environment("NOTIFY_SOCKET", &path);
    let mut init = Init::at(Path::new(&path));
    let _agent = lab.agent();
    assert_eq!(init.hear(), "READY=1\nSTATUS=starting");
    assert_eq!(init.hear(), "READY=1\nSTATUS=waiting for the server");
}

#[test]
fn the_init_hears_that_the_agent_lives() {
    let lab = Lab::new();
    let path = notify_path(&lab);
    let lab = lab
        .environment("NOTIFY_SOCKET", &path)
        .environment("WATCHDOG_USEC", "40000");
    let mut init = Init::at(Path::new(&path));
    let _agent = lab.agent();
    for _ in 0..3 {
        init.wait_for(|message| message == "WATCHDOG=1");
    }
}

#[test]
fn the_init_hears_what_the_agent_does_and_that_it_stops() {
    // A name in no file system.
    let name = format!("testflinger-lab-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let mut init = Init::of(UnixDatagram::bind_addr(&address).unwrap());
    let lab = Lab::new()
        .environment("NOTIFY_SOCKET", &format!("@{name}"))
        .environment("WATCHDOG_USEC", "3600000000")
        .command("test", "env | grep -e ^NOTIFY_ -e ^WATCHDOG_; echo done")
        .command("cleanup", "true");
    let mut agent = lab.agent();
    assert_eq!(init.hear(), "READY=1\nSTATUS=starting");
    init.wait_for(|message| message == "READY=1\nSTATUS=idle");
    let job = lab.submit_test();
    for doing in ["test", "cleanup", "clearing up", "delivering"] {
        let wanted = format!("READY=1\nSTATUS=job {job}: {doing}");
        init.wait_for(|message| message == wanted);
    }
    init.wait_for(|message| message == "READY=1\nSTATUS=idle");
    assert_eq!(lab.body(&job, Phase::Test), "done\n");
    agent.signal("TERM");
    init.wait_for(|message| message == "STOPPING=1\nSTATUS=idle");
    assert_eq!(agent.wait(), 0);
}

#[test]
fn the_init_hears_that_the_agent_is_out_of_service_or_has_no_room() {
    let lab = Lab::new().command("test", "exit 46");
    let path = notify_path(&lab);
    let lab = lab.environment("NOTIFY_SOCKET", &path);
    let mut init = Init::at(Path::new(&path));
    let agent = lab.agent();
    init.wait_for(|message| message == "READY=1\nSTATUS=idle");
    if !limit_descriptors(agent.pid(), 16) {
        return;
    }
    init.wait_for(|message| message.starts_with("READY=1\nSTATUS=No jobs are taken: no files"));
    limit_descriptors(agent.pid(), 256);
    init.wait_for(|message| message == "READY=1\nSTATUS=idle");
    let job = lab.submit_test();
    lab.wait_until_complete(&job);
    init.wait_for(|message| message == "READY=1\nSTATUS=out of service");
}

#[test]
fn the_init_hears_that_the_agent_begins_anew_and_is_ready_again() {
    if !is_native("the agent cannot become a new image of a foreign binary") {
        return;
    }
    let lab = Lab::new();
    let path = notify_path(&lab);
    let lab = lab.environment("NOTIFY_SOCKET", &path);
    let mut init = Init::at(Path::new(&path));
    let agent = lab.agent();
    init.wait_for(|message| message == "READY=1\nSTATUS=idle");
    agent.signal("HUP");
    let message = init.wait_for(|message| message.starts_with("RELOADING=1\n"));
    let (time, _) = message
        .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
        .unwrap()
        .split_once('\n')
        .unwrap();
    // The clock of /proc/uptime counts a suspended machine's sleep too.
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let seconds = time.parse::<f64>().unwrap() / 1e6;
    assert!((0.0..uptime + 1.0).contains(&seconds), "{time} {uptime}");
    assert_eq!(init.hear(), "READY=1\nSTATUS=starting");
}

#[test]
fn a_watchdog_of_another_process_is_not_fed() {
    let lab = Lab::new();
    let path = notify_path(&lab);
    let lab = lab
        .environment("NOTIFY_SOCKET", &path)
        .environment("WATCHDOG_USEC", "2000")
        .environment("WATCHDOG_PID", "1");
    let mut init = Init::at(Path::new(&path));
    let mut agent = lab.agent();
    let job = lab.submit_test();
    lab.wait_until_complete(&job);
    agent.signal("TERM");
    init.wait_for(|message| message.starts_with("STOPPING=1"));
    assert_eq!(agent.wait(), 0);
    assert!(
        !init.heard.contains(&"WATCHDOG=1".into()),
        "{:?}",
        init.heard
    );
}

#[test]
fn an_init_that_is_not_there_or_does_not_listen_holds_nobody_up() {
    let absent = Lab::new().environment("NOTIFY_SOCKET", "/nonexistent/notify");
    let odd = Lab::new().environment("NOTIFY_SOCKET", "vsock:2:1234");
    for lab in [absent, odd] {
        let mut agent = lab.agent();
        let job = lab.submit_test();
        lab.wait_until_complete(&job);
        agent.signal("TERM");
        assert_eq!(agent.wait(), 0);
    }
    let lab = Lab::new();
    let path = notify_path(&lab);
    let lab = lab
        .environment("NOTIFY_SOCKET", &path)
        .environment("WATCHDOG_USEC", "2000");
    let mut init = Init::at(Path::new(&path));
    let _agent = lab.agent();
    // Its queue holds a few dozen messages at most, which is over in no time.
    let job = lab.submit_test();
    lab.wait_until_complete(&job);
    // What it has not heard it is told again.
    init.wait_for(|message| message == "READY=1\nSTATUS=idle");
    let job = lab.submit_test();
    let wanted = format!("READY=1\nSTATUS=job {job}: cleanup");
    lab.wait_until_complete(&job);
    assert!(!init.heard.contains(&wanted));
}

/// A FIFO in the place of a watchdog, and the bytes that come out of it.
struct Watchdog(Receiver<u8>);

impl Watchdog {
    fn at(path: &Path) -> Watchdog {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        // With a writer of its own it never comes to an end.
        let mut fifo = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let (sender, bytes) = channel();
        thread::spawn(move || {
            let mut byte = [0];
            while fifo.read_exact(&mut byte).is_ok() && sender.send(byte[0]).is_ok() {}
        });
        Watchdog(bytes)
    }

    fn next(&self) -> u8 {
        self.0.recv_timeout(PATIENCE).unwrap()
    }
}

#[test]
fn a_watchdog_is_fed_disarmed_at_an_orderly_end_and_not_after_a_crash() {
    let lab = Lab::new();
    let path = lab.scratch.path("watchdog");
    let lab = lab.set("watchdog_device", path.to_str().unwrap());
    let watchdog = Watchdog::at(&path);
    let mut agent = lab.agent();
    assert_eq!([watchdog.next(), watchdog.next()], [0, 0]);
    if is_native("the agent cannot become a new image of a foreign binary") {
        agent.signal("HUP");
        let disarmed = std::iter::repeat_with(|| watchdog.next()).find(|&byte| byte != 0);
        assert_eq!(disarmed, Some(b'V'));
        assert_eq!(watchdog.next(), 0, "armed again by the new program");
    }
    agent.signal("USR1");
    assert_eq!(agent.wait(), 1);
    assert_eq!(watchdog.next(), b'V');

    let mut agent = lab.agent();
    assert_eq!(watchdog.next(), 0);
    agent.signal("KILL");
    agent.wait();
    let mut agent = lab.agent();
    assert_eq!(watchdog.next(), 0, "fed, and not disarmed before");
    agent.signal("TERM");
    assert_eq!(agent.wait(), 0);
    assert_eq!(watchdog.next(), b'V');
}

#[test]
fn a_watchdog_that_cannot_be_fed_is_said_once_and_tried_again() {
    let lab = Lab::new();
    let path = lab.scratch.path("watchdog");
    let lab = lab.set("watchdog_device", path.to_str().unwrap());
    File::create(&path).unwrap();
    let agent = lab.agent();
    agent.wait_for_log("nothing watches over this agent: cannot feed the watchdog");
    agent.wait_for_log("neither a device nor a FIFO; trying again");
    let job = lab.submit_test();
    lab.wait_until_complete(&job);
    fs::remove_file(&path).unwrap();
    let watchdog = Watchdog::at(&path);
    assert_eq!(watchdog.next(), 0);
    agent.wait_for_log("is fed every");
    assert_eq!(agent.log().matches("nothing watches").count(), 1);
}

/// A card that takes half a second for every file that is removed.
#[test]
fn while_a_workspace_is_removed_signals_are_heard_and_the_watchdogs_fed() {
    let Some(mut words) = strace(&["?unlink,unlinkat:delay_enter=500ms"]) else {
        return;
    };
    // The thread that removes them as well, but not what commands become.
    words.extend(["-f", "-b", "execve"].map(str::to_owned));
    let lab = Lab::new().command("test", "touch 1 2 3 4 5 6 7 8 9; echo $PWD > ../place");
    let path = notify_path(&lab);
    let lab = lab
        .environment("NOTIFY_SOCKET", &path)
        .environment("WATCHDOG_USEC", "20000");
    let mut init = Init::at(Path::new(&path));
    let job = lab.submit_test();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let mut agent = lab.agent_under(&words, &lab.agent_id);
    let wanted = format!("READY=1\nSTATUS=job {job}: clearing up");
    init.wait_for(|message| message == wanted);
    agent.signal("TERM");
    init.wait_for(|message| message.starts_with("STOPPING=1"));
    for _ in 0..5 {
        init.wait_for(|message| message == "WATCHDOG=1");
    }
    let workspace = lab.scratch.path("run").join(&job);
    assert!(workspace.exists(), "it was too quick to show anything");
    lab.wait_until_complete(&job);
    assert!(!workspace.exists());
    assert_eq!(agent.wait(), 0);
}

/// The value of a process.
fn oom_score_adj(process: &str) -> i32 {
    let text = fs::read_to_string(format!("/proc/{process}/oom_score_adj"));
    text.unwrap().trim().parse().unwrap()
}

#[test]
fn row_47_when_memory_runs_out_the_job_goes_before_the_agent() {
    let own = oom_score_adj("self");
    let lab = Lab::new().command(
        "test",
        "cat /proc/self/oom_score_adj /proc/$PPID/oom_score_adj",
    );
    let mut agent = lab.agent();
    for round in 1..=2 {
        let job = lab.submit_test();
        lab.wait_until_complete(&job);
        let agents = oom_score_adj(&agent.pid().to_string());
        let of_command = (own + 500).min(1000);
        assert_eq!(
            lab.body(&job, Phase::Test),
            format!("{of_command}\n{agents}\n"),
            "round {round}"
        );
        // Root may lower it, others may not.
        let lowered = (own - 500).max(-999);
        assert!([own, lowered].contains(&agents), "{agents}");
        if !is_native("the agent cannot become a new image of a foreign binary") {
            return;
        }
        // The new program finds what the old one found.
        agent.signal("HUP");
        wait_until("it begins anew", || {
            agent.log().matches("beginning anew").count() == round
        });
    }
    assert!(is_alive(agent.pid()));
    agent.signal("TERM");
    assert_eq!(agent.wait(), 0);
}
