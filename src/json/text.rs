//! A JSON text that was checked, and the ways to look into it.

use super::{DeJson, Error, Object, Scanner, escape_into};

/// What a JSON value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    String,
    /// `1`, `-2.5e3`
    Number,
    /// `true`, `false`
    Boolean,
    /// `null`
    Null,
}

/// A piece of text that is one valid JSON value. Only [`Json::parse`] makes the
/// first one; the others are parts of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<'a>(&'a str);

impl<'a> Json<'a> {
    /// Checks the text.
    ///
    /// # Errors
    /// When it is not JSON, or nests deeper than [`super::MAX_DEPTH`].
    pub fn parse(text: &'a str) -> Result<Json<'a>, Error> {
        let mut scanner = Scanner::new();
        let mut sink = |_, _: super::Token<'_>| {};
        scanner.push(text.as_bytes(), &mut sink)?;
        scanner.finish(&mut sink)?;
        Ok(Json(text.trim_matches(SPACE)))
    }

    /// Checks bytes that should be text.
    ///
    /// # Errors
    /// As [`Json::parse`], and when they are not UTF-8.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Json<'a>, Error> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Json::parse(text),
            Err(error) => Err(Error {
                offset: error.valid_up_to() as u64,
                reason: "not UTF-8",
            }),
        }
    }

    /// The value as it stands in the text.
    #[must_use]
    pub fn text(self) -> &'a str {
        self.0
    }

    /// What it is.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self.0.as_bytes().first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b't' | b'f') => Kind::Boolean,
            Some(b'n') => Kind::Null,
            _ => Kind::Number,
        }
    }

    /// The member of that name, if this is an object that has one; of several,
    /// the last, as in Python.
    #[must_use]
    pub fn get(self, name: &str) -> Option<Json<'a>> {
        self.members()
            .filter(|(key, _)| key == name)
            .last()
            .map(|(_, value)| value)
    }

    /// The members of an object; nothing for anything else.
    #[must_use]
    pub fn members(self) -> Members<'a> {
        Members(Walk::inside(self, Kind::Object))
    }

    /// The items of an array; nothing for anything else.
    #[must_use]
    pub fn items(self) -> Items<'a> {
        Items(Walk::inside(self, Kind::Array))
    }

    /// The string, decoded; a lone surrogate becomes U+FFFD.
    #[must_use]
    pub fn string(self) -> Option<String> {
        (self.kind() == Kind::String).then(|| unescape(self.0))
    }

    /// The value as text in which no string holds half of a character: JSON may
    /// (RFC 8259, section 8.2), servers cannot store it.
    #[must_use]
    pub fn sound(self) -> String {
        self.rewritten(&str::to_owned)
    }

    /// The value as sound text in which each string is what `change` makes of it, and
    /// so is each number, as a string where it is another one.
    #[must_use]
    pub fn rewritten(self, change: &dyn Fn(&str) -> String) -> String {
        let mut rewritten = String::with_capacity(self.0.len());
        let mut rest = self.0;
        while let Some(at) = rest.find('"') {
            let (before, literal) = rest.split_at(at);
            let (literal, after) = literal.split_at(end_of_value(literal.as_bytes()));
            rewrite_numbers(before, change, &mut rewritten);
            push_quoted(&mut rewritten, &change(&unescape(literal)));
            rest = after;
        }
        rewrite_numbers(rest, change, &mut rewritten);
        rewritten
    }

    /// The number, when it is a whole one that an `i64` holds and is written as
    /// such.
    #[must_use]
    pub fn integer(self) -> Option<i64> {
        if self.kind() == Kind::Number {
            self.0.parse().ok()
        } else {
            None
        }
    }

    /// `true` or `false`.
    #[must_use]
    pub fn boolean(self) -> Option<bool> {
        match self.0 {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    /// Whether Python would call the value false: null, false, zero, or empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        match self.kind() {
            Kind::Object => self.members().next().is_none(),
            Kind::Array => self.items().next().is_none(),
            Kind::String => self.0.len() == 2,
            Kind::Number => self.0.parse() == Ok(0.0f64),
            Kind::Boolean => self.0 == "false",
            Kind::Null => true,
        }
    }

    /// The named members of this object as a `T`. Missing and null members must
    /// be `Option`s in `T`; integers must fit an `i64`, which is what `T` should
    /// hold them in.
    ///
    /// # Errors
    /// When this is no object, or a member is not of the type that `T` wants.
    pub fn decode<T: DeJson>(self, fields: &[&str]) -> Result<T, Error> {
        let wrong = |reason| Error { offset: 0, reason };
        if self.kind() != Kind::Object {
            return Err(wrong("an object was expected"));
        }
        let mut wanted = Object::new();
        for &name in fields {
            match self.get(name) {
                Some(value) if value.kind() == Kind::Number && value.integer().is_none() => {
                    return Err(wrong("a whole number was expected"));
                }
                Some(value) if value.kind() != Kind::Null => wanted.json(name, value),
                _ => {}
            }
        }
        T::deserialize_json(&wanted.finish())
            .map_err(|_| wrong("a member is missing or not of the expected type"))
    }
}

const SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Walks over values in text that is known to be valid.
#[derive(Clone, Debug)]
struct Walk<'a>(&'a str);

impl<'a> Walk<'a> {
    fn inside(json: Json<'a>, kind: Kind) -> Walk<'a> {
        if json.kind() == kind {
            let inner = json.0.get(1..json.0.len().saturating_sub(1));
            Walk(inner.unwrap_or_default())
        } else {
            Walk("")
        }
    }

    /// The next value, past blanks, commas and colons.
    fn next(&mut self) -> Option<Json<'a>> {
        let text = self.0.trim_start_matches([' ', '\t', '\n', '\r', ',', ':']);
        if text.is_empty() {
            self.0 = text;
            return None;
        }
        let (value, rest) = text.split_at(end_of_value(text.as_bytes()));
        self.0 = rest;
        Some(Json(value))
    }
}

/// Where the value at the start of valid text ends.
fn end_of_value(text: &[u8]) -> usize {
    let mut depth = 0u32;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => {
                at += 1;
                while let Some(&byte) = text.get(at) {
                    match byte {
                        b'"' => break,
                        b'\\' => at += 2,
                        _ => at += 1,
                    }
                }
                if depth == 0 {
                    return (at + 1).min(text.len());
                }
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    text.len()
}

fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    escape_into(out, text);
    out.push('"');
}

/// Rewrites the numbers in a piece of valid text without strings.
fn rewrite_numbers(text: &str, change: &dyn Fn(&str) -> String, out: &mut String) {
    const BETWEEN: [char; 10] = ['{', '}', '[', ']', ',', ':', ' ', '\t', '\n', '\r'];
    for piece in text.split_inclusive(BETWEEN) {
        let value = piece.trim_end_matches(BETWEEN);
        if value.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
            let changed = change(value);
            match changed == value {
                true => out.push_str(value),
                false => push_quoted(out, &changed),
            }
            out.push_str(piece.get(value.len()..).unwrap_or_default());
        } else {
            out.push_str(piece);
        }
    }
}

/// Decodes a valid string literal, quotes included.
fn unescape(literal: &str) -> String {
    let mut decoded = Vec::with_capacity(literal.len());
    let inner = literal
        .get(1..literal.len().saturating_sub(1))
        .unwrap_or_default();
    let mut units: Vec<u16> = Vec::new();
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        let (plain, escape) = rest.split_at(at);
        if !plain.is_empty() {
            flush(&mut units, &mut decoded);
            decoded.extend_from_slice(plain.as_bytes());
        }
        let letter = escape.as_bytes().get(1).copied().unwrap_or(b'\\');
        let mut length = 2;
        if letter == b'u' {
            length = 6;
            let hex = escape.get(2..6).unwrap_or_default();
            units.push(u16::from_str_radix(hex, 16).unwrap_or(0xfffd));
        } else {
            flush(&mut units, &mut decoded);
            decoded.push(match letter {
                b'b' => 0x08,
                b'f' => 0x0c,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                other => other,
            });
        }
        rest = escape.get(length..).unwrap_or_default();
    }
    flush(&mut units, &mut decoded);
    decoded.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&decoded).into_owned()
}

