//! A lab in a directory: the small server, a fault proxy before it if wanted,
//! and the real agent as a process of its own.
//!
//! ```ignore
//! let lab = Lab::new().command("test", "echo hello");
//! let job = lab.submit(r#""test_data": {"test_cmds": "x"}"#);
//! let agent = lab.agent();
//! lab.wait_for_state(&job, "complete");
//! ```

use super::proxy::Proxy;
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use testflinger_agent::job::Phase;
use testflinger_agent::json::Json;
use testflinger_agent::local::{Era, Options, Server, View};

/// A slow machine is only slow: nothing here takes as long as this unless it
/// never happens.
pub const PATIENCE: Duration = Duration::from_secs(60);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A directory of its own, removed at the end.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        Scratch::below(&std::env::temp_dir())
    }

    /// In memory: on another file system than the rest of the lab, if there is one.
    pub fn on_another_disk() -> Option<Scratch> {
        let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev());
        let memory = Path::new("/dev/shm");
        let is_another = device(memory).ok()? != device(&std::env::temp_dir()).ok()?;
        is_another.then(|| Scratch::below(memory))
    }

    fn below(directory: &Path) -> Scratch {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("testflinger-lab-{}-{number}", std::process::id());
        let path = directory.join(name);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = testflinger_agent::sys::remove_tree(&self.0);
    }
}

/// The bodies that were posted for a job's webhook.
pub fn webhook_posts(view: View<'_>, job: &str) -> Vec<String> {
    let path = format!("/v1/job/{job}/events");
    let posts = view.exchanges().iter().filter(|one| one.path == path);
    posts.map(|one| one.request_body.clone()).collect()
}

/// The lab: set up first, then used.
pub struct Lab {
    pub scratch: Scratch,
    pub server: Server,
    pub proxy: Option<Proxy>,
    pub agent_id: String,
    address: Option<String>,
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    metrics: Option<String>,
}

impl Lab {
    pub fn new() -> Lab {
        Lab::of(Era::Today)
    }

    /// A lab whose server is of this time.
    pub fn of(era: Era) -> Lab {
        let scratch = Scratch::new();
        let server = Server::start(Options {
            era,
            directory: scratch.path("server"),
            keep_exchanges: true,
            ..Options::default()
        })
        .unwrap();
        let token = format!("{{\"refresh_token\": \"{}\"}}", server.refresh_token());
        fs::write(scratch.path("token"), token).unwrap();
        fs::set_permissions(scratch.path("token"), fs::Permissions::from_mode(0o600)).unwrap();
        Lab {
            scratch,
            server,
            proxy: None,
            agent_id: "lab-agent".into(),
            address: None,
            settings: Vec::new(),
            environment: Vec::new(),
            metrics: None,
        }
    }

