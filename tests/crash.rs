//! The agent is killed in every moment of a job, and begins anew: the job comes home
//! whole, whatever the moment.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use support::lab::{Agent, Lab, Scratch, binary, is_alive, webhook_posts};
use support::means::{self, is_native};
use support::random::random;
use testflinger_agent::job::Phase;
use testflinger_agent::json::Json;
use testflinger_agent::local::View;

const INTERRUPTED: &str = "\nERROR: The agent was interrupted in the middle of this phase.\n";
/// Agents that are killed side by side: they wait more than they compute.
const LANES: usize = 8;
/// How long a job may take to come home, at the most.
const PATIENCE: Duration = Duration::from_secs(60);
/// System calls that change what others see, by kind; not every machine has all.
const CALLS: [&str; 10] = [
    "write",
    "?writev",
    "?pwrite64",
    "?fsync,?fdatasync",
    "?rename,?renameat,?renameat2",
    "?unlink,?unlinkat,?rmdir",
    "?mkdir,?mkdirat",
    "?ftruncate,?ftruncate64",
    "?sendto,?sendmsg",
    "?clone,?clone3,?fork,?vfork",
];
/// Lines that each phase prints.
const LINES: usize = 50;
/// What a device connector leaves behind.
const ADDRESS: &str = "10.0.0.7";
const DEVICE: &str = r#"{"device_info": {"device_ip": "10.0.0.7"}}"#;
const SERIAL: &str = "U-Boot";

/// A job whose phases write down that they run, print what can be counted, and leave
/// a daemon behind.
struct Victim {
    lab: Lab,
    job: String,
    /// What its test phase ends with.
    status: i64,
    has_cleanup: bool,
    /// Where the workspaces are, if not beside the records.
    other_disk: Option<Scratch>,
    /// An agent was killed before what was on the disk of the job said whom to tell of it.
    is_unknown: Cell<bool>,
}

/// A command that writes down that this phase runs, and prints what can be counted.
fn counted(lab: &Lab, phase: &str) -> String {
    let ran = lab.scratch.path("ran");
    let ran = ran.display();
    format!("echo {phase} >> '{ran}'; seq -f '{phase} %g' 1 {LINES}")
}

impl Victim {
    fn new() -> Victim {
        let mut victim = Victim::in_lab(Lab::new(), 0, None);
        let cleanup = counted(&victim.lab, "cleanup");
        victim.lab = victim.lab.command("cleanup", &cleanup);
        victim.has_cleanup = true;
        victim
    }

    /// On two disks, with a device that cannot be recovered, and nothing to clean up by.
    fn of_a_dead_device() -> Victim {
        let other_disk = Scratch::on_another_disk();
        let run = other_disk.as_ref().map(|scratch| scratch.path("run"));
        let lab = match run {
            Some(run) => Lab::new().set("execution_basedir", run.to_str().unwrap()),
            None => Lab::new(),
        };
        Victim::in_lab(lab, 46, other_disk)
    }

    fn in_lab(lab: Lab, status: i64, other_disk: Option<Scratch>) -> Victim {
        lab.server
            .answer("POST", "/v1/job/*/events", u32::MAX, 200, "OK");
        let setup = counted(&lab, "setup");
        let test = counted(&lab, "test");
        let device =
            format!("echo '{DEVICE}' > device-info.json; echo {SERIAL} > setup-serial.log");
        let daemon = "setsid sleep 1000 > /dev/null 2>&1 &";
        let lab = lab
            .command(
                "setup",
                &format!("{setup}; {device}; mkdir artifacts; echo x > artifacts/kept"),
            )
            .command("provision", "echo provisioned")
            .command("test", &format!("{daemon} {test}; exit {status}"));
        let job = lab.submit(
            r#""provision_data": {"distro": "x"}, "test_data": {"test_cmds": "none"},
               "job_status_webhook": "https://hook.example/x""#,
        );
        Victim {
            lab,
            job,
            status,
            has_cleanup: false,
            other_disk,
            is_unknown: Cell::new(false),
        }
    }

