//! Servers of earlier times (PROTOCOL.md, section 6): which endpoints there were,
//! and those that are gone.
//!
//! Nobody had to show who they are; output was text that whoever asked first took
//! away; what lasted of a job was what its agent posted as its result.

use super::reply::{Outcome, Reply, quoted};
use super::routes::{Call, Route, route};
use super::rules::{Field, Rule, check, may};
use super::state::State;
use super::token::Access::{self, Open};
use super::{agents, submissions};
use crate::job::LogType;
use crate::json::{Json, Kind};
use std::collections::BTreeMap;
use std::time::Duration;

/// Of which time a server is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Era {
    /// 2022: no agents, no cancellations; a question for a job waits for one.
    Y2022,
    /// 2023: agents are posted and not read, results are whatever is posted.
    Y2023,
    /// The beginning of 2024: what is posted keeps rules, and of agents little is known.
    Y2024,
    /// The last one before 2025-12.
    Y2025,
    /// Logs in fragments, and agents with tokens.
    #[default]
    Today,
}

/// How long a question for a job waits for one (BRPOP).
const WAIT_FOR_JOB: Duration = Duration::from_secs(1);

/// How much a database stores of a job.
const DOCUMENT: usize = 16 * 1024 * 1024;

/// Since when there is what has not always been there.
const SINCE: &[(&str, &str, Era)] = &[
    ("GET", "v1", Era::Y2024),
    ("POST", "v1/oauth2/refresh", Era::Y2025),
    ("GET", "v1/agents/data/*", Era::Y2025),
    ("POST", "v1/agents/provision_logs/*", Era::Y2025),
    ("POST", "v1/job/*/action", Era::Y2023),
    ("GET", "v1/job/*/attachments", Era::Y2025),
    ("POST", "v1/job/*/attachments", Era::Y2025),
    ("POST", "v1/job/*/events", Era::Y2025),
    // In place of these there were others.
    ("POST", "v1/agents/data/*", Era::Today),
    ("GET", "v1/job", Era::Today),
    ("POST", "v1/result/*", Era::Today),
    ("GET", "v1/result/*", Era::Today),
    ("POST", "v1/result/*/log/output", Era::Today),
    ("GET", "v1/result/*/log/output", Era::Today),
    ("POST", "v1/result/*/log/serial", Era::Today),
    ("GET", "v1/result/*/log/serial", Era::Today),
    ("POST", "v1/result/*/log/*", Era::Today),
    ("GET", "v1/result/*/log/*", Era::Today),
];

/// What is not there today, and since when it was.
const GONE: &[(Era, Route)] = &[
    (
        Era::Y2023,
        route("POST", "v1/agents/data/*", Open, post_agent),
    ),
    (Era::Y2022, route("GET", "v1/job", Open, take_job)),
    (Era::Y2022, route("POST", "v1/result/*", Open, post_result)),
    (Era::Y2022, route("GET", "v1/result/*", Open, get_result)),
    (
        Era::Y2022,
        route("POST", "v1/result/*/output", Open, post_output),
    ),
    (
        Era::Y2022,
        route("GET", "v1/result/*/output", Open, get_output),
    ),
    (
        Era::Y2025,
        route("POST", "v1/result/*/serial_output", Open, post_serial),
    ),
    (
        Era::Y2025,
        route("GET", "v1/result/*/serial_output", Open, get_serial),
    ),
];

/// What was known of an agent at first.
const AGENT: &[Field] = &[
    may("job_id", Rule::Text),
    may("location", Rule::Text),
    may("log", Rule::Texts),
    may("queues", Rule::Texts),
    may("state", Rule::Text),
];

/// What a result may hold since 2023-12.
const RESULT: &[Field] = &[
    may("setup_status", Rule::Whole),
    may("setup_output", Rule::Text),
    may("setup_serial", Rule::Text),
    may("provision_status", Rule::Whole),
    may("provision_output", Rule::Text),
    may("provision_serial", Rule::Text),
    may("firmware_update_status", Rule::Whole),
    may("firmware_update_output", Rule::Text),
    may("firmware_update_serial", Rule::Text),
    may("test_status", Rule::Whole),
    may("test_output", Rule::Text),
    may("test_serial", Rule::Text),
    may("allocate_status", Rule::Whole),
    may("allocate_output", Rule::Text),
    may("allocate_serial", Rule::Text),
    may("reserve_status", Rule::Whole),
    may("reserve_output", Rule::Text),
    may("reserve_serial", Rule::Text),
    may("cleanup_status", Rule::Whole),
    may("cleanup_output", Rule::Text),
    may("cleanup_serial", Rule::Text),
    may("device_info", Rule::Map),
    may("job_state", Rule::Text),
];

