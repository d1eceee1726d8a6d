//! The secrets of a job: the member `secrets` in the data of a phase, a map of names
//! to texts. The server puts the values there when it hands the job over
//! (PROTOCOL.md, section 3); one that it could not read is empty.

use super::{PHASES, Phase};
use crate::json::{Json, Kind};
use std::fmt;

/// All of them together may be so large; in bytes. What they are looked for with
/// takes some ninety times as much memory.
const LARGEST: usize = 128 << 10;

/// A variable's name and value, or why it cannot be had.
type Variable = Result<(String, String), String>;

/// What a phase's command finds in its environment, and nobody in its output.
#[derive(Clone, Default)]
pub struct JobSecrets {
    variables: Vec<(Phase, Variable)>,
    values: Vec<String>,
}

/// Never what they are.
impl fmt::Debug for JobSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobSecrets({})", self.values.len())
    }
}

impl JobSecrets {
    /// Reads those of a job's document.
    pub(super) fn of(job: Json<'_>) -> JobSecrets {
        let mut secrets = JobSecrets::default();
        for phase in PHASES {
            let data = job.get(&format!("{phase}_data"));
            let Some(found) = data.and_then(|data| data.get("secrets")) else {
                continue;
            };
            gather(found, &mut secrets.values);
            if found.kind() != Kind::Object && !found.is_empty() {
                let reason = "its secrets are not a map of names to texts".to_owned();
                secrets.variables.push((phase, Err(reason)));
            }
            for (name, value) in found.members() {
                let variable = match value.string() {
                    Some(text) if text.contains('\0') => Err(format!(
                        "its secret {name:.80?} holds a NUL, which no variable can"
                    )),
                    Some(text) => Ok((name, text)),
                    None => Err(format!("its secret {name:.80?} is not a text")),
                };
                secrets.variables.push((phase, variable));
            }
        }
        secrets
    }

    /// The variables of a phase and their values, or why one cannot be had.
    pub fn variables(&self, phase: Phase) -> impl Iterator<Item = Result<(&str, &str), &str>> {
        let of_phase = self.variables.iter().filter(move |(of, _)| *of == phase);
        of_phase.map(|(_, variable)| match variable {
            Ok((name, value)) => Ok((name.as_str(), value.as_str())),
            Err(reason) => Err(reason.as_str()),
        })
    }

    /// What must not be seen in the output of any phase.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.values.iter().map(String::as_str)
    }

    /// Why they cannot be kept, if they cannot.
    pub(super) fn refusal(&self) -> Option<String> {
        let size: usize = self.values.iter().map(String::len).sum();
        (size > LARGEST)
            .then(|| format!("its secrets have {size} bytes; at most {LARGEST} can be kept"))
    }
}

/// Every text and number in there, also where nothing but texts should be.
fn gather(json: Json<'_>, values: &mut Vec<String>) {
    match json.kind() {
        Kind::Object => json.members().for_each(|(_, value)| gather(value, values)),
        Kind::Array => json.items().for_each(|value| gather(value, values)),
        Kind::Number => values.push(json.text().to_owned()),
        Kind::String => values.extend(json.string()),
        Kind::Boolean | Kind::Null => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(document: &str) -> JobSecrets {
        JobSecrets::of(Json::parse(document).unwrap())
    }

    #[test]
    fn each_phase_has_its_own_and_all_are_kept() {
        let secrets = secrets(
            r#"{"test_data": {"secrets": {"A": "one\n", "B": ""}},
                "provision_data": {"secrets": {"A": "two"}},
                "reserve_data": {"secrets": null}, "cleanup_data": {"secrets": {}}}"#,
        );
        let of = |phase| secrets.variables(phase).collect::<Vec<_>>();
        assert_eq!(of(Phase::Test), [Ok(("A", "one\n")), Ok(("B", ""))]);
        assert_eq!(of(Phase::Provision), [Ok(("A", "two"))]);
        for phase in [Phase::Setup, Phase::Reserve, Phase::Cleanup] {
            assert_eq!(of(phase), []);
        }
        assert_eq!(secrets.values().collect::<Vec<_>>(), ["two", "one\n", ""]);
        assert_eq!(format!("{secrets:?}"), "JobSecrets(3)");
    }

    /// No server stores such; whoever sends it is told, and sees none of it.
    #[test]
    fn what_is_no_text_is_refused_and_kept_all_the_same() {
        let secrets = secrets(
            r#"{"test_data": {"secrets": {"A": 1234, "B": ["x", {"y": "z"}], "C": "a\u0000b"}},
                "setup_data": {"secrets": "alone"}}"#,
        );
        let of = |phase| {
            let variables = secrets.variables(phase);
            variables.map(|one| one.unwrap_err()).collect::<Vec<_>>()
        };
        assert_eq!(
            of(Phase::Test),
            [
                "its secret \"A\" is not a text",
                "its secret \"B\" is not a text",
                "its secret \"C\" holds a NUL, which no variable can"
            ]
        );
        let reason = "its secrets are not a map of names to texts";
        assert_eq!(of(Phase::Setup), [reason]);
        let kept: Vec<_> = secrets.values().collect();
        assert_eq!(kept, ["alone", "1234", "x", "z", "a\0b"]);
    }
}
