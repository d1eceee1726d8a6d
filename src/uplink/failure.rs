//! Why a call came to nothing, and what that means.

use super::http::Reply;
use crate::json::Json;
use std::time::Duration;

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
    },
    /// It may succeed later.
    Transient {
        /// Why it did not.
        cause: String,
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
        /// What was sent may have been stored all the same.
        may_have_arrived: bool,
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
        }
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
    let retry_after = reply
        .header("retry-after")
        .and_then(|seconds| seconds.trim().parse().ok())
        .map(|seconds: u64| Duration::from_secs(seconds.min(3_600)));
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
        }),
        _ => Err(Failure::Refused {
            status,
            cause: explain(reply),
        }),
    }
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
