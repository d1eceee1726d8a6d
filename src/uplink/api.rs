//! The v1 API, one function an endpoint (PROTOCOL.md, section 3).

use super::common::Common;
use super::era::{self, is_unknown};
use super::failure::{Failure, settle};
use super::http::{Credentials, Http, NoAnswer, Patience, Payload, Reached, Reply};
use super::multipart::Multipart;
use super::reading::{Known, read_known};
use super::upload::Upload;
use crate::job::{LogType, Phase};
use crate::json::{Json, Object};
use crate::sys::clock;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

/// Longest answer that is kept, in bytes: a job document or an agent's data.
const LARGEST_ANSWER: u64 = 16 << 20;
/// An upload may take as long as this with the token that it began with.
const UPLOAD_TOKEN: Duration = Duration::from_secs(300);

/// What of a job is asked again and again.
const SEE_CANCELLED: &str = "see whether the job was cancelled";

/// One thread's way to the server.
#[derive(Debug)]
pub(super) struct Api {
    http: Http,
    pub(super) common: Arc<Common>,
}

/// What is sent with a call; a stream is opened anew for each attempt.
pub(super) enum Outgoing<'a> {
    Nothing(Patience),
    Json(String),
    /// JSON that the server passes on to somebody, and answers as they do.
    Relayed(String),
    Text(String),
    Artifacts(Upload<'a>),
}

impl Api {
    /// # Errors
    /// A sentence, when TLS is needed and cannot be had.
    pub(super) fn new(common: Arc<Common>) -> Result<Api, String> {
        let http = Http::new(&common.server, &common.tls)?.counted_in(&common.metrics);
        Ok(Api { http, common })
    }

    /// `POST /v1/agents/queues` and `POST /v1/agents/images`.
    pub(super) fn advertise(&self, what: &'static str, body: &str) -> Result<(), Failure> {
        let action = format!("advertise {what}");
        let path = format!("/v1/agents/{what}");
        let reply = self.call(&action, "POST", &path, Outgoing::Json(body.to_owned()));
        match self.if_there(what, reply)? {
            Some(reply) => self.acknowledged(&action, reply),
            None => Ok(()),
        }
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
        let is_job = |text: &String| text.trim_start().starts_with('{');
        if !document.as_ref().is_none_or(is_job) {
            return Err(self.unreadable(action, "it is neither a job nor empty (204)"));
        }
        self.common.understand(action);
        Ok(document)
    }

    /// `GET /v1/result/<id>`: the job's state, and how long its logs are. The
    /// answer holds all of its output; it is looked through as it comes.
    pub(super) fn known(&self, job_id: &str) -> Result<Known, Failure> {
        let action = SEE_CANCELLED;
        let path = format!("/v1/result/{}", percent(job_id));
        let nothing = Outgoing::Nothing(Patience::LongAnswer);
        let mut reply = self.call(action, "GET", &path, nothing)?;
        let known = match reply.status {
            204 => Known::default(),
            _ => {
                read_known(&mut reply.reader()).map_err(|cause| self.unreadable(action, &cause))?
            }
        };
        self.common.understand(action);
        Ok(known)
    }

    /// The job is over: it cannot be cancelled any more.
    pub(super) fn forget_job_state(&self) {
        self.common.faults.forget(SEE_CANCELLED);
    }

    /// `POST /v1/result/<id>`.
    pub(super) fn post_result(&self, job_id: &str, body: Object) -> Result<(), Failure> {
        self.post_result_text(job_id, body.finish())
    }

    /// Every server has this page, also for jobs that it does not know: who has none only
    /// stands before it, and refuses nothing.
    pub(super) fn post_result_text(&self, job_id: &str, body: String) -> Result<(), Failure> {
        let path = format!("/v1/result/{}", percent(job_id));
        let action = "post a job's state";
        let body = Outgoing::Json(body);
        let reply = self.call_doubting(action, "POST", &path, body, is_unknown)?;
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
        let action = era::action(log);
        let reply = self.call(action, "POST", &path, Outgoing::Json(body.finish()))?;
        self.acknowledged(action, reply)
    }

