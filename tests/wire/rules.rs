//! What the server takes and what it refuses, each rule by examples.

use super::Bench;
use super::client::Client;
use testflinger_agent::job::Phase;

const UNKNOWN: &str = "00000000-0000-4000-8000-000000000000";

/// A fragment with one member changed.
fn fragment(name: &str, value: &str) -> String {
    let members = [
        ("fragment_number", "0"),
        ("timestamp", "\"2026-11-22T10:49:01.591455+00:00\""),
        ("phase", "\"test\""),
        ("log_data", "\"text\""),
    ];
    let known = members.iter().any(|(key, _)| *key == name);
    let extra = [(name, value)].into_iter().filter(|_| !known);
    let changed = members.map(|(key, usual)| (key, if key == name { value } else { usual }));
    let changed = changed.into_iter().chain(extra);
    let texts: Vec<String> = changed
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| format!("\"{key}\": {value}"))
        .collect();
    format!("{{{}}}", texts.join(", "))
}

#[test]
fn fragments() {
    let bench = Bench::start();
    let mut agent = Client::agent(&bench.server);
    let job = bench.job();
    let path = format!("/v1/result/{job}/log/output");
    for (name, value, status) in [
        ("", "", 200),
        ("log_data", "\"\"", 200),
        ("log_data", "\"\\u0000\\ud83d\\ude00é\"", 200),
        ("fragment_number", "\"7\"", 200),
        ("timestamp", "\"2026-11-22T10:49Z\"", 200),
        ("log_data", "null", 422),
        ("log_data", "", 422),
        ("log_data", "5", 422),
        ("fragment_number", "", 422),
        ("fragment_number", "true", 422),
        ("phase", "\"unpack\"", 422),
        ("timestamp", "1795344541", 422),
        ("timestamp", "\"2026-11-22\"", 422),
        ("extra", "1", 422),
        ("log_data", "\"\\ud83d\"", 500),
    ] {
        let answer = agent.post(&path, &fragment(name, value));
        assert_eq!(answer.status, status, "{name} {value}: {}", answer.body);
    }
    // The five that were taken, the one with the highest number last.
    let output = bench.server.output(&job, Phase::Test);
    assert_eq!(output, "text\0😀étexttext");
    let escaped = r#""test_output": "text\u0000\ud83d\ude00\u00e9texttext""#;
    let result = agent.get(&format!("/v1/result/{job}")).body;
    assert!(result.contains(escaped), "{result}");

    let post = |agent: &mut Client, path: &str| agent.post(path, &fragment("", "")).status;
    let unknown = format!("/v1/result/{UNKNOWN}/log/serial");
    assert_eq!(post(&mut agent, &unknown), 200);
    assert_eq!(bench.server.fragments(UNKNOWN).len(), 1);
    assert_eq!(agent.get(&format!("/v1/result/{UNKNOWN}")).status, 204);
    assert_eq!(post(&mut agent, "/v1/result/x/log/output"), 400);
    assert_eq!(
        post(&mut agent, &format!("/v1/result/{job}/log/other")),
        500
    );
    for removed in ["output", "serial_output"] {
        assert_eq!(
            post(&mut agent, &format!("/v1/result/{job}/{removed}")),
            404
        );
    }
}

#[test]
fn fragments_that_are_too_large() {
    let bench = Bench::start();
    let mut agent = Client::agent(&bench.server);
    let path = format!("/v1/result/{}/log/output", bench.job());
    for (length, status) in [(16_000_000, 200), (16_777_216, 500), (20_000_000, 500)] {
        let text = format!("\"{}\"", "x".repeat(length));
        let answer = agent.post(&path, &fragment("log_data", &text));
        assert_eq!(answer.status, status, "{length}");
        assert_eq!(
            answer.body.contains("BSON document too large"),
            status == 500
        );
    }
}

