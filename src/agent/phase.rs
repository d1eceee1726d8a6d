//! One phase: its command from the start to the exit status.

use super::environment::{self, JOB_MARK};
use super::serial::Serial;
use super::work::Running;
use super::{Agent, Event, LAST_CLEANUP, Mode};
use crate::child::tree::Leader;
use crate::child::{Child, OutputFile, Setting, Stop, Tail, Watch};
use crate::job::{AgentLimits, Entry, LogType, NOT_RUN, Phase, limits};
use crate::{error, info, warning};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a phase reports that the watchdog ended, whatever its command made of
/// the TERM.
const KILLED: i64 = 247;
/// After the shell has ended, what it left behind may write for this long: the server
/// knows of the end within a second.
const LAST_WORDS: Duration = Duration::from_millis(900);
/// What a job without a parent says where nobody could ever end its wait.
const ALLOCATED: &str = "\nThe device is allocated. There is no parent job to wait for.\n";
/// What is read at once: a whole pipe.
const PIPE_SIZE: usize = 64 << 10;

/// The output of the phase that runs.
#[derive(Debug)]
pub(super) struct Output {
    phase: Phase,
    file: OutputFile,
    serial: Option<Serial>,
}

impl Agent {
    /// There is more to be sent.
    fn tell(&self, output: &Output) {
        self.uplink
            .output(output.phase, LogType::Output, output.file.length());
    }

    fn tell_serial(&self, phase: Phase, length: Option<u64>) {
        if let Some(length) = length {
            self.uplink.output(phase, LogType::Serial, length);
        }
    }

    /// Runs the command of a phase, if it has one, and returns its exit status.
    pub(super) fn run_phase(&mut self, running: &mut Running, phase: Phase) -> Option<i64> {
        let command = self.config.command(phase)?.to_owned();
        if self.abandoned {
            return None;
        }
        info!("phase {phase} of job {} begins", running.job.id);
        self.say_status(&format!("job {}: {phase}", running.job.id));
        self.phase_begun = Instant::now();
        let status = match self.open_output(running, phase) {
            Some(mut output) => {
                self.look_at_device_info(running);
                let status = self.run_command(running, phase, &command, &mut output);
                if phase == Phase::Allocate && !self.waits_for_parent(&running.job) {
                    output.file.say(ALLOCATED);
                }
                self.close_output(&mut output, running);
                self.look_at_device_info(running);
                status
            }
            None => NOT_RUN,
        };
        if phase == Phase::Cleanup && status == NOT_RUN && self.abandoned {
            // It runs again when the next life takes the job up.
            return None;
        }
        self.measure(running, phase, status);
        self.ended(running, phase, status, true);
        Some(status)
    }

    /// A job that is not run shows as a setup that could not be run.
    pub(super) fn refuse(&mut self, running: &mut Running, reason: &str) {
        warning!("job {} is not run: {reason}", running.job.id);
        self.pass_over(
            running,
            Phase::Setup,
            &format!("This job is not run: {reason}"),
        );
    }

    /// A phase that is not run says why.
    pub(super) fn pass_over(&mut self, running: &mut Running, phase: Phase, why: &str) {
        if let Some(mut output) = self.open_output(running, phase) {
            output.file.say(&format!("ERROR: {why}.\n"));
            self.close_output(&mut output, running);
        }
        self.ended(running, phase, NOT_RUN, false);
    }

    /// Begins a phase: its record, its log, the original's banner.
    fn open_output(&mut self, running: &mut Running, phase: Phase) -> Option<Output> {
        self.record(running, &Entry::Started(phase));
        self.tell_of_phase(running, phase);
        let log = running.record.log(phase, LogType::Output);
        // Only a convenience.
        let workspace = running.workspace.as_ref();
        let copy = workspace.and_then(|workspace| workspace.make_log(phase).ok());
        let limit = self.config.output_limit;
        let file = match OutputFile::open(&log, copy, limit, &running.secrets) {
            Ok(file) => file,
            // A device is not left as it is for want of a log.
            Err(error) if phase == Phase::Cleanup => {
                error!(
                    "cannot make {}: {error}; cleanup runs all the same",
                    log.display()
                );
                OutputFile::unwritten(limit, &running.secrets)
            }
            Err(error) => {
                error!(
                    "cannot make {}: {error}; phase {phase} is not run",
                    log.display()
                );
                return None;
            }
        };
        let title = format!(
            "* Starting testflinger {phase} phase on {} *",
            self.config.agent_id
        );
        let rule = "*".repeat(title.chars().count());
        let serial = running.workspace.as_ref().map(|workspace| {
            self.events.watch(workspace.directory());
            let kept = running.record.log(phase, LogType::Serial);
            let secrets = Arc::clone(&running.secrets);
            let tail = Tail::new(workspace.serial_log(phase), kept, limit, secrets);
            let tail = tail.owned_by(workspace.owner());
            Serial::new(tail, Instant::now())
        });
        let mut output = Output {
            phase,
            file,
            serial,
        };
        output.file.say(&format!("{rule}\n{title}\n{rule}\n"));
        self.tell(&output);
        Some(output)
    }