    /// Starts the agent under these words and waits for its end, or that of its job:
    /// whether it was killed.
    fn is_killed_under(&self, words: &[String]) -> bool {
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let mut agent = self.lab.agent_under(&words, &self.lab.agent_id);
        loop {
            if let Some(status) = agent.child.try_wait().unwrap() {
                let status = status.code();
                assert!(
                    matches!(status, None | Some(137)),
                    "{status:?} {}",
                    agent.log()
                );
                self.look_at_document();
                return true;
            }
            if self.is_home() {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts the agent and kills it after so long a time, unless its job is over
    /// before that: whether it was killed.
    fn is_killed_after(&self, delay: Duration) -> bool {
        let mut agent = self.lab.agent();
        let end = Instant::now() + delay;
        while Instant::now() < end {
            if self.is_home() {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        agent.signal("KILL");
        agent.wait();
        self.look_at_document();
        true
    }

    fn is_home(&self) -> bool {
        self.lab.server.job_state(&self.job).as_deref() == Some("complete")
            && !self.record().exists()
    }

    fn record(&self) -> PathBuf {
        self.lab.scratch.path("results").join(&self.job)
    }

    /// Whether the server has handed the job over to an agent that was killed before
    /// it had written down a word of that: nobody knows of it any more. It is the
    /// server's interface that leaves this one moment.
    fn is_lost_on_its_way(&self) -> bool {
        let results = self.lab.scratch.path("results");
        let half_made = results.join(format!(".lab-agent.{}", self.job));
        let state = self.lab.server.job_state(&self.job);
        let is_handed_over = state.as_deref() != Some("waiting");
        is_handed_over && !half_made.exists() && !self.record().exists() && !self.is_home()
    }

    /// After a kill: the next life knows no more of the job than this.
    fn look_at_document(&self) {
        let results = self.lab.scratch.path("results");
        let making = results.join(format!(".lab-agent.{}", self.job));
        let places = [making, self.record()];
        let is_without = |place: &PathBuf| {
            let document = fs::read_to_string(place.join("job.json")).unwrap_or_default();
            place.exists() && !document.contains("hook.example")
        };
        if places.iter().any(is_without) {
            self.is_unknown.set(true);
        }
    }

    /// The agent begins anew: what is wrong with what became of the job, if anything
    /// is.
    fn comes_home(&self) -> Result<(), String> {
        let agent = self.lab.agent();
        let home = Instant::now() + PATIENCE;
        while !self.is_home() {
            if Instant::now() > home {
                return Err(self.explain("it does not come home", &agent));
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.verdict().map_err(|fault| self.explain(&fault, &agent))
    }

    fn explain(&self, fault: &str, agent: &Agent) -> String {
        let before = fs::read_to_string(self.lab.scratch.path("says")).unwrap_or_default();
        let mut text = format!("{fault} {before}\n{}\n{}", self.lab.story(), agent.log());
        for phase in [Phase::Setup, Phase::Test, Phase::Cleanup] {
            let output = self.lab.output(&self.job, phase);
            let _ = write!(text, "\n== {phase}\n{output}");
        }
        text
    }

    /// The names of the events that the webhook knows in the end; a cleanup begins once.
    fn told(&self) -> Vec<String> {
        let last = |view: View<'_>| webhook_posts(view, &self.job).pop();
        let server = &self.lab.server;
        server.wait_for(PATIENCE, |view| {
            last(view).is_some_and(|body| body.contains("job_end"))
        });
        let Some(body) = server.view(last) else {
            return Vec::new();
        };
        let events = Json::parse(&body).unwrap().get("events").unwrap().items();
        let mut names: Vec<_> = events
            .map(|event| event.get("event_name").unwrap().string().unwrap())
            .collect();
        names.dedup_by(|a, b| a == "cleanup_start" && a == b);
        names
    }

    fn verdict(&self) -> Result<(), String> {
        let ran = fs::read_to_string(self.lab.scratch.path("ran")).unwrap_or_default();
        let times = |phase: &str| ran.lines().filter(|line| *line == phase).count();
        let status = |phase| self.lab.status(&self.job, phase);
        let not_run = ["setup", "provision"].map(|phase| status(phase).filter(|it| *it == 100));
        for (name, phase) in [
            ("setup", Phase::Setup),
            ("test", Phase::Test),
            ("cleanup", Phase::Cleanup),
        ] {
            let body = self.lab.body(&self.job, phase);
            let printed = |text: &str| -> Vec<String> {
                let lines = text.lines().filter(|line| line.starts_with(name));
                lines.map(str::to_owned).collect()
            };
            let all: Vec<_> = (1..=LINES).map(|n| format!("{name} {n}")).collect();
            let ran = times(name);
            let expected = match phase {
                Phase::Test => self.status,
                _ => 0,
            };
            let is_cut = body.contains(INTERRUPTED);
            match (phase, status(name)) {
                (_, Some(status)) if !is_cut && status == expected => {
                    if printed(&body) != all || ran != 1 {
                        return Err(format!("{name} ended well, but ran {ran} times"));
                    }
                }
                (Phase::Cleanup, None) if !self.has_cleanup => {}
                // Again, because it was cut short: what counts is the last time.
                (Phase::Cleanup, Some(0)) if self.has_cleanup && ran >= 1 => {
                    let last = body.rsplit(INTERRUPTED).next().unwrap_or_default();
                    if printed(last) != all {
                        return Err(format!("{name} ran again, and its output is not whole"));
                    }
                }
                // It was cut short, or its turn did not come.
                (Phase::Setup | Phase::Test, Some(100)) if ran <= 1 => {
                    if !all.starts_with(&printed(&body)) {
                        return Err(format!("{name} has lines that are lost or doubled"));
                    }
                }
                (Phase::Test, None) if ran == 0 && not_run != [None; 2] => {}
                (_, status) => return Err(format!("{name}: {status:?}, ran {ran} times")),
            }
        }
        let is_offline = |view: View<'_>| {
            let agent = view.agent("lab-agent");
            agent.is_some_and(|agent| agent.state == "offline")
        };
        if status("test") == Some(46) && !self.lab.server.wait_for(PATIENCE, is_offline) {
            return Err("the agent takes jobs for a dead device".into());
        }
        let server = &self.lab.server;
        let serial = server.view(|view| view.serial(&self.job, Phase::Setup));
        let result = server.result(&self.job);
        let is_whole = serial == format!("{SERIAL}\n") && result.contains(ADDRESS);
        if status("setup") == Some(0) && !is_whole {
            return Err(format!("of the device: {serial:?} {result}"));
        }
        // Better not at all than twice.
        let counted = server.view(|view| view.provision_logs("lab-agent"));
        let is_wrong = |log| status("provision") != Some(log);
        if counted.len() > 1 || counted.iter().any(|log| is_wrong(log.exit_code)) {
            return Err(format!("how provision ended is counted as {counted:?}"));
        }
        let fate = match status("test") {
            Some(0) => "test_success",
            Some(46) => "recovery_fail",
            Some(_) => "test_fail",
            None if status("provision").is_some() => "provision_fail",
            None => "setup_fail",
        };
        if !self.is_unknown.get() {
            let told = self.told();
            if told != story_of(fate) {
                return Err(format!("the webhook is told {told:?}"));
            }
        }
        if status("setup") == Some(0) && self.lab.server.artifact(&self.job).is_none() {
            return Err("the artifacts are lost".into());
        }
        let left = processes_of(&self.job);
        if !left.is_empty() {
            return Err(format!("left processes: {left:?}"));
        }
        let run = self.other_disk.as_ref().unwrap_or(&self.lab.scratch);
        let run = run.path("run");
        match fs::read_dir(run).map_or(0, Iterator::count) {
            0 => Ok(()),
            _ => Err("something is left of the workspace".into()),
        }
    }
}

/// What a webhook is to be told of a victim whose fate this event is.
fn story_of(fate: &str) -> Vec<&str> {
    let begin = ["job_start", "setup_start"];
    let up_to_test = [
        "setup_success",
        "provision_start",
        "provision_success",
        "firmware_update_start",
        "firmware_update_success",
        "test_start",
    ];
    let after_test = [
        "allocate_start",
        "allocate_success",
        "reserve_start",
        "reserve_success",
    ];
    let end = ["cleanup_start", "cleanup_success", "job_end"];
    let before = match fate {
        "setup_fail" => &[][..],
        "provision_fail" => &up_to_test[..2],
        _ => &up_to_test[..],
    };
    let after = match fate {
        "test_success" | "recovery_fail" => &after_test[..],
        _ => &[][..],
    };
    [&begin[..], before, &[fate], after, &end].concat()
}

/// Processes that have a job's id in their environment.
fn processes_of(job: &str) -> Vec<i32> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(job) && is_alive(*pid)
    })
    .collect()
}

fn there_are_none(faults: Mutex<Vec<String>>) {
    let faults = faults.into_inner().unwrap();
    let count = faults.len();
    assert!(count == 0, "{count} faults:\n{}", faults.join("\n\n"));
}

/// Kills the agent in the n-th moment, for every n until there is none. How many there
/// were, and how often nobody could know of the job any more.
fn sweep(
    victim: impl Fn() -> Victim + Sync,
    words: impl Fn(&Victim, usize) -> Vec<String> + Sync,
) -> (usize, usize) {
    let (next, last) = (AtomicUsize::new(1), AtomicUsize::new(usize::MAX));
    let lost = AtomicUsize::new(0);
    let faults = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= last.load(Ordering::Relaxed) {
                        return;
                    }
                    let victim = victim();
                    let words = words(&victim, n);
                    if !victim.is_killed_under(&words) {
                        last.fetch_min(n, Ordering::Relaxed);
                    } else if victim.is_lost_on_its_way() {
                        lost.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    if let Err(fault) = victim.comes_home() {
                        let fault = format!("killed by {words:?}: {fault}");
                        faults.lock().unwrap().push(fault);
                    }
                }
            });
        }
    });
    there_are_none(faults);
    (last.into_inner() - 1, lost.into_inner())
}

