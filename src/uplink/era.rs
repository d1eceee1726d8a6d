//! Of which era the server is. One of before 2025-12 takes a job's logs as plain
//! text, shows that to whoever asks first, and keeps only what comes with the
//! job's result (PROTOCOL.md, sections 6 and 8).
//!
//! A server is taken for today's until it knows no log fragments; so today's are
//! never asked. The logs are all that tells the eras apart: any other 404 says
//! nothing.

use super::api::{Api, Outgoing, percent};
use super::failure::{Failure, settle};
use crate::job::{LogType, Phase};
use crate::{info, sys};
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

const ASK: &str = "find out of which era the server is";
/// A call that is refused is over; that nobody knows it may not be.
const FIND: &str = "find where the server takes logs";
/// What is there since 2025-02.
const SERIAL: &str = "live serial log";

/// What the uplink's threads know of it together.
#[derive(Debug, Default)]
pub(super) struct Era(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// What it said when it was last asked.
    is_legacy: Option<bool>,
    /// It has taken text, and that was said.
    is_confirmed: bool,
    /// What it was said not to have.
    missing: BTreeSet<&'static str>,
}

/// A piece of a log.
#[derive(Debug)]
pub(super) struct LogPiece<'a> {
    pub(super) job_id: &'a str,
    pub(super) phase: Phase,
    pub(super) log: LogType,
    pub(super) number: u64,
    pub(super) text: &'a str,
}

/// What became of a piece of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Posted {
    /// The server has it, as a fragment.
    Fragment,
    /// The server has it, as text that it shows once.
    Text,
    /// The server shows nothing of this log while the job runs.
    NotLive,
    /// The server is today's now; what came before this piece went to an old one.
    Upgraded,
}

impl Era {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the server is of before 2025-12; `None` as long as there was no
    /// reason to ask.
    pub(super) fn is_legacy(&self) -> Option<bool> {
        self.state().is_legacy
    }

    /// The server said so.
    fn learn(&self, is_legacy: bool) {
        let mut state = self.state();
        state.is_legacy = Some(is_legacy);
        if state.is_confirmed && !is_legacy {
            state.is_confirmed = false;
            state.missing.clear();
            info!("the server is of 2025-12 or later now: logs go to it in fragments");
        }
    }

    /// It took text. Only then is it said: whoever stands before a server that is
    /// away may know no page at all.
    fn confirm(&self) {
        let mut state = self.state();
        if !std::mem::replace(&mut state.is_confirmed, true) {
            info!(
                "the server is of before 2025-12: it shows output once, as text, and gets statuses \
                 and the end of each output with a job's result"
            );
        }
    }

    /// It knows neither way.
    fn forget(&self) {
        self.state().is_legacy = None;
    }

    /// An endpoint that is not there, as on an old server, is said once.
    pub(super) fn is_missing(&self, endpoint: &'static str, cause: &str) {
        if self.state().missing.insert(endpoint) {
            info!("the server has no {endpoint} ({cause}); going on without");
        }
    }

    /// It is there.
    pub(super) fn is_there(&self, endpoint: &'static str) {
        self.state().missing.remove(endpoint);
    }
}

/// What a status says to an empty fragment: whether there are none. Whoever wants
/// a token, or a text in it, knows what a fragment is.
fn says_legacy(status: u16) -> Option<bool> {
    match status {
        404 => Some(true),
        200..=299 | 401 | 403 | 422 => Some(false),
        _ => None,
    }
}

/// Whether an answer means that there is no such endpoint.
pub(super) fn is_unknown(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Refused {
            status: 404 | 405,
            ..
        }
    )
}

/// An identifier that no job has (RFC 9562, version 4).
fn nobody() -> String {
    let (high, low) = (sys::random(), sys::random());
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0xfff,
        low & 0xffff_ffff_ffff
    )
}

impl Api {
    /// Asks whether the server is of before 2025-12, by a fragment that no server
    /// stores: it is empty, and nobody's.
    pub(super) fn ask_era(&self) -> Result<bool, Failure> {
        let path = format!("/v1/result/{}/log/output", nobody());
        let mut body = Outgoing::Json("{}".into());
        let bearer = self.access(&body)?;
        let reply = self.send("POST", &path, bearer.as_deref(), &mut body)?;
        let Some(is_legacy) = says_legacy(reply.status) else {
            let cause = match settle(reply) {
                Ok(_) => "it makes no sense".into(),
                Err(failure) => failure.cause().to_owned(),
            };
            self.common.faults.report(ASK, &cause, "asking again");
            return Err(Failure::transient(cause));
        };
        self.common.faults.over(ASK);
        self.common.era.learn(is_legacy);
        Ok(is_legacy)
    }