    fn close_output(&mut self, output: &mut Output, running: &Running) {
        self.events.unwatch();
        output.file.finish();
        self.tell(output);
        self.read_serial_to_its_end(output);
        let mut tail = output.serial.as_mut().map(|serial| &mut serial.tail);
        let rest = tail.as_mut().and_then(|tail| tail.finish());
        self.tell_serial(output.phase, rest);
        if let Some(fault) = tail.as_ref().and_then(|tail| tail.fault()) {
            let (phase, id) = (output.phase, &running.job.id);
            warning!("{phase}-serial.log of job {id} is not used: {fault}");
        }
        let serial = tail.map_or(0, |tail| tail.lost());
        for (what, lost) in [("output", output.file.lost()), ("serial log", serial)] {
            if lost > 0 {
                warning!(
                    "{lost} bytes of the {what} of phase {} of job {} are lost: {} could not be \
                     written to",
                    output.phase,
                    running.job.id,
                    running.record.directory().display()
                );
            }
        }
    }

    /// A card may take its time for what is left: whoever has to hear that the main loop
    /// turns does so meanwhile.
    fn read_serial_to_its_end(&mut self, output: &mut Output) {
        if let Some(serial) = &mut output.serial {
            serial.tail.end_here();
        }
        while let Some(serial) = &mut output.serial {
            let news = serial.tail.look();
            if !serial.tail.is_behind() {
                return self.tell_serial(output.phase, news);
            }
            self.tell_serial(output.phase, news);
            match self.next(None, Some(Instant::now())) {
                Event::Uplink(event) => self.note(&event),
                Event::Signal(signal) => self.signal(signal),
                Event::Output | Event::Changed | Event::Ended(_) | Event::Deadline => {}
            }
        }
    }

    fn run_command(
        &mut self,
        running: &mut Running,
        phase: Phase,
        command: &str,
        output: &mut Output,
    ) -> i64 {
        let directory = match &running.workspace {
            Some(workspace) => workspace.directory(),
            None => &self.config.execution_basedir,
        };
        let (secrets, refused) = environment::of_secrets(&running.job.secrets, phase);
        for reason in &refused {
            // A device is not left as it is for want of a secret.
            let consequence = match phase {
                Phase::Cleanup => "goes without one",
                _ => "is not run",
            };
            let said = format!("ERROR: This phase {consequence}: {reason}.\n");
            output.file.say(&said);
        }
        if !refused.is_empty() && phase != Phase::Cleanup {
            return NOT_RUN;
        }
        let mut environment = self.environment.clone();
        environment.extend(secrets);
        environment.push((JOB_MARK.into(), running.job.id.clone().into()));
        let setting = Setting {
            directory,
            environment: &environment,
            user: self.user.as_ref(),
            cgroup: running.cgroup.as_ref(),
        };
        match Child::start(command, setting) {
            Ok(mut child) => {
                self.events.await_process(child.pid);
                if let Some(leader) = Leader::of(child.pid) {
                    self.record(running, &Entry::Spawned(leader));
                }
                let agent = AgentLimits {
                    global: self.config.global_timeout,
                    output: self.config.output_timeout,
                };
                let limits = limits(&running.job, agent, phase);
                let watch = Watch::new(limits, Instant::now());
                let status = self.supervise(&mut child, phase, watch, output, running);
                if let Some(pipe) = child.pipe {
                    self.events.keep(pipe);
                }
                if child.tree.has_group() {
                    running.sessions.push(child.leader);
                }
                status
            }
            Err(error) => {
                let job = &running.job.id;
                error!("cannot start the command of phase {phase} of job {job}: {error}");
                output.file.say(&format!(
                    "ERROR: The command could not be started: {error}.\n"
                ));
                NOT_RUN
            }
        }
    }

