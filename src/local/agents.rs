//! What agents say of themselves: their records, their queues and images.

use super::jobs::date;
use super::reply::{Outcome, Reply};
use super::routes::Call;
use super::rules::{Field, Rule, check, may, must, schema_error, storable};
use super::values::Values;
use crate::json::{Json, Kind, Object};
use crate::sys::clock::{Now, iso8601};
use std::collections::{BTreeMap, VecDeque};

/// How many lines and log entries of an agent are kept.
const KEPT: usize = 100;

const AGENT: &[Field] = &[
    may("identifier", Rule::Text),
    may("job_id", Rule::Text),
    may("location", Rule::Text),
    may("log", Rule::Texts),
    may("provision_type", Rule::Text),
    may("queues", Rule::Texts),
    may("state", Rule::Text),
    may("comment", Rule::Text),
];

/// The members of [`AGENT`] that are strings.
const TEXTS: [&str; 6] = [
    "comment",
    "state",
    "identifier",
    "location",
    "provision_type",
    "job_id",
];

const PROVISION_LOG: &[Field] = &[
    must("job_id", Rule::Text),
    must("exit_code", Rule::Whole),
    may("detail", Rule::Text),
];

/// An agent as the server knows it. What it never said is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the API's")]
pub struct Agent {
    pub state: String,
    pub comment: String,
    pub job_id: String,
    pub identifier: String,
    pub location: String,
    pub provision_type: String,
    pub queues: Vec<String>,
    pub log: Vec<String>,
    /// `pass` or `fail`, and how often in a row.
    pub provision_streak: Option<(String, i64)>,
}

/// What an agent said after it provisioned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the API's")]
pub struct ProvisionLog {
    pub job_id: String,
    pub exit_code: i64,
    pub detail: Option<String>,
}

/// What is stored of an agent.
#[derive(Clone, Debug, Default)]
struct Record {
    texts: BTreeMap<&'static str, String>,
    queues: Option<Vec<String>>,
    log: VecDeque<String>,
    streak: Option<(&'static str, i64)>,
    updated_at: String,
}

/// All agents, and what they advertise.
#[derive(Debug, Default)]
pub(super) struct Agents {
    records: BTreeMap<String, Record>,
    /// Also of agents without a record.
    provision_logs: BTreeMap<String, VecDeque<ProvisionLog>>,
    /// Owners by queue, of those that are restricted to some.
    pub(super) restricted: BTreeMap<String, Vec<String>>,
    /// Descriptions by queue.
    pub(super) queues: BTreeMap<String, String>,
    /// Provision data by image by queue.
    pub(super) images: BTreeMap<String, BTreeMap<String, String>>,
}

impl Agents {
    fn report(&mut self, name: &str, values: &Values<'_>, now: &str) {
        let record = self.records.entry(name.to_owned()).or_default();
        for key in TEXTS {
            if let Some(text) = values.text(key) {
                record.texts.insert(key, text);
            }
        }
        if let Some(queues) = values.texts("queues") {
            record.queues = Some(queues);
        }
        for line in values.texts("log").unwrap_or_default() {
            push(&mut record.log, line);
        }
        record.updated_at = now.to_owned();
    }

    /// What an administrator does.
    pub(super) fn set(&mut self, name: &str, state: &str, comment: &str, now: &str) {
        let record = self.records.entry(name.to_owned()).or_default();
        record.texts.insert("state", state.to_owned());
        record.texts.insert("comment", comment.to_owned());
        record.updated_at = now.to_owned();
    }

    pub(super) fn get(&self, name: &str) -> Option<Agent> {
        let record = self.records.get(name)?;
        let text = |key| record.texts.get(key).cloned().unwrap_or_default();
        Some(Agent {
            state: text("state"),
            comment: text("comment"),
            job_id: text("job_id"),
            identifier: text("identifier"),
            location: text("location"),
            provision_type: text("provision_type"),
            queues: record.queues.clone().unwrap_or_default(),
            log: record.log.iter().cloned().collect(),
            provision_streak: record.streak.map(|(kind, count)| (kind.to_owned(), count)),
        })
    }

