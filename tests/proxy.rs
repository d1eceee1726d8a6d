//! The proxy of the other tests does what they ask of it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};
use support::proxy::{Fault, Outcome, Proxy, Seen};

/// Long enough for anything that happens at all.
const SOON: Duration = Duration::from_secs(20);

/// What the server got: the first line, the bytes after the head, and whether
/// that was all of the request.
type Got = (String, usize, bool);

/// A server that reads requests with a `Content-Length` or in chunks and says
/// how many bytes of body there were; in chunks when the path is `/chunks`, and
/// before it reads any when the path is `/early`.
struct Server {
    address: SocketAddr,
    got: Receiver<Got>,
}

impl Server {
    fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, got) = mpsc::channel();
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let sender = sender.clone();
                thread::spawn(move || while serve_one(&client, &sender).is_ok() {});
            }
        });
        Server { address, got }
    }

    fn got(&self) -> Got {
        self.got.recv_timeout(SOON).unwrap()
    }
}

fn serve_one(mut client: &TcpStream, got: &Sender<Got>) -> io::Result<()> {
    let mut reader = BufReader::new(client);
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let first = first.trim_end().to_owned();
    let mut length = Some(0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            let _ = got.send((first, 0, false));
            return Err(ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end().split_once(": ") {
            Some(("Content-Length", value)) => length = value.parse().ok(),
            Some(("Transfer-Encoding", _)) => length = None,
            Some(_) => {}
            None => break,
        }
    }
    if first.contains("/early") {
        client.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")?;
    }
    let (read, whole) = match length {
        Some(length) => {
            let read = io::copy(&mut reader.take(length), &mut io::sink())?;
            (read, read == length)
        }
        None => {
            let mut body = Vec::new();
            while !body.ends_with(b"0\r\n\r\n") && reader.read_until(b'\n', &mut body)? > 0 {}
            (body.len() as u64, body.ends_with(b"0\r\n\r\n"))
        }
    };
    let read = usize::try_from(read).unwrap();
    let _ = got.send((first.clone(), read, whole));
    if !whole {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    if first.contains("/early") {
        return Ok(());
    }
    let text = format!("{read} bytes");
    let length = text.len();
    if first.contains("/chunks") {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked";
        write!(client, "{head}\r\n\r\n{length:x}\r\n{text}\r\n0\r\n\r\n")
    } else {
        let head = "HTTP/1.1 200 OK\r\nContent-Length";
        write!(client, "{head}: {length}\r\n\r\n{text}")
    }
}

fn pair() -> (Server, Proxy, TcpStream) {
    let server = Server::start();
    let proxy = Proxy::start(server.address);
    let client = connect(&proxy);
    (server, proxy, client)
}

fn connect(proxy: &Proxy) -> TcpStream {
    let client = TcpStream::connect(proxy.address()).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client
}

fn send(mut client: &TcpStream, method: &str, path: &str, body: &str) {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}");
    write!(client, "{head}\r\n\r\n{body}").unwrap();
}

/// Reads until the answer has ended like this.
fn answer(client: &TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut reader = BufReader::with_capacity(1, client);
    while !text.ends_with(end) {
        let [byte] = *reader.fill_buf().unwrap() else {
            panic!("{text:?} does not end in {end:?}");
        };
        text.push(byte.into());
        reader.consume(1);
    }
    text
}

/// The connection has ended, and nothing came over it before.
fn assert_closed(mut client: &TcpStream) {
    match client.read(&mut [0; 100]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}"),
    }
}

fn seen(method: &str, path: &str, outcome: Outcome) -> Seen {
    Seen {
        method: method.to_owned(),
        path: path.to_owned(),
        outcome,
    }
}

#[test]
fn what_meets_no_fault_passes_and_the_connection_stays() {
    let (server, proxy, mut client) = pair();
    assert_eq!(proxy.url(), format!("http://{}", proxy.address()));
    send(&client, "GET", "/one?x=1", "");
    assert!(answer(&client, "0 bytes").starts_with("HTTP/1.1 200 OK\r\n"));
    send(&client, "POST", "/chunks", "12345");
    assert!(answer(&client, "0\r\n\r\n").contains("7\r\n5 bytes\r\n"));
    let head = "PUT /two HTTP/1.1\r\nTransfer-Encoding: chunked";
    write!(
        client,
        "{head}\r\n\r\n5;x=y\r\nab\r\nc\r\n1\r\nd\r\n0\r\n\r\n"
    )
    .unwrap();
    answer(&client, "25 bytes");

    let first = ("GET /one?x=1 HTTP/1.1".to_owned(), 0, true);
    assert_eq!(server.got(), first);
    let status = Outcome::Status(200);
    assert_eq!(
        proxy.seen(),
        [
            seen("GET", "/one?x=1", status.clone()),
            seen("POST", "/chunks", status.clone()),
            seen("PUT", "/two", status),
        ]
    );
}

#[test]
fn a_big_body_passes_in_pieces() {
    const LENGTH: usize = 48 << 20;
    let (server, _proxy, mut client) = pair();
    write!(
        client,
        "POST /big HTTP/1.1\r\nContent-Length: {LENGTH}\r\n\r\n"
    )
    .unwrap();
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..LENGTH / piece.len() {
        client.write_all(&piece).unwrap();
    }
    answer(&client, &format!("{LENGTH} bytes"));
    assert_eq!(server.got().1, LENGTH);
}