#[test]
fn results() {
    let bench = Bench::start();
    let mut agent = Client::agent(&bench.server);
    let job = bench.job();
    let path = format!("/v1/result/{job}");
    for (body, status) in [
        ("{}", 200),
        (r#"{"status": {"test": "-9", "setup": 0}}"#, 200),
        (
            r#"{"status": {"test": 3}, "device_info": {"a": [1, null]}}"#,
            200,
        ),
        (r#"{"job_state": "anything"}"#, 200),
        (r#"{"status": {"unpack": 0}}"#, 422),
        (r#"{"status": {"test": null}}"#, 422),
        (r#"{"status": null}"#, 422),
        (r#"{"job_state": null}"#, 422),
        (r#"{"device_info": "x"}"#, 422),
        (r#"{"test_status": 0}"#, 422),
        (r#"{"test_output": "x"}"#, 422),
        (r#"{"output": "x"}"#, 422),
        ("[]", 422),
        ("{", 400),
    ] {
        let answer = agent.post(&path, body);
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
    }
    // Each member replaced the one before; the state comes last.
    let result = r#"{"test_status": 3, "device_info": {"a": [1, null]}, "job_state": "anything"}"#;
    assert_eq!(agent.get(&path).body, result);
    assert_eq!(bench.server.result(&job), result);

    let plain = agent.post_as(&path, "text/plain", r#"{"job_state": "lost"}"#);
    assert_eq!(
        (plain.status, agent.get(&path).body.as_str()),
        (200, result)
    );
    for (length, status) in [(16 * 1024 * 1024, 413), (18 * 1024 * 1024, 413)] {
        let body = format!("{{\"job_state\": \"{}\"}}", "x".repeat(length));
        assert_eq!(agent.post(&path, &body).status, status);
    }
    let unknown = format!("/v1/result/{UNKNOWN}");
    assert_eq!(agent.post(&unknown, r#"{"job_state": "test"}"#).status, 200);
    assert_eq!(agent.get(&unknown).status, 204);
    assert_eq!(agent.post("/v1/result/x", "{}").status, 400);
    assert_eq!(agent.get("/v1/result/x").status, 400);
}

#[test]
fn agents() {
    let bench = Bench::start();
    let mut agent = Client::agent(&bench.server);
    let path = "/v1/agents/data/pi-4";
    let missing = agent.get(path);
    assert_eq!((missing.status, missing.body.as_str()), (404, "{}"));
    let log = r#"{"job_id": "x", "exit_code": 1}"#;
    let logs = "/v1/agents/provision_logs/pi-4";
    assert_eq!(agent.post(logs, log).status, 404);
    for (body, status) in [
        ("{}", 200),
        (
            r#"{"state": "any", "queues": ["a", "b"], "log": ["1", "2"]}"#,
            200,
        ),
        (r#"{"comment": "c", "log": ["3"]}"#, 200),
        (r#"{"comment": null}"#, 422),
        (r#"{"name": "x"}"#, 422),
        (r#"{"queues": "a"}"#, 422),
        (r#"{"queues": [1]}"#, 422),
        (r#"{"state": 1}"#, 422),
        (r#"{"state": "\ud800"}"#, 500),
    ] {
        assert_eq!(agent.post(path, body).status, status, "{body}");
    }
    for (body, status) in [
        (log, 200),
        (r#"{"job_id": "x", "exit_code": "2", "detail": "d"}"#, 200),
        (r#"{"job_id": "x"}"#, 422),
        (r#"{"job_id": "x", "exit_code": 0, "detail": null}"#, 422),
    ] {
        assert_eq!(agent.post(logs, body).status, status, "{body}");
    }
    bench.server.set_agent("pi-4", "offline", "by hand");
    let known = bench.server.agent("pi-4").unwrap();
    assert_eq!(
        (known.state.as_str(), known.comment.as_str()),
        ("offline", "by hand")
    );
    assert_eq!(known.log, ["1", "2", "3"]);
    assert_eq!(known.provision_streak, Some(("fail".to_owned(), 2)));
    assert_eq!(
        bench.server.view(|view| view.provision_logs("pi-4").len()),
        3
    );
    let shown = Client::connect(&bench.server).get(path);
    assert!(shown.body.contains(r#""restricted_to": {}"#), "{shown:?}");
    assert!(!shown.body.contains("log\":"), "{shown:?}");

    for (path, body, status) in [
        ("queues", r#"{"q": "text", "r": ""}"#, 200),
        ("queues", r#"{"q": null}"#, 422),
        ("queues", r#"{"": "text"}"#, 422),
        ("queues", r#"["q"]"#, 422),
        ("images", r#"{"q": {"img": "url: x"}, "r": {}}"#, 200),
        ("images", r#"{"q": {"img.1": "url: x"}}"#, 422),
        ("images", r#"{"q": {"$img": "url: x"}}"#, 422),
        ("images", r#"{"q": {"": "url: x"}}"#, 422),
        ("images", r#"{"q": {"a\u0000": "url: x"}}"#, 422),
        ("images", r#"{"q": {"img": {"url": "x"}}}"#, 422),
        ("images", r#"{"q": "img"}"#, 422),
    ] {
        let path = format!("/v1/agents/{path}");
        assert_eq!(agent.post(&path, body).status, status, "{path} {body}");
    }
}

#[test]
fn jobs() {
    let bench = Bench::start();
    let mut user = Client::connect(&bench.server);
    for (body, status) in [
        (r#"{"job_queue": "other", "name": "n", "tags": ["t"]}"#, 200),
        (
            r#"{"job_queue": "other", "reserve_data": {"timeout": "1h"}}"#,
            200,
        ),
        (r#"{"job_queue": "other", "provision_data": null}"#, 200),
        (
            r#"{"job_queue": "other", "test_data": {"secrets": {"A": "b"}}}"#,
            200,
        ),
        (r#"{"job_queue": "other", "job_id": "x"}"#, 400),
        (r#"{"job_queue": "other", "surprise": 1}"#, 422),
        (
            r#"{"job_queue": "other", "test_data": {"surprise": 1}}"#,
            422,
        ),
        (r#"{"job_queue": "other", "test_data": null}"#, 422),
        (
            r#"{"job_queue": "other", "reserve_data": {"timeout": "soon"}}"#,
            422,
        ),
        (r#"{"job_queue": "other", "global_timeout": "long"}"#, 422),
        (r#"{"job_queue": ""}"#, 422),
        (r#"{"name": "n"}"#, 422),
    ] {
        let answer = user.post("/v1/job", body);
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
    }
    let refused = bench.server.submit("{}").unwrap_err();
    assert!(refused.contains("Validation error"), "{refused}");

    let mut agent = Client::agent(&bench.server);
    assert_eq!(agent.get("/v1/job").status, 400);
    assert_eq!(agent.get("/v1/job?queue=lab").status, 204);
    let job = bench.job();
    let document = agent.get("/v1/job?queue=x&queue=lab");
    assert!(document.body.contains(&job), "{document:?}");
    assert_eq!(bench.server.job_state(&job).as_deref(), Some("running"));
    assert_eq!(agent.get("/v1/job?queue=lab").status, 204);

    let action = format!("/v1/job/{job}/action");
    for (body, status) in [
        (r#"{"action": "destroy"}"#, 422),
        ("{}", 422),
        (r#"{"action": "cancel"}"#, 200),
        (r#"{"action": "cancel"}"#, 400),
    ] {
        assert_eq!(user.post(&action, body).status, status, "{body}");
    }
    // What an agent says last counts, even after a cancellation.
    agent.post(&format!("/v1/result/{job}"), r#"{"job_state": "test"}"#);
    assert!(bench.server.cancel(&job));

    bench.server.submit_raw("{\"job_id\": \"../x\"}".to_owned());
    let document = agent.get("/v1/job?queue=lab");
    assert_eq!(document.body, "{\"job_id\": \"../x\"}");

    let events = format!("/v1/job/{job}/events");
    for (path, url, status) in [
        (events.as_str(), "http://localhost/hook", 500),
        (events.as_str(), "http://x/hook", 422),
        (&events.replace(&job, UNKNOWN), "http://localhost/hook", 404),
    ] {
        let body = format!("{{\"job_status_webhook\": \"{url}\", \"events\": []}}");
        assert_eq!(agent.post(path, &body).status, status, "{path} {url}");
    }
}

#[test]
fn attachments() {
    let bench = Bench::start();
    let mut agent = Client::agent(&bench.server);
    let body = r#"{"job_queue": "lab", "test_data": {"attachments": [{"agent": "a"}]}}"#;
    let job = bench.server.submit(body).unwrap();
    let path = format!("/v1/job/{job}/attachments");
    assert_eq!(agent.get(&path).status, 204);
    assert_eq!(agent.get("/v1/job?queue=lab").status, 204);
    bench.server.attach(&job, "archive".as_bytes()).unwrap();
    let document = agent.get("/v1/job?queue=lab").body;
    assert!(
        document.contains(r#""attachments_status": "complete""#),
        "{document}"
    );
    let archive = agent.get(&path);
    assert_eq!(archive.header("content-type"), "application/gzip");
    assert_eq!(archive.body, "archive");
}

#[test]
fn roles_and_tokens() {
    let bench = Bench::start();
    let job = bench.job();
    let mut agent = Client::agent(&bench.server);
    let mut user = Client::connect(&bench.server);
    let result = format!("/v1/result/{job}");
    for (path, by_agent, by_user) in [
        ("/v1", 200, 200),
        ("/v1/", 200, 200),
        (result.as_str(), 200, 200),
        ("/v1/agents/data/nobody", 404, 404),
        ("/v1/job?queue=none", 204, 403),
        (&format!("/v1/job/{job}"), 403, 200),
        (&format!("{result}/artifact"), 403, 204),
        (&format!("{result}/log/output"), 403, 200),
        (&format!("{result}/log/other"), 500, 500),
        ("/v1/nothing", 404, 404),
        ("/v1/oauth2/refresh", 405, 405),
        ("/", 404, 404),
    ] {
        assert_eq!(agent.get(path).status, by_agent, "{path}");
        assert_eq!(user.get(path).status, by_user, "{path}");
    }
    assert_eq!(user.post(&result, "{}").status, 403);
    assert_eq!(user.post("/v1/agents/data/pi-4", "{}").status, 403);
    assert_eq!(agent.post("/v1/job", "{}").status, 403);

    for (body, status) in [
        ("{}", 422),
        (r#"{"refresh_token": ""}"#, 422),
        (r#"{"refresh_token": "x"}"#, 400),
    ] {
        assert_eq!(user.post("/v1/oauth2/refresh", body).status, status);
    }
    bench.server.expire_tokens();
    assert_eq!(agent.get(&result).status, 401);
    let mut agent = Client::agent(&bench.server);
    assert_eq!(agent.get(&result).status, 200);
    bench.server.rotate_key();
    assert_eq!(agent.get(&result).status, 403);
    bench.server.revoke_refresh_token();
    let body = format!(
        "{{\"refresh_token\": \"{}\"}}",
        bench.server.refresh_token()
    );
    let answer = user.post("/v1/oauth2/refresh", &body);
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("Refresh token revoked."), "{answer:?}");
}

#[test]
fn the_cookie_names_the_agent() {
    let bench = Bench::start();
    let mut agent = Client::agent(&bench.server);
    let token = agent.post("/v1/agents/data/pi-4", "{}");
    assert!(token.header("set-cookie").starts_with("agent_name=pi-4;"));
    let body = r#"{"job_queue": "lab", "exclude_agents": ["pi-4"]}"#;
    bench.server.submit(body).unwrap();
    assert_eq!(agent.get("/v1/job?queue=lab").status, 204);
    bench.job();
    assert_eq!(agent.get("/v1/job?queue=lab").status, 200);
    assert_eq!(agent.get_without_cookie("/v1/job?queue=lab").status, 401);
}