impl Era {
    /// The routes of this time, of those of today and those that are gone.
    pub(super) fn routes(self, today: &'static [Route]) -> impl Iterator<Item = &'static Route> {
        let is_there = move |route: &&Route| {
            let mut since = SINCE.iter();
            let since = since.find(|(method, path, _)| (*method, *path) == route.endpoint());
            since.is_none_or(|(_, _, since)| *since <= self)
        };
        let was_there = move |(since, _): &&(Era, Route)| *since <= self && self < Era::Today;
        let gone = GONE.iter().filter(was_there).map(|(_, route)| route);
        gone.chain(today.iter().filter(is_there))
    }

    /// Whom an endpoint serves that today serves those.
    pub(super) fn access(self, today: Access) -> Access {
        match self {
            Era::Today => today,
            _ => Open,
        }
    }
}

/// What a server of earlier times keeps of its jobs.
#[derive(Debug, Default)]
pub(super) struct Legacy {
    /// The members of the results, by job, as JSON.
    results: BTreeMap<String, BTreeMap<String, String>>,
    /// The pieces that nobody has asked for yet.
    unread: BTreeMap<(String, &'static str), Vec<String>>,
    /// All of the pieces that came, in their order.
    posted: BTreeMap<(String, &'static str), Vec<String>>,
}

impl Legacy {
    /// The pieces of a log that came, in their order.
    pub(super) fn posted(&self, job_id: &str, log: LogType) -> Vec<String> {
        let key = (job_id.to_owned(), log.name());
        self.posted.get(&key).cloned().unwrap_or_default()
    }

    fn add(&mut self, job_id: &str, log: LogType, text: String) {
        let key = (job_id.to_owned(), log.name());
        let unread = self.unread.entry(key.clone()).or_default();
        unread.push(text.clone());
        self.posted.entry(key).or_default().push(text);
    }

    /// Takes away what nobody has asked for yet: with a line end between two pieces,
    /// whether there was one or not.
    fn take(&mut self, job_id: &str, log: LogType) -> Option<String> {
        let pieces = self.unread.remove(&(job_id.to_owned(), log.name()))?;
        Some(pieces.join("\n"))
    }
}

/// A job's result; `None` when there is nothing.
pub(super) fn document(state: &State, job_id: &str) -> Option<String> {
    let job = state.jobs.get(job_id);
    let members = state.legacy.results.get(job_id);
    if job.is_none() && members.is_none() {
        return None;
    }
    let mut text = String::from("{");
    for (name, value) in members.into_iter().flatten() {
        text.push_str(&format!("{}: {value}, ", quoted(name)));
    }
    let job_state = job.map(|job| job.state.as_str()).unwrap_or_default();
    Some(format!("{text}\"job_state\": {}}}", quoted(job_state)))
}

/// `POST /v1/agents/data/<name>`
fn post_agent(call: &mut Call<'_, '_, '_>) -> Outcome {
    match call.shared.look(|state| state.era) {
        Era::Y2024 => agents::post_known(AGENT, call)?,
        // Stricter than it was in 2023: any object was taken.
        _ => agents::post_data(call)?,
    };
    Ok(Reply::ok())
}

/// `GET /v1/job?queue=a&queue=b`
fn take_job(call: &mut Call<'_, '_, '_>) -> Outcome {
    let reply = submissions::take_as(call, "")?;
    if reply.status != 204 || call.shared.look(|state| state.era) > Era::Y2022 {
        return Ok(reply);
    }
    let queues = call.request.parameters("queue");
    let is_there = |state: &State| state.jobs.has(&queues);
    if call.shared.wait(WAIT_FOR_JOB, is_there) {
        return submissions::take_as(call, "");
    }
    Ok(reply)
}

/// `POST /v1/result/<id>`: what is posted stands beside what was.
fn post_result(call: &mut Call<'_, '_, '_>) -> Outcome {
    let text = call.json()?;
    call.proper_id()?;
    if call.shared.look(|state| state.era) >= Era::Y2024 {
        check(RESULT, &text)?;
        if text.len() >= DOCUMENT {
            return Ok(Reply::abort(413, "Payload too large"));
        }
    } else if text.len() >= DOCUMENT {
        return Ok(Reply::unhandled(&"BSON document too large"));
    }
    let json = Json::parse(&text).ok();
    let Some(json) = json.filter(|json| json.kind() == Kind::Object) else {
        return Ok(Reply::abort(400, "Invalid result"));
    };
    call.shared.update(|state| {
        for (name, value) in json.members() {
            if name == "job_state" {
                if let Some(job) = state.jobs.get_mut(&call.name) {
                    job.state = value.string().unwrap_or_default();
                }
                continue;
            }
            let members = state.legacy.results.entry(call.name.clone()).or_default();
            members.insert(name, value.text().to_owned());
        }
    });
    Ok(Reply::ok())
}

/// `GET /v1/result/<id>`
fn get_result(call: &mut Call<'_, '_, '_>) -> Outcome {
    call.proper_id()?;
    let document = call.shared.look(|state| document(state, &call.name));
    Ok(document.map_or_else(Reply::nothing, |text| Reply::json(200, text)))
}

/// `POST /v1/result/<id>/output`
fn post_output(call: &mut Call<'_, '_, '_>) -> Outcome {
    post_text(call, LogType::Output)
}

/// `GET /v1/result/<id>/output`
fn get_output(call: &mut Call<'_, '_, '_>) -> Outcome {
    take_text(call, LogType::Output)
}

/// `POST /v1/result/<id>/serial_output`
fn post_serial(call: &mut Call<'_, '_, '_>) -> Outcome {
    post_text(call, LogType::Serial)
}

/// `GET /v1/result/<id>/serial_output`
fn get_serial(call: &mut Call<'_, '_, '_>) -> Outcome {
    take_text(call, LogType::Serial)
}

fn post_text(call: &mut Call<'_, '_, '_>, log: LogType) -> Outcome {
    call.proper_id()?;
    let Some(bytes) = call.body.whole(DOCUMENT as u64)? else {
        return Ok(Reply::unhandled(&"BSON document too large"));
    };
    let Ok(text) = String::from_utf8(bytes) else {
        return Ok(Reply::unhandled(&"'utf-8' codec can't decode byte"));
    };
    call.shared
        .update(|state| state.legacy.add(&call.name, log, text));
    Ok(Reply::ok())
}

fn take_text(call: &mut Call<'_, '_, '_>, log: LogType) -> Outcome {
    call.proper_id()?;
    let text = call
        .shared
        .update(|state| state.legacy.take(&call.name, log));
    Ok(text.map_or_else(Reply::nothing, |text| Reply::text(200, &text)))
}

#[cfg(test)]
mod tests {
    use super::super::routes::ROUTES;
    use super::*;

    #[test]
    fn text_is_taken_once() {
        let mut legacy = Legacy::default();
        for text in ["a", "b\n", "c\n"] {
            legacy.add("j", LogType::Output, text.to_owned());
        }
        legacy.add("j", LogType::Serial, "d".to_owned());
        let mut take = |log| legacy.take("j", log);
        assert_eq!(take(LogType::Output).as_deref(), Some("a\nb\n\nc\n"));
        assert_eq!(take(LogType::Output), None);
        assert_eq!(take(LogType::Serial).as_deref(), Some("d"));
        assert_eq!(legacy.posted("j", LogType::Output).concat(), "ab\nc\n");
    }

    #[test]
    fn each_time_has_its_endpoints() {
        let has = |era: Era, method: &str, path: &str| {
            let mut routes = era.routes(ROUTES);
            routes.any(|route| route.endpoint() == (method, path))
        };
        let since = |method: &str, path: &str| {
            let eras = [Era::Y2022, Era::Y2023, Era::Y2024, Era::Y2025, Era::Today];
            eras.map(|era| has(era, method, path))
        };
        let output = since("POST", "v1/result/*/output");
        assert_eq!(output, [true, true, true, true, false]);
        let serial = since("POST", "v1/result/*/serial_output");
        assert_eq!(serial, [false, false, false, true, false]);
        let fragments = since("POST", "v1/result/*/log/output");
        assert_eq!(fragments, [false, false, false, false, true]);
        let agent = since("POST", "v1/agents/data/*");
        assert_eq!(agent, [false, true, true, true, true]);
        let told = since("GET", "v1/agents/data/*");
        assert_eq!(told, [false, false, false, true, true]);
        assert_eq!(since("GET", "v1/job"), [true; 5]);
        assert_eq!(Era::Today.routes(ROUTES).count(), ROUTES.len());
        for (method, path, _) in SINCE {
            assert!(has(Era::Today, method, path), "{method} {path}");
        }
    }
}
