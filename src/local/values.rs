//! What a request's JSON holds, after it was checked against its rules.

use crate::json::{Json, Object};

/// A value that keeps its rule, in the form in which it is stored.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Json(Json<'a>),
    Whole(i64),
    Object(Values<'a>),
}

/// The members of an object that keeps the rules, in the order of the table.
#[derive(Clone, Debug, Default)]
pub(super) struct Values<'a>(Vec<(&'static str, Value<'a>)>);

impl<'a> Values<'a> {
    pub(super) fn add(&mut self, name: &'static str, value: Value<'a>) {
        self.0.push((name, value));
    }

    fn get(&self, name: &str) -> Option<&Value<'a>> {
        let found = self.0.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| value)
    }

    /// The member as it stands in the request.
    pub(super) fn json(&self, name: &str) -> Option<Json<'a>> {
        match self.get(name) {
            Some(Value::Json(json)) => Some(*json),
            _ => None,
        }
    }

    /// A string.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.json(name).and_then(Json::string)
    }

    /// A list of strings.
    pub(super) fn texts(&self, name: &str) -> Option<Vec<String>> {
        let list = self.json(name)?;
        Some(list.items().filter_map(Json::string).collect())
    }

    /// A whole number.
    pub(super) fn whole(&self, name: &str) -> Option<i64> {
        match self.get(name) {
            Some(Value::Whole(number)) => Some(*number),
            _ => None,
        }
    }

    /// Takes a member out.
    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|(key, _)| *key != name);
    }

    /// Whether one of the phases' data speaks of attachments.
    pub(super) fn has_attachments(&self) -> bool {
        self.0.iter().any(|(name, value)| {
            let has = match value {
                Value::Json(json) => json.get("attachments").is_some(),
                Value::Object(values) => values.get("attachments").is_some(),
                Value::Whole(_) => false,
            };
            has && name.ends_with("_data")
        })
    }

    /// Writes the members.
    pub(super) fn write(&self, object: &mut Object) {
        for (name, value) in &self.0 {
            match value {
                Value::Json(json) => object.json(name, *json),
                Value::Whole(number) => object.integer(name, *number),
                Value::Object(values) => {
                    let mut nested = Object::new();
                    values.write(&mut nested);
                    object.object(name, nested);
                }
            }
        }
    }
}
