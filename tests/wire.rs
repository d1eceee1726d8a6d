//! The small server behind `run` beside the real one: what the real server
//! answered to a real agent, and what it refuses.
#![allow(
    clippy::unwrap_used,
    reason = "a test may fail loudly, its helpers too"
)]

#[path = "wire/client.rs"]
mod client;
#[path = "wire/rules.rs"]
mod rules;
#[path = "wire/transport.rs"]
mod transport;

use client::Client;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use testflinger_agent::json::{Json, Kind};
use testflinger_agent::local::{Options, Server};

/// A server with a directory of its own, which goes with it.
struct Bench {
    server: Server,
    directory: PathBuf,
}

impl Bench {
    fn start() -> Bench {
        Bench::with(Options::default())
    }

    fn with(options: Options) -> Bench {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("wire-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let server = Server::start(Options {
            directory: directory.clone(),
            keep_exchanges: true,
            ..options
        })
        .unwrap();
        Bench { server, directory }
    }

    /// A job that waits in the queue `lab`.
    fn job(&self) -> String {
        self.server.submit(r#"{"job_queue": "lab"}"#).unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The members of a JSON text, one a line, without what differs from run to run.
fn members(json: Json<'_>, place: &str, lines: &mut Vec<String>) {
    if json.kind() == Kind::Object {
        for (name, value) in json.members() {
            members(value, &format!("{place}.{name}"), lines);
        }
        lines.push(format!("{place} is an object"));
    } else if ["$date", "access_token"]
        .iter()
        .any(|name| place.ends_with(name))
    {
        lines.push(format!("{place} is there"));
    } else if let Some(text) = json.string() {
        lines.push(format!("{place} is {text:?}"));
    } else {
        lines.push(format!("{place} is {}", json.text()));
    }
}

fn all_members(json: Json<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    members(json, "", &mut lines);
    lines.sort();
    lines
}

/// A job from the first call to the last, recorded between the original agent
/// and the real server, with most of its banners and idle cycles left out.
#[test]
fn the_recorded_job_gets_the_recorded_answers() {
    let bench = Bench::start();
    let refresh = bench.server.refresh_token();
    let mut client = Client::connect(&bench.server);
    let (mut token, mut job) = (String::new(), String::new());
    for (number, line) in include_str!("wire/basic-job.jsonl").lines().enumerate() {
        let recorded = Json::parse(line).unwrap();
        let text = |name: &str| recorded.get(name).and_then(Json::string);
        let path = text("path").unwrap();
        if path.starts_with("/v1/job?") && recorded.get("answer").is_some() {
            // Somebody submits the job that is handed out now.
            let mut wanted = testflinger_agent::json::Object::new();
            for (name, value) in recorded.get("answer").unwrap().members() {
                if !["job_id", "started_at"].contains(&name.as_str()) {
                    wanted.json(&name, value);
                }
            }
            job = bench.server.submit(&wanted.finish()).unwrap();
        }
        let fill = |text: &str| {
            text.replace("<refresh token>", &refresh)
                .replace("<access token>", &token)
                .replace("<job>", &job)
        };
        let method = text("method").unwrap();
        let mut request = format!("{method} {} HTTP/1.1\r\nHost: h\r\n", fill(&path));
        for (name, value) in recorded.get("headers").unwrap().members() {
            let value = fill(&value.string().unwrap());
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        let body = fill(&text("body").unwrap_or_default());
        request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));

        let answer = client.raw(request.as_bytes());

        let here = format!("line {}: {method} {path}: {}", number + 1, answer.body);
        let status = recorded.get("status").and_then(Json::integer);
        assert_eq!(Some(i64::from(answer.status)), status, "{here}");
        let content_type = text("content_type").unwrap();
        assert_eq!(answer.header("content-type"), content_type, "{here}");
        let cookie = text("set_cookie").unwrap_or_default();
        assert_eq!(answer.header("set-cookie"), cookie, "{here}");
        match recorded.get("answer") {
            None => assert_eq!(answer.body, "", "{here}"),
            Some(wanted) if wanted.kind() == Kind::String => {
                assert_eq!(Some(answer.body), wanted.string(), "{here}");
            }
            Some(wanted) => {
                let json = Json::parse(&answer.body).unwrap();
                let wanted = fill(wanted.text());
                let wanted = all_members(Json::parse(&wanted).unwrap());
                assert_eq!(all_members(json), wanted, "{here}");
                if let Some(bought) = json.get("access_token") {
                    token = bought.string().unwrap();
                }
            }
        }
    }
    assert_eq!(bench.server.job_state(&job).as_deref(), Some("complete"));
    let artifact = bench.server.artifact(&job).unwrap();
    assert_eq!(std::fs::read(artifact).unwrap(), b"<artifact>");
}
