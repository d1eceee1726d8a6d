//! JSON that the agent writes.

use super::Json;

/// Writes the inside of a JSON string, quotes not included.
pub fn escape_into(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c < ' ' || c == '"' || c == '\\') {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        match special.as_bytes().first().copied().unwrap_or_default() {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            control => {
                const HEX: [char; 16] = [
                    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
                ];
                out.push_str("\\u00");
                out.push(HEX[usize::from(control >> 4)]);
                out.push(HEX[usize::from(control & 15)]);
            }
        }
        rest = special.get(1..).unwrap_or_default();
    }
    out.push_str(rest);
}

/// An object that is being written, member by member.
#[derive(Clone, Debug)]
pub struct Object(String);

impl Default for Object {
    fn default() -> Self {
        Object::new()
    }
}

impl Object {
    /// An object without members.
    #[must_use]
    pub fn new() -> Object {
        Object("{".to_owned())
    }

    fn key(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push_str(", ");
        }
        self.quoted(name);
        self.0.push_str(": ");
    }

    fn quoted(&mut self, text: &str) {
        self.0.push('"');
        escape_into(&mut self.0, text);
        self.0.push('"');
    }

    /// A member that is a string.
    pub fn string(&mut self, name: &str, value: &str) {
        self.key(name);
        self.quoted(value);
    }

    /// A member that is a whole number.
    pub fn integer(&mut self, name: &str, value: i64) {
        self.key(name);
        self.0.push_str(&value.to_string());
    }

    /// A member that is JSON already.
    pub fn json(&mut self, name: &str, value: Json<'_>) {
        self.key(name);
        self.0.push_str(value.text());
    }

    /// A member that is an object.
    pub fn object(&mut self, name: &str, value: Object) {
        self.key(name);
        self.0.push_str(&value.finish());
    }

    /// A member that is a list of strings.
    pub fn strings<S: AsRef<str>>(&mut self, name: &str, values: &[S]) {
        self.key(name);
        self.0.push('[');
        for (at, value) in values.iter().enumerate() {
            if at > 0 {
                self.0.push_str(", ");
            }
            self.quoted(value.as_ref());
        }
        self.0.push(']');
    }

    /// A member that is a list of objects.
    pub fn objects(&mut self, name: &str, values: impl Iterator<Item = Object>) {
        self.key(name);
        let values: Vec<_> = values.map(Object::finish).collect();
        self.0.push_str(&format!("[{}]", values.join(", ")));
    }

    /// Bytes so far.
    #[must_use]
    pub fn length(&self) -> usize {
        self.0.len()
    }

    /// The text of the whole.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let text = "a\"\\\n\r\t\0\u{1f}\u{7f}é😀/";
        let mut inner = Object::new();
        inner.integer("n", -3);
        let mut object = Object::new();
        object.string(text, text);
        object.object("o", inner);
        object.strings("l", &["x", "y\n"]);
        let written = object.finish();
        let json = Json::parse(&written).unwrap();
        assert_eq!(json.get(text).unwrap().string().unwrap(), text);
        assert_eq!(json.get("o").unwrap().text(), "{\"n\": -3}");
        assert_eq!(json.get("l").unwrap().items().count(), 2);
        assert_eq!(Object::new().finish(), "{}");
    }
}
