//! What the server knows of the agent, as far as the agent looks at it.

use crate::json::{DeJson, Error, Json};

/// What people are shown of an agent, where there is something.
pub const DESCRIPTIONS: [&str; 3] = ["location", "provision_type", "identifier"];

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
