//! The job as the server hands it over.

use super::{JobSecrets, PHASES, Phase, Webhook};
use crate::json::{Json, Kind};
use std::fmt;

/// What a document is replaced by that nobody may see: secrets are in it that the
/// agent does not know, or cannot look for.
const WITHHELD: &str = "{}";

/// A job: its document, and what the agent needs to know of it.
#[derive(Clone)]
pub struct Job {
    /// Its id, a UUID: also the name of its directories.
    pub id: String,
    /// The job that wants its device, in a job of several devices.
    pub parent: Option<String>,
    /// Who wants to be told what happens to it.
    pub webhook: Option<Webhook>,
    /// Seconds that a phase may run, if the job says so.
    pub global_timeout: Option<u64>,
    /// Seconds that the test phase may be silent, if the job says so.
    pub output_timeout: Option<u64>,
    /// The document as received.
    pub text: String,
    /// The secrets in it.
    pub secrets: JobSecrets,
    /// Its owner gave files to it, and the server has them.
    pub has_attachments: bool,
    /// Why this agent cannot run it, if it cannot.
    pub refusal: Option<String>,
    /// For each phase whether its data asks for it.
    wanted: [bool; PHASES.len()],
}

/// Its document may hold secrets.
impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Job({})", self.id)
    }
}

impl Job {
    /// Reads a job document.
    ///
    /// # Errors
    /// When nobody could even be told that this job cannot be run: it is not a
    /// JSON object, or its id is not a UUID.
    pub fn parse(text: String) -> Result<Job, String> {
        let json = match Json::parse(&text) {
            Ok(json) => json,
            Err(error) => return Job::unreadable(&text, &error.to_string()),
        };
        if json.kind() != Kind::Object {
            return Err("it is not a JSON object".into());
        }
        let id = match json.get("job_id").map(|id| id.string().ok_or(id.text())) {
            Some(Ok(id)) if is_uuid(&id) => id,
            Some(Ok(other)) => return Err(format!("its job_id {other:.80?} is not a UUID")),
            Some(Err(other)) => return Err(format!("its job_id {other:.80} is not a UUID")),
            None => return Err("it has no job_id".into()),
        };
        let mut refusal = None;
        let mut limit = |name: &str| match seconds(json, name) {
            Ok(limit) => limit,
            Err(reason) => {
                refusal.get_or_insert(reason);
                None
            }
        };
        let global_timeout = limit("global_timeout");
        let output_timeout = limit("output_timeout");
        let wanted = PHASES.map(|phase| is_wanted(json, phase));
        let parent = json.get("parent_job_id").and_then(Json::string);
        let mut secrets = JobSecrets::of(json);
        let too_many = secrets.refusal();
        if too_many.is_some() {
            secrets = JobSecrets::default();
        }
        Ok(Job {
            id,
            global_timeout,
            output_timeout,
            wanted,
            parent: parent.filter(|parent| !parent.is_empty()),
            webhook: webhook(json),
            has_attachments: json
                .get("attachments_status")
                .and_then(Json::string)
                .is_some_and(|status| status == "complete"),
            text: match too_many {
                Some(_) => WITHHELD.to_owned(),
                None => text,
            },
            refusal: too_many.or(refusal),
            secrets,
        })
    }

    /// A document that is not JSON as we take it (Python writes NaN, and nests
    /// deeper), but says plainly whose it is: its owner is told.
    fn unreadable(text: &str, reason: &str) -> Result<Job, String> {
        let mut places = text.match_indices("\"job_id\"");
        let (Some((at, name)), None) = (places.next(), places.next()) else {
            return Err(reason.to_owned());
        };
        let value = text.get(at + name.len()..).unwrap_or_default();
        let id = value
            .trim_start_matches([' ', ':', '\n', '\t'])
            .strip_prefix('"')
            .and_then(|value| value.get(..36))
            .filter(|id| is_uuid(id));
        match id {
            Some(id) => Ok(Job {
                refusal: Some(format!("its document is {reason}")),
                wanted: PHASES.map(|phase| matches!(phase, Phase::Setup | Phase::Cleanup)),
                text: match text.contains("\"secrets\"") {
                    true => WITHHELD.to_owned(),
                    false => text.to_owned(),
                },
                ..Job::unknown(id)
            }),
            None => Err(reason.to_owned()),
        }
    }

