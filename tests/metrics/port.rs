//! The port: who is served, and who is not.

use crate::page::{ask, get, page, place, value, wait_for_health};
use crate::support::lab::{Lab, PATIENCE, wait_until};
use crate::support::means::is_native;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

#[test]
fn eight_slow_clients_keep_the_ninth_out_for_five_seconds_and_delay_no_timeout() {
    let lab = Lab::new()
        .metrics("0")
        .set("global_timeout", "2")
        .command("test", "echo running; sleep 60");
    let agent = lab.agent();
    let place = place(&agent);
    let begun = Instant::now();
    // Those never stop talking, and are not listened to for long.
    for _ in 0..8 {
        let mut stream = TcpStream::connect(place).unwrap();
        std::thread::spawn(move || while stream.write_all(&[b'x'; 4096]).is_ok() {});
    }
    let mut slow: Vec<_> = (0..8).map(|_| TcpStream::connect(place).unwrap()).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    }
    let job = lab.submit_test();
    let answer = get(place, "/metrics");
    let waited = begun.elapsed();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(
        waited >= Duration::from_secs(4),
        "there was room for a ninth: {waited:?}"
    );
    assert!(waited < Duration::from_secs(30), "{waited:?}");
    for stream in &mut slow {
        let mut rest = Vec::new();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Reset or closed, but not left open.
        let end = stream.read_to_end(&mut rest).map_err(|error| error.kind());
        assert!(
            !matches!(end, Err(std::io::ErrorKind::WouldBlock)),
            "{end:?}"
        );
    }
    lab.wait_until_complete(&job);
    assert_eq!(lab.status(&job, "test"), Some(247));
    let sum = r#"phase_duration_seconds_sum{agent_id="lab-agent",test_phase="test",identifier="",release="unknown"}"#;
    let lasted = value(&page(place), sum).unwrap();
    // Its command would have taken a minute.
    assert!((2.0..30.0).contains(&lasted), "{lasted} s");
}

#[test]
fn garbage_and_huge_requests_are_refused_and_harm_nobody() {
    let lab = Lab::new().metrics("127.0.0.1:0").command("test", "true");
    let agent = lab.agent();
    let place = place(&agent);
    let huge = [b"GET /metrics HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 1 << 20]].concat();
    for (request, status) in [
        (b"GET /nothing HTTP/1.1\r\n\r\n".as_slice(), "404"),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", "405"),
        (b"\xff\xfe\x00\x01\r\n\r\n", "400"),
        (b"\n\n", "400"),
        (&huge, "431"),
    ] {
        let answer = ask(place, request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    }
    let head = ask(place, b"HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    drop(TcpStream::connect(place).unwrap());
    let job = lab.submit_test();
    lab.wait_until_complete(&job);
    page(place);
}

#[test]
fn a_port_that_cannot_be_had_is_said_and_the_agent_works_without() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port().to_string();
    // The second address is of a network for documentation (RFC 5737).
    for (place, reason) in [
        (port.as_str(), "in use"),
        ("192.0.2.1:8000", "(os error 99)"),
    ] {
        let lab = Lab::new().metrics(place).command("test", "true");
        let job = lab.submit_test();
        let agent = lab.agent();
        lab.wait_until_complete(&job);
        let log = agent.log();
        let line = log
            .lines()
            .find(|line| line.contains("cannot serve metrics at "))
            .unwrap();
        assert!(line.contains("ERROR") && line.contains(reason), "{line}");
    }
}

#[test]
fn metrics_are_served_over_ipv6() {
    if TcpListener::bind("[::1]:0").is_err() {
        println!("skipped: needs IPv6");
        return;
    }
    let lab = Lab::new().metrics("[::1]:0");
    let agent = lab.agent();
    let place = place(&agent);
    assert!(place.is_ipv6());
    page(place);
}

#[test]
fn an_agent_that_begins_anew_has_its_port_again() {
    if !is_native("the agent cannot become a new image of a foreign binary") {
        return;
    }
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let lab = Lab::new().metrics(&free.to_string());
    let agent = lab.agent();
    wait_for_health(place(&agent), "200", "ok");
    // Somebody is connected all the time.
    let _client = TcpStream::connect(free).unwrap();
    agent.signal("HUP");
    agent.wait_for_log("beginning anew");
    wait_until("the port is had again", || {
        agent.log().matches("metrics are at").count() == 2
    });
    assert!(!agent.log().contains("cannot serve"), "{}", agent.log());
    wait_for_health(free, "200", "ok");
}
