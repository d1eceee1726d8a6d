//! A strict JSON scanner that is given its text piece by piece.
//!
//! It keeps a state of fixed size, whatever comes: a job's result with all its
//! logs can be hundreds of megabytes, and a device's info file may be written by
//! anybody.

use super::Error;

/// How deep objects and arrays may nest.
pub const MAX_DEPTH: u32 = 64;

/// How much of a string is kept for [`Token::Key`] and [`Token::String`].
const CAPTURE: usize = 256;

/// What the scanner has just read to its end. The depth given with it is the
/// number of objects and arrays around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// An object or array opened.
    Open,
    /// An object or array closed.
    Close,
    /// A member's name, up to its first 256 bytes.
    Key(&'a [u8]),
    /// A string value: its first 256 bytes as decoded, and the length of the
    /// whole in bytes of UTF-8.
    String(&'a [u8], u64),
    /// A number, `true`, `false` or `null`.
    Scalar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Value,
    ValueOrClose,
    KeyOrClose,
    Key,
    Colon,
    AfterValue,
    Text,
    Escape,
    Hex(u8),
    Literal(&'static [u8]),
    Number(Number),
    Done,
}

/// Where in a number (RFC 8259, section 6) the scanner stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

/// The scanner. Feed it with [`Scanner::push`], then ask [`Scanner::finish`].
#[derive(Debug)]
pub struct Scanner {
    state: State,
    offset: u64,
    depth: u32,
    /// A bit for each open level: 1 for an object.
    objects: u64,
    is_key: bool,
    captured: Vec<u8>,
    length: u64,
    unit: u16,
    high_surrogate: Option<u16>,
}

impl Default for Scanner {
    fn default() -> Self {
        Scanner::new()
    }
}

impl Scanner {
    /// A scanner at the start of a text.
    #[must_use]
    pub fn new() -> Scanner {
        Scanner {
            state: State::Value,
            offset: 0,
            depth: 0,
            objects: 0,
            is_key: false,
            captured: Vec::new(),
            length: 0,
            unit: 0,
            high_surrogate: None,
        }
    }

    /// Reads on; `sink` is told of every token and its depth. UTF-8 inside
    /// strings is passed through unchecked.
    ///
    /// # Errors
    /// The first violation of the grammar, or nesting beyond [`MAX_DEPTH`].
    pub fn push(
        &mut self,
        bytes: &[u8],
        sink: &mut dyn FnMut(u32, Token<'_>),
    ) -> Result<(), Error> {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            // The inside of a string is most of a result: taken in runs.
            if self.state == State::Text {
                let run = rest
                    .iter()
                    .position(|&b| b == b'"' || b == b'\\' || b < 0x20);
                let run = run.unwrap_or(rest.len());
                if run > 0 {
                    self.flush_surrogate();
                    let (text, after) = rest.split_at(run);
                    self.take(text);
                    self.offset += run as u64;
                    rest = after;
                    continue;
                }
            }
            if self.step(byte, sink)? {
                self.offset += 1;
                rest = after;
            }
        }
        Ok(())
    }

    /// The text is over.
    ///
    /// # Errors
    /// When it was cut short.
    pub fn finish(mut self, sink: &mut dyn FnMut(u32, Token<'_>)) -> Result<(), Error> {
        if let State::Number(_) = self.state {
            self.end_number(sink)?;
        }
        if self.state == State::Done {
            Ok(())
        } else {
            Err(self.error("the text ends too early"))
        }
    }

    fn error(&self, reason: &'static str) -> Error {
        Error {
            offset: self.offset,
            reason,
        }
    }

    /// One byte. False: the byte ended a number and is still to be looked at.
    fn step(&mut self, byte: u8, sink: &mut dyn FnMut(u32, Token<'_>)) -> Result<bool, Error> {
        match self.state {
            State::Text => self.in_text(byte, sink)?,
            State::Escape => self.escape(byte)?,
            State::Hex(left) => self.hex(byte, left)?,
            State::Literal(rest) => match rest.split_first() {
                Some((&wanted, rest)) if wanted == byte => {
                    if rest.is_empty() {
                        self.ended(Token::Scalar, sink);
                    } else {
                        self.state = State::Literal(rest);
                    }
                }
                _ => return Err(self.error("a value was expected")),
            },
            State::Number(number) => return self.number(number, byte, sink),
            _ if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') => {}
            State::Value => self.value(byte, sink)?,
            State::ValueOrClose if byte == b']' => self.close(byte, sink)?,
            State::ValueOrClose => self.value(byte, sink)?,
            State::KeyOrClose if byte == b'}' => self.close(byte, sink)?,
            State::KeyOrClose | State::Key if byte == b'"' => self.open_text(true),
            State::KeyOrClose | State::Key => {
                return Err(self.error("a member's name in quotes was expected"));
            }
            State::Colon if byte == b':' => self.state = State::Value,
            State::Colon => return Err(self.error("`:` was expected")),
            State::AfterValue if byte == b',' => {
                self.state = if self.in_object() {
                    State::Key
                } else {
                    State::Value
                };
            }
            State::AfterValue => self.close(byte, sink)?,
            State::Done => return Err(self.error("more text after the end")),
        }
        Ok(true)
    }

    fn in_object(&self) -> bool {
        self.depth > 0 && self.objects >> (self.depth - 1) & 1 == 1
    }

    fn value(&mut self, byte: u8, sink: &mut dyn FnMut(u32, Token<'_>)) -> Result<(), Error> {
        self.state = match byte {
            b'{' | b'[' => {
                if self.depth == MAX_DEPTH {
                    return Err(self.error("nested too deeply"));
                }
                sink(self.depth, Token::Open);
                let bit = 1u64 << self.depth;
                self.depth += 1;
                if byte == b'{' {
                    self.objects |= bit;
                    State::KeyOrClose
                } else {
                    self.objects &= !bit;
                    State::ValueOrClose
                }
            }
            b'"' => {
                self.open_text(false);
                return Ok(());
            }
            b't' => State::Literal(b"rue"),
            b'f' => State::Literal(b"alse"),
            b'n' => State::Literal(b"ull"),
            b'-' => State::Number(Number::Minus),
            b'0' => State::Number(Number::Zero),
            b'1'..=b'9' => State::Number(Number::Digits),
            _ => return Err(self.error("a value was expected")),
        };
        Ok(())
    }

    fn close(&mut self, byte: u8, sink: &mut dyn FnMut(u32, Token<'_>)) -> Result<(), Error> {
        let wanted = if self.in_object() { b'}' } else { b']' };
        if byte != wanted {
            return Err(self.error("`,` or the end of the object or array was expected"));
        }
        self.depth -= 1;
        self.ended(Token::Close, sink);
        Ok(())
    }

    /// A value is complete: tell it, and expect what may follow it.
    fn ended(&mut self, token: Token<'_>, sink: &mut dyn FnMut(u32, Token<'_>)) {
        sink(self.depth, token);
        self.state = self.after_value();
    }

    fn after_value(&self) -> State {
        if self.depth == 0 {
            State::Done
        } else {
            State::AfterValue
        }
    }

    fn open_text(&mut self, is_key: bool) {
        self.is_key = is_key;
        self.captured.clear();
        self.length = 0;
        self.high_surrogate = None;
        self.state = State::Text;
    }

    fn take(&mut self, text: &[u8]) {
        self.length += text.len() as u64;
        let room = CAPTURE.saturating_sub(self.captured.len());
        self.captured.extend(text.iter().take(room));
    }

    fn take_char(&mut self, c: char) {
        let mut buffer = [0; 4];
        self.take(c.encode_utf8(&mut buffer).as_bytes());
    }

    /// A high surrogate that no low one followed is not a character.
    fn flush_surrogate(&mut self) {
        if self.high_surrogate.take().is_some() {
            self.take_char(char::REPLACEMENT_CHARACTER);
        }
    }

    fn in_text(&mut self, byte: u8, sink: &mut dyn FnMut(u32, Token<'_>)) -> Result<(), Error> {
        match byte {
            b'"' => {
                self.flush_surrogate();
                if self.is_key {
                    sink(self.depth, Token::Key(&self.captured));
                    self.state = State::Colon;
                } else {
                    sink(self.depth, Token::String(&self.captured, self.length));
                    self.state = self.after_value();
                }
                Ok(())
            }
            b'\\' => {
                self.state = State::Escape;
                Ok(())
            }
            _ => Err(self.error("a control character in a string")),
        }
    }

    fn escape(&mut self, byte: u8) -> Result<(), Error> {
        let plain = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                self.unit = 0;
                self.state = State::Hex(4);
                return Ok(());
            }
            _ => return Err(self.error("an unknown escape in a string")),
        };
        self.flush_surrogate();
        self.take(&[plain]);
        self.state = State::Text;
        Ok(())
    }

    fn hex(&mut self, byte: u8, left: u8) -> Result<(), Error> {
        let Some(digit) = char::from(byte).to_digit(16) else {
            return Err(self.error("four hexadecimal digits were expected"));
        };
        self.unit = self.unit << 4 | u16::try_from(digit).unwrap_or(0);
        if left > 1 {
            self.state = State::Hex(left - 1);
            return Ok(());
        }
        self.state = State::Text;
        match (self.high_surrogate.take(), self.unit) {
            (Some(high), low @ 0xdc00..=0xdfff) => {
                let code = 0x1_0000 + (u32::from(high - 0xd800) << 10) + u32::from(low - 0xdc00);
                self.take_char(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            (before, unit) => {
                if before.is_some() {
                    self.take_char(char::REPLACEMENT_CHARACTER);
                }
                if (0xd800..=0xdbff).contains(&unit) {
                    self.high_surrogate = Some(unit);
                } else {
                    // A low surrogate by itself is no character either.
                    let c = char::from_u32(u32::from(unit));
                    self.take_char(c.unwrap_or(char::REPLACEMENT_CHARACTER));
                }
            }
        }
        Ok(())
    }

    fn number(
        &mut self,
        number: Number,
        byte: u8,
        sink: &mut dyn FnMut(u32, Token<'_>),
    ) -> Result<bool, Error> {
        use Number::{
            Digits, Exponent, ExponentDigits, ExponentSign, Fraction, Minus, Point, Zero,
        };
        let next = match (number, byte) {
            (Minus, b'0') => Zero,
            (Minus, b'1'..=b'9') | (Digits, b'0'..=b'9') => Digits,
            (Zero | Digits, b'.') => Point,
            (Point | Fraction, b'0'..=b'9') => Fraction,
            (Zero | Digits | Fraction, b'e' | b'E') => Exponent,
            (Exponent, b'+' | b'-') => ExponentSign,
            (Exponent | ExponentSign | ExponentDigits, b'0'..=b'9') => ExponentDigits,
            _ => {
                self.end_number(sink)?;
                return Ok(false);
            }
        };
        self.state = State::Number(next);
        Ok(true)
    }

    fn end_number(&mut self, sink: &mut dyn FnMut(u32, Token<'_>)) -> Result<(), Error> {
        use Number::{Digits, ExponentDigits, Fraction, Zero};
        match self.state {
            State::Number(Zero | Digits | Fraction | ExponentDigits) => {
                self.ended(Token::Scalar, sink);
                Ok(())
            }
            _ => Err(self.error("a number that is not complete")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(pieces: &[&[u8]]) -> Result<Vec<String>, Error> {
        let mut seen = Vec::new();
        let mut scanner = Scanner::new();
        let mut sink = |depth: u32, token: Token<'_>| {
            seen.push(match token {
                Token::Key(key) => format!("{depth} key {}", String::from_utf8_lossy(key)),
                Token::String(text, length) => {
                    format!("{depth} {:?} {length}", String::from_utf8_lossy(text))
                }
                other => format!("{depth} {other:?}"),
            });
        };
        for piece in pieces {
            scanner.push(piece, &mut sink)?;
        }
        scanner.finish(&mut sink)?;
        Ok(seen)
    }

    #[test]
    fn the_tokens_are_the_same_whatever_the_pieces() {
        let text = br#" {"a": [1, -2.5e+3, true, null, "x\ud83d\ude00\n\u00e9y"], "": {}, "z": "\ud800w"} "#;
        let whole = scan(&[text]).unwrap();
        assert!(whole.contains(&"2 \"x😀\\néy\" 9".to_owned()), "{whole:?}");
        assert!(whole.contains(&"1 \"\u{fffd}w\" 4".to_owned()), "{whole:?}");
        for cut in 0..=text.len() {
            let (a, b) = text.split_at(cut);
            assert_eq!(scan(&[a, b]).unwrap(), whole, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(scan(&bytes).unwrap(), whole);
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in [
            "",
            " ",
            "{",
            "[1,2}",
            "{\"a\":}",
            "{\"a\" 1}",
            "{a:1}",
            "[1,]",
            "{\"a\":1,}",
            "01",
            "1.",
            "-",
            "1e",
            "+1",
            ".5",
            "tru",
            "nul",
            "\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\n\"",
            "1 2",
            "{} x",
            "// c\n1",
            "[1 2]",
            "'a'",
            "NaN",
            "]",
            "}",
        ] {
            assert!(scan(&[text.as_bytes()]).is_err(), "{text:?}");
        }
        for text in [
            "0",
            "-0.5E-2",
            "\"\"",
            "[]",
            "{}",
            "[[],{}]",
            "1e+22",
            "99999999999999999999",
        ] {
            assert!(scan(&[text.as_bytes()]).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn row_30_depth_is_limited() {
        let deep = "[".repeat(MAX_DEPTH as usize) + &"]".repeat(MAX_DEPTH as usize);
        assert!(scan(&[deep.as_bytes()]).is_ok());
        let deeper = "[".repeat(100_000);
        assert_eq!(
            scan(&[deeper.as_bytes()]).unwrap_err().reason,
            "nested too deeply"
        );
    }
}