    /// `POST /v1/agents/provision_logs/<name>`.
    pub(super) fn post_provision_log(&self, job_id: &str, exit_code: i64) -> Result<(), Failure> {
        let detail = match exit_code {
            0 => "provision_success",
            46 => "recovery_fail",
            _ => "provision_fail",
        };
        let mut body = Object::new();
        body.string("job_id", job_id);
        body.integer("exit_code", exit_code);
        body.string("detail", detail);
        let path = format!(
            "/v1/agents/provision_logs/{}",
            percent(&self.common.agent_id)
        );
        let action = "post how provision ended";
        let reply = self.call(action, "POST", &path, Outgoing::Json(body.finish()))?;
        self.acknowledged(action, reply)
    }

    /// The answer, if the server has the endpoint: a very old one has no agents.
    pub(super) fn if_there(
        &self,
        endpoint: &'static str,
        reply: Result<Reply, Failure>,
    ) -> Result<Option<Reply>, Failure> {
        let era = &self.common.era;
        match reply {
            Err(failure) if is_unknown(&failure) => {
                era.is_missing(endpoint, failure.cause());
                Ok(None)
            }
            reply => {
                let reply = reply?;
                era.is_there(endpoint);
                Ok(Some(reply))
            }
        }
    }

    /// Makes the call; on a 401 or 403 once more, with a new token. An answer
    /// that is not 2xx is a failure; a transient one is said once.
    pub(super) fn call(
        &self,
        action: &str,
        method: &str,
        path: &str,
        outgoing: Outgoing<'_>,
    ) -> Result<Reply, Failure> {
        self.call_doubting(action, method, path, outgoing, |_| false)
    }

    /// The same, where a refusal may be that of whoever stands before the server.
    pub(super) fn call_doubting(
        &self,
        action: &str,
        method: &str,
        path: &str,
        mut outgoing: Outgoing<'_>,
        is_doubted: impl FnOnce(&Failure) -> bool,
    ) -> Result<Reply, Failure> {
        let attempted = self.attempt(method, path, &mut outgoing);
        let result = attempted.map_err(|failure| match is_doubted(&failure) {
            true => Failure::transient(failure.cause().to_owned()),
            false => failure,
        });
        let is_upload = matches!(outgoing, Outgoing::Artifacts(_));
        match &result {
            // It is over when the answer has been understood.
            Ok(_) => {}
            Err(Failure::Refused { .. }) => self.common.faults.over(action),
            Err(Failure::Transient { cause, .. }) => {
                self.common.faults.report(action, cause, "trying again");
            }
            // Who cuts off uploads may well take everything else.
            Err(Failure::Unreachable {
                cause,
                was_there: true,
                ..
            }) if is_upload => self.common.faults.report(action, cause, "trying again"),
            // Said as the one fault that it is, whatever it kept from being done.
            Err(Failure::Unreachable { cause, .. }) => {
                let faults = &self.common.faults;
                faults.report(&self.reach(), cause, "trying again");
            }
        }
        result
    }

    pub(super) fn attempt(
        &self,
        method: &str,
        path: &str,
        outgoing: &mut Outgoing<'_>,
    ) -> Result<Reply, Failure> {
        let first = self.access(outgoing)?;
        let reply = self.send(method, path, first.as_deref(), outgoing)?;
        let is_denied = match outgoing {
            // A 403 may be another's.
            Outgoing::Relayed(_) => reply.status == 401,
            _ => matches!(reply.status, 401 | 403),
        };
        let (Some(token), true) = (first, is_denied) else {
            let hint = self.common.tokens.hint().filter(|_| is_denied);
            return settle(reply).map_err(|failure| failure.with(hint.as_deref()));
        };
        self.common.tokens.forget(&token);
        match self.access(outgoing)? {
            Some(second) => settle(self.send(method, path, Some(&second), outgoing)?),
            None => settle(reply),
        }
    }

    pub(super) fn access(&self, outgoing: &Outgoing<'_>) -> Result<Option<String>, Failure> {
        let needed = match outgoing {
            Outgoing::Artifacts(_) => UPLOAD_TOKEN,
            _ => Duration::ZERO,
        };
        let Common { tokens, faults, .. } = &*self.common;
        tokens
            .access(&self.http, faults, needed)
            .map_err(|failed| self.without_answer(failed).waiting())
    }

