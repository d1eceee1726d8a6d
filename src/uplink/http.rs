//! The fence around the HTTP client: the only file that sends a request.
//!
//! What PACKAGES says about ureq is kept here: no redirects, no proxy that it finds in
//! the environment by itself, no compression, connections younger than the server's, a
//! time limit on everything, and none of the limits that cost a thread.

mod counting;
#[cfg(test)]
mod deadlines;
mod proxy;
mod socket;

use super::TlsFiles;
use super::tls::{self, Tls};
use crate::metrics::Metrics;
use counting::{CountedReader, Counting};
use socket::{Closed, Outgoing, Sockets, is_cut};
use std::io::{self, Read};
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, Request, Response, header};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector};
use ureq::{Agent, Body, Proxy, ProxyProtocol, SendBody, Timeout};

/// A connection has two of them, with TLS four, in bytes; the head of an answer has
/// half of one.
const BUFFER: usize = 32 << 10;
/// Below the server's ten seconds, so that no request meets a closing socket.
const IDLE_AGE: Duration = Duration::from_secs(5);

/// How long each part of a request may take.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// To reach the server, and to send it the head of a request.
    connect: Duration,
    /// For one piece of a body to be sent, a few kilobytes.
    stall: Duration,
    /// For the server to think, and between two pieces of its answer.
    answer: Duration,
    /// For the whole body of a small call or of its answer: a trickle of bytes ends here.
    body: Duration,
    /// For the answer to an upload: megabytes may sit in the kernel after the
    /// last write.
    uploaded: Duration,
    /// For a job: the server gives it only once, so that this question is not
    /// broken off while there is any hope.
    job: Duration,
}

const LIMITS: Limits = Limits {
    connect: Duration::from_secs(10),
    stall: Duration::from_secs(50),
    answer: Duration::from_secs(60),
    body: Duration::from_secs(120),
    uploaded: Duration::from_secs(180),
    job: Duration::from_secs(1_800),
};

/// How long an answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// As long as a small call takes.
    Call,
    /// However long it is, if only something of it comes now and then.
    LongAnswer,
    /// Nearly for ever.
    Job,
}

/// What goes with a request.
pub(super) enum Payload<'a> {
    /// Nothing.
    Nothing,
    /// A JSON text.
    Json(&'a str),
    /// Some other text.
    Text(&'a str),
    /// A stream; sent in chunks where its length is not known.
    Stream {
        /// Its media type.
        content_type: &'a str,
        /// Its length in bytes.
        length: Option<u64>,
        /// Its bytes.
        reader: &'a mut dyn Read,
    },
}

/// A request's credentials.
#[derive(Clone, Copy, Default)]
pub(super) struct Credentials<'a> {
    /// The access token.
    pub(super) bearer: Option<&'a str>,
    /// The cookie.
    pub(super) cookie: Option<&'a str>,
    /// A user and a password (RFC 7617), for whoever is not the server.
    pub(super) basic: Option<&'a str>,
}

/// The client: two pools of connections to one server, for calls and for
/// whatever is long.
#[derive(Debug)]
pub(super) struct Http {
    server: String,
    calls: Agent,
    streams: Agent,
    closed: Closed,
    limits: Limits,
    metrics: Option<Metrics>,
    /// The proxy in between, if there is one: its host and port.
    by: Option<String>,
}

impl Http {
    /// A client for the server at this URL (scheme and authority).
    ///
    /// # Errors
    /// A sentence, when TLS is needed and cannot be had.
    pub(super) fn new(server: &str, files: &TlsFiles) -> Result<Http, String> {
        Http::with(server, files, LIMITS)
    }

    fn with(server: &str, files: &TlsFiles, limits: Limits) -> Result<Http, String> {
        let proxy = proxy::of(server, |name| std::env::var(name).ok())?;
        let is_secure = |proxy: &Proxy| proxy.protocol() == ProxyProtocol::Https;
        let tls = match server.starts_with("https:") || proxy.as_ref().is_some_and(is_secure) {
            true => Some(Tls::new(files)?),
            false => None,
        };
        let builder = || {
            let builder = Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .accept_encoding("identity")
                .user_agent(concat!("testflinger-agent/", env!("CARGO_PKG_VERSION")))
                .proxy(proxy.clone())
                .input_buffer_size(BUFFER)
                .output_buffer_size(BUFFER)
                .max_response_header_size(BUFFER / 2)
                .max_idle_age(IDLE_AGE)
                .max_idle_connections(1)
                .timeout_connect(Some(limits.connect))
                .timeout_send_request(Some(limits.connect));
            match &tls {
                Some(tls) => tls.apply(builder),
                None => builder,
            }
        };
        let closed = Closed::default();
        let agent = |config| {
            let sockets = ConnectProxyConnector::default().chain(Sockets(closed.clone()));
            let connector = tls::above(sockets);
            Agent::with_parts(config, connector, DefaultResolver::default())
        };
        let calls = builder()
            .timeout_per_read(Some(limits.answer))
            .timeout_per_write(Some(limits.stall))
            .timeout_send_body(Some(limits.body))
            .timeout_recv_response(Some(limits.answer))
            .timeout_recv_body(Some(limits.body));
        let streams = builder()
            .timeout_per_read(Some(limits.uploaded))
            .timeout_per_write(Some(limits.stall))
            .timeout_recv_response(Some(limits.uploaded))
            .timeout_recv_body(Some(limits.body));
        Ok(Http {
            server: server.to_owned(),
            calls: agent(calls.build()),
            streams: agent(streams.build()),
            closed,
            limits,
            metrics: None,
            by: proxy.map(|proxy| format!("{}:{}", proxy.host(), proxy.port())),
        })
    }