    /// The watchdog: reads the command's output until it ends, or has to be
    /// ended.
    fn supervise(
        &mut self,
        child: &mut Child,
        phase: Phase,
        mut watch: Watch,
        output: &mut Output,
        running: &mut Running,
    ) -> i64 {
        loop {
            if let Some(stop) = self.stop_reason(phase) {
                running.story.stopped(stop);
                return self.stop_command(child, stop, output);
            }
            self.look_at_serial(output);
            let look = output.serial.as_ref().and_then(Serial::due);
            let others = self.last_moment(phase).into_iter().chain(look);
            let deadline = others.chain(watch.deadline()).min();
            match self.next(child.pipe.as_ref(), deadline) {
                Event::Output => {
                    if self.read(child, output) {
                        watch.output(Instant::now());
                    }
                }
                Event::Changed => {
                    if let Some(serial) = &mut output.serial {
                        serial.changed(Instant::now());
                    }
                }
                Event::Ended(exit) => {
                    self.read_last_words(child, output);
                    return exit.status();
                }
                Event::Deadline => {
                    if let Some(stop) = watch.due(Instant::now()) {
                        running.story.stopped(stop);
                        return self.stop_command(child, stop, output);
                    }
                }
                Event::Uplink(event) => self.note(&event),
                Event::Signal(signal) => self.signal(signal),
            }
        }
    }

    fn look_at_serial(&self, output: &mut Output) {
        if let Some(serial) = &mut output.serial {
            let news = serial.look(Instant::now(), self.events.is_watching());
            self.tell_serial(output.phase, news);
        }
    }

    /// Why the command has to be stopped, if not for its limits. Provision is
    /// not interrupted by a cancellation, and cleanup by nothing in its time.
    fn stop_reason(&self, phase: Phase) -> Option<Stop> {
        if self.abandoned {
            return Some(Stop::Interrupted);
        }
        if phase == Phase::Cleanup {
            let over = self
                .last_moment(phase)
                .is_some_and(|moment| moment <= Instant::now());
            return over.then_some(Stop::Interrupted);
        }
        match self.stopping {
            Some(_) if self.mode == Mode::Once => Some(Stop::Cancelled),
            Some(_) => Some(Stop::Interrupted),
            None if self.cancelled && phase != Phase::Provision => Some(Stop::Cancelled),
            None => None,
        }
    }

    /// When the cleanup of an agent that is to stop has to be over.
    fn last_moment(&self, phase: Phase) -> Option<Instant> {
        let since = self.stopping.filter(|_| phase == Phase::Cleanup)?;
        Some(since.max(self.phase_begun) + LAST_CLEANUP)
    }

    /// Reads what is there now, up to a pipe full; false when it was nothing.
    pub(super) fn read(&self, child: &mut Child, output: &mut Output) -> bool {
        let Some(pipe) = &mut child.pipe else {
            return false;
        };
        let mut buffer = [0; PIPE_SIZE];
        match pipe.read(&mut buffer) {
            Ok(None) => false,
            Ok(Some(length @ 1..)) => {
                output.file.bytes(buffer.get(..length).unwrap_or_default());
                self.events.telemetry.metrics.output(length);
                self.tell(output);
                true
            }
            // The end; the command may well run on without its output.
            Ok(Some(_)) | Err(_) => {
                child.pipe = None;
                false
            }
        }
    }

    /// The shell has ended, and with it the phase: what is in the pipe is read,
    /// and what else comes within a moment.
    fn read_last_words(&mut self, child: &mut Child, output: &mut Output) {
        let deadline = Instant::now() + LAST_WORDS;
        while child.pipe.is_some() && !self.abandoned {
            match self.next(child.pipe.as_ref(), Some(deadline)) {
                Event::Output => {
                    self.read(child, output);
                }
                Event::Deadline => return,
                Event::Uplink(event) => self.note(&event),
                Event::Signal(signal) => self.signal(signal),
                Event::Ended(_) | Event::Changed => {}
            }
        }
    }

    /// Says why, then ends the command's whole tree.
    fn stop_command(&mut self, child: &mut Child, stop: Stop, output: &mut Output) -> i64 {
        info!("{stop}");
        output.file.say(&format!("\n{stop}\n"));
        self.tell(output);
        let tree = child.tree.clone();
        self.end(&tree, Some((child, output)));
        match stop {
            Stop::Interrupted => NOT_RUN,
            Stop::GlobalTimeout(_) | Stop::OutputTimeout(_) | Stop::Cancelled => KILLED,
        }
    }
}
