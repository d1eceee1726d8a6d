//! Connections and bodies: what HTTP allows, what it forbids, and what happens
//! when a connection breaks.

use super::Bench;
use super::client::Client;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use testflinger_agent::job::Phase;
use testflinger_agent::local::Options;

const FORM: &str = "multipart/form-data; boundary=b1";

fn form(name: &str, content: &str) -> String {
    format!(
        "--b1\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"a.tar.gz\"\r\n\
         Content-Type: application/gzip\r\n\r\n{content}\r\n--b1--\r\n"
    )
}

#[test]
fn artifacts_are_taken_whole_or_not_at_all() {
    let bench = Bench::start();
    let mut agent = Client::agent(&bench.server);
    let job = bench.job();
    let path = format!("/v1/result/{job}/artifact");
    assert_eq!(agent.post_as(&path, FORM, &form("other", "x")).status, 400);
    assert_eq!(agent.post_as(&path, "application/gzip", "raw").status, 400);
    assert_eq!(
        agent
            .post_as("/v1/result/x/artifact", FORM, &form("file", "x"))
            .status,
        400
    );
    assert_eq!(bench.server.artifact(&job), None);

    let first = "0123456789abcdef\r\n--b\r\n".repeat(40_000);
    assert_eq!(
        agent.post_as(&path, FORM, &form("file", &first)).status,
        200
    );
    let file = bench.server.artifact(&job).unwrap();
    assert!(std::fs::read(&file).unwrap() == first.as_bytes());
    assert_eq!(
        agent
            .post_chunked(&path, FORM, &form("file", "second"))
            .status,
        200
    );
    assert_eq!(std::fs::read(&file).unwrap(), b"second");

    // An upload that breaks off changes nothing.
    let body = form("file", "third");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: {FORM}\r\n{}Content-Length: {}\r\n\r\n",
        agent.token(),
        body.len()
    );
    agent.send(&[head.as_bytes(), &body.as_bytes()[..body.len() - 1]].concat());
    drop(agent);
    let mut user = Client::connect(&bench.server);
    let artifact = user.get(&path);
    assert_eq!(artifact.header("content-encoding"), "gzip");
    assert_eq!(artifact.body, "second");
}

#[test]
fn a_request_cut_short_is_not_stored() {
    let bench = Bench::start();
    let mut agent = Client::agent(&bench.server);
    let job = bench.job();
    let body = r#"{"job_state": "test"}"#;
    let head = format!(
        "POST /v1/result/{job} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n\
         {}Content-Length: {}\r\n\r\n{body}",
        agent.token(),
        body.len() + 1
    );
    agent.send(head.as_bytes());
    agent.hang_up();
    assert!(agent.is_closed());
    assert_eq!(bench.server.job_state(&job).as_deref(), Some("waiting"));
}

#[test]
fn what_is_not_http_is_refused_and_ends_the_connection() {
    let bench = Bench::start();
    for request in [
        "GET /v1 HTTP/1.0\r\n\r\n",
        "nonsense\r\n\r\n",
        "GET /v1 HTTP/1.1\r\n\r\n",
        "POST /v1/job HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST /v1/job HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
    ] {
        let mut client = Client::connect(&bench.server);
        assert_eq!(client.raw(request.as_bytes()).status, 400, "{request}");
        assert!(client.is_closed(), "{request}");
    }
}

#[test]
fn a_silent_connection_is_closed() {
    let bench = Bench::with(Options {
        keep_alive: Duration::from_millis(50),
        ..Options::default()
    });
    let mut client = Client::connect(&bench.server);
    assert_eq!(client.get("/v1").status, 200);
    assert!(client.is_closed());
}

#[test]
fn a_client_may_ask_before_it_sends() {
    let bench = Bench::start();
    let mut client = Client::connect(&bench.server);
    let ask = |path: &str, length: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n\
             Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let body = r#"{"job_queue": "lab"}"#;
    let answer = client.raw(ask("/v1/job", body.len()).as_bytes());
    assert_eq!(answer.status, 100);
    assert_eq!(client.raw(body.as_bytes()).status, 200);
    // Who is refused is not asked for the body.
    let answer = client.raw(ask("/v1/agents/queues", 1_000_000).as_bytes());
    assert_eq!(answer.status, 403);
    assert_eq!(answer.header("connection"), "close");
    assert!(client.is_closed());
}

