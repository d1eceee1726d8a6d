//! The v1 API, one function an endpoint (PROTOCOL.md, section 3).

use super::faults::Faults;
use super::http::{Credentials, Http, Patience, Payload, Reply, explain_io};
use super::multipart::Multipart;
use super::token::Tokens;
use super::{Settings, TlsFiles};
use crate::job::{LogType, Phase};
use crate::json::{DeJson, Json, Object, Scanner, Token};
use crate::sys::clock;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Longest answer that is kept, in bytes: a job document or an agent's data.
const LARGEST_ANSWER: u64 = 16 << 20;
/// An upload may take as long as this with the token that it began with.
const UPLOAD_TOKEN: Duration = Duration::from_secs(300);
/// Reading a result may take this long, whatever its size.
const LONGEST_READING: Duration = Duration::from_secs(300);

/// Why a call did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There was no answer; there may be one later.
    Unreachable(String),
    /// It may succeed later.
    Transient {
        /// Why it did not.
        cause: String,
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
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
    fn transient(cause: impl Into<String>) -> Failure {
        Failure::Transient {
            cause: cause.into(),
            retry_after: None,
        }
    }

    /// Whether it is of no use to ask again.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Failure::Refused { .. })
    }

    /// When the server wants to be asked again, if it said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Failure::Transient { retry_after, .. } => *retry_after,
            Failure::Unreachable(_) | Failure::Refused { .. } => None,
        }
    }

    /// Why.
    #[must_use]
    pub fn cause(&self) -> &str {
        match self {
            Failure::Unreachable(cause)
            | Failure::Transient { cause, .. }
            | Failure::Refused { cause, .. } => cause,
        }
    }
}

/// What the server says of this agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentData {
    /// Its state, if the server knows the agent.
    pub state: Option<String>,
    /// The job that it is said to run.
    pub job_id: String,
    /// Why it is in this state.
    pub comment: String,
}

/// What of an agent's data the agent itself looks at.
#[derive(DeJson)]
struct KnownAgent {
    state: Option<String>,
    job_id: Option<String>,
    comment: Option<String>,
}

impl AgentData {
    /// Whether an administrator (or exit status 46) has taken the agent out of
    /// service.
    #[must_use]
    pub fn is_out_of_service(&self) -> bool {
        matches!(self.state.as_deref(), Some("offline" | "maintenance"))
    }

    /// Whether an administrator wants the agent to restart.
    #[must_use]
    pub fn is_to_restart(&self) -> bool {
        self.state.as_deref() == Some("restart")
    }
}

/// What the threads of one uplink share.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) server: String,
    pub(super) tls: TlsFiles,
    pub(super) agent_id: String,
    pub(super) tokens: Tokens,
    pub(super) faults: Faults,
    cookie: Mutex<Option<String>>,
}

impl Common {
    pub(super) fn new(settings: Settings) -> Common {
        let Settings {
            server,
            tls,
            agent_id,
            token_file,
        } = settings;
        // What RFC 6265 calls cookie-octets. Where the name has others, the
        // server writes the cookie, in its answer to the first post.
        let plain =
            |byte: u8| matches!(byte, b'!' | b'#'..=b'+' | b'-'..=b':' | b'<'..=b'[' | b']'..=b'~');
        let cookie = agent_id
            .bytes()
            .all(plain)
            .then(|| format!("agent_name={agent_id}"));
        Common {
            server,
            tls,
            agent_id,
            tokens: Tokens::new(token_file),
            faults: Faults::default(),
            cookie: Mutex::new(cookie),
        }
    }
}

/// One thread's way to the server.
#[derive(Debug)]
pub(super) struct Api {
    http: Http,
    pub(super) common: Arc<Common>,
}

/// What is sent with a call; a stream is opened anew for each attempt.
enum Outgoing<'a> {
    Nothing(Patience),
    Json(String),
    Artifacts(&'a mut dyn FnMut() -> std::io::Result<Box<dyn Read>>),
}

