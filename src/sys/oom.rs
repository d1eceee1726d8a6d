//! Whom the kernel ends when memory runs out: the processes of a job, and the
//! agent only after them (proc(5), `oom_score_adj`).

use std::ffi::CStr;
use std::sync::OnceLock;

const SCORE: &CStr = c"/proc/self/oom_score_adj";
/// How far the agent goes down and its commands go up: half of the memory.
const STEP: i32 = 500;
/// What is lower is never ended, though it may be what takes the memory.
const LOWEST: i32 = -999;
const HIGHEST: i32 = 1000;

/// The agent's own, as whoever started it wanted it to be.
static AT_START: OnceLock<i32> = OnceLock::new();

/// From now on commands go first. The agent itself is spared where it may say so
/// (root may); without `/proc` all stays as it is.
pub fn put_commands_first() {
    let text = std::fs::read_to_string("/proc/self/oom_score_adj");
    let Some(own) = text.ok().and_then(|text| text.trim().parse().ok()) else {
        return;
    };
    let own = *AT_START.get_or_init(|| own);
    if own > LOWEST {
        write(score_text((own - STEP).max(LOWEST)).as_bytes());
    }
}

/// Gives the agent back what it had, for the program that it becomes.
pub fn put_back() {
    if let Some(own) = AT_START.get() {
        write(score_text(*own).as_bytes());
    }
}

/// What a command is to write about itself.
pub(super) fn of_commands() -> Option<String> {
    let own = AT_START.get()?;
    Some(score_text(own.saturating_add(STEP).min(HIGHEST)))
}

fn score_text(score: i32) -> String {
    format!("{score}\n")
}

/// Writes this process's own. Where it may not, or there is no `/proc`, nothing
/// happens. Only what is async-signal-safe is called: a forked child may do this.
pub(super) fn write(score: &[u8]) {
    // SAFETY: the name is a C string; `score` is as long as it says; the
    // descriptor is this function's own.
    unsafe {
        let fd = libc::open(SCORE.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd != -1 {
            libc::write(fd, score.as_ptr().cast(), score.len());
            libc::close(fd);
        }
    }
}
