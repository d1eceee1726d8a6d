//! Which request is answered by which function, and whom it serves.

use super::body::Body;
use super::formats;
use super::http::Request;
use super::reply::{Fail, Outcome, Reply};
use super::rules::{Field, Rule, check, must};
use super::state::Shared;
use super::token::Access::{self, Agents, AnyRole, Keepers, Open, Users};
use super::token::LIFETIME;
use super::{agents, results, submissions, uploads};
use crate::json::Object;
use std::time::Instant;

/// How much JSON is read from one request: what the original stores at most,
/// and some room to say that it is too much.
const MAX_JSON: u64 = 17 * 1024 * 1024;

/// A request on its way to its endpoint.
#[derive(Debug)]
pub(super) struct Call<'a, 'b, 'c> {
    pub(super) shared: &'a Shared,
    pub(super) request: &'a Request,
    pub(super) body: &'a mut Body<'b, 'c>,
    /// The job, the agent or whatever else the path names.
    pub(super) name: String,
}

#[derive(Debug)]
pub(super) struct Route {
    method: &'static str,
    /// `*` stands for one segment.
    path: &'static str,
    access: Access,
    endpoint: fn(&mut Call<'_, '_, '_>) -> Outcome,
}

impl Route {
    /// Its method and path.
    pub(super) fn endpoint(&self) -> (&'static str, &'static str) {
        (self.method, self.path)
    }
}

pub(super) const fn route(
    method: &'static str,
    path: &'static str,
    access: Access,
    endpoint: fn(&mut Call<'_, '_, '_>) -> Outcome,
) -> Route {
    Route {
        method,
        path,
        access,
        endpoint,
    }
}

pub(super) const ROUTES: &[Route] = &[
    route("GET", "v1", Open, home),
    route("POST", "v1/oauth2/refresh", Open, refresh),
    route("POST", "v1/agents/data/*", Keepers, agents::post_data),
    route("GET", "v1/agents/data/*", AnyRole, agents::get_data),
    route("POST", "v1/agents/queues", Keepers, agents::post_queues),
    route("POST", "v1/agents/images", Keepers, agents::post_images),
    route(
        "POST",
        "v1/agents/provision_logs/*",
        Agents,
        agents::post_provision_log,
    ),
    route("POST", "v1/job", Users, submissions::post),
    route("GET", "v1/job", Agents, submissions::take),
    route("GET", "v1/job/*", Users, submissions::get),
    route("POST", "v1/job/*/action", Users, submissions::act),
    route(
        "GET",
        "v1/job/*/attachments",
        Agents,
        submissions::get_attachments,
    ),
    route(
        "POST",
        "v1/job/*/attachments",
        Users,
        submissions::post_attachments,
    ),
    route("POST", "v1/job/*/events", Agents, submissions::post_events),
    route("POST", "v1/result/*", Agents, results::post),
    route("GET", "v1/result/*", AnyRole, results::get),
    route(
        "POST",
        "v1/result/*/artifact",
        Agents,
        uploads::post_artifact,
    ),
    route("GET", "v1/result/*/artifact", Users, uploads::get_artifact),
    route(
        "POST",
        "v1/result/*/log/output",
        Agents,
        results::post_output,
    ),
    route("GET", "v1/result/*/log/output", Users, results::get_output),
    route(
        "POST",
        "v1/result/*/log/serial",
        Agents,
        results::post_serial,
    ),
    route("GET", "v1/result/*/log/serial", Users, results::get_serial),
    // The original trips over a log type that it does not know before it asks
    // who is there.
    route("POST", "v1/result/*/log/*", Open, unknown_log),
    route("GET", "v1/result/*/log/*", Open, unknown_log),
];

/// Answers a request.
pub(super) fn answer(shared: &Shared, request: &Request, body: &mut Body<'_, '_>) -> Outcome {
    let segments = request.segments();
    let mut status = 404;
    let era = shared.look(|state| state.era);
    for route in era.routes(ROUTES) {
        let Some(name) = matched(route.path, &segments) else {
            continue;
        };
        if route.method != request.method {
            status = 405;
            continue;
        }
        let authorization = request.header("authorization");
        shared.look(|state| {
            let now = Instant::now();
            let access = era.access(route.access);
            state.tokens.admit(access, authorization, now)
        })?;
        let mut call = Call {
            shared,
            request,
            body,
            name,
        };
        return (route.endpoint)(&mut call);
    }
    Ok(match status {
        404 => Reply::abort(404, "Not Found"),
        _ => Reply::abort(405, "Method Not Allowed"),
    })
}

/// Whether a path fits; if so, its first segment that the pattern leaves open.
fn matched(pattern: &str, segments: &[String]) -> Option<String> {
    let mut name = None;
    let mut wanted = pattern.split('/');
    for segment in segments {
        match wanted.next()? {
            "*" if segment.is_empty() => return None,
            "*" => name = name.or(Some(segment)),
            fixed if fixed == segment => {}
            _ => return None,
        }
    }
    match wanted.next() {
        None => Some(name.cloned().unwrap_or_default()),
        Some(_) => None,
    }
}

impl Call<'_, '_, '_> {
    /// The request's JSON; nothing when it is not said to be JSON. `None`: more
    /// than anybody may send.
    pub(super) fn json_or_too_long(&mut self) -> Result<Option<String>, Fail> {
        let kind = self.request.header("content-type").unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        let kind = kind.to_ascii_lowercase();
        let Some(bytes) = self.body.whole(MAX_JSON)? else {
            return Ok(None);
        };
        if kind != "application/json" && !kind.ends_with("+json") {
            return Ok(Some(String::new()));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(Reply::abort(400, "Bad Request").into()),
        }
    }

    /// The request's JSON.
    pub(super) fn json(&mut self) -> Result<String, Fail> {
        match self.json_or_too_long()? {
            Some(text) => Ok(text),
            None => Err(Reply::abort(413, "Payload too large").into()),
        }
    }

    /// Refuses a job's identifier that is none.
    pub(super) fn proper_id(&self) -> Result<(), Reply> {
        if formats::is_uuid(&self.name) {
            Ok(())
        } else {
            Err(Reply::abort(400, "Invalid job_id specified"))
        }
    }
}

/// `GET /v1`
fn home(_: &mut Call<'_, '_, '_>) -> Outcome {
    // The version whose rules these are.
    Ok(Reply::text(200, "Testflinger Server v1.5.0"))
}

const REFRESH: &[Field] = &[must("refresh_token", Rule::SomeText)];

/// `POST /v1/oauth2/refresh`
fn refresh(call: &mut Call<'_, '_, '_>) -> Outcome {
    let text = call.json()?;
    let values = check(REFRESH, &text)?;
    let refresh = values.text("refresh_token").unwrap_or_default();
    let token = call
        .shared
        .update(|state| state.tokens.buy(&refresh, Instant::now()))?;
    let mut answer = Object::new();
    answer.string("access_token", &token);
    answer.string("token_type", "Bearer");
    let seconds = i64::try_from(LIFETIME.as_secs()).unwrap_or(i64::MAX);
    answer.integer("expires_in", seconds);
    Ok(Reply::json(200, answer.finish()))
}

fn unknown_log(_: &mut Call<'_, '_, '_>) -> Outcome {
    Ok(Reply::unhandled(&"Invalid log type"))
}