    /// The same, with its requests counted.
    pub(super) fn counted_in(mut self, metrics: &Metrics) -> Http {
        self.metrics = Some(metrics.clone());
        self
    }

    /// Sends one request and waits for the head of its answer.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(super) fn send(
        &self,
        method: &str,
        path: &str,
        credentials: Credentials<'_>,
        payload: Payload<'_>,
        patience: Patience,
    ) -> Result<Reply, NoAnswer> {
        let counting = Counting::start(self.metrics.as_ref(), method, path);
        self.closed.reset();
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server));
        if let Some(token) = credentials.bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(basic) = credentials.basic {
            request = request.header(header::AUTHORIZATION, format!("Basic {basic}"));
        }
        if let Some(cookie) = credentials.cookie {
            request = request.header(header::COOKIE, cookie);
        }
        // The error of a header that cannot be one shows its value nowhere.
        let broken =
            |_| NoAnswer::because("the request cannot be written: a header holds what it must not");
        let answer = match payload {
            Payload::Nothing => {
                let request = request.body(()).map_err(broken)?;
                match patience {
                    Patience::Call => self.calls.run(request),
                    Patience::LongAnswer => self.calls.run(
                        self.calls
                            .configure_request(request)
                            // Who reads it minds how fast it comes.
                            .timeout_recv_body(None)
                            .build(),
                    ),
                    // Over the calls' connection, which has just worked.
                    Patience::Job => self.calls.run(
                        self.calls
                            .configure_request(request)
                            .timeout_per_read(Some(self.limits.job))
                            .timeout_recv_response(Some(self.limits.job))
                            .timeout_recv_body(Some(self.limits.job))
                            .build(),
                    ),
                }
            }
            Payload::Json(text) | Payload::Text(text) => {
                let content_type = match payload {
                    Payload::Json(_) => "application/json",
                    _ => "text/plain; charset=utf-8",
                };
                let request = request.header(header::CONTENT_TYPE, content_type);
                self.calls.run(request.body(text).map_err(broken)?)
            }
            Payload::Stream {
                content_type,
                length,
                reader,
            } => {
                let mut request = request.header(header::CONTENT_TYPE, content_type);
                if let Some(length) = length {
                    request = request.header(header::CONTENT_LENGTH, length);
                }
                let mut reader = CountedReader::of(reader, &counting);
                let mut outgoing = Outgoing {
                    reader: &mut reader,
                    left: length,
                    closed: self.closed.clone(),
                };
                let body = SendBody::from_reader(&mut outgoing);
                self.streams.run(request.body(body).map_err(broken)?)
            }
        };
        counting.end(self.finish(answer, patience))
    }

    /// The head of the answer, if it can be one.
    fn finish(
        &self,
        answer: Result<Response<Body>, ureq::Error>,
        patience: Patience,
    ) -> Result<Reply, NoAnswer> {
        let (head, body) = answer
            .map_err(|error| NoAnswer::new(&error, self.closed.is_so()))
            .map_err(|no_answer| no_answer.by(self.by.as_deref()))?
            .into_parts();
        let status = head.status.as_u16();
        if self.closed.is_so() && head.status.is_success() {
            // It cannot mean what it has not read.
            let cut = io::Error::from(io::ErrorKind::BrokenPipe);
            return Err(NoAnswer::new(&cut.into(), true));
        }
        let framed = head.headers.contains_key(header::CONTENT_LENGTH)
            || head.headers.contains_key(header::TRANSFER_ENCODING);
        if !framed && !matches!(status, 204 | 304) {
            return Err(NoAnswer {
                cause: format!("the answer ({status}) does not say how long it is"),
                was_cut: false,
                may_have_arrived: true,
                reached: Reached::Garbage,
            });
        }
        // Of all others the client minds how long they take.
        let is_error = patience == Patience::LongAnswer && !head.status.is_success();
        Ok(Reply {
            status,
            headers: head.headers,
            body,
            body_within: is_error.then_some(self.limits.body),
        })
    }
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NoAnswer {
    /// For people.
    pub(super) cause: String,
    /// The connection was there, and then was cut.
    pub(super) was_cut: bool,
    /// The whole of the request was sent, as far as can be seen.
    pub(super) may_have_arrived: bool,
    /// How far it came.
    pub(super) reached: Reached,
}

