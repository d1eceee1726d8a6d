//! From YAML to the JSON that Python's `json.dumps` would make of it.

use super::{Error, Node, Value};
use crate::json::escape_into;

impl Node {
    /// The value as JSON.
    ///
    /// # Errors
    /// The place of a number that JSON does not have: `.inf` or `.nan`.
    pub fn to_json(&self) -> Result<String, Error> {
        let mut out = String::new();
        self.write(&mut out)?;
        Ok(out)
    }

    /// Recursive, over a tree whose depth is bounded.
    fn write(&self, out: &mut String) -> Result<(), Error> {
        match &self.value {
            Value::List(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    separate(out, at);
                    item.write(out)?;
                }
                out.push(']');
            }
            Value::Map(entries) => {
                out.push('{');
                for (at, (key, value)) in entries.iter().enumerate() {
                    separate(out, at);
                    quoted(out, &key.json_scalar()?);
                    out.push_str(": ");
                    value.write(out)?;
                }
                out.push('}');
            }
            Value::Str(text) => quoted(out, text),
            _ => out.push_str(&self.json_scalar()?),
        }
        Ok(())
    }

    /// The text of a scalar, as far as JSON has one for it.
    fn json_scalar(&self) -> Result<String, Error> {
        match self.value {
            Value::Float(number) if !number.is_finite() => {
                Err(self.fault("JSON has no number for this"))
            }
            _ => Ok(self.key_text().unwrap_or_default()),
        }
    }

    /// What the value is called as a key of a JSON object; None for lists and
    /// maps. Keys that would be the same there are the same here.
    pub(super) fn key_text(&self) -> Option<String> {
        match &self.value {
            Value::Null => Some("null".to_owned()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Int(number) => Some(number.to_string()),
            // Keeps the dot of 1.0, as Python does.
            Value::Float(number) => Some(format!("{number:?}")),
            Value::Str(text) => Some(text.clone()),
            Value::List(_) | Value::Map(_) => None,
        }
    }
}

fn separate(out: &mut String, at: usize) {
    if at > 0 {
        out.push_str(", ");
    }
}

fn quoted(out: &mut String, text: &str) {
    out.push('"');
    escape_into(out, text);
    out.push('"');
}
