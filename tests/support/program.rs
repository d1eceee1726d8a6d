//! The program with arguments of the test's own, and what it printed.

use super::lab::{PATIENCE, printed, program};
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The program at work; it is ended with its test.
#[derive(Debug)]
pub struct Program {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// What a program left behind.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status, or 256 minus its signal.
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Program {
    /// Starts it in a directory, which is also where it finds `tmp` for what is
    /// temporary.
    pub fn start(directory: &Path, arguments: &[&str]) -> Program {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let printed = |what: &str| directory.join(format!("program-{number}.{what}"));
        let (stdout, stderr) = (printed("stdout"), printed("stderr"));
        fs::create_dir_all(directory.join("tmp")).unwrap();
        let words = program();
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args(arguments)
            .current_dir(directory)
            .env("TMPDIR", directory.join("tmp"))
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        Program {
            child,
            stdout,
            stderr,
        }
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE * 2;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end: {self:?}");
            // There is no way to wait for a child with a time limit but asking.
            std::thread::sleep(Duration::from_millis(5));
        };
        let status = status.code();
        Ended {
            status: status.unwrap_or_else(|| 256 - self.child.wait().unwrap().signal().unwrap()),
            stdout: self.stdout(),
            stderr: printed(&self.stderr),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs it in a directory to its end.
pub fn run(directory: &Path, arguments: &[&str]) -> Ended {
    Program::start(directory, arguments).wait()
}