#[test]
fn an_answer_may_come_before_the_request_has_ended() {
    let (server, _proxy, mut client) = pair();
    write!(client, "POST /early HTTP/1.1\r\nContent-Length: 2\r\n\r\n").unwrap();
    assert!(answer(&client, "\r\n\r\n").starts_with("HTTP/1.1 413 "));
    write!(client, "ab").unwrap();
    assert!(server.got().2);
    send(&client, "GET", "/next", "");
    answer(&client, "0 bytes");
}

#[test]
fn a_request_is_cut_before_its_end() {
    let (server, proxy, client) = pair();
    proxy.on("POST", "/*", 1, Fault::CutRequest(1));
    send(&client, "POST", "/x", "12345");
    assert_closed(&client);
    assert_eq!(server.got(), ("POST /x HTTP/1.1".to_owned(), 4, false));

    proxy.on("POST", "/*", 1, Fault::CutRequest(7));
    let client = connect(&proxy);
    send(&client, "POST", "/x", "12345");
    assert_closed(&client);
    assert!(!server.got().2);

    let client = connect(&proxy);
    send(&client, "POST", "/x", "12345");
    answer(&client, "5 bytes");
    let outcomes: Vec<_> = proxy.seen().into_iter().map(|seen| seen.outcome).collect();
    assert_eq!(
        outcomes,
        [
            Outcome::Fault(Fault::CutRequest(1)),
            Outcome::Fault(Fault::CutRequest(7)),
            Outcome::Status(200)
        ]
    );
}

#[test]
fn a_reply_is_lost_after_the_server_has_done_its_work() {
    let (server, proxy, client) = pair();
    proxy.on("POST", "/v1/*/log", 1, Fault::DropReply);
    send(&client, "POST", "/v1/a/log", "12345");
    assert_closed(&client);
    assert!(server.got().2);
    let lost = seen("POST", "/v1/a/log", Outcome::Fault(Fault::DropReply));
    assert_eq!(proxy.seen(), [lost]);
}

#[test]
fn the_proxy_answers_in_the_place_of_the_server() {
    let (server, proxy, client) = pair();
    proxy.on(
        "*",
        "/x",
        1,
        Fault::Answer {
            status: 503,
            headers: vec![("Retry-After".to_owned(), "7".to_owned())],
            body: b"later".to_vec(),
        },
    );
    send(&client, "POST", "/x", "12345");
    let text = answer(&client, "later");
    assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
    assert!(text.contains("\r\nRetry-After: 7\r\n"), "{text}");
    send(&client, "GET", "/x", "");
    answer(&client, "0 bytes");
    assert_eq!(server.got().0, "GET /x HTTP/1.1");
    assert_eq!(proxy.seen()[0].outcome, Outcome::Status(503));
}

#[test]
fn a_request_hangs_until_it_is_released() {
    let (server, proxy, client) = pair();
    proxy.on("GET", "*", usize::MAX, Fault::Hang);
    send(&client, "GET", "/x", "");
    proxy.wait_for("GET", "/x", 1, SOON);
    assert!(server.got.try_recv().is_err());
    client
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let error = (&client).read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    client.set_read_timeout(Some(SOON)).unwrap();

    proxy.release();
    assert_closed(&client);
    proxy.clear();
    let client = connect(&proxy);
    send(&client, "GET", "/x", "");
    answer(&client, "0 bytes");
}

#[test]
fn a_request_is_delayed() {
    let delay = Duration::from_millis(100);
    let (_server, proxy, client) = pair();
    proxy.on("GET", "/x", 1, Fault::Delay(delay));
    let start = Instant::now();
    send(&client, "GET", "/x?y", "");
    proxy.wait_for_arrival("GET", "/x", 1, SOON);
    answer(&client, "0 bytes");
    assert!(start.elapsed() >= delay);
    proxy.wait_for("GET", "/x?y", 1, SOON);
}

#[test]
fn a_server_that_is_down_refuses_and_comes_back() {
    let (_server, proxy, client) = pair();
    proxy.on("GET", "/hang", usize::MAX, Fault::Hang);
    send(&client, "GET", "/hang", "");
    proxy.wait_for("GET", "/hang", 1, SOON);
    for _ in 0..3 {
        let idle = connect(&proxy);
        proxy.set_down(true);
        assert_closed(&idle);
        let error = TcpStream::connect(proxy.address()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        proxy.set_down(false);
        let client = connect(&proxy);
        send(&client, "GET", "/x", "");
        answer(&client, "0 bytes");
    }
    assert_closed(&client);
}

#[test]
fn the_end_of_the_proxy_ends_its_connections() {
    let (_server, proxy, client) = pair();
    proxy.on("GET", "*", 1, Fault::Hang);
    send(&client, "GET", "/x", "");
    proxy.wait_for("GET", "/x", 1, SOON);
    drop(proxy);
    assert_closed(&client);
}

#[test]
fn a_server_that_closes_without_an_answer_is_passed_on() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap());
    let client = connect(&proxy);
    send(&client, "GET", "/x", "");
    drop(listener.accept().unwrap());
    assert_closed(&client);
    assert_eq!(proxy.seen(), [seen("GET", "/x", Outcome::Broken)]);
}
