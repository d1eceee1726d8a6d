//! When a step of a delivery is given up. No part of a job holds up the rest of it for
//! ever, and none is lost by what has nothing to do with it: an outage, a token that is
//! no good, a server that wants to be left in peace.

use super::{Delivery, Step};
use crate::uplink::api::Api;
use crate::uplink::failure::Failure;
use std::io;
use std::time::{Duration, Instant};

/// When a step fails for as long as this although the server answers, the job goes on
/// without it.
const STEP_PATIENCE: Duration = Duration::from_secs(600);
/// A piece that is shown once is not worth more: the database of an old server is
/// full when nobody looks.
const LIVE_PATIENCE: Duration = Duration::from_secs(60);

/// A step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failing {
    since: Instant,
    /// How many calls had been understood when it failed last.
    pub(super) understood: u64,
}

impl Delivery {
    /// The step that is next has failed. Where nothing else has been understood since it
    /// failed last, that is an outage, whatever it looks like, and says nothing about it.
    pub(super) fn fails(&mut self, understood: u64, now: Instant) {
        let since = match self.failing {
            Some(failing) if failing.understood != understood => failing.since,
            _ => now,
        };
        self.failing = Some(Failing { since, understood });
    }

    /// Whether a failure says nothing about the step that met it.
    pub(super) fn is_beside(&self, step: Step, failure: &Failure, api: &Api) -> bool {
        match failure {
            // Who cuts off uploads, or forbids them, may well take everything else; and
            // artifacts that are given up are only put off.
            _ if step == Step::Artifacts => false,
            Failure::Unreachable { .. } => true,
            // What an old server shows once is also in the result.
            _ => failure.waits() && !self.is_legacy(api),
        }
    }

    /// Whether the step that is next has failed for longer than anybody waits.
    pub(super) fn is_hopeless(&self, api: &Api, now: Instant) -> bool {
        self.failing.is_some_and(|failing| {
            now.saturating_duration_since(failing.since) >= STEP_PATIENCE
                && failing.understood != api.common.understood()
        })
    }

    /// Whether what is owed and cannot be read is given up: it is not there, or the disk
    /// has failed for longer than anybody waits. A board that lacks something may have
    /// it again.
    pub(super) fn is_lost(&self, error: &io::Error, api: &Api, now: Instant) -> bool {
        is_lasting(error) || !is_shortage(error) && self.is_hopeless(api, now)
    }

    /// Whether a piece that is shown once has failed for as long as it is worth.
    pub(super) fn is_worthless(&self, api: &Api, now: Instant) -> bool {
        let is_over =
            |failing: Failing| now.saturating_duration_since(failing.since) >= LIVE_PATIENCE;
        self.is_legacy(api) && self.failing.is_some_and(is_over)
    }
}

/// Whether a file will not come back by itself.
pub(super) fn is_lasting(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::InvalidData
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::Other
    )
}

