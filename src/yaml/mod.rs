//! YAML from people: the configuration, and jobs that are handed to `run`.
//!
//! The original reads both with Python's `yaml.safe_load`, so plain text means
//! here what it means there (YAML 1.1: `yes` is true, `010` is 8), and every
//! value knows its line and column, because somebody will have to mend it. This
//! is the only room that imports saphyr-parser, and of that only the events:
//! size, depth and the growth by aliases are bounded while they come in, so that
//! no file can exhaust the stack or the memory of a small machine.

mod map;
mod resolve;
mod size;
mod tree;
mod write;

use std::fmt;

/// The largest text that is read, in bytes. Real files have a few kilobytes.
pub const MAX_BYTES: usize = 1 << 20;

/// How deep lists and maps may nest. What becomes JSON of it stays well below
/// [`crate::json::MAX_DEPTH`].
pub const MAX_DEPTH: usize = 32;

/// A value and the place where it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Its line, from 1.
    pub line: usize,
    /// Its column in characters, from 1.
    pub column: usize,
}

/// A value, resolved as YAML 1.1 has it. Dates stay text.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `~`, `null` or nothing at all.
    Null,
    /// `yes`, `no`, `on`, `off`, `true`, `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a dot.
    Float(f64),
    /// Text.
    Str(String),
    /// A list.
    List(Vec<Node>),
    /// A map in the order of the file; its keys are unique scalars, and merges
    /// (`<<`) are done.
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// An error that stands where the value does.
    fn fault(&self, reason: &str) -> Error {
        Error {
            line: self.line,
            column: self.column,
            reason: reason.to_owned(),
        }
    }
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its value; Null for an empty file.
    pub root: Node,
    /// Keys that stand more than once in one map, with the line of each
    /// repetition. The last one counts.
    pub duplicates: Vec<(String, usize)>,
}

/// Why a text cannot be read, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong there.
    pub reason: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "line {}, column {}: {}",
            self.line, self.column, self.reason
        )
    }
}

impl std::error::Error for Error {}

/// Reads a text that holds one document, or none.
///
/// # Errors
/// The first thing that is not YAML, not known, or beyond the limits.
pub fn parse(text: &str) -> Result<Document, Error> {
    check_size(text.len())?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // The parser takes a NUL for the end of the text and would pass over the rest.
    if let Some((at, c)) = text.char_indices().find(|(_, c)| !is_allowed(*c)) {
        let reason = format!("the character U+{:04X} may not stand in YAML", u32::from(c));
        return Err(error_after(text.get(..at).unwrap_or_default(), reason));
    }
    tree::build(text)
}

/// Reads bytes, which have to be UTF-8.
///
/// # Errors
/// As for [`parse`], or the place of the first byte that is not UTF-8.
pub fn parse_bytes(bytes: &[u8]) -> Result<Document, Error> {
    check_size(bytes.len())?;
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(text),
        Err(error) => {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let before = String::from_utf8_lossy(before);
            Err(error_after(&before, "this is not UTF-8".to_owned()))
        }
    }
}

fn check_size(bytes: usize) -> Result<(), Error> {
    if bytes > MAX_BYTES {
        let reason = format!("the text is larger than {MAX_BYTES} bytes");
        return Err(error_after("", reason));
    }
    Ok(())
}

/// YAML 1.1, section 5.1: printable characters, tabs and line breaks.
fn is_allowed(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{85}')
        || !(c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'))
}

/// An error that stands where the given text ends.
fn error_after(before: &str, reason: String) -> Error {
    let line = before.rsplit('\n').next().unwrap_or(before);
    Error {
        line: 1 + before.matches('\n').count(),
        column: 1 + line.chars().count(),
        reason,
    }
}
