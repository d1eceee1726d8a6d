//! Labs whose way to the server leads through a proxy.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use support::lab::{Lab, program, quoted};
use support::tls::{Authority, NOW, Terminator, server};
use testflinger_agent::job::Phase;

/// A proxy that knows one server, whatever it is called.
struct Tunnel {
    address: SocketAddr,
    /// The heads of the requests.
    seen: Arc<Mutex<Vec<String>>>,
}

impl Tunnel {
    /// To this server; with an answer of its own instead, if there is one.
    fn to(server: SocketAddr, answer: Option<&'static str>) -> Tunnel {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let heads = Arc::clone(&seen);
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let heads = Arc::clone(&heads);
                thread::spawn(move || serve(&stream, server, answer, &heads));
            }
        });
        Tunnel { address, seen }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(
    client: &TcpStream,
    server: SocketAddr,
    answer: Option<&str>,
    heads: &Mutex<Vec<String>>,
) -> Option<()> {
    let mut head = String::new();
    // Nothing is sent before the answer: the buffer holds no more than the head.
    let mut reader = BufReader::new(client);
    while !head.ends_with("\r\n\r\n") {
        (reader.read_line(&mut head).ok()? > 0).then_some(())?;
    }
    heads.lock().unwrap().push(head);
    let mut to_client = client;
    if let Some(answer) = answer {
        return to_client.write_all(answer.as_bytes()).ok();
    }
    let server = TcpStream::connect(server).ok()?;
    to_client
        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .ok()?;
    thread::scope(|scope| {
        scope.spawn(|| pump(client, &server));
        pump(&server, client);
    });
    Some(())
}

fn pump(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

fn do_a_job(lab: &Lab) {
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Test), "tested\n", "{}", agent.log());
    assert!(lab.server.artifact(&job).is_some());
}

fn lab() -> Lab {
    Lab::new().command("test", "echo tested; mkdir artifacts; echo x > artifacts/x")
}

#[test]
fn a_job_comes_and_goes_through_a_proxy() {
    let lab = lab();
    let tunnel = Tunnel::to(lab.server.address(), None);
    let proxy = format!("http://lab:pass%20word@{}", tunnel.address);
    let lab = lab
        .behind("http://testflinger.example:8000")
        .environment("http_proxy", &proxy)
        .environment("no_proxy", "elsewhere.example");
    do_a_job(&lab);
    let seen = tunnel.seen();
    assert!(!seen.is_empty());
    for head in seen {
        assert!(
            head.starts_with("CONNECT testflinger.example:8000 HTTP/1.1\r\n"),
            "{head}"
        );
        // As `printf 'lab:pass word' | base64` has it.
        let credentials = "Proxy-Authorization: Basic bGFiOnBhc3Mgd29yZA==\r\n";
        assert!(head.contains(credentials), "{head}");
        assert!(!head.contains("Bearer"), "{head}");
    }
}

#[test]
fn tls_goes_through_a_proxy_to_the_server_itself() {
    let authority = Authority::new();
    let identity = authority.issue(&["testflinger.example"], NOW);
    let lab = lab();
    let terminator = Terminator::start(lab.server.address(), server(&identity, None));
    let address = terminator
        .url()
        .split_once("://")
        .unwrap()
        .1
        .parse()
        .unwrap();
    let tunnel = Tunnel::to(address, None);
    let ca = lab.scratch.path("ca.pem");
    std::fs::write(&ca, &authority.certificate).unwrap();
    let lab = lab
        .behind("https://testflinger.example")
        .set("ca_certificate", &quoted(ca.to_str().unwrap()))
        .environment("HTTPS_PROXY", &tunnel.address.to_string());
    do_a_job(&lab);
    let seen = tunnel.seen();
    let is_right = |head: &String| head.starts_with("CONNECT testflinger.example:443 HTTP/1.1\r\n");
    assert!(!seen.is_empty() && seen.iter().all(is_right), "{seen:?}");
}

/// It is TLS as far as the proxy, whatever the server speaks.
#[test]
fn a_job_comes_and_goes_through_a_proxy_that_speaks_tls() {
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"], NOW);
    let lab = lab();
    let tunnel = Tunnel::to(lab.server.address(), None);
    let terminator = Terminator::start(tunnel.address, server(&identity, None));
    let port = terminator.url().rsplit_once(':').unwrap().1.to_owned();
    let ca = lab.scratch.path("ca.pem");
    std::fs::write(&ca, &authority.certificate).unwrap();
    let lab = lab
        .behind("http://testflinger.example:8000")
        .set("ca_certificate", &quoted(ca.to_str().unwrap()))
        .environment(
            "http_proxy",
            &format!("https://lab:secret@localhost:{port}"),
        )
        // Which has no certificates of its own.
        .environment("INFLUX_HOST", "influx.example");
    do_a_job(&lab);
    assert!(!tunnel.seen().is_empty());
}

#[test]
fn a_proxy_that_does_not_lead_there_is_named_and_tried_again() {
    let lab = lab();
    let answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    let tunnel = Tunnel::to(lab.server.address(), Some(answer));
    let lab = lab
        .behind("http://testflinger.example")
        .environment("http_proxy", &format!("http://{}", tunnel.address));
    let agent = lab.agent();
    agent.wait_for_log(&format!(
        "cannot reach http://testflinger.example: the proxy does not lead there: proxy server \
         responded 403/403 (by the proxy {}); trying again",
        tunnel.address
    ));
    // Nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let lab = Lab::new()
        .behind("http://testflinger.example")
        .environment("all_proxy", &format!("http://user:secret@{address}"));
    let agent = lab.agent();
    agent.wait_for_log(&format!(
        "it refused the connection (by the proxy {address}); trying again"
    ));
    assert!(!agent.log().contains("secret"), "{}", agent.log());
}

#[test]
fn a_job_file_runs_without_the_proxy_and_a_wrong_one_is_refused() {
    let lab = Lab::new();
    let config = lab.scratch.path("conf");
    let text = lab
        .configuration("a")
        .replace(&lab.server.url(), "https://testflinger.example");
    std::fs::write(&config, text).unwrap();
    std::fs::write(
        lab.scratch.path("job"),
        "{\"test_data\": {\"test_cmds\": \"echo x\"}}",
    )
    .unwrap();
    let words = program();
    let run = |arguments: &[&str], value: &str| {
        Command::new(&words[0])
            .args(&words[1..])
            .args(arguments)
            .current_dir(lab.scratch.path(""))
            .env("http_proxy", value)
            .env("https_proxy", value)
            .output()
            .unwrap()
    };
    let ended = run(
        &["--check", "-c", "conf"],
        "socks5://user:secret@127.0.0.1:1",
    );
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(2), "{said}");
    assert!(said.contains("https_proxy does not name a proxy"), "{said}");
    assert!(!said.contains("secret"), "{said}");
    let ended = run(&["run", "job"], "http://127.0.0.1:9");
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}