/// Words that kill the agent before its n-th write, sync, change of a directory, request
/// or new process, in one order over all threads.
fn before_operation(victim: &Victim, n: usize) -> Vec<String> {
    let failpoint = support::example("libfailpoint.so");
    let said = victim.lab.scratch.path("says");
    let set = [
        format!("LD_PRELOAD={}", failpoint.display()),
        format!("FAILPOINT_PROGRAM={}", binary()),
        format!("FAILPOINT_AT={n}"),
        format!("FAILPOINT_SAYS={}", said.display()),
    ];
    [String::from("env")].into_iter().chain(set).collect()
}

#[test]
fn row_33_the_agent_may_be_killed_before_any_operation() {
    if !is_native("nothing can be preloaded into a foreign binary") {
        return;
    }
    let (moments, lost) = sweep(Victim::new, before_operation);
    println!("killed before each of {moments} operations; {lost} jobs lost on their way");
    assert!(moments > 100, "{moments}");
    // Before the thread that runs jobs is woken, and before it has made a directory.
    assert!(lost <= 2, "{lost}");
}

/// A device that could not be recovered has its agent out of service in any case, and
/// what is on two disks is on one of them.
#[test]
fn row_33_the_agent_of_a_dead_device_may_be_killed_before_any_operation() {
    if !is_native("nothing can be preloaded into a foreign binary") {
        return;
    }
    let (moments, _) = sweep(Victim::of_a_dead_device, before_operation);
    println!("killed before each of {moments} operations");
    assert!(moments > 100, "{moments}");
}