/// Whether it is not the file's fault.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::delivery;
    use super::*;
    use crate::job::{Entry, LogType, Phase};
    use crate::local::{Options, Server};
    use crate::uplink::api::tests::api_of;
    use std::path::{Path, PathBuf};

    const FRAGMENT: Step = Step::Fragment(Phase::Test, LogType::Output, 0);
    const LOG: &str = "/v1/result/*/log/output";

    /// A job that has printed something and says what its device is, and its server.
    fn printed(name: &str) -> (PathBuf, Server, Api, Delivery) {
        let basedir = std::env::temp_dir().join(format!("tfa-{name}-{}", std::process::id()));
        let server = Server::start(Options {
            directory: basedir.join("server"),
            ..Options::default()
        })
        .unwrap();
        let api = api_of(&server, &basedir);
        let mut job = delivery(&basedir);
        job.progress.job_id = server.submit("{\"job_queue\": \"q\"}").unwrap();
        let log = job.record.log(Phase::Test, LogType::Output);
        std::fs::write(log, "12345").unwrap();
        let info = "{\"device_info\": {\"device_ip\": \"10.0.0.7\"}}";
        std::fs::write(job.record.device_info(), info).unwrap();
        job.apply(&Entry::Started(Phase::Test));
        job.output(Phase::Test, LogType::Output, 5, Instant::now());
        (basedir, server, api, job)
    }

    /// Tries a step for an hour, while the server answers other calls.
    fn for_an_hour(job: &mut Delivery, step: Step, api: &Api) {
        let begun = Instant::now();
        job.failing = None;
        for minute in 0..60 {
            job.take(step, api, begun + Duration::from_secs(60 * minute));
            api.known(&job.progress.job_id).unwrap();
        }
    }

    fn is_given_up(job: &Delivery) -> bool {
        job.progress.phases[0].logs.of(LogType::Output).refused
    }

    fn remove(basedir: &Path, server: Server) {
        drop(server);
        std::fs::remove_dir_all(basedir).unwrap();
    }

    #[test]
    fn output_waits_for_a_token_and_for_as_long_as_the_server_wants() {
        let later = [("Retry-After", "3000")];
        let nothing: &[(&str, &str)] = &[];
        for (status, headers) in [
            (401, nothing),
            (403, nothing),
            (429, nothing),
            (503, &later),
        ] {
            let (basedir, server, api, mut job) = printed("waits");
            server.answer_with("POST", LOG, 1_000, status, headers, "");
            for_an_hour(&mut job, FRAGMENT, &api);
            assert!(!is_given_up(&job), "{status}");
            remove(&basedir, server);
        }
    }

    #[test]
    fn output_that_the_server_fails_to_take_for_ever_is_given_up() {
        let (basedir, server, api, mut job) = printed("fails");
        server.answer("POST", LOG, 1_000, 500, "");
        for_an_hour(&mut job, FRAGMENT, &api);
        assert!(is_given_up(&job));
        remove(&basedir, server);
    }

    /// A fault that is as old as that has not been seen all the time.
    #[test]
    fn a_token_that_is_no_good_adds_nothing_to_what_was_wrong_before() {
        let (basedir, server, api, mut job) = printed("before");
        let begun = Instant::now();
        let hour = Duration::from_secs(3_600);
        for (hours, times, status) in [(0, 1, 500), (1, 2, 403), (2, 1, 500)] {
            // Who may not gets another token and tries once more.
            server.answer("POST", LOG, times, status, "");
            job.take(FRAGMENT, &api, begun + hours * hour);
            api.known(&job.progress.job_id).unwrap();
            assert!(!is_given_up(&job), "{status}");
        }
        remove(&basedir, server);
    }

    #[test]
    fn what_is_known_of_the_device_waits_for_a_token() {
        for (status, is_kept) in [(403, true), (500, false)] {
            let (basedir, server, api, mut job) = printed("device");
            job.apply(&Entry::DeviceInfo(1));
            server.answer("POST", "/v1/result/*", 1_000, status, "");
            for_an_hour(&mut job, Step::DeviceInfo, &api);
            assert_eq!(job.progress.device_info_sent == 0, is_kept, "{status}");
            remove(&basedir, server);
        }
    }

    /// Who stands before the server may forbid only them: the job is complete, and they
    /// are tried for as long as it takes.
    #[test]
    fn artifacts_that_nobody_may_send_come_last() {
        let (basedir, server, api, mut job) = printed("forbidden");
        let elsewhere = basedir.join("elsewhere");
        std::fs::create_dir_all(&elsewhere).unwrap();
        std::fs::write(elsewhere.join("file"), "x").unwrap();
        let artifacts = Some(elsewhere);
        job.apply(&Entry::Finished { artifacts });
        server.answer("POST", "/v1/result/*/artifact", 1_000, 403, "");
        for_an_hour(&mut job, Step::Artifacts, &api);
        assert!(job.artifacts_last);
        job.apply(&Entry::Complete);
        for_an_hour(&mut job, Step::Artifacts, &api);
        assert!(job.progress.owes_artifacts());
        remove(&basedir, server);
    }

    #[test]
    fn a_sector_that_cannot_be_read_is_given_up_and_a_board_without_descriptors_waits() {
        let (basedir, server, api, mut job) = printed("sector");
        let begun = Instant::now();
        let error = io::Error::from_raw_os_error;
        job.fails(api.common.understood(), begun);
        let after = |job: &Delivery, errno, time| job.is_lost(&error(errno), &api, begun + time);
        assert!(!after(&job, libc::EIO, STEP_PATIENCE), "an outage");
        api.known(&job.progress.job_id).unwrap();
        for errno in [libc::EIO, libc::EUCLEAN] {
            assert!(!after(&job, errno, STEP_PATIENCE / 2), "{errno}");
            assert!(after(&job, errno, STEP_PATIENCE), "{errno}");
        }
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM] {
            assert!(!after(&job, errno, STEP_PATIENCE * 1_000), "{errno}");
            let failure = job.unreadable(&api, &error(errno));
            assert!(job.is_beside(FRAGMENT, &failure, &api), "{errno}");
        }
        assert!(after(&job, libc::ENOENT, Duration::ZERO));
        remove(&basedir, server);
    }

    /// Of what is below a file, nobody can tell that it is not there: as with a broken
    /// sector.
    #[test]
    fn a_job_is_complete_without_what_cannot_be_read() {
        let (basedir, server, api, mut job) = printed("unread");
        let artifacts = Some(basedir.join("token/artifacts"));
        job.apply(&Entry::Ended {
            phase: Phase::Test,
            status: 0,
        });
        job.apply(&Entry::Finished { artifacts });
        let directory = job.record.directory().to_owned();
        std::fs::rename(&directory, basedir.join("away")).unwrap();
        std::fs::write(&directory, "").unwrap();
        for_an_hour(&mut job, FRAGMENT, &api);
        assert!(is_given_up(&job));
        for_an_hour(&mut job, Step::Artifacts, &api);
        assert!(job.artifacts_last);
        job.take(Step::Complete, &api, Instant::now());
        let state = server.job_state(&job.progress.job_id);
        assert_eq!(state.as_deref(), Some("complete"));
        assert!(job.progress.owes_artifacts());
        for _ in 0..24 {
            for_an_hour(&mut job, Step::Artifacts, &api);
        }
        assert!(!job.progress.owes_artifacts(), "after a day");
        remove(&basedir, server);
    }

    #[test]
    fn an_old_server_gets_the_result_without_what_cannot_be_read() {
        let (basedir, server, api, mut job) = printed("unread-old");
        job.apply(&Entry::Legacy);
        job.apply(&Entry::Finished { artifacts: None });
        let directory = job.record.directory().to_owned();
        std::fs::rename(&directory, basedir.join("away")).unwrap();
        std::fs::write(&directory, "").unwrap();
        for_an_hour(&mut job, Step::Complete, &api);
        assert!(job.progress.complete);
        remove(&basedir, server);
    }

    /// Where nothing else is understood either, that is an outage.
    #[test]
    fn a_step_is_only_hopeless_where_others_are_not() {
        let basedir = std::env::temp_dir().join(format!("tfa-hopeless-{}", std::process::id()));
        let mut job = delivery(&basedir);
        let since = |job: &Delivery| job.failing.unwrap().since;
        let first = Instant::now();
        let second = Duration::from_secs(1);
        job.fails(7, first);
        job.fails(8, first + second);
        job.fails(12, first + 2 * second);
        assert_eq!(since(&job), first);
        job.fails(12, first + 3 * second);
        assert_eq!(since(&job), first + 3 * second);
        std::fs::remove_dir_all(basedir).unwrap();
    }
}