    pub(super) fn send(
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
            basic: None,
        };
        let sent = match outgoing {
            Outgoing::Nothing(patience) => {
                let payload = Payload::Nothing;
                self.http
                    .send(method, path, credentials, payload, *patience)
            }
            Outgoing::Json(text) | Outgoing::Relayed(text) => {
                let (payload, patience) = (Payload::Json(text), Patience::Call);
                self.http.send(method, path, credentials, payload, patience)
            }
            Outgoing::Text(text) => {
                let (payload, patience) = (Payload::Text(text), Patience::Call);
                self.http.send(method, path, credentials, payload, patience)
            }
            Outgoing::Artifacts(Upload { open, length }) => {
                let opened = open().map_err(|error| Failure::transient(error.to_string()))?;
                let mut multipart = Multipart::new("file", "artifacts.tar.gz", opened);
                let content_type = multipart.content_type();
                let payload = Payload::Stream {
                    content_type: &content_type,
                    length: length.map(|length| length + multipart.overhead()),
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
            Err(failed) => Err(self.without_answer(failed)),
        }
    }

    pub(super) fn reach(&self) -> String {
        format!("reach {}", self.common.server)
    }

    fn without_answer(&self, no_answer: NoAnswer) -> Failure {
        let NoAnswer {
            cause,
            was_cut,
            may_have_arrived,
            reached,
        } = no_answer;
        if reached == Reached::Garbage {
            self.common.faults.over(&self.reach());
            return Failure::Transient {
                cause: format!("the answer cannot be used: {cause}"),
                retry_after: None,
                may_have_arrived,
                waits: false,
            };
        }
        Failure::Unreachable {
            cause,
            was_cut,
            may_have_arrived,
            was_there: reached == Reached::Somebody,
        }
    }

    pub(super) fn unreadable(&self, action: &str, cause: &str) -> Failure {
        let cause = format!("the answer cannot be used: {cause}");
        self.common.faults.report(action, &cause, "trying again");
        Failure::Transient {
            cause,
            retry_after: None,
            may_have_arrived: true,
            waits: false,
        }
    }

    /// Whether an answer says that the server has what it was sent: `OK` or
    /// JSON. A page of HTML comes from somebody else on the way.
    pub(super) fn acknowledged(&self, action: &str, reply: Reply) -> Result<(), Failure> {
        if reply.status == 204 {
            return Err(self.unreadable(action, "it is empty (204)"));
        }
        let text = self.text(action, reply)?;
        if text.trim_start().starts_with('<') {
            return Err(self.unreadable(action, "it is a page of HTML, not the server's"));
        }
        self.common.understand(action);
        Ok(())
    }

    pub(super) fn text(&self, action: &str, reply: Reply) -> Result<String, Failure> {
        let text = reply.text(LARGEST_ANSWER);
        text.map_err(|cause| self.unreadable(action, &cause))
    }

    pub(super) fn json<'a>(&self, action: &str, text: &'a str) -> Result<Json<'a>, Failure> {
        Json::parse(text).map_err(|error| self.unreadable(action, &error.to_string()))
    }
}

/// A path segment or a query's value (RFC 3986, section 2).
pub(super) fn percent(text: &str) -> String {
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
pub(super) mod tests {
    use super::*;
    use crate::local::Server;
    use crate::metrics::Metrics;
    use crate::uplink::{Settings, TlsFiles};
    use std::path::Path;

    /// Calls of an agent `a` to this server; its token lies in the directory.
    pub(in crate::uplink) fn api_of(server: &Server, directory: &Path) -> Api {
        let token_file = directory.join("token");
        let token = format!("{{\"refresh_token\": \"{}\"}}", server.refresh_token());
        std::fs::write(&token_file, token).unwrap();
        let settings = Settings {
            server: server.url(),
            tls: TlsFiles::default(),
            agent_id: "a".into(),
            token_file,
            metrics: Metrics::default(),
        };
        Api::new(Arc::new(Common::new(settings))).unwrap()
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(percent("a b/c?é.1"), "a%20b%2Fc%3F%C3%A9.1");
        assert_eq!(percent(".."), "%2E%2E");
    }
}
