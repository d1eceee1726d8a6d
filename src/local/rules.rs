//! What a request's JSON may hold: tables of fields, and the one function that
//! checks a text against a table.
//!
//! The rules are marshmallow's, which the original uses: members that no field
//! names are refused, null is no value, whole numbers may come as strings.

use super::formats;
use super::reply::Reply;
use super::values::{Value, Values};
use crate::job::Phase;
use crate::json::{Json, Kind, Object};

/// What a value may be.
#[derive(Debug)]
pub(super) enum Rule {
    /// A string.
    Text,
    /// A string that is not empty.
    SomeText,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// The name of a phase.
    PhaseName,
    /// A date with a time, in a string.
    Moment,
    /// The address of something on the web.
    Url,
    /// A whole number, also in a string.
    Whole,
    /// Seconds, or a duration such as `1h30m`; also null.
    Duration,
    /// A truth value, or what Python people write for one.
    Truth,
    /// A list of strings.
    Texts,
    /// A string, or a list of them.
    TextOrTexts,
    /// A list of objects with these fields.
    Members(&'static [Field]),
    /// An object with these fields.
    Nested(&'static [Field]),
    /// Any object.
    Map,
    /// Any object, or null.
    MapOrNull,
    /// An object whose values are strings.
    TextMap,
    /// Exit statuses by the names of phases.
    Statuses,
}

/// A member that an object may have.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) rule: Rule,
    pub(super) required: bool,
}

/// A member that may be missing.
pub(super) const fn may(name: &'static str, rule: Rule) -> Field {
    Field {
        name,
        rule,
        required: false,
    }
}

/// A member that may not be missing.
pub(super) const fn must(name: &'static str, rule: Rule) -> Field {
    Field {
        name,
        rule,
        required: true,
    }
}

/// Checks the text of a request; what breaks a rule gets its answer. A request
/// without JSON counts as an empty object, and so does null.
pub(super) fn check<'a>(schema: &'static [Field], text: &'a str) -> Result<Values<'a>, Reply> {
    let text = if text.is_empty() { "{}" } else { text };
    let Ok(json) = Json::parse(text) else {
        return Err(Reply::abort(400, "Bad Request"));
    };
    let values = match json.kind() {
        Kind::Null => members(schema, Json::parse("{}").unwrap_or(json)),
        Kind::Object => members(schema, json),
        _ => Err(schema_error("Invalid input type.")),
    };
    let values = values.map_err(Reply::invalid)?;
    storable(text)?;
    Ok(values)
}

/// Refuses text that the database could not store.
pub(super) fn storable(text: &str) -> Result<(), Reply> {
    if formats::has_lone_surrogate(text) {
        return Err(Reply::unhandled(&"surrogates not allowed"));
    }
    Ok(())
}

/// A fault of the whole object.
pub(super) fn schema_error(message: &str) -> Object {
    let mut errors = Object::new();
    errors.strings("_schema", &[message]);
    errors
}

fn members<'a>(schema: &'static [Field], json: Json<'a>) -> Result<Values<'a>, Object> {
    let mut found: Vec<Option<Json<'a>>> = schema.iter().map(|_| None).collect();
    let mut errors = Object::new();
    let mut wrong = false;
    for (name, value) in json.members() {
        let mut slots = schema.iter().zip(&mut found);
        if let Some((_, slot)) = slots.find(|(field, _)| field.name == name) {
            // Of several members with one name the last one counts.
            *slot = Some(value);
        } else {
            errors.strings(&name, &["Unknown field."]);
            wrong = true;
        }
    }
    let mut values = Values::default();
    for (field, value) in schema.iter().zip(found) {
        let kept = match value {
            Some(value) => keep(&field.rule, value).map(|value| values.add(field.name, value)),
            None if field.required => Err("Missing data for required field.".into()),
            None => Ok(()),
        };
        if let Err(fault) = kept {
            wrong = true;
            match fault {
                Fault::Message(message) => errors.strings(field.name, &[message]),
                Fault::Nested(nested) => errors.object(field.name, nested),
            }
        }
    }
    if wrong { Err(errors) } else { Ok(values) }
}

/// What is wrong with a value, or inside it.
enum Fault {
    Message(&'static str),
    Nested(Object),
}

impl From<&'static str> for Fault {
    fn from(message: &'static str) -> Fault {
        Fault::Message(message)
    }
}

const NOT_A_MAPPING: Fault = Fault::Message("Not a valid mapping type.");

fn keep<'a>(rule: &Rule, json: Json<'a>) -> Result<Value<'a>, Fault> {
    if json.kind() == Kind::Null {
        return match rule {
            Rule::MapOrNull | Rule::Duration => Ok(Value::Json(json)),
            _ => Err("Field may not be null.".into()),
        };
    }
    let require = |kept: bool, message: &'static str| {
        if kept {
            Ok(Value::Json(json))
        } else {
            Err(Fault::Message(message))
        }
    };
    let is_text = |json: Json<'_>| json.kind() == Kind::String;
    let text_is = |wanted: &dyn Fn(&str) -> bool| json.string().is_some_and(|text| wanted(&text));
    match rule {
        Rule::Text => require(is_text(json), "Not a valid string."),
        Rule::SomeText => {
            require(is_text(json), "Not a valid string.")?;
            require(json.text().len() > 2, "Shorter than minimum length 1.")
        }
        Rule::OneOf(names) => require(
            text_is(&|text| names.contains(&text)),
            "Must be one of the names that are known.",
        ),
        Rule::PhaseName => require(
            text_is(&|text| Phase::from_name(text).is_some()),
            "Must be one of: setup, provision, firmware_update, test, allocate, reserve, cleanup.",
        ),
        Rule::Moment => require(text_is(&formats::is_moment), "Not a valid datetime."),
        Rule::Url => require(text_is(&formats::is_url), "Not a valid URL."),
        Rule::Whole => match whole(json) {
            Some(number) => Ok(Value::Whole(number)),
            None => Err("Not a valid integer.".into()),
        },
        Rule::Duration => {
            let seconds = match json.string() {
                Some(text) => formats::seconds(&text),
                None => json.integer().filter(|seconds| *seconds >= 0),
            };
            match seconds {
                Some(seconds) => Ok(Value::Whole(seconds)),
                None => Err("Invalid duration format.".into()),
            }
        }
        Rule::Truth => {
            let text = json.string().unwrap_or_else(|| json.text().to_owned());
            let known = ["true", "false", "1", "0", "yes", "no", "on", "off"];
            let text = text.to_ascii_lowercase();
            require(known.contains(&text.as_str()), "Not a valid boolean.")
        }
        Rule::TextOrTexts if is_text(json) => Ok(Value::Json(json)),
        Rule::Texts | Rule::TextOrTexts => {
            require(json.kind() == Kind::Array, "Not a valid list.")?;
            require(json.items().all(is_text), "Not a valid string.")
        }
        Rule::Members(fields) => {
            require(json.kind() == Kind::Array, "Not a valid list.")?;
            for item in json.items() {
                require(item.kind() == Kind::Object, "Invalid input type.")?;
                members(fields, item).map_err(Fault::Nested)?;
            }
            Ok(Value::Json(json))
        }
        Rule::Nested(fields) => {
            require(json.kind() == Kind::Object, "Invalid input type.")?;
            let values = members(fields, json).map_err(Fault::Nested)?;
            Ok(Value::Object(values))
        }
        Rule::Map | Rule::MapOrNull if json.kind() == Kind::Object => Ok(Value::Json(json)),
        Rule::TextMap if json.kind() == Kind::Object => {
            let values = json.members().all(|(_, value)| is_text(value));
            require(values, "Not a valid string.")
        }
        Rule::Statuses if json.kind() == Kind::Object => {
            let is_status = |(name, value): (String, Json<'_>)| {
                Phase::from_name(&name).is_some() && whole(value).is_some()
            };
            require(
                json.members().all(is_status),
                "Not a valid phase or status.",
            )
        }
        Rule::Map | Rule::MapOrNull | Rule::TextMap | Rule::Statuses => Err(NOT_A_MAPPING),
    }
}