#[test]
fn a_script_answers_first_and_everything_is_remembered() {
    let bench = Bench::start();
    let mut agent = Client::agent(&bench.server);
    let job = bench.job();
    let path = format!("/v1/result/{job}");
    bench
        .server
        .answer("POST", "/v1/result/*", 2, 500, "broken");
    let wait = [("Retry-After", "7")];
    bench.server.answer_with("*", "/v1/job", 1, 429, &wait, "");
    for status in [500, 500, 200] {
        assert_eq!(agent.post(&path, r#"{"job_state": "test"}"#).status, status);
    }
    let answer = agent.get("/v1/job?queue=lab");
    assert_eq!((answer.status, answer.header("retry-after")), (429, "7"));
    let exchanges = bench.server.exchanges();
    let statuses: Vec<u16> = exchanges.iter().map(|exchange| exchange.status).collect();
    assert_eq!(statuses, [200, 500, 500, 200, 429]);
    let last = exchanges.last().unwrap();
    assert_eq!(
        (last.method.as_str(), last.path.as_str()),
        ("GET", "/v1/job?queue=lab")
    );
    assert!(last.has_cookie);
    assert_eq!(exchanges[1].request_body, r#"{"job_state": "test"}"#);
}

#[test]
fn somebody_may_watch_and_wait() {
    let bench = Bench::start();
    let mut agent = Client::agent(&bench.server);
    let job = bench.job();
    let (sender, receiver) = mpsc::channel();
    bench.server.on_output(move |job, phase, text| {
        let told = (job.to_owned(), phase, text.to_owned());
        sender.send(told).unwrap();
    });
    let path = format!("/v1/result/{job}/log/output");
    let poster = std::thread::spawn(move || {
        for (number, text) in [(1, "a\\n"), (0, "\\u00e9")] {
            let body = format!(
                "{{\"fragment_number\": {number}, \"timestamp\": \"2026-11-22T10:49:01\", \
                 \"phase\": \"setup\", \"log_data\": \"{text}\"}}"
            );
            assert_eq!(agent.post(&path, &body).status, 200);
        }
    });
    let both = bench.server.wait_for(Duration::from_secs(10), |view| {
        view.output(&job, Phase::Setup) == "éa\n"
    });
    poster.join().unwrap();
    assert!(both);
    let told: Vec<String> = receiver.try_iter().map(|(_, _, text)| text).collect();
    assert_eq!(told, ["a\n", "é"]);
    assert!(
        !bench
            .server
            .wait_for(Duration::ZERO, |view| view.has_artifact(&job))
    );
    let fragments = bench.server.fragments(&job);
    let lengths: Vec<u64> = fragments.iter().map(|fragment| fragment.length).collect();
    assert_eq!(lengths, [2, 2]);
}

#[test]
fn everything_ends_with_the_server() {
    let bench = Bench::start();
    let mut idle = Client::connect(&bench.server);
    let mut waiting = Client::connect(&bench.server);
    assert_eq!(idle.get("/v1").status, 200);
    waiting.send(b"POST /v1/job HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n");
    let start = Instant::now();
    drop(bench);
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(idle.is_closed() && waiting.is_closed());
}

#[test]
fn a_flood_of_logs_is_stored() {
    let bench = Bench::start();
    let mut agent = Client::agent(&bench.server);
    let job = bench.job();
    let line = format!("{}\\n", "x".repeat(79));
    let text = line.repeat(512 * 1024 / 80);
    for number in 0..8 {
        let body = format!(
            "{{\"fragment_number\": {number}, \"timestamp\": \"2026-11-22T10:49:01\", \
             \"phase\": \"test\", \"log_data\": \"{text}\"}}"
        );
        let path = format!("/v1/result/{job}/log/output");
        assert_eq!(agent.post(&path, &body).status, 200);
    }
    let result = agent.get(&format!("/v1/result/{job}")).body;
    assert!(result.len() > 8 * text.len());
    assert!(result.ends_with(r#"", "job_state": "waiting"}"#));
    let length = bench.server.output(&job, Phase::Test).len();
    assert_eq!(length, 8 * 80 * (512 * 1024 / 80));
}
