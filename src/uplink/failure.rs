//! Why a call came to nothing, and what that means.

use super::http::Reply;
use crate::json::Json;
use crate::sys::clock::http_date;
use std::time::{Duration, SystemTime};

/// A server that wants more is asked again after this.
const LONGEST: Duration = Duration::from_secs(3_600);

/// Why a call did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There was no answer; there may be one later.
    Unreachable {
        /// Why there was none.
        cause: String,
        /// Somebody was there, and cut the connection.
        was_cut: bool,
        /// What was sent may be there all the same.
        may_have_arrived: bool,
        /// Somebody was there.
        was_there: bool,
    },
    /// It may succeed later.
    Transient {
        /// Why it did not.
        cause: String,
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
        /// What was sent may have been stored all the same.
        may_have_arrived: bool,
        /// Nothing is wrong with what was sent, but with who sent it, or when: nothing
        /// is given up for that, however long it lasts.
        waits: bool,
    },
    /// The server will not do this, however often it is asked.
    Refused {
        /// Its answer's status.
        status: u16,
        /// Its answer's message.
        cause: String,
    },
}

impl Failure {
    pub(super) fn transient(cause: impl Into<String>) -> Failure {
        Failure::Transient {
            cause: cause.into(),
            retry_after: None,
            may_have_arrived: false,
            waits: false,
        }
    }

    /// The same, and nothing is wrong with what was to be sent.
    pub(super) fn waiting(mut self) -> Failure {
        if let Failure::Transient { waits, .. } = &mut self {
            *waits = true;
        }
        self
    }

    /// The same, with something more to be said.
    pub(super) fn with(mut self, hint: Option<&str>) -> Failure {
        if let (Failure::Transient { cause, .. }, Some(hint)) = (&mut self, hint) {
            cause.push_str(hint);
        }
        self
    }

    /// Whether it is of no use to ask again.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Failure::Refused { .. })
    }

    /// Whether the server may have stored what it was sent, although nobody said
    /// so.
    #[must_use]
    pub fn may_have_arrived(&self) -> bool {
        match self {
            Failure::Unreachable {
                may_have_arrived, ..
            }
            | Failure::Transient {
                may_have_arrived, ..
            } => *may_have_arrived,
            Failure::Refused { .. } => false,
        }
    }

    /// Whether it is of no matter how long it lasts.
    #[must_use]
    pub fn waits(&self) -> bool {
        matches!(self, Failure::Transient { waits: true, .. })
    }

    /// When the server wants to be asked again, if it said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Failure::Transient { retry_after, .. } => *retry_after,
            Failure::Unreachable { .. } | Failure::Refused { .. } => None,
        }
    }

    /// Why.
    #[must_use]
    pub fn cause(&self) -> &str {
        match self {
            Failure::Unreachable { cause, .. }
            | Failure::Transient { cause, .. }
            | Failure::Refused { cause, .. } => cause,
        }
    }
}

/// What an answer's status means.
pub(super) fn settle(reply: Reply) -> Result<Reply, Failure> {
    let status = reply.status;
    let retry_after = retry_after(reply.header("retry-after"), reply.header("date"));
    match status {
        200..=299 => Ok(reply),
        300..=399 => {
            let redirect = reply.redirect().unwrap_or_default();
            Err(Failure::transient(format!(
                "the server answered {redirect}"
            )))
        }
        401 | 403 | 408 | 425 | 429 | 500.. => Err(Failure::Transient {
            cause: explain(reply),
            retry_after,
            // Who says so may only stand before the server.
            may_have_arrived: status == 408 || status >= 500,
            // No good token; too early.
            waits: matches!(status, 401 | 403 | 429) || status == 503 && retry_after.is_some(),
        }),
        _ => Err(Failure::Refused {
            status,
            cause: explain(reply),
        }),
    }
}

/// When the server wants to be asked again (RFC 9110, section 10.2.3): a number of
/// seconds, or a date, which is one by the server's own clock.
fn retry_after(header: Option<&str>, date: Option<&str>) -> Option<Duration> {
    let text = header?.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let wanted = if is_number {
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let (then, now) = (http_date(text)?, date.and_then(http_date));
        let now = now.unwrap_or_else(SystemTime::now);
        then.duration_since(now).unwrap_or_default()
    };
    Some(wanted.min(LONGEST))
}

/// What the server has to say about its error.
fn explain(reply: Reply) -> String {
    let status = reply.status;
    let text = reply.text(64 << 10).unwrap_or_default();
    let json = Json::parse(&text).ok();
    let message = json
        .and_then(|json| json.get("message")?.string())
        .unwrap_or_default();
    let detail = json
        .and_then(|json| json.get("detail"))
        .filter(|detail| !detail.is_empty())
        .map(|detail| format!(" {}", detail.text()))
        .unwrap_or_default();
    let answer = format!("the server answered {status} {message}{detail}");
    answer.trim_end().chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_29_a_number_or_a_date_says_when_to_ask_again() {
        let seconds = |header: &str, date: &str| {
            let date = Some(date).filter(|date| !date.is_empty());
            retry_after(Some(header), date).map(|wanted| wanted.as_secs())
        };
        assert_eq!(seconds("7", ""), Some(7));
        assert_eq!(seconds("99999999999999999999999", ""), Some(3_600));
        let date = "Wed, 21 Oct 2015 07:28:00 GMT";
        assert_eq!(seconds("Wed, 21 Oct 2015 07:29:30 GMT", date), Some(90));
        assert_eq!(seconds("Wed, 21 Oct 2015 07:00:00 GMT", date), Some(0));
        assert_eq!(seconds("Wed, 21 Oct 2015 07:00:00 GMT", ""), Some(0));
        for odd in ["", "soon", "-1", "Wed, 41 Oct 2015", "1.5"] {
            assert_eq!(seconds(odd, date), None, "{odd}");
        }
    }
}
