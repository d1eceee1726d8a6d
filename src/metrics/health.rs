//! Whether the server answers: what `/healthz` says.

use super::Endpoint;
use std::time::{Duration, Instant};

/// A question for a job is never broken off while there is hope; a server that has not
/// answered it for so long does not answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// A reason is a sentence, in characters.
const LONGEST: usize = 300;

/// What is known of the server.
#[derive(Debug, Default)]
enum Server {
    #[default]
    NotAsked,
    Answers,
    Silent {
        since: Instant,
        cause: String,
    },
}

/// What is known of the server, and of the agent's end.
#[derive(Debug, Default)]
pub(super) struct Health {
    server: Server,
    /// Since when an answer to the question for a job is awaited.
    job_asked: Option<Instant>,
    is_stopping: bool,
}

impl Health {
    pub(super) fn asking(&mut self, endpoint: Endpoint, now: Instant) {
        if endpoint.is_job() {
            self.job_asked = Some(now);
        }
    }

    /// A request is over; true when the server is back.
    pub(super) fn asked(&mut self, endpoint: Endpoint, now: Instant, fault: Option<&str>) -> bool {
        if endpoint.is_job() {
            self.job_asked = None;
        }
        let was_silent = matches!(self.server, Server::Silent { .. });
        let Some(cause) = fault else {
            self.server = Server::Answers;
            return was_silent;
        };
        let cause = cause.chars().take(LONGEST).collect();
        match &mut self.server {
            Server::Silent { cause: last, .. } => *last = cause,
            server => *server = Server::Silent { since: now, cause },
        }
        false
    }

    pub(super) fn stopping(&mut self) {
        self.is_stopping = true;
    }

    /// Why the agent is of no use just now, if it is not.
    pub(super) fn verdict(&self, now: Instant) -> Result<(), String> {
        if self.is_stopping {
            return Err("the agent is stopping".into());
        }
        let seconds = |since: Instant| now.saturating_duration_since(since).as_secs();
        if let Some(asked) = self.job_asked
            && now.saturating_duration_since(asked) > PATIENCE
        {
            let seconds = seconds(asked);
            return Err(format!(
                "the server has not answered for {seconds} s when asked for a job"
            ));
        }
        match &self.server {
            Server::Answers => Ok(()),
            Server::NotAsked => Err("the server was not asked yet".into()),
            Server::Silent { since, cause } => {
                let seconds = seconds(*since);
                Err(format!(
                    "no answer from the server for {seconds} s: {cause}"
                ))
            }
        }
    }

    /// Whether the last request got an answer.
    pub(super) fn answers(&self) -> bool {
        matches!(self.server, Server::Answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_request_tells_whether_the_server_answers() {
        let mut health = Health::default();
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let result = Endpoint::of("GET", "/v1/result/x");
        let said = |health: &Health, at| health.verdict(after(at)).unwrap_err();
        assert_eq!(said(&health, 0), "the server was not asked yet");
        assert!(!health.asked(result, after(0), Some("refused")));
        assert!(!health.asked(result, after(5), Some("cut")));
        assert_eq!(said(&health, 7), "no answer from the server for 7 s: cut");
        assert!(health.asked(result, after(8), None), "it is back");
        assert!(!health.asked(result, after(9), None), "it was there");
        assert_eq!(health.verdict(after(1_000)), Ok(()));
        health.stopping();
        assert_eq!(said(&health, 9), "the agent is stopping");
    }

    #[test]
    fn a_server_that_hangs_when_asked_for_a_job_does_not_answer() {
        let mut health = Health::default();
        let now = Instant::now();
        let job = Endpoint::of("GET", "/v1/job?queue=x");
        health.asked(job, now, None);
        health.asking(job, now);
        assert_eq!(health.verdict(now + PATIENCE), Ok(()));
        let late = health.verdict(now + PATIENCE + Duration::from_secs(1));
        assert!(late.unwrap_err().contains("for 61 s when asked for a job"));
        health.asked(job, now + PATIENCE * 2, None);
        assert_eq!(health.verdict(now + PATIENCE * 9), Ok(()));
    }
}