    /// Sends a piece of a log in the way of the server's era. Where that is not
    /// known, it is that of the pieces before.
    pub(super) fn post_log(
        &self,
        piece: &LogPiece<'_>,
        was_legacy: bool,
    ) -> Result<Posted, Failure> {
        let era = &self.common.era;
        let is_legacy = era.is_legacy().unwrap_or(was_legacy);
        if is_legacy && piece.log == LogType::Serial && era.state().missing.contains(SERIAL) {
            return Ok(Posted::NotLive);
        }
        let posted = match is_legacy {
            true => self.post_text(piece).map(|()| Posted::Text),
            false => self.post_piece(piece).map(|()| Posted::Fragment),
        };
        let posted = match posted {
            Err(Failure::Refused { status: 404, cause }) => {
                self.post_elsewhere(piece, is_legacy, was_legacy, cause)
            }
            other => other,
        };
        if posted.is_ok() {
            self.common.faults.over(FIND);
        }
        posted
    }

    /// The server does not know the way that was tried.
    fn post_elsewhere(
        &self,
        piece: &LogPiece<'_>,
        is_legacy: bool,
        was_legacy: bool,
        cause: String,
    ) -> Result<Posted, Failure> {
        match (is_legacy, self.ask_era()?) {
            // Somebody on the way did not know it.
            (false, false) => Err(Failure::Refused { status: 404, cause }),
            (true, false) => Ok(Posted::Upgraded),
            (true, true) => self.without(piece, was_legacy, cause),
            (false, true) => match self.post_text(piece) {
                Err(Failure::Refused { status: 404, cause }) => {
                    self.without(piece, was_legacy, cause)
                }
                other => other.map(|()| Posted::Text),
            },
        }
    }

    /// Nobody knew a piece of a log; it is tried again.
    pub(super) fn not_found(&self, cause: String) -> Failure {
        self.common.faults.report(FIND, &cause, "trying again");
        Failure::transient(cause)
    }

    /// Neither fragments nor text. Serial text has been taken since 2025-02; but
    /// who does not know output is no server, or none that is whole.
    fn without(
        &self,
        piece: &LogPiece<'_>,
        was_legacy: bool,
        cause: String,
    ) -> Result<Posted, Failure> {
        let Api { common, .. } = self;
        if piece.log == LogType::Serial && (was_legacy || common.era.state().is_confirmed) {
            common.era.is_missing(SERIAL, &cause);
            return Ok(Posted::NotLive);
        }
        common.era.forget();
        Err(self.not_found(cause))
    }

    fn post_piece(&self, piece: &LogPiece<'_>) -> Result<(), Failure> {
        let LogPiece {
            job_id,
            phase,
            log,
            number,
            text,
        } = *piece;
        self.post_fragment(job_id, phase, log, number, text)
    }

    /// `POST /v1/result/<id>/output` and `.../serial_output`: text, as it is.
    fn post_text(&self, piece: &LogPiece<'_>) -> Result<(), Failure> {
        let name = match piece.log {
            LogType::Output => "output",
            LogType::Serial => "serial_output",
        };
        let path = format!("/v1/result/{}/{name}", percent(piece.job_id));
        let action = action(piece.log);
        let body = Outgoing::Text(piece.text.to_owned());
        let reply = self.call(action, "POST", &path, body)?;
        self.acknowledged(action, reply)?;
        self.common.era.confirm();
        Ok(())
    }
}

/// What is done with a log.
pub(super) fn action(log: LogType) -> &'static str {
    match log {
        LogType::Output => "send a job's output",
        LogType::Serial => "send a job's serial log",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Job;

    #[test]
    fn only_who_knows_no_fragments_is_of_old() {
        assert_eq!(says_legacy(404), Some(true));
        for status in [200, 204, 401, 403, 422] {
            assert_eq!(says_legacy(status), Some(false), "{status}");
        }
        for status in [302, 400, 405, 408, 413, 429, 500, 502, 503] {
            assert_eq!(says_legacy(status), None, "{status}");
        }
    }

    #[test]
    fn nobody_is_a_job_that_no_server_knows() {
        let (one, other) = (nobody(), nobody());
        let job = |id: &str| Job::parse(format!("{{\"job_id\": \"{id}\"}}"));
        assert!(job(&one).is_ok() && job(&other).is_ok(), "{one} {other}");
        assert_ne!(one, other);
    }

    #[test]
    fn what_was_learned_last_holds() {
        let era = Era::default();
        assert_eq!(era.is_legacy(), None);
        era.learn(true);
        era.confirm();
        assert_eq!(era.is_legacy(), Some(true));
        era.learn(false);
        assert_eq!(era.is_legacy(), Some(false));
        assert!(!era.state().is_confirmed, "a change is said");
        era.forget();
        assert_eq!(era.is_legacy(), None);
    }
}
