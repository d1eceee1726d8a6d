//! InfluxDB, played by a small HTTP server.

use crate::support::lab::{Lab, wait_until};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use testflinger_agent::job::Phase;

/// What it was asked: the first line of the request, its other headers, its body.
#[derive(Clone, Debug)]
struct Request {
    line: String,
    headers: String,
    body: String,
}

/// A database that answers as it is told to; without an answer it hangs.
struct Database {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
}

type Answer = fn(&[Request]) -> Option<u16>;

impl Database {
    fn start(address: &str, answer: Answer) -> Database {
        let listener = TcpListener::bind(address).unwrap();
        let database = Database {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
        };
        let seen = Arc::clone(&database.seen);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, seen) = (stream.unwrap(), Arc::clone(&seen));
                thread::spawn(move || while serve(&stream, &seen, answer).is_some() {});
            }
        });
        database
    }

    fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// All points so far, without their times.
    fn points(&self) -> Vec<String> {
        let writes = self.seen();
        let lines = writes.iter().flat_map(|request| request.body.lines());
        let point = |line: &str| {
            let (point, time) = line.rsplit_once(' ').unwrap();
            assert!(time.len() == 19 && time.parse::<u64>().is_ok(), "{line}");
            point.to_owned()
        };
        lines.map(point).collect()
    }

    fn wait_for(&self, point: &str) {
        wait_until(&format!("{point} is written"), || {
            self.points().iter().any(|one| one == point)
        });
    }

    /// A lab whose agent writes to it.
    fn lab(&self) -> Lab {
        Lab::new()
            .environment("INFLUX_HOST", &self.address.ip().to_string())
            .environment("INFLUX_PORT", &self.address.port().to_string())
    }
}

fn serve(mut stream: &TcpStream, seen: &Mutex<Vec<Request>>, answer: Answer) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let (line, headers) = head.split_once("\r\n")?;
    let headers = headers.to_ascii_lowercase();
    let (_, length) = headers.split_once("content-length: ").unwrap();
    let mut body = vec![0; length.split("\r\n").next()?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    let mut all = seen.lock().unwrap();
    all.push(Request {
        line: line.to_owned(),
        headers: head.clone(),
        body: String::from_utf8(body).unwrap(),
    });
    let status = answer(&all);
    drop(all);
    let Some(status) = status else {
        // Until the agent gives up.
        let _ = stream.read(&mut [0]);
        return None;
    };
    let length = if status == 204 {
        ""
    } else {
        "Content-Length: 0\r\n"
    };
    write!(stream, "HTTP/1.1 {status} x\r\n{length}\r\n").ok()
}

fn point(phase: &str, result: &str) -> String {
    format!("phase\\ result,agent=lab\\ agent phase=\"{phase}\"{result}")
}

#[test]
fn phases_and_states_are_written_as_the_original_does() {
    let database = Database::start("127.0.0.1:0", |_| Some(204));
    let lab = database.lab();
    let go = lab.scratch.path("go");
    let test = format!(
        "while [ ! -e '{}' ]; do sleep 0.01; done; exit 3",
        go.display()
    );
    let lab = lab
        .environment("INFLUX_USER", "lab")
        .environment("INFLUX_PW", "s3cret")
        .agent_id("lab agent")
        .command("setup", "true")
        .command("test", &test)
        .command("cleanup", "env");
    let agent = lab.agent();
    database.wait_for(&point("waiting", ""));
    let job = lab.submit_test();
    database.wait_for(&point("test", ""));
    fs::write(go, "x").unwrap();
    lab.wait_until_complete(&job);
    database.wait_for(&point("cleanup", ",result=0i"));
    let points = database.points();
    let results: Vec<_> = points
        .iter()
        .filter(|point| point.contains(",result="))
        .collect();
    let wanted = [
        point("setup", ",result=0i"),
        point("test", ",result=3i"),
        point("cleanup", ",result=0i"),
    ];
    assert_eq!(results, wanted.iter().collect::<Vec<_>>());
    for request in database.seen() {
        assert_eq!(request.line, "POST /write?db=agent_jobs HTTP/1.1");
        // lab:s3cret
        let is_named = request
            .headers
            .contains("uthorization: Basic bGFiOnMzY3JldA==\r\n");
        assert!(is_named, "{}", request.headers);
    }
    let output = lab.body(&job, Phase::Cleanup);
    assert!(
        output.contains("PATH=") && !output.contains("INFLUX"),
        "{output}"
    );
    let log = agent.log();
    assert!(!log.contains("s3cret") && !log.contains("bGFi"), "{log}");
}

