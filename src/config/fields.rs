//! A configuration file's values, each read as what its key takes.

use super::keys::{self, Key, Kind, MAX_BYTES, MAX_SECONDS};
use super::{Error, address};
use crate::log::{Format, printable};
use crate::yaml::{Node, Value};
use std::path::{Path, PathBuf};

/// How much of a wrong text a message shows, in characters.
const SHOWN: usize = 60;

/// The file's top level: known keys only.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    path: &'a Path,
    entries: Vec<(&'static Key, &'a Node, &'a Value)>,
}

impl<'a> Fields<'a> {
    /// Looks at the keys.
    pub(super) fn new(path: &'a Path, root: &'a Node) -> Result<Fields<'a>, Error> {
        let map = match &root.value {
            // A file that holds comments only.
            Value::Null => &[],
            Value::Map(map) => map.as_slice(),
            other => {
                let reason = format!(
                    "the file holds {}; wanted: `key: value` lines",
                    found(other)
                );
                return Err(Error::at(path, root.line, root.column, reason));
            }
        };
        let mut entries = Vec::new();
        for (name, node) in map {
            let Value::Str(text) = &name.value else {
                let reason = format!("{} stands where a key is wanted", found(&name.value));
                return Err(Error::at(path, name.line, name.column, reason));
            };
            let Some(key) = keys::find(text) else {
                let mut reason = format!("unknown key `{}`", shown(text));
                if let Some(key) = keys::closest(text) {
                    reason.push_str(&format!("; did you mean `{}`?", key.name));
                }
                return Err(Error::at(path, name.line, name.column, reason));
            };
            // An empty value's own place may be lines below; its key is here.
            let place = if node.value == Value::Null {
                name
            } else {
                node
            };
            entries.push((key, place, &node.value));
        }
        Ok(Fields { path, entries })
    }

    /// What is given, in the order of the file. Null is not.
    pub(super) fn given(&self) -> impl Iterator<Item = (&'static Key, &'a Node, &'a Value)> {
        let entries = self.entries.iter().copied();
        entries.filter(|(_, _, value)| **value != Value::Null)
    }

    pub(super) fn get(&self, name: &str) -> Option<(&'a Node, &'a Value)> {
        let mut given = self.given();
        let (_, place, value) = given.find(|(key, _, _)| key.name == name)?;
        Some((place, value))
    }

    fn at(&self, place: &Node, reason: impl Into<String>) -> Error {
        Error::at(self.path, place.line, place.column, reason)
    }

    /// An error about what the key has been given.
    pub(super) fn error(&self, name: &str, reason: String) -> Error {
        match self.get(name) {
            Some((place, _)) => self.at(place, reason),
            None => Error::of_file(self.path, reason),
        }
    }

    /// The text that the key has been given, whatever it takes.
    pub(super) fn given_text(&self, name: &str) -> Option<&'a str> {
        match self.get(name)? {
            // No environment can hold a NUL.
            (_, Value::Str(text)) if !text.contains('\0') => Some(text),
            _ => None,
        }
    }

    /// A value that has to be there.
    fn need(&self, name: &str, kind: Kind) -> Result<(&'a Node, &'a Value), Error> {
        if let Some(given) = self.get(name) {
            return Ok(given);
        }
        let wanted = kind.wanted();
        match self.entries.iter().find(|(key, _, _)| key.name == name) {
            Some((_, place, value)) => Err(self.wrong(place, name, value, wanted)),
            None => {
                let reason = format!("{name} is missing; wanted: {wanted}");
                Err(Error::of_file(self.path, reason))
            }
        }
    }

    /// `subject` is something else than what is wanted.
    pub(super) fn wrong(&self, place: &Node, subject: &str, value: &Value, wanted: &str) -> Error {
        let reason = format!("{subject} is {}; wanted: {wanted}", found(value));
        self.at(place, reason)
    }

    pub(super) fn text_in(
        &self,
        place: &Node,
        subject: &str,
        value: &'a Value,
        wanted: &str,
    ) -> Result<&'a str, Error> {
        match value {
            // Neither a path nor an environment can hold it.
            Value::Str(text) if text.contains('\0') => {
                let reason = format!("{subject} holds a NUL character; wanted: {wanted}");
                Err(self.at(place, reason))
            }
            Value::Str(text) => Ok(text),
            // YAML has its own ideas of what is text.
            Value::Int(_) | Value::Float(_) | Value::Bool(_) => {
                let wanted = format!("{wanted}; put it in quotes if it is meant as text");
                Err(self.wrong(place, subject, value, &wanted))
            }
            other => Err(self.wrong(place, subject, other, wanted)),
        }
    }

    pub(super) fn name_in(
        &self,
        place: &Node,
        subject: &str,
        value: &'a Value,
    ) -> Result<String, Error> {
        let wanted = Kind::Name.wanted();
        let text = self.text_in(place, subject, value, wanted)?;
        if text.trim().is_empty() || text.contains(char::is_control) {
            return Err(self.wrong(place, subject, value, wanted));
        }
        Ok(text.to_owned())
    }

    /// A name that has to be there.
    pub(super) fn name(&self, name: &str) -> Result<String, Error> {
        let (place, value) = self.need(name, Kind::Name)?;
        self.name_in(place, name, value)
    }

    /// The address of the server as a URL.
    pub(super) fn server(&self, name: &str) -> Result<String, Error> {
        let wanted = Kind::Address.wanted();
        let (place, value) = self.need(name, Kind::Address)?;
        let text = self.text_in(place, name, value, wanted)?;
        address::url(text).ok_or_else(|| {
            // It may hold a password.
            let reason = if text.contains('@') {
                format!("{name} holds a user; wanted: {wanted}")
            } else {
                format!("{name} is {}; wanted: {wanted}", found(value))
            };
            self.at(place, reason)
        })
    }

    /// A list of names that has to be there.
    pub(super) fn queues(&self, name: &str) -> Result<Vec<String>, Error> {
        let (place, value) = self.need(name, Kind::Queues)?;
        let items = match value {
            Value::List(items) if !items.is_empty() => items,
            Value::List(_) => {
                let reason = format!("{name} is empty; wanted: {}", Kind::Queues.wanted());
                return Err(self.at(place, reason));
            }
            other => return Err(self.wrong(place, name, other, Kind::Queues.wanted())),
        };
        let subject = format!("an entry of {name}");
        let names = items.iter();
        let names = names.map(|item| self.name_in(item, &subject, &item.value));
        names.collect()
    }

    /// A text; its default when it is not given.
    pub(super) fn text(&self, name: &str, kind: Kind) -> Result<String, Error> {
        match self.get(name) {
            Some((place, value)) => {
                let text = self.text_in(place, name, value, kind.wanted())?;
                Ok(text.to_owned())
            }
            None => Ok(default(name).to_owned()),
        }
    }

    /// The absolute path of a directory.
    pub(super) fn directory(&self, name: &str) -> Result<PathBuf, Error> {
        let text = self.text(name, Kind::Directory)?;
        match self.get(name) {
            Some((place, value)) if text.trim().is_empty() => {
                Err(self.wrong(place, name, value, Kind::Directory.wanted()))
            }
            // Without a current directory the path stays as it is.
            _ => Ok(std::path::absolute(&text).unwrap_or_else(|_| text.into())),
        }
    }

    /// A time in seconds, if it is given or has a default.
    pub(super) fn seconds(&self, name: &str) -> Result<Option<u64>, Error> {
        let Some((place, value)) = self.get(name) else {
            return Ok(default(name).parse().ok());
        };
        let seconds = match value {
            Value::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        };
        match seconds.filter(|seconds| (1..=MAX_SECONDS).contains(seconds)) {
            Some(seconds) => Ok(Some(seconds)),
            None => Err(self.wrong(place, name, value, Kind::Seconds.wanted())),
        }
    }

    /// A number of bytes, or its default.
    pub(super) fn bytes(&self, name: &str) -> Result<u64, Error> {
        let Some((place, value)) = self.get(name) else {
            return Ok(default(name).parse().unwrap_or_default());
        };
        let bytes = match value {
            Value::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        };
        bytes
            .filter(|bytes| *bytes <= MAX_BYTES)
            .ok_or_else(|| self.wrong(place, name, value, Kind::Bytes.wanted()))
    }

    /// The absolute path of a file, if it is given.
    pub(super) fn file(&self, name: &str) -> Result<Option<PathBuf>, Error> {
        let Some((place, value)) = self.get(name) else {
            return Ok(None);
        };
        let text = self.text_in(place, name, value, Kind::File.wanted())?;
        if text.trim().is_empty() {
            return Err(self.wrong(place, name, value, Kind::File.wanted()));
        }
        Ok(Some(
            std::path::absolute(text).unwrap_or_else(|_| text.into()),
        ))
    }

    /// How lines of the log look.
    pub(super) fn format(&self, name: &str) -> Result<Format, Error> {
        let Some((place, value)) = self.get(name) else {
            return Ok(Format::Text);
        };
        match self.text_in(place, name, value, Kind::Format.wanted())? {
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            _ => Err(self.wrong(place, name, value, Kind::Format.wanted())),
        }
    }

    /// A yes or no, or its default.
    pub(super) fn yes_no(&self, name: &str) -> Result<bool, Error> {
        match self.get(name) {
            None => Ok(default(name) == "true"),
            Some((_, Value::Bool(value))) => Ok(*value),
            Some((place, value)) => Err(self.wrong(place, name, value, Kind::YesNo.wanted())),
        }
    }
}