fn flush(units: &mut Vec<u16>, decoded: &mut Vec<u8>) {
    if !units.is_empty() {
        decoded.extend_from_slice(String::from_utf16_lossy(units).as_bytes());
        units.clear();
    }
}

/// The members of an object, in the order of the text.
#[derive(Clone, Debug)]
pub struct Members<'a>(Walk<'a>);

impl<'a> Iterator for Members<'a> {
    type Item = (String, Json<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.0.next()?.string()?;
        Some((key, self.0.next()?))
    }
}

/// The items of an array, in the order of the text.
#[derive(Clone, Debug)]
pub struct Items<'a>(Walk<'a>);

impl<'a> Iterator for Items<'a> {
    type Item = Json<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_character_is_replaced_and_all_else_stays() {
        let sound = |text: &str| Json::parse(text).unwrap().sound();
        let halves = r#"{"a\ud800": ["\udc00\ud83d\ude00", "\\ud800", 1e+22, "é\n\"\u0000"]}"#;
        assert_eq!(
            sound(halves),
            "{\"a\u{fffd}\": [\"\u{fffd}😀\", \"\\\\ud800\", 1e+22, \"é\\n\\\"\\u0000\"]}"
        );
    }

    #[test]
    fn what_is_changed_is_json_still() {
        let json = Json::parse(r#"{"a1": [12, -1, 3,true , "1\n", null], "b":1e5,"c": {}}"#);
        let rewritten = json.unwrap().rewritten(&|text| text.replace('1', "\"x"));
        assert_eq!(
            rewritten,
            r#"{"a\"x": ["\"x2", "-\"x", 3,true , "\"x\n", null], "b":"\"xe5","c": {}}"#
        );
        assert!(Json::parse(&rewritten).is_ok());
    }

    #[test]
    fn members_are_found_as_they_stand() {
        let text = r#" { "a" : {"x":[1,"}"]} ,"b":"q\"\\", "n":null, "a2":1e+22,"a":[ 1 , 2 ]} "#;
        let json = Json::parse(text).unwrap();
        assert_eq!(json.get("a").unwrap().text(), "[ 1 , 2 ]");
        assert_eq!(json.get("b").unwrap().string().unwrap(), "q\"\\");
        assert_eq!(json.get("a2").unwrap().text(), "1e+22");
        assert!(json.get("n").unwrap().is_empty());
        assert!(json.get("zz").is_none());
        let items: Vec<i64> = json
            .get("a")
            .unwrap()
            .items()
            .filter_map(Json::integer)
            .collect();
        assert_eq!(items, [1, 2]);
        assert_eq!(json.members().count(), 5);
    }

    #[test]
    fn strings_are_decoded() {
        let json = Json::parse(r#""\ud83d\ude00 \ud800 \n\/\u0000é""#).unwrap();
        assert_eq!(json.string().unwrap(), "😀 \u{fffd} \n/\0é");
    }

    #[test]
    fn emptiness_is_pythons() {
        for text in ["null", "false", "0", "0.0", "-0", "\"\"", "[]", "{ }"] {
            assert!(Json::parse(text).unwrap().is_empty(), "{text}");
        }
        for text in ["true", "1", "\"x\"", "[0]", "{\"a\":0}"] {
            assert!(!Json::parse(text).unwrap().is_empty(), "{text}");
        }
    }

    #[derive(DeJson)]
    struct Sample {
        a: Option<String>,
        n: Option<i64>,
    }

    #[test]
    fn decoding_looks_at_the_wanted_members_only() {
        let text = r#"{"a":null,"n":5,"other":1e+22,"big":18446744073709551616,"u":{"v":[]}}"#;
        let sample: Sample = Json::parse(text).unwrap().decode(&["a", "n"]).unwrap();
        assert_eq!((sample.a, sample.n), (None, Some(5)));
        for text in [
            "[]",
            r#"{"n":"5"}"#,
            r#"{"n":1.5}"#,
            r#"{"n":18446744073709551615}"#,
        ] {
            assert!(
                Json::parse(text)
                    .unwrap()
                    .decode::<Sample>(&["a", "n"])
                    .is_err(),
                "{text}"
            );
        }
    }
}
