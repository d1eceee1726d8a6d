//! A door for fuzzers, which make up the server's answers: one call of each endpoint.
//! The program itself has no use for it.

use super::api::Api;
use super::common::Common;
use super::era::LogPiece;
use super::failure::Failure;
use super::{Settings, TlsFiles, fetch, influx};
use crate::job::{Attachments, LogType, Phase};
use crate::json::Object;
use crate::metrics::Metrics;
use std::path::Path;
use std::sync::Arc;

const ID: &str = "4a01916a-c18b-4c2c-87bb-7da770768044";

/// So many calls there are.
pub const ENDPOINTS: u8 = 14;

/// Makes the so-manieth call to a server at this URL. With a file for the token, that
/// is refreshed first.
///
/// # Errors
/// What is said of a call that came to nothing.
pub fn ask(endpoint: u8, server: &str, token_file: &Path, workspace: &Path) -> Result<(), String> {
    let settings = Settings {
        server: server.to_owned(),
        tls: TlsFiles::default(),
        agent_id: "a".into(),
        token_file: token_file.to_owned(),
        metrics: Metrics::default(),
    };
    let piece = LogPiece {
        job_id: ID,
        phase: Phase::Test,
        log: LogType::Output,
        number: 7,
        text: "text",
    };
    let api = Api::new(Arc::new(Common::new(settings)))?;
    let text = |name: &str| {
        let mut object = Object::new();
        object.string(name, "x");
        object
    };
    // What the agent would go on with is looked at as well.
    let result = match endpoint % ENDPOINTS {
        0 => api.agent_data().map(|data| drop(format!("{data:?}"))),
        1 => api.post_agent(text("state")).map(drop),
        2 => api.advertise("queues", "{}"),
        3 => api.take_job(&["q".to_owned()]).map(|document| {
            let _ = document.map(crate::job::Job::parse);
        }),
        4 => api.known(ID).map(drop),
        5 => api.post_result(ID, text("job_state")),
        6 => api.post_log(&piece, false).map(drop),
        7 => {
            let mut open = || Ok(Box::new(&b"archive"[..]) as Box<dyn std::io::Read>);
            api.post_artifacts(ID, &mut open)
        }
        8 => fetch::once(&api, ID, &Attachments::at(workspace)),
        9 => {
            let refreshed = std::fs::write(token_file, "{\"refresh_token\": \"x\"}");
            let read = api.agent_data().map(drop);
            drop(refreshed.and_then(|()| std::fs::remove_file(token_file)));
            read
        }
        10 => api.post_log(&piece, true).map(drop),
        11 => api.post_provision_log(ID, 46),
        12 => api.relay("tell a job's webhook", "/v1/job/x/events", "{}"),
        _ => influx::once(server).map_err(Failure::transient),
    };
    result.map_err(|failure| failure.cause().to_owned())
}
