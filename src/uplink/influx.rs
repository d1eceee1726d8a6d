//! InfluxDB, for labs that have one: how phases ended and the agent's states, written as
//! the original does. A thread of its own; whatever becomes of it, nobody waits for it.

use super::backoff;
use super::faults::Faults;
use super::http::{Credentials, Http, Patience, Payload};
use super::{TlsFiles, leave_signals_to_the_agent};
use crate::error;
use crate::metrics::{Metrics, Point};
use std::fmt::Write as _;
use std::net::Ipv6Addr;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

/// The original's.
const DATABASE: &str = "agent_jobs";
/// InfluxDB's own port.
const PORT: u16 = 8086;
/// Between two attempts to write, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Where the database is, and as whom it is written to.
#[derive(PartialEq, Eq)]
struct Place {
    url: String,
    /// What comes after `Basic` (RFC 7617), if there is a user.
    basic: Option<String>,
}

/// There is a password in it.
impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url)
    }
}

/// Writes what is counted from now on to the database that the environment names, if it
/// names one. A fault is said, and nothing more.
pub fn start(agent_id: &str, metrics: &Metrics) {
    let started = place(|name| std::env::var(name).ok()).and_then(|place| match place {
        Some(place) => Influx::new(place, agent_id, metrics)?.start(),
        None => Ok(()),
    });
    if let Err(error) = started {
        error!("{error}; nothing is written to InfluxDB");
    }
}

/// What the environment says.
fn place(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Place>, String> {
    let given = |name: &str| variable(name).filter(|value| !value.is_empty());
    let Some(host) = given("INFLUX_HOST") else {
        return Ok(None);
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let host = match host.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) if host.bytes().all(allowed) => host,
        // There may be a password in it.
        Err(_) => return Err("INFLUX_HOST is neither a name nor an address".into()),
    };
    let port = match given("INFLUX_PORT").map(|port| port.parse::<u16>()) {
        None => PORT,
        Some(Ok(port @ 1..)) => port,
        Some(_) => return Err("INFLUX_PORT is no port".into()),
    };
    let password = variable("INFLUX_PW").unwrap_or_default();
    let basic = given("INFLUX_USER").map(|user| base64(format!("{user}:{password}").as_bytes()));
    let url = format!("http://{host}:{port}");
    Ok(Some(Place { url, basic }))
}

struct Influx {
    place: Place,
    http: Http,
    /// The beginning of each line: the measurement and the tag.
    series: String,
    metrics: Metrics,
    faults: Faults,
}

/// Why points were not written.
enum Fault {
    /// They may be, later.
    Later(String),
    /// They will never be.
    Never(String),
}

impl Influx {
    fn new(place: Place, agent_id: &str, metrics: &Metrics) -> Result<Influx, String> {
        Ok(Influx {
            http: Http::new(&place.url, &TlsFiles::default())?,
            series: format!("phase\\ result,agent={}", tag(agent_id)),
            place,
            metrics: metrics.clone(),
            faults: Faults::default(),
        })
    }

    fn start(self) -> Result<(), String> {
        self.metrics.points.want();
        let thread = thread::Builder::new().name("influx".into());
        let work = move || {
            leave_signals_to_the_agent();
            self.work();
        };
        let started = thread.spawn(work).map(|_| ());
        started.map_err(|error| format!("cannot start a thread: {error}"))
    }

    fn work(&self) {
        let mut failures = 0;
        loop {
            let points = self.metrics.points.take();
            let action = format!("write to InfluxDB at {}", self.place.url);
            match self.write(&points) {
                Ok(()) => {
                    failures = 0;
                    self.faults.over(&action);
                    self.metrics.points.written();
                }
                Err(Fault::Never(cause)) => {
                    self.faults.report(&action, &cause, "going on without");
                }
                Err(Fault::Later(cause)) => {
                    self.faults.report(&action, &cause, "trying again");
                    self.metrics.points.put_back(points);
                    failures += 1;
                    // Nobody waits for this thread, and it waits for nobody.
                    thread::sleep(backoff::pause(failures, None, LONGEST_PAUSE));
                }
            }
        }
    }

    /// Writes them all; the database is made if it is missing.
    fn write(&self, points: &[Point]) -> Result<(), Fault> {
        let lines: String = points.iter().map(|point| self.line(point)).collect();
        let path = format!("/write?db={DATABASE}");
        let mut status = self.post(&path, &lines)?;
        if status == 404 {
            // As what comes with InfluxDB does it: CREATE DATABASE "agent_jobs".
            let query = format!("/query?q=CREATE%20DATABASE%20%22{DATABASE}%22");
            self.post(&query, "")?;
            status = self.post(&path, &lines)?;
        }
        let answer = || format!("it answered {status}");
        match status {
            200..=299 => Ok(()),
            // The points themselves, which are the same the next time.
            400 | 413 | 422 => Err(Fault::Never(answer())),
            _ => Err(Fault::Later(answer())),
        }
    }

