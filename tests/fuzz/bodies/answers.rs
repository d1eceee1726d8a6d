//! The server's answers: the first byte says which endpoint is asked, the others are
//! what is answered, whatever was asked. Each call comes to its end, and soon; what is
//! said of one that failed is short.

use super::Place;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use testflinger_agent::log::{self, Format, Level, LogFile};
use testflinger_agent::uplink::fuzzing::ask;

/// No input is as long as a deadline: the server closes its connections.
const LONGEST: Duration = Duration::from_secs(5);
/// What is said of an answer is for people, in bytes.
const LONGEST_CAUSE: usize = 2_000;

struct Server {
    place: Place,
    url: String,
    answers: Sender<Vec<u8>>,
}

impl Server {
    fn start() -> Server {
        let place = Place::new();
        // What is said of each fault would be all there is to see.
        let file = LogFile::open(&place.path("log")).unwrap().unwrap();
        log::open(file, Format::Text, Level::Error, None);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (answers, given) = channel();
        std::thread::spawn(move || serve(&listener, &given));
        Server {
            place,
            url,
            answers,
        }
    }
}

fn serve(listener: &TcpListener, answers: &Receiver<Vec<u8>>) {
    let mut answer = Vec::new();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let _ = stream.set_nodelay(true);
        while let Ok(next) = answers.try_recv() {
            answer = next;
        }
        if read_request(&mut stream).is_some() {
            // Nobody need listen to the end.
            let _ = stream.write_all(&answer);
        }
    }
}

/// Reads a whole request: a connection that is closed before that is reset, and the
/// answer lost.
fn read_request(stream: &mut TcpStream) -> Option<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return None,
            Ok(length) => request.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
        let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
        let is_whole = match head.split_once("content-length: ") {
            Some((_, length)) => {
                let length = length.lines().next().unwrap_or_default();
                request.len() >= end + 4 + length.parse::<usize>().unwrap()
            }
            None if head.contains("chunked") => request.ends_with(b"0\r\n\r\n"),
            None => true,
        };
        if is_whole {
            return Some(());
        }
    }
}

pub fn try_it(data: &[u8]) {
    thread_local! {
        static SERVER: Server = Server::start();
    }
    let Some((endpoint, answer)) = data.split_first() else {
        return;
    };
    SERVER.with(|server| {
        server.answers.send(answer.to_vec()).unwrap();
        let token: PathBuf = server.place.path("token");
        let workspace = server.place.path("attachments");
        let begun = Instant::now();
        let result = ask(*endpoint, &server.url, &token, &workspace);
        assert!(begun.elapsed() < LONGEST, "{:?}", begun.elapsed());
        if let Err(cause) = result {
            let is_said = !cause.is_empty() && cause.len() <= LONGEST_CAUSE;
            assert!(is_said, "{} bytes: {cause:.200}", cause.len());
        }
    });
}