/// The same for each kind of system call and each thread by itself, as the kernel sees
/// them: of a program that nothing can be preloaded into as well.
#[test]
fn row_33_the_agent_may_be_killed_before_any_system_call() {
    let Some(strace) = means::strace(&[]) else {
        return;
    };
    if !is_native("strace would see the emulator's calls") {
        return;
    }
    let (mut moments, mut lost) = (0, 0);
    for calls in CALLS {
        let (found, lost_here) = sweep(Victim::new, |_, n| {
            let mut words = strace.clone();
            // Not into the commands of the phases.
            words.extend(["-f", "-b", "execve", "-e"].map(str::to_owned));
            words.push(format!("inject={calls}:signal=SIGKILL:when={n}"));
            words
        });
        println!("killed before each of {found} {calls}");
        moments += found;
        lost += lost_here;
    }
    assert!(moments > 100, "{moments}");
    assert!(lost <= 2, "{lost}");
}

/// Up to four times in a job, at any time; `make torture` kills a thousand agents.
#[test]
fn row_33_the_agent_may_be_killed_at_any_time() {
    if !is_native("no PR_SET_CHILD_SUBREAPER, by which daemons are found") {
        return;
    }
    let number = |name| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let kills = number("TESTFLINGER_KILLS").unwrap_or(50);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seed: u64 = number("TESTFLINGER_SEED").unwrap_or_else(|| now.unwrap().as_secs());
    println!("seed: {seed} (TESTFLINGER_SEED)");
    // How long a life is that nobody cuts short.
    let undisturbed = Victim::new();
    let begun = Instant::now();
    undisturbed.comes_home().unwrap();
    let life = u64::try_from(begun.elapsed().as_millis()).unwrap();

    let (killed, jobs, lost) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let faults = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for lane in 0..LANES as u64 {
            let (killed, jobs, lost, faults) = (&killed, &jobs, &lost, &faults);
            scope.spawn(move || {
                let mut state = (seed << 8) + lane + 1;
                while killed.load(Ordering::Relaxed) < kills {
                    let victim = Victim::new();
                    let delays: Vec<_> = (0..=random(&mut state, 4))
                        .map(|_| Duration::from_millis(random(&mut state, life * 3)))
                        .collect();
                    jobs.fetch_add(1, Ordering::Relaxed);
                    for delay in &delays {
                        if victim.is_killed_after(*delay) {
                            killed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    if victim.is_lost_on_its_way() {
                        lost.fetch_add(1, Ordering::Relaxed);
                    } else if let Err(fault) = victim.comes_home() {
                        let fault = format!("killed after {delays:?}: {fault}");
                        faults.lock().unwrap().push(fault);
                    }
                }
            });
        }
    });
    let (killed, jobs, lost) = (killed.into_inner(), jobs.into_inner(), lost.into_inner());
    println!("{killed} agents killed in {jobs} jobs; {lost} jobs lost on their way");
    there_are_none(faults);
}
