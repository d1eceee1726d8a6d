//! The jobs: submitted, handed out, and what their agents report of them.

use super::formats;
use super::rules::{Field, Rule, may, must};
use super::token::uuid4;
use super::values::Values;
use crate::job::Phase;
use crate::json::{Json, Object};
use std::collections::{BTreeMap, VecDeque};
use std::io;

/// What a submitter may say.
pub(super) const JOB: &[Field] = &[
    may("job_id", Rule::Text),
    may("parent_job_id", Rule::Text),
    may("name", Rule::Text),
    may("tags", Rule::Texts),
    must("job_queue", Rule::SomeText),
    may("global_timeout", Rule::Whole),
    may("output_timeout", Rule::Whole),
    may("allocation_timeout", Rule::Whole),
    // The original knows the data of every device type by heart, and refuses
    // what fits none of them.
    may("provision_data", Rule::MapOrNull),
    may("firmware_update_data", Rule::Map),
    may("test_data", Rule::Nested(TEST_DATA)),
    may("allocate_data", Rule::Map),
    may("reserve_data", Rule::Nested(RESERVE_DATA)),
    may("job_status_webhook", Rule::Text),
    may("job_priority", Rule::Whole),
    may("exclude_agents", Rule::Texts),
    may("debug", Rule::Truth),
];

const TEST_DATA: &[Field] = &[
    // Upstream's connectors take a list too, although its server refuses one.
    may("test_cmds", Rule::TextOrTexts),
    may("attachments", Rule::Members(ATTACHMENT)),
    may("test_username", Rule::Text),
    may("test_password", Rule::Text),
    // There is no store of secrets here: what is given is handed out.
    may("secrets", Rule::TextMap),
];

const ATTACHMENT: &[Field] = &[must("agent", Rule::Text), may("device", Rule::Text)];

const RESERVE_DATA: &[Field] = &[may("ssh_keys", Rule::Texts), may("timeout", Rule::Duration)];

/// What a user may do to a job.
pub(super) const ACTION: &[Field] = &[must("action", Rule::OneOf(&["cancel"]))];

/// What an agent may report of a job.
pub(super) const RESULT: &[Field] = &[
    may("status", Rule::Statuses),
    may("device_info", Rule::Map),
    may("job_state", Rule::Text),
];

/// Whether a job waits for files that its submitter has yet to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attachments {
    None,
    Waiting,
    Complete,
}

impl Attachments {
    fn name(self) -> Option<&'static str> {
        match self {
            Attachments::None => None,
            Attachments::Waiting => Some("waiting"),
            Attachments::Complete => Some("complete"),
        }
    }
}

/// A job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) job_id: String,
    /// What was submitted, as the members of a JSON object.
    submitted: Object,
    queue: String,
    priority: i64,
    excluded: Vec<String>,
    pub(super) attachments: Attachments,
    pub(super) state: String,
    pub(super) status: BTreeMap<Phase, i64>,
    /// A JSON object.
    pub(super) device_info: Option<String>,
}

/// All jobs, in the order in which they came. A job that is submitted again
/// under its identifier stands here twice, and what is reported goes to the
/// first, as in the original's database.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    list: Vec<Job>,
    /// Documents to be handed out as they are.
    documents: VecDeque<String>,
}

impl Job {
    /// Makes a job of what was submitted; `None`: under no proper identifier.
    pub(super) fn new(values: &Values<'_>) -> io::Result<Option<Job>> {
        let job_id = match values.text("job_id") {
            Some(id) if !id.is_empty() => id,
            _ => uuid4()?,
        };
        if !formats::is_uuid(&job_id) {
            return Ok(None);
        }
        let mut submitted = Object::new();
        let excluded = values.texts("exclude_agents");
        let mut written = values.clone();
        written.remove("job_id");
        written.write(&mut submitted);
        if excluded.is_none() {
            submitted.strings::<&str>("exclude_agents", &[]);
        }
        let attachments = if written.has_attachments() {
            Attachments::Waiting
        } else {
            Attachments::None
        };
        Ok(Some(Job {
            job_id,
            submitted,
            queue: values.text("job_queue").unwrap_or_default(),
            priority: values.whole("job_priority").unwrap_or(0),
            excluded: excluded.unwrap_or_default(),
            attachments,
            state: "waiting".to_owned(),
            status: BTreeMap::new(),
            device_info: None,
        }))
    }

    /// The job as its agent, or anybody who asks, gets it.
    pub(super) fn document(&self) -> Object {
        let mut document = self.submitted.clone();
        if let Some(status) = self.attachments.name() {
            document.string("attachments_status", status);
        }
        document.string("job_id", &self.job_id);
        document
    }

    /// Takes over what an agent reports; each member replaces what was there.
    pub(super) fn report(&mut self, values: &Values<'_>) {
        if let Some(status) = values.json("status") {
            let status = status.members().filter_map(|(phase, status)| {
                Some((Phase::from_name(&phase)?, super::rules::whole(status)?))
            });
            self.status = status.collect();
        }
        if let Some(info) = values.json("device_info") {
            self.device_info = Some(info.text().to_owned());
        }
        if let Some(state) = values.text("job_state") {
            self.state = state;
        }
    }

    fn is_for(&self, queues: &[String], agent: &str) -> bool {
        self.state == "waiting"
            && self.attachments != Attachments::Waiting
            && queues.contains(&self.queue)
            && !self.excluded.iter().any(|excluded| excluded == agent)
    }
}

impl Jobs {
    pub(super) fn add(&mut self, job: Job) {
        self.list.push(job);
    }