    /// A job of which nothing is known but its id.
    #[must_use]
    pub fn unknown(id: &str) -> Job {
        Job {
            id: id.to_owned(),
            global_timeout: None,
            output_timeout: None,
            text: WITHHELD.into(),
            secrets: JobSecrets::default(),
            has_attachments: false,
            refusal: None,
            wanted: [false; PHASES.len()],
            parent: None,
            webhook: None,
        }
    }

    /// Whether the job's data asks for this phase; setup and cleanup run for
    /// every job.
    #[must_use]
    pub fn wants(&self, phase: Phase) -> bool {
        PHASES
            .iter()
            .zip(self.wanted)
            .any(|(&other, wanted)| other == phase && wanted)
    }
}

/// Data that is not empty (in Python's sense), does not say `skip: true`, and holds
/// more than the list of what is attached.
fn is_wanted(job: Json<'_>, phase: Phase) -> bool {
    if matches!(phase, Phase::Setup | Phase::Cleanup) {
        return true;
    }
    job.get(&format!("{phase}_data")).is_some_and(|data| {
        let skipped = data.get("skip").is_some_and(|skip| !skip.is_empty());
        let mut members = data.members();
        let only_attached = data.kind() == Kind::Object
            && !data.is_empty()
            && members.all(|(name, _)| name == "attachments");
        !data.is_empty() && !skipped && !only_attached
    })
}

fn webhook(job: Json<'_>) -> Option<Webhook> {
    let text = |name: &str| job.get(name).and_then(Json::string);
    Some(Webhook {
        url: text("job_status_webhook").filter(|url| !url.is_empty())?,
        queue: text("job_queue").unwrap_or_default(),
    })
}

/// A member that is a number of seconds, if it is there.
fn seconds(job: Json<'_>, name: &str) -> Result<Option<u64>, String> {
    match job.get(name) {
        None => Ok(None),
        Some(value) if value.kind() == Kind::Null => Ok(None),
        Some(value) => match value.integer() {
            // A limit that is over before it begins is over at once.
            Some(seconds) => Ok(Some(u64::try_from(seconds).unwrap_or(0))),
            None => Err(format!(
                "its {name} is {:.40}; wanted: a whole number of seconds",
                value.text()
            )),
        },
    }
}