/// How far a request came that has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// Nobody was there.
    Nobody,
    /// Somebody was there.
    Somebody,
    /// There was an answer, which cannot be one.
    Garbage,
}

impl NoAnswer {
    fn new(error: &ureq::Error, is_closed: bool) -> NoAnswer {
        let is_sent = !matches!(
            error,
            ureq::Error::HostNotFound
                | ureq::Error::ConnectProxyFailed(_)
                | ureq::Error::Timeout(
                    Timeout::Resolve | Timeout::Connect | Timeout::SendRequest | Timeout::SendBody
                )
        );
        let is_refused = |error: &io::Error| {
            matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable
            )
        };
        let is_garbage = matches!(
            error,
            ureq::Error::Protocol(_)
                | ureq::Error::Http(_)
                | ureq::Error::LargeResponseHeader(..)
                | ureq::Error::BodyExceedsLimit(_)
        );
        let is_tls = matches!(error, ureq::Error::Io(error) if tls::explain(error).is_some());
        let is_lost = matches!(
            error,
            ureq::Error::HostNotFound | ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect)
        );
        let (was_cut, is_refused) = match error {
            ureq::Error::Io(error) => (is_cut(error), is_refused(error)),
            _ => (false, false),
        };
        NoAnswer {
            cause: explain(error),
            was_cut,
            may_have_arrived: is_sent && !is_refused && !is_closed,
            reached: match is_garbage {
                true => Reached::Garbage,
                false if is_lost || is_refused || is_tls => Reached::Nobody,
                false => Reached::Somebody,
            },
        }
    }

    /// The same, with who is in between: it may be that one's fault.
    fn by(mut self, proxy: Option<&str>) -> NoAnswer {
        if let Some(proxy) = proxy {
            self.cause.push_str(&format!(" (by the proxy {proxy})"));
        }
        self
    }

    /// It has one that is of no use.
    pub(super) fn because(cause: impl Into<String>) -> NoAnswer {
        NoAnswer {
            cause: cause.into(),
            was_cut: false,
            may_have_arrived: false,
            reached: Reached::Garbage,
        }
    }
}

/// Why a request has no answer, for people.
fn explain(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => explain_io(error),
        ureq::Error::Timeout(_) => "it did not answer in time".into(),
        ureq::Error::HostNotFound => "its name is not known here (DNS)".into(),
        ureq::Error::ConnectProxyFailed(reason) => {
            format!("the proxy does not lead there: {reason:.200}")
        }
        other => other.to_string(),
    }
}

/// Why a request was not sent, or an answer did not come whole, for people.
pub(super) fn explain_io(error: &io::Error) -> String {
    // What the client says while a body is read is wrapped.
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    if let Some(inner @ ureq::Error::Timeout(_)) = inner {
        return explain(inner);
    }
    if let Some(reason) = tls::explain(error) {
        return reason;
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "it refused the connection".into(),
        _ if is_cut(error) => "the connection was cut".into(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "it did not answer in time".into(),
        _ => explain_other(&error.to_string()),
    }
}

/// The standard library's errors of name resolution are no kind of their own.
fn explain_other(error: &str) -> String {
    match error.strip_prefix("failed to lookup address information: ") {
        Some(cause) => format!("its name cannot be looked up (DNS): {cause}"),
        None => error.to_owned(),
    }
}

/// An answer whose head has come.
#[derive(Debug)]
pub(super) struct Reply {
    /// The status.
    pub(super) status: u16,
    headers: HeaderMap,
    body: Body,
    /// How long all of it may take, if nobody else minds that.
    body_within: Option<Duration>,
}

impl Reply {
    /// A header, if it is there and text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What a redirect says, after "the server answered". None is followed: the
    /// token is for this server only.
    pub(super) fn redirect(&self) -> Option<String> {
        let status = self.status;
        let place = self.header("location").unwrap_or("another place");
        (300..=399)
            .contains(&status)
            .then(|| format!("{status} and points to {place:.200}; change server_address"))
    }

    /// The body, piece by piece.
    pub(super) fn reader(&mut self) -> impl Read {
        self.body.as_reader()
    }

    /// The whole body.
    ///
    /// # Errors
    /// When it is longer than `limit` bytes, takes too long, is cut short, or is not UTF-8.
    pub(super) fn text(mut self, limit: u64) -> Result<String, String> {
        let begun = Instant::now();
        let mut bytes = Vec::new();
        let mut reader = self.body.as_reader().take(limit + 1);
        let mut piece = [0; 4_096];
        loop {
            match reader.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => bytes.extend(piece.iter().take(count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(explain_io(&error)),
            }
            if self
                .body_within
                .is_some_and(|limit| begun.elapsed() > limit)
            {
                return Err("it did not answer in time".into());
            }
        }
        if bytes.len() as u64 > limit {
            return Err(format!("the answer is longer than {limit} bytes"));
        }
        String::from_utf8(bytes).map_err(|_| "the answer is not UTF-8".into())
    }
}