    fn post(&self, path: &str, text: &str) -> Result<u16, Fault> {
        let credentials = Credentials {
            basic: self.place.basic.as_deref(),
            ..Credentials::default()
        };
        let mut bytes = text.as_bytes();
        let payload = Payload::Stream {
            content_type: "text/plain; charset=utf-8",
            length: Some(text.len() as u64),
            reader: &mut bytes,
        };
        let answer = self
            .http
            .send("POST", path, credentials, payload, Patience::LongAnswer);
        let reply = answer.map_err(|no_answer| Fault::Later(no_answer.cause))?;
        let status = reply.status;
        // So that the connection can be used again. What it says may be anything.
        let _ = reply.text(64 << 10);
        Ok(status)
    }

    /// One point in the line protocol.
    fn line(&self, point: &Point) -> String {
        let mut line = format!("{} phase=\"{}\"", self.series, field(&point.phase));
        if let Some(result) = point.result {
            let _ = write!(line, ",result={result}i");
        }
        let time = point.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let _ = writeln!(line, " {}", time.as_nanos());
        line
    }
}

/// Writes nothing, once.
pub(super) fn once(url: &str) -> Result<(), String> {
    let place = Place {
        url: url.to_owned(),
        basic: None,
    };
    let written = Influx::new(place, "a", &Metrics::default())?.write(&[]);
    written.map_err(|fault| match fault {
        Fault::Later(cause) | Fault::Never(cause) => cause,
    })
}

/// The value of a tag. Line ends cannot be written, and what ends with a backslash would
/// escape what follows.
fn tag(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.trim_end_matches('\\').chars() {
        match character {
            ',' | '=' | ' ' => escaped.extend(['\\', character]),
            control if control.is_control() => escaped.push('_'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The value of a field, for between quotes.
fn field(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let at = bits >> (18 - 6 * digit) & 63;
            let found = DIGITS.get(at as usize).filter(|_| digit <= three.len());
            text.push(found.map_or('=', |digit| char::from(*digit)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<Place>, String> {
        let find = |name: &str| {
            let mut all = variables.iter();
            let (_, value) = all.find(|(variable, _)| *variable == name)?;
            Some((*value).to_owned())
        };
        place(find)
    }

    #[test]
    fn the_environment_names_a_place() {
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[("INFLUX_HOST", ""), ("INFLUX_PORT", "x")]), Ok(None));
        let url = |host, port| {
            of(&[("INFLUX_HOST", host), ("INFLUX_PORT", port)])
                .unwrap()
                .unwrap()
                .url
        };
        assert_eq!(url("db.lab", ""), "http://db.lab:8086");
        assert_eq!(url("fd00::1", "80"), "http://[fd00::1]:80");
        for (host, port) in [
            ("http://db", ""),
            ("a b", ""),
            ("a/b", ""),
            ("db", "0"),
            ("db", "x"),
        ] {
            assert!(of(&[("INFLUX_HOST", host), ("INFLUX_PORT", port)]).is_err());
        }
        let all = [
            ("INFLUX_HOST", "db"),
            ("INFLUX_USER", "Aladdin"),
            ("INFLUX_PW", "open sesame"),
        ];
        let place = of(&all).unwrap().unwrap();
        // The example of RFC 7617.
        assert_eq!(place.basic.as_deref(), Some("QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        assert_eq!(format!("{place:?}"), "http://db:8086");
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        let table = [
            "", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy",
        ];
        for (length, wanted) in table.into_iter().enumerate() {
            assert_eq!(base64(&b"foobar"[..length]), wanted);
        }
        assert_eq!(base64(&[0xff, 0xef, 0xbe]), "/+++");
    }

    #[test]
    fn a_line_holds_what_may_be_anything() {
        let line = |agent_id: &str, phase: &str, result| {
            let place = of(&[("INFLUX_HOST", "db")]).unwrap().unwrap();
            let influx = Influx::new(place, agent_id, &Metrics::default()).unwrap();
            influx.line(&Point {
                phase: phase.to_owned(),
                result,
                time: UNIX_EPOCH + Duration::from_nanos(1_700_000_000_000_000_007),
            })
        };
        assert_eq!(
            line("a b,c=d\n\\e\\", "test", Some(-1)),
            "phase\\ result,agent=a\\ b\\,c\\=d_\\e phase=\"test\",result=-1i 1700000000000000007\n"
        );
        assert_eq!(
            line("a", "say \"\\\"", None),
            "phase\\ result,agent=a phase=\"say \\\"\\\\\\\"\" 1700000000000000007\n"
        );
    }
}
