//! The endpoints of jobs: submitted and cancelled by users, taken by agents.

use super::jobs::{ACTION, Attachments, JOB, Job};
use super::reply::{Fail, Outcome, Reply};
use super::routes::Call;
use super::rules::{Field, Rule, check, may, must};
use super::state::Shared;
use super::{formats, uploads};
use crate::json::Object;
use crate::sys::clock::{Now, iso8601};

const EVENTS: &[Field] = &[
    may("agent_id", Rule::Text),
    may("job_queue", Rule::Text),
    must("job_status_webhook", Rule::Url),
    may("events", Rule::Members(EVENT)),
];

const EVENT: &[Field] = &[
    must("event_name", Rule::Text),
    must("timestamp", Rule::Text),
    may("detail", Rule::Text),
];

/// Checks and stores a job; its identifier.
pub(super) fn submit(shared: &Shared, text: &str) -> Result<String, Fail> {
    let Some(job) = Job::new(&check(JOB, text)?)? else {
        return Err(Reply::abort(400, "Invalid job_id specified").into());
    };
    let job_id = job.job_id.clone();
    shared.update(|state| state.jobs.add(job));
    Ok(job_id)
}

/// `POST /v1/job`
pub(super) fn post(call: &mut Call<'_, '_, '_>) -> Outcome {
    let text = call.json()?;
    let mut answer = Object::new();
    answer.string("job_id", &submit(call.shared, &text)?);
    Ok(Reply::json(200, answer.finish()))
}

/// `GET /v1/job?queue=a&queue=b`
pub(super) fn take(call: &mut Call<'_, '_, '_>) -> Outcome {
    let agent = call.request.cookie("agent_name").unwrap_or_default();
    if agent.is_empty() && !call.request.parameters("queue").is_empty() {
        return Ok(Reply::abort(401, "Agent not identified"));
    }
    take_as(call, agent)
}

/// The same for whoever this is.
pub(super) fn take_as(call: &Call<'_, '_, '_>, agent: &str) -> Outcome {
    let queues = call.request.parameters("queue");
    if queues.is_empty() {
        return Ok(Reply::abort(400, "No queue(s) specified in request"));
    }
    let now = iso8601(Now::read().wall);
    let job = call
        .shared
        .update(|state| state.jobs.take(&queues, agent, &now));
    Ok(job.map_or_else(Reply::nothing, |job| Reply::json(200, job)))
}

/// `GET /v1/job/<id>`
pub(super) fn get(call: &mut Call<'_, '_, '_>) -> Outcome {
    call.proper_id()?;
    let document = call.shared.look(|state| {
        let job = state.jobs.get(&call.name);
        job.map(|job| job.document().finish())
    });
    Ok(document.map_or_else(Reply::nothing, |job| Reply::json(200, job)))
}

/// `POST /v1/job/<id>/action`
pub(super) fn act(call: &mut Call<'_, '_, '_>) -> Outcome {
    let text = call.json()?;
    check(ACTION, &text)?;
    if !formats::is_uuid(&call.name) {
        return Ok(Reply::text(400, "Invalid job id\n"));
    }
    if call.shared.update(|state| state.jobs.cancel(&call.name)) {
        Ok(Reply::ok())
    } else {
        let message = "The job is already completed or cancelled";
        Ok(Reply::text(400, message))
    }
}

/// `GET /v1/job/<id>/attachments`
pub(super) fn get_attachments(call: &mut Call<'_, '_, '_>) -> Outcome {
    uploads::send(call, uploads::Kind::Attachments)
}

/// `POST /v1/job/<id>/attachments`
pub(super) fn post_attachments(call: &mut Call<'_, '_, '_>) -> Outcome {
    let name = call.name.clone();
    let waits = call.shared.look(|state| {
        let job = state.jobs.get(&name).filter(|job| job.state == "waiting");
        job.map(|job| job.attachments)
    });
    match waits {
        _ if !formats::is_uuid(&name) => Ok(Reply::text(400, "Invalid job id\n")),
        None => Ok(Reply::text(422, &format!("Job {name} is not valid\n"))),
        Some(Attachments::None) => {
            let message = format!("Job {name} not awaiting attachments\n");
            Ok(Reply::text(422, &message))
        }
        Some(Attachments::Complete) => Ok(Reply::ok()),
        Some(Attachments::Waiting) => uploads::store(call, uploads::Kind::Attachments),
    }
}

/// `POST /v1/job/<id>/events`, on a server that was given no `WEBHOOK_URL`.
pub(super) fn post_events(call: &mut Call<'_, '_, '_>) -> Outcome {
    let text = call.json()?;
    check(EVENTS, &text)?;
    call.proper_id()?;
    if call
        .shared
        .look(|state| state.jobs.get(&call.name).is_none())
    {
        return Ok(Reply::abort(404, "Job not found"));
    }
    Ok(Reply::abort(500, "Webhook URL not configured"))
}
