//! What the server knows of the agent, as far as the agent looks at it, and what it is
//! told.

use super::api::{Api, Outgoing, percent};
use super::era::is_unknown;
use super::failure::Failure;
use super::http::Patience;
use crate::json::{DeJson, Error, Json, Object};
use std::sync::PoisonError;

/// What people are shown of an agent, where there is something.
pub const DESCRIPTIONS: [&str; 3] = ["location", "provision_type", "identifier"];

/// What servers of before 2025-06 refuse to hear of an agent, and what older ones of
/// 2023-12 and later do, with what to call it.
const NEWER: [(&[&str], &str); 2] = [
    (&["comment"], "comments of agents"),
    (
        &["comment", "provision_type", "identifier"],
        "descriptions of agents",
    ),
];

/// What the server says of this agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentData {
    /// Its state, if the server knows the agent.
    pub state: Option<String>,
    /// The job that it is said to run.
    pub job_id: String,
    /// Why it is in this state.
    pub comment: String,
    /// Which of [`DESCRIPTIONS`] the server has.
    pub described: Vec<&'static str>,
    /// Those of its queues that only their owners' jobs come into.
    pub restricted_queues: Vec<String>,
}

/// What of an agent's data the agent itself looks at.
#[derive(DeJson)]
struct KnownAgent {
    state: Option<String>,
    job_id: Option<String>,
    comment: Option<String>,
}

impl AgentData {
    /// Finds it in the server's answer.
    ///
    /// # Errors
    /// When something in it is not what it should be.
    pub(super) fn read(json: Json<'_>) -> Result<AgentData, Error> {
        let known: KnownAgent = json.decode(&["state", "job_id", "comment"])?;
        let is_there = |name: &&str| {
            let text = json.get(name).and_then(Json::string);
            text.is_some_and(|text| !text.is_empty())
        };
        Ok(AgentData {
            state: Some(known.state.unwrap_or_default()),
            job_id: known.job_id.unwrap_or_default(),
            comment: known.comment.unwrap_or_default(),
            described: DESCRIPTIONS.into_iter().filter(is_there).collect(),
            restricted_queues: restricted_queues(json),
        })
    }

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

fn restricted_queues(agent: Json<'_>) -> Vec<String> {
    let all = agent.get("restricted_to");
    let owned = |(queue, owners): (String, Json<'_>)| (!owners.is_empty()).then_some(queue);
    all.into_iter()
        .flat_map(Json::members)
        .filter_map(owned)
        .collect()
}

impl Api {
    /// `GET /v1/agents/data/<name>`: what the server says of this agent.
    pub(super) fn agent_data(&self) -> Result<AgentData, Failure> {
        let action = "read this agent's state";
        let nothing = Outgoing::Nothing(Patience::Call);
        let is_doubted = |failure: &_| is_unknown(failure) && !self.common.is_agent_forgotten();
        let path = self.agent_path();
        let reply = match self.call_doubting(action, "GET", &path, nothing, is_doubted) {
            // It knows none, or, before 2025-05, tells of none.
            Err(failure) if is_unknown(&failure) => return Ok(AgentData::default()),
            other => other?,
        };
        let text = self.text(action, reply)?;
        let json = self.json(action, &text)?;
        let data =
            AgentData::read(json).map_err(|error| self.unreadable(action, &error.to_string()))?;
        self.common.understand(action);
        self.common.agent_is_known();
        Ok(data)
    }

    /// `POST /v1/agents/data/<name>`, with as much of it as the server takes; false where
    /// it has no agents.
    pub(super) fn post_agent(&self, data: Object) -> Result<bool, Failure> {
        let data = data.finish();
        let json = Json::parse(&data).ok();
        let state = json.and_then(|data| data.get("state")?.string());
        let action = "post this agent's data";
        let post = |data: String| {
            let reply = self.call(action, "POST", &self.agent_path(), Outgoing::Json(data));
            self.if_there("agent data", reply)
        };
        let mut reply = post(data.clone());
        for (newer, of_them) in NEWER {
            if let Err(Failure::Refused {
                status: 422, cause, ..
            }) = &reply
                && let Some(less) = json.and_then(|data| without(data, newer))
            {
                let cause = cause.clone();
                reply = post(less);
                if reply.is_ok() {
                    self.common.era.is_missing(of_them, &cause);
                }
            }
        }
        let Some(reply) = reply? else {
            return Ok(false);
        };
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
        self.acknowledged(action, reply)?;
        if let Some(state) = state {
            self.common.metrics.points.push(&state, None);
        }
        Ok(true)
    }

    fn agent_path(&self) -> String {
        format!("/v1/agents/data/{}", percent(&self.common.agent_id))
    }
}

/// An object without some of its members; `None` when it has none of them.
fn without(object: Json<'_>, names: &[&str]) -> Option<String> {
    let is_kept = |name: &str| !names.contains(&name);
    let mut less = Object::new();
    let mut is_less = false;
    for (name, value) in object.members() {
        match is_kept(&name) {
            true => less.json(&name, value),
            false => is_less = true,
        }
    }
    is_less.then(|| less.finish())
}