    /// The agent talks through a proxy that fails as it is told to.
    pub fn with_proxy(mut self) -> Lab {
        self.proxy = Some(Proxy::start(self.server.address()));
        self
    }

    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("a lab with_proxy")
    }

    /// The agent is told this address, of somebody who stands before the server.
    pub fn behind(mut self, url: &str) -> Lab {
        self.address = Some(url.to_owned());
        self
    }

    /// The command of a phase.
    pub fn command(self, phase: &str, command: &str) -> Lab {
        self.set(&format!("{phase}_command"), &quoted(command))
    }

    /// A key of the configuration and its value as YAML.
    pub fn set(mut self, key: &str, value: &str) -> Lab {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// A variable of the agent's own environment.
    pub fn environment(mut self, name: &str, value: &str) -> Lab {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The agent serves its metrics there (`-p`).
    pub fn metrics(mut self, place: &str) -> Lab {
        self.metrics = Some(place.to_owned());
        self
    }

    pub fn agent_id(mut self, id: &str) -> Lab {
        self.agent_id = id.to_owned();
        self
    }

    /// The text of the configuration.
    pub fn configuration(&self, agent_id: &str) -> String {
        let server = match (&self.address, &self.proxy) {
            (Some(address), _) => address.clone(),
            (None, Some(proxy)) => proxy.url(),
            (None, None) => self.server.url(),
        };
        let mut text = format!("agent_id: {}\nserver_address: {server}\n", quoted(agent_id));
        for (key, default) in [
            ("job_queues", "[lab]".to_owned()),
            ("polling_interval", "1".to_owned()),
            ("execution_basedir", quoted(&self.shown("run"))),
            ("logging_basedir", quoted(&self.shown("logs"))),
            ("results_basedir", quoted(&self.shown("results"))),
        ] {
            if !self.settings.iter().any(|(name, _)| name == key) {
                let _ = writeln!(text, "{key}: {default}");
            }
        }
        for (key, value) in &self.settings {
            let _ = writeln!(text, "{key}: {value}");
        }
        text
    }

    fn shown(&self, name: &str) -> String {
        self.scratch.path(name).to_str().unwrap().to_owned()
    }

    /// Starts the agent.
    pub fn agent(&self) -> Agent {
        self.agent_named(&self.agent_id)
    }

    /// What was posted as the state of a job until it was complete, from the
    /// so-manieth request on.
    pub fn job_states(&self, job: &str, from: usize) -> Vec<String> {
        let path = format!("/v1/result/{job}");
        // The server knows a thing a moment before its answer is on the list.
        self.wait("the last request is on the list", |view| {
            let mut all = view.exchanges().iter();
            all.any(|one| one.path == path && one.request_body.contains("\"complete\""))
        });
        let exchanges = self.server.exchanges();
        let posts = exchanges.iter().skip(from);
        posts
            .filter(|one| one.method == "POST" && one.path == path)
            .filter_map(|one| {
                Json::parse(&one.request_body)
                    .ok()?
                    .get("job_state")?
                    .string()
            })
            .collect()
    }

    /// Starts an agent of another name with the same configuration.
    pub fn agent_named(&self, agent_id: &str) -> Agent {
        self.agent_under(&[], agent_id)
    }

    /// Starts the agent under another program, such as strace.
    pub fn agent_under(&self, wrapper: &[&str], agent_id: &str) -> Agent {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let config = self.scratch.path(&format!("agent-{number}.conf"));
        fs::write(&config, self.configuration(agent_id)).unwrap();
        let stderr = self.scratch.path(&format!("agent-{number}.stderr"));
        let program = program();
        let program = program.iter().map(String::as_str);
        let words: Vec<_> = wrapper.iter().copied().chain(program).collect();
        let mut command = Command::new(words[0]);
        // Whoever runs the tests may be behind one.
        for name in ["http_proxy", "https_proxy", "no_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        let child = command
            .args(&words[1..])
            .arg("-c")
            .arg(&config)
            .arg("--token-file")
            .arg(self.scratch.path("token"))
            .args(self.metrics.iter().flat_map(|place| ["-p", place]))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        Agent {
            child,
            config,
            stderr,
        }
    }

    /// Submits a job with these members, in JSON without the outer braces.
    pub fn submit(&self, members: &str) -> String {
        let separator = if members.is_empty() { "" } else { ", " };
        let job = format!("{{\"job_queue\": \"lab\"{separator}{members}}}");
        self.server.submit(&job).unwrap()
    }

    /// Submits a job whose test phase runs.
    pub fn submit_test(&self) -> String {
        self.submit(r#""test_data": {"test_cmds": "none"}"#)
    }

    /// Waits until the server's view is as wanted.
    pub fn wait(&self, what: &str, is_so: impl Fn(View<'_>) -> bool) {
        assert!(
            self.server.wait_for(PATIENCE, is_so),
            "in vain: {what}\n{}",
            self.story()
        );
    }

    pub fn wait_for_state(&self, job: &str, state: &str) {
        self.wait(&format!("job {job} is {state}"), |view| {
            view.job_state(job).as_deref() == Some(state)
        });
    }

    /// Waits until a job is complete.
    pub fn wait_until_complete(&self, job: &str) {
        self.wait_for_state(job, "complete");
    }

    /// Waits until a phase's output holds the text.
    pub fn wait_for_output(&self, job: &str, phase: Phase, text: &str) {
        self.wait(&format!("{phase} of {job} says {text:?}"), |view| {
            view.output(job, phase).contains(text)
        });
    }

    pub fn output(&self, job: &str, phase: Phase) -> String {
        self.server.output(job, phase)
    }

    /// The output without the banner.
    pub fn body(&self, job: &str, phase: Phase) -> String {
        let output = self.output(job, phase);
        let mut lines = output.splitn(4, '\n');
        lines.nth(3).unwrap_or_default().to_owned()
    }

    pub fn status(&self, job: &str, phase: &str) -> Option<i64> {
        self.server.status(job).get(phase).copied()
    }

    /// What happened, for a test that failed.
    pub fn story(&self) -> String {
        let mut story = String::from("requests:\n");
        for exchange in self.server.exchanges().iter().rev().take(30).rev() {
            let body: String = exchange.request_body.chars().take(120).collect();
            let _ = writeln!(
                story,
                "  {} {} {} {body}",
                exchange.status, exchange.method, exchange.path
            );
        }
        for entry in fs::read_dir(self.scratch.path("")).unwrap().flatten() {
            let path = entry.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "stderr")
            {
                let _ = writeln!(story, "{}:", path.display());
                story.push_str(&fs::read_to_string(path).unwrap_or_default());
            }
        }
        story
    }
}

/// A string as YAML and JSON write it.
pub fn quoted(text: &str) -> String {
    let mut inner = String::new();
    testflinger_agent::json::escape_into(&mut inner, text);
    format!("\"{inner}\"")
}

/// The program under test: its words, should there be an emulator before its
/// path. `TESTFLINGER_TEST_PROGRAM` names another one than cargo's.
pub fn program() -> Vec<String> {
    let named = std::env::var("TESTFLINGER_TEST_PROGRAM").unwrap_or_default();
    let words: Vec<_> = named.split_whitespace().map(str::to_owned).collect();
    match words.is_empty() {
        true => vec![env!("CARGO_BIN_EXE_testflinger-agent").to_owned()],
        false => words,
    }
}

/// The path of the program under test.
pub fn binary() -> String {
    program().pop().unwrap()
}

/// What the program has printed to a file, without its complaint about what an
/// emulator lacks.
pub fn printed(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.split_inclusive('\n');
    let lacking = program().len() > 1;
    lines
        .filter(|line| !lacking || !line.contains("this kernel keeps no track of orphans"))
        .collect()
}

/// A running agent; it is ended with its test.
#[derive(Debug)]
pub struct Agent {
    pub child: Child,
    /// Its configuration file.
    pub config: PathBuf,
    stderr: PathBuf,
}

impl Agent {
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Sends it a signal by name, such as TERM or USR1.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Changes its configuration file.
    pub fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(&self.config).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&self.config, text.replace(from, to)).unwrap();
    }

    /// Waits for its end: its exit status, or 256 minus its signal.
    pub fn wait(&mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE * 2;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status
                    .code()
                    .unwrap_or_else(|| 256 - status.signal().unwrap());
            }
            assert!(
                Instant::now() < deadline,
                "the agent does not end\n{}",
                self.log()
            );
            // There is no way to wait for a child with a time limit but asking.
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it printed to its console.
    pub fn log(&self) -> String {
        printed(&self.stderr)
    }

    /// Waits until its console shows the text.
    pub fn wait_for_log(&self, text: &str) {
        wait_for_words("its log", text, || self.log());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // A second TERM would be at once, too; this cannot be ignored.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What libfaketime leaves behind of a process that is killed.
        for name in ["faketime_shm_", "sem.faketime_sem_"] {
            let _ = fs::remove_file(format!("/dev/shm/{name}{}", self.pid()));
        }
    }
}

/// Sends a process a signal by name.
pub fn signal(pid: i32, name: &str) {
    let status = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(pid.to_string())
        .status()
        .unwrap();
    assert!(status.success(), "cannot signal {pid}");
}

/// Whether a process is there and no zombie.
pub fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let state = stat.rsplit(')').next().unwrap_or_default();
        !state.trim_start().starts_with(['Z', 'X'])
    })
}

/// The processor time of a process, in clock ticks (proc_pid_stat(5); 100 a
/// second wherever Linux runs a user's programs).
pub fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields = fields.split_whitespace().skip(11).take(2);
    fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// Waits for what nothing but looking shows.
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    wait_until_within(what, PATIENCE, is_so);
}

/// The same for what takes its time.
pub fn wait_until_within(what: &str, patience: Duration, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + patience;
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a file holds a text; it is shown when that is in vain.
pub fn wait_for_text(path: &Path, text: &str) {
    let what = path.display().to_string();
    wait_for_words(&what, text, || fs::read_to_string(path).unwrap_or_default());
}

fn wait_for_words(what: &str, text: &str, read: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = read();
        if found.contains(text) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "in vain: {text:?} in {what}:\n{found}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a file is there and not empty; its text.
pub fn wait_for_file(path: &Path) -> String {
    wait_until(&format!("{} is written", path.display()), || {
        fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0)
    });
    let mut text = String::new();
    fs::File::open(path)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    text
}

/// Numbers out of a file, one a line.
pub fn numbers(path: &Path) -> Vec<i32> {
    wait_for_file(path)
        .split_whitespace()
        .map(|n| n.parse().unwrap())
        .collect()
}
