//! A file in a multipart/form-data body (RFC 7578), written out while the body
//! is read.

use std::io::{self, Read, Write};

/// How much of the body is in memory.
const WINDOW: usize = 128 * 1024;

/// How long the headers of a part may be.
const MAX_HEADERS: usize = 16 * 1024;

/// The boundary that a request's Content-Type names, if it is such a form.
pub(super) fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameter(parameters, "boundary")?;
    (1..=70).contains(&boundary.len()).then_some(boundary)
}

/// A parameter such as `name="file"` of a header's value. Quoted values may hold
/// semicolons and escaped characters.
fn parameter(text: &str, wanted: &str) -> Option<String> {
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => {
                let mut value = String::new();
                let mut letters = quoted.char_indices();
                let mut end = quoted.len();
                while let Some((at, letter)) = letters.next() {
                    match letter {
                        '"' => {
                            end = at + 1;
                            break;
                        }
                        '\\' => value.extend(letters.next().map(|(_, letter)| letter)),
                        _ => value.push(letter),
                    }
                }
                (value, quoted.get(end..).unwrap_or_default())
            }
            None => {
                let end = after.find(';').unwrap_or(after.len());
                let (value, after) = after.split_at(end);
                (value.trim().to_owned(), after)
            }
        };
        let name = name.rsplit(';').next().unwrap_or_default();
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = after;
    }
    None
}

/// Writes the first part that is a file named `file` to `out`. False: there is
/// none, or the form is broken or not complete.
pub(super) fn copy_file(body: impl Read, boundary: &str, out: &mut impl Write) -> io::Result<bool> {
    let mut parts = Parts::new(body, boundary);
    let mut found = false;
    // What stands before the first boundary is of no meaning.
    if !parts.copy(&mut io::sink())? {
        return Ok(false);
    }
    loop {
        match parts.open()? {
            Opened::Part { is_file } => {
                let complete = if is_file && !found {
                    found = true;
                    parts.copy(out)?
                } else {
                    parts.copy(&mut io::sink())?
                };
                if !complete {
                    return Ok(false);
                }
            }
            Opened::End => {
                io::copy(&mut parts.body, &mut io::sink())?;
                return Ok(found);
            }
            Opened::Broken => return Ok(false),
        }
    }
}

/// What follows a boundary.
enum Opened {
    Part { is_file: bool },
    End,
    Broken,
}

/// The body as a window that moves over it.
struct Parts<R> {
    body: R,
    /// What ends a part: a line end and the boundary.
    delimiter: Vec<u8>,
    window: Vec<u8>,
    /// Where in the window the next byte stands.
    at: usize,
    ended: bool,
}

impl<R: Read> Parts<R> {
    fn new(body: R, boundary: &str) -> Parts<R> {
        Parts {
            body,
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            // The first boundary may stand at the very start, without a line
            // end before it.
            window: b"\r\n".to_vec(),
            at: 0,
            ended: false,
        }
    }

    fn rest(&self) -> &[u8] {
        self.window.get(self.at..).unwrap_or_default()
    }

    /// Reads more behind what is there.
    fn fill(&mut self) -> io::Result<()> {
        self.window.drain(..self.at);
        self.at = 0;
        let room = WINDOW.saturating_sub(self.window.len()).max(4096) as u64;
        let mut more = self.body.by_ref().take(room);
        self.ended = more.read_to_end(&mut self.window)? == 0;
        Ok(())
    }

    /// Copies up to the next delimiter and passes it. False: there is none.
    fn copy(&mut self, out: &mut impl Write) -> io::Result<bool> {
        loop {
            let rest = self.rest();
            let found = find(rest, &self.delimiter);
            // The delimiter may have begun at the end of the window.
            let kept = self.delimiter.len() - 1;
            let length = found.unwrap_or(rest.len().saturating_sub(kept));
            out.write_all(rest.get(..length).unwrap_or_default())?;
            self.at += length;
            if found.is_some() {
                self.at += self.delimiter.len();
                return Ok(true);
            }
            if self.ended {
                return Ok(false);
            }
            self.fill()?;
        }
    }

