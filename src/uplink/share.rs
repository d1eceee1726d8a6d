//! Telling the server what the agent warns of, so that an administrator sees it who
//! does not see the board.

use super::api::Api;
use super::failure::Failure;
use crate::json::Object;
use crate::{info, log};
use std::time::{Duration, Instant};

/// Between two posts.
const INTERVAL: Duration = Duration::from_secs(60);
/// After one that was refused: perhaps by whoever stood before the server for a moment.
const AFTER_REFUSAL: Duration = Duration::from_secs(600);

/// When that was done.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    last: Option<Instant>,
    is_refused: bool,
}

impl Sharing {
    /// Does it, if it is time to and there is something to tell.
    pub(super) fn go_on(&mut self, api: &Api, now: Instant) {
        let interval = match self.is_refused {
            true => AFTER_REFUSAL,
            false => INTERVAL,
        };
        let is_due = |last| now.saturating_duration_since(last) >= interval;
        if self.last.is_none_or(is_due) {
            self.tell(api, now);
        }
    }

    /// Does it once more, before the agent ends or begins anew; a server that is away is
    /// not waited for.
    pub(super) fn finish(&mut self, api: &Api) {
        if api.common.metrics.answers() {
            self.tell(api, Instant::now());
        }
    }

    fn tell(&mut self, api: &Api, now: Instant) {
        let lines = log::take_unshared();
        if lines.is_empty() {
            return;
        }
        self.last = Some(now);
        let mut body = Object::new();
        body.strings("log", &lines);
        match api.post_agent(body) {
            Ok(true) => self.is_refused = false,
            Err(Failure::Refused { cause, .. }) => {
                if !std::mem::replace(&mut self.is_refused, true) {
                    info!(
                        "the server does not take this agent's warnings: {cause}; trying again \
                         every {} minutes",
                        AFTER_REFUSAL.as_secs() / 60
                    );
                }
                log::put_back_unshared(lines);
            }
            // That there is no such place is said already.
            Ok(false) | Err(_) => log::put_back_unshared(lines),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::{Options, Server};
    use crate::log::Level;
    use crate::uplink::api::tests::api_of;

    /// Whoever stood before the server for a moment took them for his.
    #[test]
    fn what_was_refused_is_told_later() {
        let directory = std::env::temp_dir().join(format!("tfa-share-{}", std::process::id()));
        let server = Server::start(Options {
            directory: directory.join("server"),
            ..Options::default()
        })
        .unwrap();
        let api = api_of(&server, &directory);
        log::share();
        let is_warning = |line: &String| line.ends_with(": a warning");
        let is_known = || {
            server
                .agent("a")
                .is_some_and(|agent| agent.log.iter().any(is_warning))
        };
        let (mut sharing, mut now) = (Sharing::default(), Instant::now());
        log::write(Level::Warning, "share", format_args!("a warning"));
        for status in [400, 404] {
            server.answer("POST", "/v1/agents/data/*", 1, status, "{}");
            sharing.go_on(&api, now);
            assert!(!is_known());
            now += AFTER_REFUSAL;
        }
        sharing.go_on(&api, now);
        assert!(is_known());
        drop(server);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