/// Whether the text is a UUID in its usual form (RFC 9562, section 4).
pub(super) fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4a01916a-c18b-4c2c-87bb-7da770768044";

    fn job(members: &str) -> Job {
        Job::parse(format!("{{\"job_id\": \"{ID}\"{members}}}")).unwrap()
    }

    /// Row 40: a job_id that could not be a directory's name, or is nobody's.
    #[test]
    fn row_40_only_a_uuid_is_a_job_id() {
        for id in [
            "\"../../x\"",
            "\"\"",
            "7",
            "null",
            "\"4a01916a-c18b-4c2c-87bb-7da77076804\"",
            "\"4a01916a-c18b-4c2c-87bb-7da7707680444\"",
            "\"4a01916a/c18b-4c2c-87bb-7da770768044\"",
            "\"4a01916a-c18b-4c2c-87bb-7da77076804\\u0000\"",
            "\"é01916a-c18b-4c2c-87bb-7da770768044\"",
        ] {
            let error = Job::parse(format!("{{\"job_id\": {id}}}")).unwrap_err();
            assert!(error.contains("is not a UUID"), "{id}: {error}");
        }
        assert_eq!(Job::parse("{}".into()).unwrap_err(), "it has no job_id");
        assert!(Job::parse("[1,2}".into()).is_err());
        assert!(Job::parse("<html>".into()).is_err());
        let nan = format!("{{\"job_id\": \"{ID}\", \"x\": NaN}}");
        let job_of_python = Job::parse(nan).unwrap();
        assert_eq!(job_of_python.id, ID);
        assert!(
            job_of_python
                .refusal
                .as_deref()
                .unwrap()
                .contains("not valid JSON")
        );
        let two = format!("{{\"x\": {{\"job_id\": \"{ID}\"}}, \"job_id\": \"{ID}\", NaN}}");
        assert!(Job::parse(two).is_err(), "nobody knows whose it is");
        assert_eq!(job("").id, ID);
    }

    #[test]
    fn a_phase_is_wanted_when_its_data_say_so() {
        let wants = |data: &str, phase| job(&format!(", {data}")).wants(phase);
        assert!(wants("\"name\": \"x\"", Phase::Setup));
        assert!(wants("\"name\": \"x\"", Phase::Cleanup));
        assert!(!wants("\"name\": \"x\"", Phase::Test));
        assert!(wants("\"test_data\": {\"test_cmds\": \"ls\"}", Phase::Test));
        assert!(!wants("\"test_data\": {}", Phase::Test));
        assert!(!wants("\"provision_data\": null", Phase::Provision));
        assert!(!wants(
            "\"provision_data\": {\"skip\": true}",
            Phase::Provision
        ));
        assert!(wants(
            "\"provision_data\": {\"skip\": false}",
            Phase::Provision
        ));
        // What is attached is for the phases that have something to do.
        assert!(!wants(
            "\"provision_data\": {\"attachments\": []}",
            Phase::Provision
        ));
        assert!(wants(
            "\"reserve_data\": {\"ssh_keys\": []}",
            Phase::Reserve
        ));
    }

    #[test]
    fn what_is_not_supported_is_refused_with_its_reason() {
        let refused = |members: &str| job(members).refusal;
        assert_eq!(refused(""), None);
        let secrets = ", \"test_data\": {\"secrets\": {\"A\": \"b\"}}";
        assert_eq!(refused(secrets), None);
        let parent = |members: &str| job(members).parent;
        assert_eq!(parent(", \"parent_job_id\": \"x\"").as_deref(), Some("x"));
        assert_eq!(parent(", \"parent_job_id\": null"), None);
        let timeout = ", \"global_timeout\": \"soon\"";
        assert!(
            refused(timeout)
                .unwrap()
                .contains("global_timeout is \"soon\"")
        );
        assert_eq!(job(", \"output_timeout\": 5").output_timeout, Some(5));
        assert_eq!(job(", \"output_timeout\": null").output_timeout, None);
        assert_eq!(job(", \"global_timeout\": -3").global_timeout, Some(0));
    }

    /// Row 38: secrets that are not known cannot be looked for.
    #[test]
    fn row_38_a_document_with_secrets_that_are_not_kept_is_shown_to_nobody() {
        let large = "x".repeat(1 << 20);
        let two = format!(", \"test_data\": {{\"secrets\": {{\"A\": \"{large}\", \"B\": \"y\"}}}}");
        let two = job(&two);
        assert!(
            two.refusal
                .as_deref()
                .unwrap()
                .contains("its secrets have 1048577 bytes")
        );
        assert_eq!(two.text, "{}");
        let nan = format!("{{\"job_id\": \"{ID}\", \"x\": NaN, \"secrets\": {{\"A\": \"b\"}}}}");
        assert_eq!(Job::parse(nan).unwrap().text, "{}");
        let kept = job(", \"test_data\": {\"secrets\": {\"A\": \"pass\"}}");
        assert!(kept.text.contains("pass") && !format!("{kept:?}").contains("pass"));
    }
}
