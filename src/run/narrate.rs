//! What a person sees of a job besides its output: a line for each phase that
//! is over, and how far the artifacts are.

use crate::job::{PHASES, Phase};
use crate::local::{Server, View};
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long to wait for news; only the end of the job is noticed so late.
const PATIENCE: Duration = Duration::from_millis(100);

/// Runs something, and tells meanwhile how the phases of a job end. The lines
/// come after the output that they are about, because the server gets it so.
pub(super) fn while_it_runs<T>(server: &Server, job_id: &str, run: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| narrate(server, job_id, &over));
        let result = run();
        over.store(true, Ordering::SeqCst);
        result
    })
}

fn narrate(server: &Server, job_id: &str, over: &AtomicBool) {
    let mut known = 0;
    let mut is_shown = false;
    // A phase begins when the one before it has ended.
    let mut begun = Instant::now();
    loop {
        let last_look = over.load(Ordering::SeqCst);
        server.wait_for(PATIENCE, |view| view.status(job_id).len() > known);
        let ended = server.view(|view| ended(view, job_id));
        for (phase, status) in ended.iter().skip(known) {
            let took = begun.elapsed().as_secs_f64();
            begun = Instant::now();
            let line = format!("[{phase} ended with {status} after {took:.1} s]\n");
            // What the phase printed last may not have ended its line.
            let before = if ends_its_line(server, job_id, *phase) {
                ""
            } else {
                "\n"
            };
            // A terminal that is gone is no reason to stop.
            let _ = io::stderr().write_all(format!("{before}{line}").as_bytes());
        }
        known = ended.len();
        show_progress(server, &mut is_shown);
        if last_look {
            return;
        }
    }
}

/// Whether the output of a phase ended with a whole line.
fn ends_its_line(server: &Server, job_id: &str, phase: Phase) -> bool {
    let output = server.output(job_id, phase);
    output.is_empty() || output.ends_with('\n')
}

/// How far the artifacts are, in a line that changes; on a terminal only.
fn show_progress(server: &Server, is_shown: &mut bool) {
    let mut stderr = io::stderr();
    if !stderr.is_terminal() {
        return;
    }
    let receiving = server.receiving();
    if let Some(bytes) = receiving {
        let megabytes = bytes as f64 / 1e6;
        let _ = write!(stderr, "\r[artifacts: {megabytes:.1} MB]");
    } else if *is_shown {
        // ECMA-48: erase to the end of the line.
        let _ = write!(stderr, "\r\x1b[K");
    }
    *is_shown = receiving.is_some();
}

/// The phases that are over, and their exit statuses.
fn ended(view: View<'_>, job_id: &str) -> Vec<(Phase, i64)> {
    let statuses = view.status(job_id);
    let over = PHASES.into_iter();
    over.filter_map(|phase| Some((phase, *statuses.get(phase.name())?)))
        .collect()
}