impl Api {
    /// # Errors
    /// A sentence, when TLS is needed and cannot be had.
    pub(super) fn new(common: Arc<Common>) -> Result<Api, String> {
        let http = Http::new(&common.server, &common.tls)?;
        Ok(Api { http, common })
    }

    /// `GET /v1/agents/data/<name>`: what the server says of this agent.
    pub(super) fn agent_data(&self) -> Result<AgentData, Failure> {
        let action = "read this agent's state";
        let nothing = Outgoing::Nothing(Patience::Call);
        let reply = match self.call(action, "GET", &self.agent_path(), nothing) {
            Err(Failure::Refused { status: 404, .. }) => return Ok(AgentData::default()),
            other => other?,
        };
        let text = self.text(action, reply)?;
        let json = self.json(action, &text)?;
        let known: KnownAgent = json
            .decode(&["state", "job_id", "comment"])
            .map_err(|error| self.unreadable(action, &error.to_string()))?;
        self.common.faults.over(action);
        Ok(AgentData {
            state: Some(known.state.unwrap_or_default()),
            job_id: known.job_id.unwrap_or_default(),
            comment: known.comment.unwrap_or_default(),
        })
    }

    /// `POST /v1/agents/data/<name>`.
    pub(super) fn post_agent(&self, data: Object) -> Result<(), Failure> {
        let body = Outgoing::Json(data.finish());
        let action = "post this agent's data";
        let reply = self.call(action, "POST", &self.agent_path(), body)?;
        let cookie = reply
            .header("set-cookie")
            .and_then(|cookie| cookie.split(';').next())
            .filter(|cookie| cookie.starts_with("agent_name="));
        if let Some(cookie) = cookie {
            let mut known = self
                .common
                .cookie
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *known = Some(cookie.to_owned());
        }
        self.acknowledged(action, reply)
    }

    /// `POST /v1/agents/queues` and `POST /v1/agents/images`.
    pub(super) fn advertise(&self, what: &'static str, body: &str) -> Result<(), Failure> {
        let action = format!("advertise {what}");
        let path = format!("/v1/agents/{what}");
        let reply = self.call(&action, "POST", &path, Outgoing::Json(body.to_owned()))?;
        self.acknowledged(&action, reply)
    }

    /// `GET /v1/job`: takes the next job, if there is one.
    pub(super) fn take_job(&self, queues: &[String]) -> Result<Option<String>, Failure> {
        let query: Vec<_> = queues
            .iter()
            .map(|queue| format!("queue={}", percent(queue)))
            .collect();
        let path = format!("/v1/job?{}", query.join("&"));
        let action = "ask for a job";
        let reply = self.call(action, "GET", &path, Outgoing::Nothing(Patience::Job))?;
        let document = match reply.status {
            204 => None,
            _ => Some(self.text(action, reply)?),
        };
        self.common.faults.over(action);
        Ok(document)
    }

    /// `GET /v1/result/<id>`: the job's state. The answer holds all of the
    /// job's output; it is looked through as it comes.
    pub(super) fn job_state(&self, job_id: &str) -> Result<Option<String>, Failure> {
        let action = "see whether the job was cancelled";
        let path = format!("/v1/result/{}", percent(job_id));
        let nothing = Outgoing::Nothing(Patience::LongAnswer);
        let mut reply = self.call(action, "GET", &path, nothing)?;
        let state = match reply.status {
            204 => None,
            _ => find_job_state(&mut reply.reader())
                .map_err(|cause| self.unreadable(action, &cause))?,
        };
        self.common.faults.over(action);
        Ok(state)
    }

    /// `POST /v1/result/<id>`.
    pub(super) fn post_result(&self, job_id: &str, body: Object) -> Result<(), Failure> {
        let path = format!("/v1/result/{}", percent(job_id));
        let action = "post a job's state";
        let reply = self.call(action, "POST", &path, Outgoing::Json(body.finish()))?;
        self.acknowledged(action, reply)
    }

