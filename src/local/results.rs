//! The endpoints of results: states, statuses and logs.

use super::jobs::RESULT;
use super::logs::{Fragment, text_length};
use super::reply::{Outcome, Piece, Reply, quoted};
use super::routes::Call;
use super::rules::{Field, Rule, check, must};
use super::state::State;
use crate::job::{LOG_TYPES, LogType, PHASES, Phase};
use std::io;
use std::sync::PoisonError;
use std::time::Instant;

/// How much the database stores in one document.
const DOCUMENT: u64 = 16 * 1024 * 1024;

/// What a fragment's document holds besides its text.
const AROUND_TEXT: u64 = 256;

const FRAGMENT: &[Field] = &[
    must("fragment_number", Rule::Whole),
    must("timestamp", Rule::Moment),
    must("phase", Rule::PhaseName),
    must("log_data", Rule::Text),
];

fn too_large() -> Reply {
    Reply::unhandled(&"BSON document too large")
}

/// `POST /v1/result/<id>`
pub(super) fn post(call: &mut Call<'_, '_, '_>) -> Outcome {
    let text = call.json()?;
    let values = check(RESULT, &text)?;
    call.proper_id()?;
    if text.len() as u64 >= DOCUMENT {
        return Ok(Reply::abort(413, "Payload too large"));
    }
    // What is said of an unknown job is taken, and forgotten.
    call.shared.update(|state| {
        if let Some(job) = state.jobs.get_mut(&call.name) {
            job.report(&values);
        }
    });
    Ok(Reply::ok())
}

/// `GET /v1/result/<id>`
pub(super) fn get(call: &mut Call<'_, '_, '_>) -> Outcome {
    call.proper_id()?;
    let pieces = call.shared.look(|state| pieces(state, &call.name))?;
    Ok(pieces.map_or_else(Reply::nothing, Reply::json_pieces))
}

/// A job's result: for each phase its status and logs, then the rest, and the
/// state last of all.
pub(super) fn pieces(state: &State, job_id: &str) -> io::Result<Option<Vec<Piece>>> {
    let Some(job) = state.jobs.get(job_id) else {
        return Ok(None);
    };
    let file = state.logs.open(job_id)?;
    let mut pieces = Vec::new();
    let mut text = String::from("{");
    for phase in PHASES {
        if let Some(status) = job.status.get(&phase) {
            text.push_str(&format!("\"{phase}_status\": {status}, "));
        }
        for log in LOG_TYPES {
            let file = file.as_ref();
            let logged = file.map(|file| state.logs.pieces(job_id, file, log, phase));
            let logged = logged.filter(|pieces| !pieces.is_empty());
            if let Some(logged) = logged {
                text.push_str(&format!("\"{phase}_{}\": \"", log.name()));
                pieces.push(Piece::Text(std::mem::take(&mut text)));
                pieces.extend(logged);
                text.push_str("\", ");
            }
        }
    }
    if let Some(info) = &job.device_info {
        text.push_str(&format!("\"device_info\": {info}, "));
    }
    text.push_str(&format!("\"job_state\": {}}}", quoted(&job.state)));
    pieces.push(Piece::Text(text));
    Ok(Some(pieces))
}

/// `POST /v1/result/<id>/log/output`
pub(super) fn post_output(call: &mut Call<'_, '_, '_>) -> Outcome {
    post_fragment(call, LogType::Output)
}

/// `POST /v1/result/<id>/log/serial`
pub(super) fn post_serial(call: &mut Call<'_, '_, '_>) -> Outcome {
    post_fragment(call, LogType::Serial)
}

fn post_fragment(call: &mut Call<'_, '_, '_>, log: LogType) -> Outcome {
    let Some(text) = call.json_or_too_long()? else {
        return Ok(too_large());
    };
    let values = check(FRAGMENT, &text)?;
    call.proper_id()?;
    let phase = values.text("phase");
    let phase = phase.and_then(|name| Phase::from_name(&name));
    let (Some(phase), Some(text)) = (phase, values.json("log_data")) else {
        return Ok(Reply::abort(400, "Bad Request"));
    };
    let fragment = Fragment {
        number: values.whole("fragment_number").unwrap_or_default(),
        log,
        phase,
        timestamp: values.text("timestamp").unwrap_or_default(),
        length: text_length(text.text()),
        stored_at: Instant::now(),
    };
    if fragment.length + AROUND_TEXT > DOCUMENT {
        return Ok(too_large());
    }
    // Whoever watches sees the fragments in the order in which they are stored,
    // and may ask the server about them while doing so.
    let observer = &call.shared.observer;
    let observer = observer.lock().unwrap_or_else(PoisonError::into_inner);
    let stored = call
        .shared
        .update(|state| state.logs.add(&call.name, fragment, text));
    if let Err(error) = stored {
        return Ok(Reply::unhandled(&error));
    }
    if let Some(observer) = observer.as_ref().filter(|_| log == LogType::Output) {
        observer(&call.name, phase, &text.string().unwrap_or_default());
    }
    Ok(Reply::ok())
}

/// `GET /v1/result/<id>/log/output`
pub(super) fn get_output(call: &mut Call<'_, '_, '_>) -> Outcome {
    get_log(call, LogType::Output)
}

/// `GET /v1/result/<id>/log/serial`
pub(super) fn get_serial(call: &mut Call<'_, '_, '_>) -> Outcome {
    get_log(call, LogType::Serial)
}

/// The logs by phase, each with the number of its last fragment.
fn get_log(call: &mut Call<'_, '_, '_>, log: LogType) -> Outcome {
    call.proper_id()?;
    let job_id = call.name.as_str();
    let pieces = call.shared.look(|state| -> io::Result<Vec<Piece>> {
        let file = state.logs.open(job_id)?;
        let mut pieces = Vec::new();
        let mut text = format!("{{\"{}\": {{", log.name());
        for (at, phase) in PHASES.into_iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            let last = state.logs.last_number(job_id, log, phase);
            text.push_str(&format!(
                "{comma}\"{phase}\": {{\"last_fragment_number\": {last}, \"log_data\": \""
            ));
            pieces.push(Piece::Text(std::mem::take(&mut text)));
            if let Some(file) = &file {
                pieces.extend(state.logs.pieces(job_id, file, log, phase));
            }
            text.push_str("\"}");
        }
        text.push_str("}}");
        pieces.push(Piece::Text(text));
        Ok(pieces)
    })?;
    Ok(Reply::json_pieces(pieces))
}

/// A job's result as a text.
pub(super) fn document(state: &State, job_id: &str) -> String {
    let reply = pieces(state, job_id).map(|pieces| pieces.map(Reply::json_pieces));
    let text = reply.and_then(|reply| reply.map(Reply::into_text).transpose());
    text.ok().flatten().unwrap_or_default()
}

/// A phase's log as a text.
pub(super) fn text(state: &State, job_id: &str, log: LogType, phase: Phase) -> String {
    state.logs.text(job_id, log, phase).unwrap_or_default()
}
