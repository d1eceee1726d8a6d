//! Every way in which a server can be slow, with limits that a test can wait
//! for.

use super::*;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

const SHORT: Duration = Duration::from_millis(300);
/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);
/// A slow machine is only slow.
const PATIENCE: Duration = Duration::from_secs(30);

/// No limit that a test reaches, but for those that it sets.
const NEVER: Limits = Limits {
    connect: LONG,
    stall: LONG,
    answer: LONG,
    body: LONG,
    uploaded: LONG,
    job: LONG,
};

/// A server with this manner; the scheme and `://` before its URL.
fn server(scheme: &str, serve: fn(TcpStream)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            thread::spawn(move || serve(client));
        }
    });
    format!("{scheme}{address}")
}

/// Reads a request up to the end of its head.
fn head(mut client: &TcpStream) {
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !seen.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).unwrap();
        seen.extend(byte);
    }
}

/// Nothing more, until the client goes away.
fn be_silent(mut client: TcpStream) {
    let _ = io::copy(&mut client, &mut io::sink());
}

/// A byte now and then, for ever.
fn trickle(mut client: TcpStream, bytes: &[u8]) {
    for byte in bytes.iter().chain(std::iter::repeat(&b' ')) {
        if client.write_all(&[*byte]).is_err() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn get(http: &Http, patience: Patience) -> Result<String, String> {
    let nobody = Credentials::default();
    http.send("GET", "/", nobody, Payload::Nothing, patience)
        .map_err(|failed| failed.cause)?
        .text(1 << 30)
}

fn send(http: &Http, length: Option<u64>, reader: &mut dyn Read) -> Result<Reply, NoAnswer> {
    let payload = Payload::Stream {
        content_type: "application/octet-stream",
        length,
        reader,
    };
    let nobody = Credentials::default();
    http.send("POST", "/", nobody, payload, Patience::LongAnswer)
}

fn upload(http: &Http, reader: &mut dyn Read) -> Result<String, String> {
    send(http, None, reader)
        .map_err(|failed| failed.cause)?
        .text(1 << 10)
}

/// It is given up after the short limit, for that reason.
fn in_time(what: &str, call: impl FnOnce() -> Result<String, String>) {
    let begun = Instant::now();
    let error = call().unwrap_err();
    let took = begun.elapsed();
    assert!(took >= SHORT && took < PATIENCE, "{what}: {took:?}");
    assert!(
        error.contains("it did not answer in time"),
        "{what}: {error}"
    );
}

fn client(server: &str, limits: Limits) -> Http {
    Http::with(server, &TlsFiles::default(), limits).unwrap()
}

#[test]
fn row_23_a_server_that_never_answers_is_given_up() {
    let url = server("http://", be_silent);
    let answer = Limits {
        answer: SHORT,
        ..NEVER
    };
    let http = client(&url, answer);
    in_time("call", || get(&http, Patience::Call));
    in_time("long answer", || get(&http, Patience::LongAnswer));
    let uploaded = Limits {
        uploaded: SHORT,
        ..NEVER
    };
    let http = client(&url, uploaded);
    in_time("upload", || upload(&http, &mut &b"some"[..]));
    let job = Limits {
        job: SHORT,
        // Of no matter here.
        answer: Duration::from_millis(1),
        ..NEVER
    };
    in_time("job", || get(&client(&url, job), Patience::Job));
}

#[test]
fn row_23_an_answer_byte_by_byte_is_given_up() {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\nX: ";
    let url = server("http://", |client| {
        head(&client);
        trickle(client, HEAD);
    });
    let answer = Limits {
        answer: SHORT,
        ..NEVER
    };
    in_time("head", || get(&client(&url, answer), Patience::Call));
    let url = server("http://", |mut client| {
        head(&client);
        client.write_all(HEAD).unwrap();
        client.write_all(b"y\r\n\r\n").unwrap();
        trickle(client, b"");
    });
    let body = Limits {
        body: SHORT,
        ..NEVER
    };
    in_time("body", || get(&client(&url, body), Patience::Call));
    let url = server("http://", |mut client| {
        head(&client);
        let head = b"HTTP/1.1 500 Oh\r\nContent-Length: 100000\r\n\r\n";
        client.write_all(head).unwrap();
        trickle(client, b"");
    });
    in_time("why not", || get(&client(&url, body), Patience::LongAnswer));
}

#[test]
fn row_23_the_answer_to_an_upload_and_a_job_byte_by_byte_are_given_up() {
    let url = server("http://", |mut client| {
        head(&client);
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
        client.write_all(head).unwrap();
        trickle(client, b"");
    });
    let body = Limits {
        body: SHORT,
        ..NEVER
    };
    let http = client(&url, body);
    in_time("upload", || upload(&http, &mut &b"some"[..]));
    let job = Limits {
        job: SHORT,
        ..NEVER
    };
    in_time("job", || get(&client(&url, job), Patience::Job));
}

#[test]
fn row_32_a_job_that_stalls_in_its_middle_is_waited_for() {
    let url = server("http://", |mut client| {
        head(&client);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\njo";
        client.write_all(answer).unwrap();
        thread::sleep(SHORT * 2);
        client.write_all(b"b!").unwrap();
    });
    let body = Limits {
        body: SHORT,
        ..NEVER
    };
    let http = client(&url, body);
    assert_eq!(get(&http, Patience::Job).as_deref(), Ok("job!"));
}

#[cfg(feature = "tls")]
#[test]
fn row_23_a_handshake_that_falls_silent_is_given_up() {
    let connect = Limits {
        connect: SHORT,
        ..NEVER
    };
    let url = server("https://", be_silent);
    in_time("silent", || get(&client(&url, connect), Patience::Call));
    // Half of what the server has to say: a record's head, and not all of it.
    let url = server("https://", |mut client| {
        client.write_all(&[0x16, 3, 3, 0, 90, 2, 0, 0, 86]).unwrap();
        be_silent(client);
    });
    in_time("half", || get(&client(&url, connect), Patience::Call));
    // The same byte by byte.
    let url = server("https://", |client| {
        trickle(client, &[0x16, 3, 3, 0x3f, 0xff, 2, 0, 0x3f, 0xfb]);
    });
    in_time("bytes", || get(&client(&url, connect), Patience::Job));
}

#[test]
fn row_23_an_upload_that_stalls_is_given_up() {
    let url = server("http://", |client| {
        head(&client);
        // Its buffers are full soon.
        thread::sleep(LONG);
    });
    let stall = Limits {
        stall: SHORT,
        ..NEVER
    };
    in_time("stall", || upload(&client(&url, stall), &mut io::repeat(0)));
}

/// Shorter than what follows takes, longer than any pause in it.
const PAUSES: Limits = Limits {
    connect: Duration::from_secs(2),
    stall: Duration::from_secs(2),
    answer: Duration::from_secs(2),
    body: Duration::from_secs(2),
    uploaded: Duration::from_secs(2),
    job: Duration::from_secs(2),
};
const MEGABYTE: usize = 1 << 20;

#[test]
fn a_slow_upload_is_not_cut_off() {
    // 64 MB at 8 MB/s, of which the kernel may hold some.
    let url = server("http://", |mut client| {
        head(&client);
        let mut buffer = vec![0; MEGABYTE];
        let (begun, mut end) = (Instant::now(), Vec::new());
        while end != b"0\r\n\r\n" {
            let read = client.read(&mut buffer).unwrap();
            assert!(read > 0, "it is cut off");
            end.extend_from_slice(&buffer[read.saturating_sub(5)..read]);
            end.drain(..end.len().saturating_sub(5));
            thread::sleep(Duration::from_secs_f64(read as f64 / 8e6));
        }
        assert!(begun.elapsed() > PAUSES.stall * 3);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";
        client.write_all(answer).unwrap();
    });
    let begun = Instant::now();
    let whole = &mut io::repeat(1).take(64 * MEGABYTE as u64);
    let answer = upload(&client(&url, PAUSES), whole);
    assert_eq!(answer.as_deref(), Ok("OK"));
    assert!(begun.elapsed() > PAUSES.stall * 3);
}

#[test]
fn a_slow_long_answer_is_not_cut_off() {
    let url = server("http://", |mut client| {
        head(&client);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\n";
        client.write_all(answer).unwrap();
        for _ in 0..70 {
            thread::sleep(Duration::from_millis(100));
            client.write_all(b"x").unwrap();
        }
    });
    let answer = get(&client(&url, PAUSES), Patience::LongAnswer).unwrap();
    assert_eq!(answer, "x".repeat(70));
}

/// What this process has: threads and descriptors.
#[cfg(feature = "tls")]
fn possessions() -> (usize, usize) {
    let count = |what: &str| std::fs::read_dir(what).unwrap().count();
    (count("/proc/self/task"), count("/proc/self/fd"))
}

/// In a process of its own: other tests have threads and descriptors, too.
#[cfg(feature = "tls")]
#[test]
fn row_23_fifty_time_outs_leave_no_thread_and_no_descriptor() {
    const SILENT: &str = "TESTFLINGER_TEST_SILENT_SERVER";
    if let Ok(url) = std::env::var(SILENT) {
        let connect = Limits {
            connect: Duration::from_millis(100),
            ..NEVER
        };
        let http = client(&url, connect);
        let time_out = |patience| get(&http, patience).unwrap_err();
        assert_eq!(time_out(Patience::Call), "it did not answer in time");
        assert_eq!(time_out(Patience::LongAnswer), "it did not answer in time");
        let before = possessions();
        for _ in 0..25 {
            time_out(Patience::Call);
            time_out(Patience::LongAnswer);
        }
        let after = possessions();
        println!("threads and descriptors: {before:?}, after 50 time-outs {after:?}");
        assert_eq!(after, before);
        return;
    }
    // Nobody accepts: it is the kernel that lets the client connect.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = thread::current().name().unwrap().to_owned();
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture"])
        .env(
            SILENT,
            format!("https://{}", listener.local_addr().unwrap()),
        )
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    println!("{said}");
    assert!(child.status.success(), "{child:?}");
    assert!(said.contains("after 50 time-outs"), "{said}");
}

/// Says this as soon as there is a head, and closes with the rest unread.
fn interrupt(mut client: TcpStream, answer: &str) {
    head(&client);
    client.write_all(answer.as_bytes()).unwrap();
}

#[test]
fn what_a_server_says_before_it_closes_is_read() {
    let url = server("http://", |client| {
        interrupt(
            client,
            "HTTP/1.1 411 Length Required\r\nContent-Length: 3\r\n\r\nwhy",
        );
    });
    let http = client(&url, NEVER);
    let length = 1 << 30;
    for length in [None, Some(length)] {
        let mut endless = io::repeat(1).take(1 << 30);
        let reply = send(&http, length, &mut endless).unwrap();
        assert_eq!(reply.status, 411);
        assert_eq!(reply.text(10).as_deref(), Ok("why"));
        assert!(endless.limit() > 0, "it was not read to its end");
    }
}

#[test]
fn who_has_not_read_everything_has_not_got_it() {
    let url = server("http://", |client| {
        interrupt(client, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK");
    });
    let failed = send(&client(&url, NEVER), None, &mut io::repeat(1)).unwrap_err();
    assert_eq!(failed.cause, "the connection was cut");
    assert!(failed.was_cut);
}

/// Notes when it came to its end.
struct Ending<R>(R, Option<Instant>);

impl<R: Read> Read for Ending<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        if read == 0 {
            self.1.get_or_insert_with(Instant::now);
        }
        Ok(read)
    }
}

#[test]
fn what_is_still_in_the_kernel_is_waited_for() {
    let url = server("http://", |mut client| {
        head(&client);
        let (mut buffer, mut end) = ([0; 8 << 10], Vec::new());
        while !end.ends_with(b"0\r\n\r\n") {
            let read = client.read(&mut buffer).unwrap();
            assert!(read > 0, "it is cut off");
            end = buffer[..read].to_vec();
            thread::sleep(Duration::from_millis(60));
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";
        client.write_all(answer).unwrap();
    });
    let uploaded = Limits {
        uploaded: Duration::from_secs(2),
        ..NEVER
    };
    let mut body = Ending(io::repeat(1).take(MEGABYTE as u64), None);
    let answer = upload(&client(&url, uploaded), &mut body);
    assert_eq!(answer.as_deref(), Ok("OK"));
    let waited = body.1.unwrap().elapsed();
    assert!(
        waited > uploaded.uploaded,
        "{waited:?}: the kernel held too little"
    );
}