/// What stands there, in words.
fn found(value: &Value) -> String {
    match value {
        Value::Null => "empty".to_owned(),
        Value::Bool(value) => format!("the yes or no value {value}"),
        Value::Int(number) => format!("the number {number}"),
        Value::Float(number) => format!("the number {number:?}"),
        Value::Str(text) => format!("the text \"{}\"", shown(text)),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a map".to_owned(),
    }
}

/// A text for a message: short, and harmless to a terminal.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => printable(text.get(..at).unwrap_or_default()) + "…",
        None => printable(text),
    }
}

fn default(name: &str) -> &'static str {
    keys::find(name).map(|key| key.default).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;
    use crate::config::KEYS;

    const LEAST: [&str; 3] = ["agent_id: a", "server_address: h", "job_queues: [q]"];

    /// What is said about a file whose first line is this one.
    fn error(line: &str) -> String {
        let key = line.split(':').next().unwrap_or_default();
        let others = LEAST.into_iter().filter(|other| !other.starts_with(key));
        let text: Vec<&str> = std::iter::once(line).chain(others).collect();
        let config = Config::parse(Path::new("x.conf"), text.join("\n").as_bytes());
        config.unwrap_err().to_string()
    }

    #[test]
    fn row_44_every_key_refuses_what_it_does_not_take() {
        for key in KEYS {
            let name = key.name;
            let place = format!("x.conf:1:{}: {name} is ", name.len() + 3);
            let wanted = key.kind.wanted();
            let bad: &[(&str, &str)] = match key.kind {
                Kind::Unused => continue,
                Kind::Seconds => &[
                    ("ten", "the text \"ten\""),
                    ("'10'", "the text \"10\""),
                    ("0", "the number 0"),
                    ("-1", "the number -1"),
                    ("1.0", "the number 1.0"),
                    ("1000000001", "the number 1000000001"),
                    ("yes", "the yes or no value true"),
                    ("[1]", "a list"),
                ],
                Kind::Bytes => &[
                    ("-1", "the number -1"),
                    ("10M", "the text \"10M\""),
                    ("1000000000000001", "the number 1000000000000001"),
                ],
                Kind::User => &[("[a]", "a list"), ("{a: b}", "a map")],
                Kind::Format => &[("xml", "the text \"xml\""), ("[a]", "a list")],
                Kind::YesNo => &[
                    ("1", "the number 1"),
                    ("'yes'", "the text \"yes\""),
                    ("maybe", "the text \"maybe\""),
                ],
                Kind::Queues | Kind::Descriptions | Kind::Images => &[
                    ("1", "the number 1"),
                    ("q1", "the text \"q1\""),
                    ("no", "the yes or no value false"),
                ],
                _ => &[("[a]", "a list"), ("{a: b}", "a map")],
            };
            for (value, found) in bad {
                assert_eq!(
                    error(&format!("{name}: {value}")),
                    format!("{place}{found}; wanted: {wanted}")
                );
            }
            if key.kind.is_text() {
                assert_eq!(
                    error(&format!("{name}: 007")),
                    format!(
                        "{place}the number 7; wanted: {wanted}; \
                         put it in quotes if it is meant as text"
                    )
                );
                assert_eq!(
                    error(&format!("{name}: \"a\\0\"")),
                    format!(
                        "x.conf:1:{}: {name} holds a NUL character; wanted: {wanted}",
                        name.len() + 3
                    )
                );
            }
        }
    }

    #[test]
    fn messages_show_what_stands_there() {
        let long = "x".repeat(1000);
        for (line, expected) in [
            (
                "agent_id: ' '",
                "1:11: agent_id is the text \" \"; wanted: printable text, not empty",
            ),
            (
                "agent_id: \"a\\nb\\e\"",
                "1:11: agent_id is the text \"a\\nb\\u{1b}\"; wanted: printable text, not empty",
            ),
            (
                "results_basedir: ''",
                "1:18: results_basedir is the text \"\"; wanted: the path of a directory",
            ),
            (
                "job_queues: []",
                "1:13: job_queues is empty; wanted: a list of queues, at least one",
            ),
            (
                "job_queues: {a: b}",
                "1:13: job_queues is a map; wanted: a list of queues, at least one",
            ),
            (
                "job_queues: [a, 1]",
                "1:17: an entry of job_queues is the number 1; wanted: printable text, not empty; put it in quotes if it is meant as text",
            ),
            (
                "job_queues: [a, ~]",
                "1:17: an entry of job_queues is empty; wanted: printable text, not empty",
            ),
            (
                "server_address: http://h/v1",
                "1:17: server_address is the text \"http://h/v1\"; wanted: host[:port], or a URL of http or https with nothing after the port",
            ),
            (
                "server_address: http://me:secret@h",
                "1:17: server_address holds a user; wanted: host[:port], or a URL of http or https with nothing after the port",
            ),
            (
                "advertised_queues: {q: 1}",
                "1:24: `q` of advertised_queues is the number 1; wanted: text; put it in quotes if it is meant as text",
            ),
            (
                "advertised_queues: {1: q}",
                "1:21: a key of advertised_queues is the number 1; wanted: printable text, not empty; put it in quotes if it is meant as text",
            ),
            (
                "advertised_images: {q: x}",
                "1:24: `q` of advertised_images is the text \"x\"; wanted: a map from images to their provision data",
            ),
            (
                "advertised_images: {q: [x]}",
                "1:25: `q` of advertised_images is the text \"x\"; wanted: a map from images to their provision data",
            ),
            (
                "advertised_images: {q: {i: {url: x}}}",
                "1:28: `i` of `q` of advertised_images is a map; wanted: text",
            ),
        ] {
            assert_eq!(error(line), format!("x.conf:{expected}"));
        }
        let told = error(&format!("polling_interval: {long}"));
        assert!(
            told.contains(&format!("the text \"{}…\"", "x".repeat(60))),
            "{told}"
        );
    }
}