#[test]
fn a_database_that_is_missing_is_made() {
    let database = Database::start("127.0.0.1:0", |seen| {
        let is_made = seen.iter().any(|request| request.line.contains("/query"));
        Some(if is_made { 204 } else { 404 })
    });
    let lab = database.lab();
    let _agent = lab.agent();
    wait_until("there are three requests", || database.seen().len() >= 3);
    let lines: Vec<_> = database
        .seen()
        .into_iter()
        .map(|request| request.line)
        .collect();
    let write = "POST /write?db=agent_jobs HTTP/1.1";
    let query = "POST /query?q=CREATE%20DATABASE%20%22agent_jobs%22 HTTP/1.1";
    assert_eq!(lines[..3], [write, query, write]);
    let seen = database.seen();
    assert_eq!(seen[0].body, seen[2].body);
}

#[test]
fn a_database_that_hangs_delays_nothing() {
    let database = Database::start("127.0.0.1:0", |_| None);
    let lab = database.lab().command("test", "true");
    let mut agent = lab.agent();
    wait_until("it is asked", || database.seen().len() == 1);
    for _ in 0..3 {
        let job = lab.submit_test();
        lab.wait_until_complete(&job);
    }
    assert_eq!(database.seen().len(), 1, "it still hangs");
    agent.signal("TERM");
    assert_eq!(agent.wait(), 0);
    assert_eq!(database.seen().len(), 1, "nobody has waited for it");
}

#[test]
fn what_happens_while_the_database_is_away_is_written_later_and_the_fault_said_once() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let lab = Lab::new()
        .environment("INFLUX_HOST", "127.0.0.1")
        .environment("INFLUX_PORT", &free.port().to_string())
        .environment("INFLUX_USER", "lab")
        .environment("INFLUX_PW", "s3cret")
        .agent_id("lab agent")
        .command("test", "exit 5");
    let job = lab.submit_test();
    let agent = lab.agent();
    lab.wait_until_complete(&job);
    let action = format!("write to InfluxDB at http://{free}");
    let fault = format!("cannot {action}: it refused the connection; trying again");
    agent.wait_for_log(&fault);
    let database = Database::start(&free.to_string(), |seen| {
        Some(if seen.len() == 1 { 503 } else { 204 })
    });
    database.wait_for(&point("test", ",result=5i"));
    agent.wait_for_log(&format!("can {action} again, after "));
    let log = agent.log();
    assert_eq!(log.matches(&fault).count(), 1, "{log}");
    assert!(
        log.contains(&format!("cannot {action}: it answered 503")),
        "{log}"
    );
    assert!(!log.contains("s3cret"), "{log}");
}

#[test]
fn an_environment_that_names_no_place_is_an_error_line() {
    let lab = Lab::new()
        .environment("INFLUX_HOST", "http://admin:s3cret@db.lab")
        .environment("INFLUX_PW", "s3cret")
        .command("test", "true");
    let job = lab.submit_test();
    let agent = lab.agent();
    agent.wait_for_log(
        "INFLUX_HOST is neither a name nor an address; nothing is written to InfluxDB",
    );
    lab.wait_until_complete(&job);
    assert!(!agent.log().contains("s3cret"), "{}", agent.log());
}