    /// `POST /v1/result/<id>/log/<type>`: one fragment.
    pub(super) fn post_fragment(
        &self,
        job_id: &str,
        phase: Phase,
        log: LogType,
        number: u64,
        text: &str,
    ) -> Result<(), Failure> {
        let mut body = Object::new();
        body.integer("fragment_number", i64::try_from(number).unwrap_or(i64::MAX));
        body.string("timestamp", &clock::iso8601(SystemTime::now()));
        body.string("phase", phase.name());
        body.string("log_data", text);
        let path = format!("/v1/result/{}/log/{}", percent(job_id), log.name());
        let action = match log {
            LogType::Output => "send a job's output",
            LogType::Serial => "send a job's serial log",
        };
        let reply = self.call(action, "POST", &path, Outgoing::Json(body.finish()))?;
        self.acknowledged(action, reply)
    }

    /// `POST /v1/result/<id>/artifact`: the stream that `open` gives.
    pub(super) fn post_artifacts(
        &self,
        job_id: &str,
        open: &mut dyn FnMut() -> std::io::Result<Box<dyn Read>>,
    ) -> Result<(), Failure> {
        let path = format!("/v1/result/{}/artifact", percent(job_id));
        let action = "send a job's artifacts";
        let reply = self.call(action, "POST", &path, Outgoing::Artifacts(open))?;
        self.acknowledged(action, reply)
    }

    fn agent_path(&self) -> String {
        format!("/v1/agents/data/{}", percent(&self.common.agent_id))
    }

    /// Makes the call; on a 401 or 403 once more, with a new token. An answer
    /// that is not 2xx is a failure; a transient one is said once.
    fn call(
        &self,
        action: &str,
        method: &str,
        path: &str,
        mut outgoing: Outgoing<'_>,
    ) -> Result<Reply, Failure> {
        let result = self.attempt(method, path, &mut outgoing);
        match &result {
            // It is over when the answer has been understood.
            Ok(_) => {}
            Err(Failure::Refused { .. }) => self.common.faults.over(action),
            Err(Failure::Transient { cause, .. }) => {
                self.common.faults.report(action, cause, "trying again");
            }
            // Said as the one fault that it is, whatever it kept from being done.
            Err(Failure::Unreachable(_)) => {}
        }
        result
    }

    fn attempt(
        &self,
        method: &str,
        path: &str,
        outgoing: &mut Outgoing<'_>,
    ) -> Result<Reply, Failure> {
        let first = self.access(outgoing)?;
        let reply = self.send(method, path, first.as_deref(), outgoing)?;
        let (Some(token), 401 | 403) = (first, reply.status) else {
            return settle(reply);
        };
        self.common.tokens.forget(&token);
        match self.access(outgoing)? {
            Some(second) => settle(self.send(method, path, Some(&second), outgoing)?),
            None => settle(reply),
        }
    }

    fn access(&self, outgoing: &Outgoing<'_>) -> Result<Option<String>, Failure> {
        let needed = match outgoing {
            Outgoing::Artifacts(_) => UPLOAD_TOKEN,
            _ => Duration::ZERO,
        };
        let Common { tokens, faults, .. } = &*self.common;
        tokens
            .access(&self.http, faults, needed)
            .map_err(|cause| self.unreachable(cause))
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        bearer: Option<&str>,
        outgoing: &mut Outgoing<'_>,
    ) -> Result<Reply, Failure> {
        let known = self
            .common
            .cookie
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let cookie = known.clone();
        drop(known);
        let credentials = Credentials {
            bearer,
            cookie: cookie.as_deref(),
        };
        let sent = match outgoing {
            Outgoing::Nothing(patience) => {
                let payload = Payload::Nothing;
                self.http
                    .send(method, path, credentials, payload, *patience)
            }
            Outgoing::Json(text) => {
                let (payload, patience) = (Payload::Json(text), Patience::Call);
                self.http.send(method, path, credentials, payload, patience)
            }
            Outgoing::Artifacts(open) => {
                let opened = open().map_err(|error| Failure::transient(error.to_string()))?;
                let mut multipart = Multipart::new("file", "artifacts.tar.gz", opened);
                let content_type = multipart.content_type();
                let payload = Payload::Stream {
                    content_type: &content_type,
                    reader: &mut multipart,
                };
                let patience = Patience::LongAnswer;
                self.http.send(method, path, credentials, payload, patience)
            }
        };
        match sent {
            Ok(reply) => {
                self.common.faults.over(&self.reach());
                Ok(reply)
            }
            Err(cause) => Err(self.unreachable(cause)),
        }
    }

