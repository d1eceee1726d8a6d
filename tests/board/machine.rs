//! A board in an emulator: its files, its screen, its keyboard.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test; each program takes what it needs"
)]

use super::cpio::Cpio;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use testflinger_agent::local::Server;

/// An emulator is slow, and so may the machine below it be.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// What the agent says when it has started.
pub(crate) const STARTED: &str = "for the queues board";

/// A board that is on.
pub(crate) struct Board {
    emulator: Child,
    keyboard: ChildStdin,
    screen: Arc<(Mutex<String>, Condvar)>,
}

impl Board {
    pub(crate) fn boot(words: &[String]) -> Board {
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

    pub(crate) fn screen(&self) -> String {
        self.screen.0.lock().unwrap().clone()
    }

    /// Waits until the screen has shown a text so often.
    pub(crate) fn wait_for(&self, text: &str, times: usize) {
        let shown = self.screen.0.lock().unwrap();
        let is_missing = |shown: &mut String| shown.matches(text).count() < times;
        let waited = self
            .screen
            .1
            .wait_timeout_while(shown, PATIENCE, is_missing);
        let (shown, result) = waited.unwrap();
        assert!(!result.timed_out(), "no {text:?} on the screen:\n{shown}");
    }

    pub(crate) fn type_in(&mut self, line: &str) {
        self.keyboard.write_all(line.as_bytes()).unwrap();
        self.keyboard.write_all(b"\n").unwrap();
    }

    /// Waits until the board is off.
    pub(crate) fn wait_for_end(&mut self) {
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

/// Writes what differs from run to run into the board's files, and packs them:
/// `settings` are further lines of the configuration.
pub(crate) fn pack(root: &Path, initrd: &Path, server: &Server, settings: &str) {
    let configuration = format!(
        "agent_id: board\n\
         server_address: http://10.0.2.2:{}\n\
         job_queues: [board]\n\
         polling_interval: 1\n\
         execution_basedir: /var/lib/testflinger-agent/run\n\
         results_basedir: /var/lib/testflinger-agent/results\n\
         logging_basedir: /var/lib/testflinger-agent/logs\n\
         {settings}",
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
