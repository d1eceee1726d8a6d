//! An HTTP client that sends what it is told, and reads one answer after the
//! other from one connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use testflinger_agent::local::Server;

/// A connection to the server.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    token: String,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        let header = self.headers.iter().find(|(key, _)| key == name);
        header.map_or("", |(_, value)| value)
    }
}

impl Client {
    /// Connects, with nothing to show.
    pub(crate) fn connect(server: &Server) -> Client {
        let stream = TcpStream::connect(server.address()).unwrap();
        Client {
            stream: BufReader::new(stream),
            token: String::new(),
        }
    }

    /// Connects and buys an access token.
    pub(crate) fn agent(server: &Server) -> Client {
        let mut client = Client::connect(server);
        let body = format!("{{\"refresh_token\": \"{}\"}}", server.refresh_token());
        let answer = client.post("/v1/oauth2/refresh", &body);
        let token = answer.body.split('"').nth(3).unwrap();
        client.token = format!("Authorization: Bearer {token}\r\n");
        client
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.get_with(path, "Cookie: agent_name=pi-4\r\n")
    }

    pub(crate) fn get_without_cookie(&mut self, path: &str) -> Answer {
        self.get_with(path, "")
    }

    fn get_with(&mut self, path: &str, header: &str) -> Answer {
        let token = &self.token;
        let head = format!("GET {path} HTTP/1.1\r\nHost: h\r\n{header}{token}\r\n");
        self.raw(head.as_bytes())
    }

    pub(crate) fn post(&mut self, path: &str, json: &str) -> Answer {
        self.post_as(path, "application/json", json)
    }

    pub(crate) fn post_as(&mut self, path: &str, content_type: &str, body: &str) -> Answer {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: {content_type}\r\n\
             Content-Length: {}\r\n{}\r\n",
            body.len(),
            self.token
        );
        self.raw(&[head.as_bytes(), body.as_bytes()].concat())
    }

    /// The same body in chunks of three bytes.
    pub(crate) fn post_chunked(&mut self, path: &str, content_type: &str, body: &str) -> Answer {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: {content_type}\r\n\
             Transfer-Encoding: chunked\r\n{}\r\n",
            self.token
        )
        .into_bytes();
        for chunk in body.as_bytes().chunks(3) {
            request.extend(format!("{:x}\r\n", chunk.len()).bytes());
            request.extend(chunk.iter().chain(b"\r\n"));
        }
        request.extend(b"0\r\n\r\n");
        self.raw(&request)
    }

    /// Sends these bytes and reads an answer.
    pub(crate) fn raw(&mut self, request: &[u8]) -> Answer {
        self.send(request);
        self.read()
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    pub(crate) fn read(&mut self) -> Answer {
        let status = self.line();
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            let Some((name, value)) = line.split_once(": ") else {
                break;
            };
            headers.push((name.to_lowercase(), value.to_owned()));
        }
        let mut answer = Answer {
            status: status.split(' ').nth(1).unwrap().parse().unwrap(),
            headers,
            body: String::new(),
        };
        let length = answer.header("content-length").parse().unwrap_or(0);
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        answer.body = String::from_utf8(body).unwrap();
        answer
    }

    /// Its `Authorization` header.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Sends no more.
    pub(crate) fn hang_up(&self) {
        self.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    /// Whether the server closed the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0) | Err(_))
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}