    fn reach(&self) -> String {
        format!("reach {}", self.common.server)
    }

    fn unreachable(&self, cause: String) -> Failure {
        let faults = &self.common.faults;
        faults.report(&self.reach(), &cause, "trying again");
        Failure::Unreachable(cause)
    }

    fn unreadable(&self, action: &str, cause: &str) -> Failure {
        let cause = format!("the answer cannot be used: {cause}");
        self.common.faults.report(action, &cause, "trying again");
        Failure::transient(cause)
    }

    /// Whether an answer says that the server has what it was sent: `OK` or
    /// JSON. A page of HTML comes from somebody else on the way.
    fn acknowledged(&self, action: &str, reply: Reply) -> Result<(), Failure> {
        if reply.status == 204 {
            return Err(self.unreadable(action, "it is empty (204)"));
        }
        let text = self.text(action, reply)?;
        if text.trim_start().starts_with('<') {
            return Err(self.unreadable(action, "it is a page of HTML, not the server's"));
        }
        self.common.faults.over(action);
        Ok(())
    }

    fn text(&self, action: &str, reply: Reply) -> Result<String, Failure> {
        let text = reply.text(LARGEST_ANSWER);
        text.map_err(|cause| self.unreadable(action, &cause))
    }

    fn json<'a>(&self, action: &str, text: &'a str) -> Result<Json<'a>, Failure> {
        Json::parse(text).map_err(|error| self.unreadable(action, &error.to_string()))
    }
}

/// What an answer's status means.
fn settle(reply: Reply) -> Result<Reply, Failure> {
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

/// The `job_state` of a result, which may be hundreds of megabytes long.
fn find_job_state(reader: &mut dyn Read) -> Result<Option<String>, String> {
    let begun = Instant::now();
    let mut scanner = Scanner::new();
    let mut found = None;
    let mut is_next = false;
    let mut sink = |depth: u32, token: Token<'_>| match token {
        Token::Key(key) if depth == 1 => is_next = key == b"job_state",
        Token::String(text, _) if depth == 1 && is_next => {
            found = Some(String::from_utf8_lossy(text).into_owned());
        }
        _ => {}
    };
    let mut buffer = [0; 16 << 10];
    loop {
        let read = reader
            .read(&mut buffer)
            .map_err(|error| explain_io(&error))?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        let pushed = scanner.push(bytes, &mut sink);
        pushed.map_err(|error| error.to_string())?;
        if begun.elapsed() > LONGEST_READING {
            return Err("it takes too long".into());
        }
    }
    scanner
        .finish(&mut sink)
        .map_err(|error| error.to_string())?;
    Ok(found)
}

/// A path segment or a query's value (RFC 3986, section 2).
fn percent(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
                escaped.push(byte.into());
            }
            // A name of dots only would be a step in the path.
            b'.' if text.bytes().any(|other| other != b'.') => escaped.push('.'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_found_behind_any_amount_of_output() {
        let state = |text: &str| find_job_state(&mut text.as_bytes());
        let output = "x\\n".repeat(200_000);
        let text = format!("{{\"test_output\": \"{output}\", \"job_state\": \"cancelled\"}}");
        assert_eq!(state(&text).unwrap().as_deref(), Some("cancelled"));
        let inner = "{\"device_info\": {\"job_state\": \"cancelled\"}, \"a\": \"cancelled\"}";
        assert_eq!(state(inner).unwrap(), None);
        assert!(state(&text[..text.len() - 1]).is_err(), "cut short");
        assert!(state("<html>").is_err());
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(percent("a b/c?é.1"), "a%20b%2Fc%3F%C3%A9.1");
        assert_eq!(percent(".."), "%2E%2E");
    }
}