    pub(super) fn provision_logs(&self, name: &str) -> Vec<ProvisionLog> {
        let logs = self.provision_logs.get(name);
        logs.map(|logs| logs.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// Everything but the log, as the API shows it.
    fn document(&self, name: &str) -> Option<String> {
        let record = self.records.get(name)?;
        let mut document = Object::new();
        document.string("name", name);
        for key in TEXTS {
            if let Some(text) = record.texts.get(key) {
                document.string(key, text);
            }
        }
        document.object("updated_at", date(&record.updated_at));
        if let Some(queues) = &record.queues {
            document.strings("queues", queues);
        }
        if let Some((kind, count)) = record.streak {
            document.string("provision_streak_type", kind);
            document.integer("provision_streak_count", count);
        }
        let mut restricted = Object::new();
        for queue in record.queues.iter().flatten() {
            if let Some(owners) = self.restricted.get(queue) {
                restricted.strings(queue, owners);
            }
        }
        document.object("restricted_to", restricted);
        Some(document.finish())
    }

    /// Stores what came of a provision phase. False: there is no such agent,
    /// but it is stored all the same.
    fn log_provision(&mut self, name: &str, log: ProvisionLog) -> bool {
        let kind = if log.exit_code == 0 { "pass" } else { "fail" };
        push(self.provision_logs.entry(name.to_owned()).or_default(), log);
        let Some(record) = self.records.get_mut(name) else {
            return false;
        };
        let count = match record.streak {
            Some((before, count)) if before == kind => count + 1,
            _ => 1,
        };
        record.streak = Some((kind, count));
        true
    }
}

fn push<T>(list: &mut VecDeque<T>, item: T) {
    list.push_back(item);
    if list.len() > KEPT {
        list.pop_front();
    }
}

/// `POST /v1/agents/data/<name>`
pub(super) fn post_data(call: &mut Call<'_, '_, '_>) -> Outcome {
    post_known(AGENT, call)
}

/// The same where the server knows these fields.
pub(super) fn post_known(fields: &'static [Field], call: &mut Call<'_, '_, '_>) -> Outcome {
    let text = call.json()?;
    let values = check(fields, &text)?;
    let now = iso8601(Now::read().wall);
    let name = call.name.as_str();
    call.shared
        .update(|state| state.agents.report(name, &values, &now));
    let mut answer = Object::new();
    answer.string("status", "OK");
    let cookie = format!("agent_name={name}; HttpOnly; Path=/; SameSite=Strict");
    Ok(Reply::json(200, answer.finish()).with("Set-Cookie", &cookie))
}

/// `GET /v1/agents/data/<name>`
pub(super) fn get_data(call: &mut Call<'_, '_, '_>) -> Outcome {
    let document = call.shared.look(|state| state.agents.document(&call.name));
    Ok(match document {
        Some(document) => Reply::json(200, document),
        None => Reply::json(404, "{}".to_owned()),
    })
}

/// `POST /v1/agents/queues`
pub(super) fn post_queues(call: &mut Call<'_, '_, '_>) -> Outcome {
    let text = call.json()?;
    let mut queues = BTreeMap::new();
    for (queue, description) in members(&text)? {
        let Some(description) = description.string().filter(|_| !queue.is_empty()) else {
            return Err(invalid("Queues and descriptions must be strings").into());
        };
        queues.insert(queue, description);
    }
    call.shared
        .update(|state| state.agents.queues.extend(queues));
    Ok(Reply::ok())
}

/// `POST /v1/agents/images`
pub(super) fn post_images(call: &mut Call<'_, '_, '_>) -> Outcome {
    let text = call.json()?;
    let mut queues = BTreeMap::new();
    for (queue, images) in members(&text)? {
        if queue.is_empty() || images.kind() != Kind::Object {
            return Err(invalid("Images of a queue must be a dict").into());
        }
        let mut known = BTreeMap::new();
        for (image, data) in images.members() {
            let is_named =
                !image.is_empty() && !image.starts_with('$') && !image.contains(['.', '\0']);
            let Some(data) = data.string().filter(|_| is_named) else {
                return Err(invalid("Names and provision data must be strings").into());
            };
            known.insert(image, data);
        }
        queues.insert(queue, known);
    }
    call.shared
        .update(|state| state.agents.images.extend(queues));
    Ok(Reply::ok())
}

/// `POST /v1/agents/provision_logs/<name>`
pub(super) fn post_provision_log(call: &mut Call<'_, '_, '_>) -> Outcome {
    let text = call.json()?;
    let values = check(PROVISION_LOG, &text)?;
    let log = ProvisionLog {
        job_id: values.text("job_id").unwrap_or_default(),
        exit_code: values.whole("exit_code").unwrap_or_default(),
        detail: values.text("detail"),
    };
    let name = call.name.as_str();
    let known = call
        .shared
        .update(|state| state.agents.log_provision(name, log));
    Ok(if known {
        Reply::ok()
    } else {
        Reply::text(404, "Agent not found\n")
    })
}

/// The members of an object whose names are anybody's.
fn members(text: &str) -> Result<Vec<(String, Json<'_>)>, Reply> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let Ok(json) = Json::parse(text) else {
        return Err(Reply::abort(400, "Bad Request"));
    };
    storable(text)?;
    match json.kind() {
        Kind::Object => Ok(json.members().collect()),
        Kind::Null => Ok(Vec::new()),
        _ => Err(invalid("Invalid input type.")),
    }
}

fn invalid(message: &str) -> Reply {
    Reply::invalid(schema_error(message))
}