/// A whole number as marshmallow takes one: also in a string, and cut off after
/// the point if it is written as a fraction.
pub(super) fn whole(json: Json<'_>) -> Option<i64> {
    match json.kind() {
        Kind::String => formats::integer(&json.string()?),
        Kind::Number if json.integer().is_some() => json.integer(),
        Kind::Number => {
            let fraction: f64 = json.text().parse().ok()?;
            let is_small = fraction.abs() < 9e15;
            #[allow(
                clippy::cast_possible_truncation,
                reason = "checked on the line before; cutting off is wanted"
            )]
            is_small.then_some(fraction as i64)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &[Field] = &[
        must("n", Rule::Whole),
        may("s", Rule::Text),
        may("d", Rule::Duration),
        may("o", Rule::Nested(&[may("l", Rule::Texts)])),
    ];

    fn refused(text: &str) -> (u16, String) {
        let reply = check(SAMPLE, text).unwrap_err();
        (reply.status, reply.into_text().unwrap())
    }

    #[test]
    fn what_is_kept_is_written_in_the_order_of_the_table() {
        let text = r#"{"o": {"l": ["x"]}, "d": "1h", "s": "\n", "n": "-5"}"#;
        let mut object = Object::new();
        check(SAMPLE, text).unwrap().write(&mut object);
        let wanted = r#"{"n": -5, "s": "\n", "d": 3600, "o": {"l": ["x"]}}"#;
        assert_eq!(object.finish(), wanted);
    }

    #[test]
    fn what_breaks_a_rule_is_named() {
        let (status, body) = refused(r#"{"x": 1, "n": true, "s": null, "o": {"l": [1], "k": 2}}"#);
        assert_eq!(status, 422);
        let wanted = r#"{"detail": {"json": {"x": ["Unknown field."], "n": ["Not a valid integer."], "s": ["Field may not be null."], "o": {"k": ["Unknown field."], "l": ["Not a valid string."]}}}, "message": "Validation error"}"#;
        assert_eq!(body, wanted);
        for text in [
            "",
            "{}",
            "null",
            "[]",
            "3",
            r#"{"n": 1.5e30}"#,
            r#"{"n": "1.5"}"#,
        ] {
            assert_eq!(refused(text).0, 422, "{text}");
        }
        for text in ["{", "{\"n\": 1} x", "{'n': 1}"] {
            assert_eq!(refused(text).0, 400, "{text}");
        }
        assert_eq!(refused(r#"{"n": 1, "s": "\ud800"}"#).0, 500);
    }
}
