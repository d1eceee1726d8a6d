//! What an agent serves, as somebody sees it who looks.

use crate::support::lab::{Agent, PATIENCE, wait_until};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Where an agent serves its metrics.
pub(crate) fn place(agent: &Agent) -> SocketAddr {
    agent.wait_for_log("metrics are at http://");
    let log = agent.log();
    let (_, rest) = log.rsplit_once("metrics are at http://").unwrap();
    rest.split('/').next().unwrap().parse().unwrap()
}

/// Sends a request, and reads all of the answer.
pub(crate) fn ask(place: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(place).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Who is refused in the middle of a long request may not read the rest.
    let _ = stream.write_all(request);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub(crate) fn get(place: SocketAddr, path: &str) -> String {
    ask(
        place,
        format!("GET {path} HTTP/1.1\r\nHost: lab\r\n\r\n").as_bytes(),
    )
}

/// The metrics, which are well-formed.
pub(crate) fn page(place: SocketAddr) -> String {
    let answer = get(place, "/metrics");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
    for line in body.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let (name, labels) = series.split_once('{').unwrap();
        let family = ["_bucket", "_count", "_sum"].iter().find_map(|end| {
            let base = name.strip_suffix(end)?;
            body.contains(&format!("# TYPE {base} ")).then_some(base)
        });
        let family = family.unwrap_or(name);
        assert_eq!(
            body.matches(&format!("# TYPE {family} ")).count(),
            1,
            "{line}"
        );
        assert!(
            labels.starts_with("agent_id=\"") && labels.ends_with("\"}"),
            "{line}"
        );
    }
    body.to_owned()
}

/// The value of one series, if it is there.
pub(crate) fn value(page: &str, series: &str) -> Option<f64> {
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

/// Waits until a series has this value.
pub(crate) fn wait_for_value(place: SocketAddr, series: &str, wanted: f64) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let page = page(place);
        if value(&page, series) == Some(wanted) {
            return page;
        }
        assert!(
            Instant::now() < deadline,
            "in vain: {series} {wanted}\n{page}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until `/healthz` says this.
pub(crate) fn wait_for_health(place: SocketAddr, status: &str, reason: &str) {
    wait_until(&format!("{status} {reason}"), || {
        let health = get(place, "/healthz");
        health.starts_with(&format!("HTTP/1.1 {status}")) && health.contains(reason)
    });
}