    /// Reads what follows a boundary, up to the content of a part.
    fn open(&mut self) -> io::Result<Opened> {
        while self.rest().len() < 4 && !self.ended {
            self.fill()?;
        }
        if self.rest().starts_with(b"--") {
            return Ok(Opened::End);
        }
        loop {
            if let Some(length) = find(self.rest(), b"\r\n\r\n") {
                let headers = self.rest().get(..length).unwrap_or_default();
                let is_file = is_file(&String::from_utf8_lossy(headers));
                self.at += length + 4;
                return Ok(Opened::Part { is_file });
            }
            if self.ended || self.rest().len() > MAX_HEADERS {
                return Ok(Opened::Broken);
            }
            self.fill()?;
        }
    }
}

/// Whether a part with these headers is a file under the name that the API
/// wants.
fn is_file(headers: &str) -> bool {
    headers.lines().any(|line| {
        let (name, value) = line.split_once(':').unwrap_or_default();
        let (kind, parameters) = value.split_once(';').unwrap_or_default();
        name.trim().eq_ignore_ascii_case("content-disposition")
            && kind.trim().eq_ignore_ascii_case("form-data")
            && parameter(parameters, "name").as_deref() == Some("file")
            && ["filename", "filename*"]
                .iter()
                .any(|name| parameter(parameters, name).is_some())
    })
}

/// Where `wanted` first stands in `text`.
fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = *wanted.first()?;
    let mut from = 0;
    while let Some(rest) = text.get(from..) {
        let at = from + rest.iter().position(|&byte| byte == first)?;
        if text.get(at..)?.starts_with(wanted) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives out its text in pieces of one size.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(self.0.len()).min(buffer.len());
            let (piece, rest) = self.0.split_at(length);
            buffer[..length].copy_from_slice(piece);
            self.0 = rest;
            Ok(length)
        }
    }

    fn file(body: &[u8]) -> Option<Vec<u8>> {
        let mut seen = None;
        for size in [1, 2, 3, 7, 1000] {
            let mut out = Vec::new();
            let found = copy_file(Pieces(body, size), "b-1", &mut out).unwrap();
            let now = found.then_some(out);
            assert!(
                seen.is_none() || seen == Some(now.clone()),
                "pieces of {size}"
            );
            seen = Some(now);
        }
        seen.flatten()
    }

    fn part(disposition: &str, content: &str) -> String {
        format!("--b-1\r\nContent-Disposition: {disposition}\r\nX: y\r\n\r\n{content}\r\n")
    }

    const FILE: &str = "form-data; name=\"file\"; filename=\"a;\\\"b\"";

    #[test]
    fn the_file_is_found() {
        let tricky = "\r\n--b-\r\n--b\r\r\n-";
        let other = part("form-data; name=\"x\"", "ignored");
        for body in [
            format!("{}--b-1--\r\n", part(FILE, tricky)),
            format!(
                "preamble\r\n{other}{}{other}--b-1--epilogue",
                part(FILE, tricky)
            ),
            format!("{}{}--b-1--", part(FILE, tricky), part(FILE, "second")),
        ] {
            assert_eq!(
                file(body.as_bytes()).as_deref(),
                Some(tricky.as_bytes()),
                "{body}"
            );
        }
        let empty = format!("{}--b-1--\r\n", part(FILE, ""));
        assert_eq!(file(empty.as_bytes()), Some(Vec::new()));
        let long = "0123456789\r\n".repeat(50_000);
        let body = format!("{}--b-1--\r\n", part(FILE, &long));
        let mut out = Vec::new();
        assert!(copy_file(body.as_bytes(), "b-1", &mut out).unwrap());
        assert_eq!(out, long.as_bytes());
    }

    #[test]
    fn what_is_no_file_is_refused() {
        for body in [
            String::new(),
            "raw".to_owned(),
            format!("{}--b-1--\r\n", part("form-data; name=\"file\"", "x")),
            format!(
                "{}--b-1--\r\n",
                part("form-data; name=\"f\"; filename=\"file\"", "x")
            ),
            part(FILE, "no end"),
            "--b-1\r\nContent-Disposition: form-data".to_owned(),
        ] {
            assert_eq!(file(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn the_boundary_is_found() {
        let of = |text: &str| boundary(text);
        assert_eq!(
            of("multipart/form-data; boundary=x1").as_deref(),
            Some("x1")
        );
        let quoted = "Multipart/Form-Data; charset=utf-8; Boundary=\"a b\"";
        assert_eq!(of(quoted).as_deref(), Some("a b"));
        assert_eq!(of("multipart/mixed; boundary=x"), None);
        assert_eq!(of("multipart/form-data; boundary="), None);
    }
}