    /// Has this document handed out next. If it has an identifier that nobody
    /// knows, there is a job for what will be reported of it.
    pub(super) fn add_document(&mut self, document: String) {
        let id = Json::parse(&document).ok();
        let id = id.and_then(|job| job.get("job_id")?.string());
        if let Some(job_id) = id.filter(|id| formats::is_uuid(id) && self.get(id).is_none()) {
            self.list.push(Job {
                job_id,
                submitted: Object::new(),
                queue: String::new(),
                priority: 0,
                excluded: Vec::new(),
                attachments: Attachments::None,
                state: "running".to_owned(),
                status: BTreeMap::new(),
                device_info: None,
            });
        }
        self.documents.push_back(document);
    }

    pub(super) fn get(&self, job_id: &str) -> Option<&Job> {
        self.list.iter().find(|job| job.job_id == job_id)
    }

    pub(super) fn get_mut(&mut self, job_id: &str) -> Option<&mut Job> {
        self.list.iter_mut().find(|job| job.job_id == job_id)
    }

    /// Whether there is a job for somebody who serves these queues.
    pub(super) fn has(&self, queues: &[String]) -> bool {
        !self.documents.is_empty() || self.list.iter().any(|job| job.is_for(queues, ""))
    }

    /// Takes the next job for an agent that serves these queues: the one with
    /// the highest priority, and of several the oldest.
    pub(super) fn take(&mut self, queues: &[String], agent: &str, now: &str) -> Option<String> {
        if let Some(document) = self.documents.pop_front() {
            return Some(document);
        }
        let mut chosen: Option<&mut Job> = None;
        for job in &mut self.list {
            let better = chosen
                .as_ref()
                .is_none_or(|best| job.priority > best.priority);
            if better && job.is_for(queues, agent) {
                chosen = Some(job);
            }
        }
        let job = chosen?;
        job.state = "running".to_owned();
        let mut document = job.document();
        document.object("started_at", date(now));
        Some(document.finish())
    }

    /// Cancels a job. False: nothing was left to cancel.
    pub(super) fn cancel(&mut self, job_id: &str) -> bool {
        let ended = ["cancelled", "complete", "completed"];
        match self.get_mut(job_id) {
            Some(job) if !ended.contains(&job.state.as_str()) => {
                job.state = "cancelled".to_owned();
                true
            }
            _ => false,
        }
    }
}

/// A moment as the database's JSON has it, from one as ISO 8601 has it.
pub(super) fn date(iso8601: &str) -> Object {
    let mut date = Object::new();
    let milliseconds = iso8601.get(..23).unwrap_or(iso8601);
    date.string("$date", &format!("{milliseconds}Z"));
    date
}

#[cfg(test)]
mod tests {
    use super::super::rules::check;
    use super::*;

    fn submit(jobs: &mut Jobs, text: &str) -> String {
        let job = Job::new(&check(JOB, text).unwrap()).unwrap().unwrap();
        let id = job.job_id.clone();
        jobs.add(job);
        id
    }

    fn take(jobs: &mut Jobs, agent: &str) -> Option<String> {
        let queues = ["q".to_owned(), "r".to_owned()];
        let document = jobs.take(&queues, agent, "2026-11-22T10:49:01.591455+00:00")?;
        let id = Json::parse(&document).unwrap().get("job_id").unwrap();
        id.string()
    }

    #[test]
    fn the_highest_priority_comes_first_then_the_oldest() {
        let mut jobs = Jobs::default();
        let old = submit(&mut jobs, r#"{"job_queue": "q"}"#);
        let new = submit(&mut jobs, r#"{"job_queue": "r"}"#);
        let urgent = submit(&mut jobs, r#"{"job_queue": "r", "job_priority": "7"}"#);
        submit(&mut jobs, r#"{"job_queue": "other"}"#);
        let mine = submit(&mut jobs, r#"{"job_queue": "q", "exclude_agents": ["a"]}"#);
        let files = r#"{"job_queue": "q", "provision_data": {"attachments": []}}"#;
        let files = submit(&mut jobs, files);
        let cancelled = submit(&mut jobs, r#"{"job_queue": "q"}"#);
        assert!(jobs.cancel(&cancelled) && !jobs.cancel(&cancelled) && !jobs.cancel("x"));
        for wanted in [Some(&urgent), Some(&old), Some(&new), None] {
            assert_eq!(take(&mut jobs, "a").as_ref(), wanted);
        }
        assert_eq!(take(&mut jobs, "b"), Some(mine));
        jobs.get_mut(&files).unwrap().attachments = Attachments::Complete;
        assert_eq!(take(&mut jobs, "a"), Some(files));
        jobs.add_document(format!("{{\"job_id\": \"{old}\"}}"));
        assert_eq!(take(&mut jobs, "a"), Some(old));
    }

    #[test]
    fn a_job_is_handed_out_as_it_was_submitted() {
        let mut jobs = Jobs::default();
        let id = "4a01916a-c18b-4c2c-87bb-7da770768044";
        let text = format!(
            r#"{{"reserve_data": {{"timeout": "1h"}}, "job_queue": "q", "job_id": "{id}",
                 "provision_data": null, "global_timeout": "5"}}"#
        );
        assert_eq!(submit(&mut jobs, &text), id);
        let queues = ["q".to_owned()];
        let document = jobs.take(&queues, "a", "2026-11-22T10:49:01.591455+00:00");
        let wanted = format!(
            r#"{{"job_queue": "q", "global_timeout": 5, "provision_data": null, "reserve_data": {{"timeout": 3600}}, "exclude_agents": [], "job_id": "{id}", "started_at": {{"$date": "2026-11-22T10:49:01.591Z"}}}}"#
        );
        assert_eq!(document.unwrap(), wanted);
        assert_eq!(jobs.get(id).unwrap().state, "running");
    }
}
