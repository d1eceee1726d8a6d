//! The limits of a phase, out of the job's and the agent's.

use super::{Job, Phase};
use crate::child::Limits;

/// Seconds, where neither the job nor the agent says anything.
const DEFAULT_GLOBAL: u64 = 4 * 60 * 60;
/// Seconds, where neither the job nor the agent says anything.
const DEFAULT_OUTPUT: u64 = 15 * 60;

/// What the agent's configuration says, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct AgentLimits {
    /// `global_timeout`.
    pub global: Option<u64>,
    /// `output_timeout`.
    pub output: Option<u64>,
}

/// The limits of one phase (PROTOCOL.md, section 4): whoever says nothing says
/// the default, and the smaller one holds.
#[must_use]
pub fn limits(job: &Job, agent: AgentLimits, phase: Phase) -> Limits {
    let smaller = |job: Option<u64>, agent: Option<u64>, default: u64| {
        Some(job.unwrap_or(default).min(agent.unwrap_or(default)))
    };
    Limits {
        // A reservation ends by its own timeout, which its command minds.
        global: match phase {
            Phase::Reserve => None,
            _ => smaller(job.global_timeout, agent.global, DEFAULT_GLOBAL),
        },
        output: match phase {
            Phase::Test => smaller(job.output_timeout, agent.output, DEFAULT_OUTPUT),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_limit_holds_and_silence_means_the_default() {
        let job = |members: &str| {
            let id = "4a01916a-c18b-4c2c-87bb-7da770768044";
            Job::parse(format!("{{\"job_id\": \"{id}\"{members}}}")).unwrap()
        };
        let global = |members: &str, agent: Option<u64>, phase| {
            let agent = AgentLimits {
                global: agent,
                output: None,
            };
            limits(&job(members), agent, phase).global
        };
        let long = ", \"global_timeout\": 28800";
        assert_eq!(global(long, Some(43_200), Phase::Test), Some(28_800));
        assert_eq!(global(long, None, Phase::Test), Some(14_400));
        assert_eq!(global("", Some(60), Phase::Cleanup), Some(60));
        assert_eq!(global("", Some(43_200), Phase::Setup), Some(14_400));
        assert_eq!(global(long, Some(60), Phase::Reserve), None);
        let output = |phase| limits(&job(""), AgentLimits::default(), phase).output;
        assert_eq!(output(Phase::Test), Some(900));
        assert_eq!(output(Phase::Provision), None);
    }
}
