//! From the parser's events to a tree, with a stack that is no thread's stack.

use super::map::Entries;
use super::size::Size;
use super::{Document, Error, MAX_DEPTH, Node, Value, resolve};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};
use std::borrow::Cow;
use std::collections::HashMap;

/// Reads the whole text, whose size and characters are checked already.
pub(super) fn build(text: &str) -> Result<Document, Error> {
    let mut builder = Builder::default();
    for next in Parser::new_from_str(text) {
        let (event, span) =
            next.map_err(|error| node(*error.marker(), Value::Null).fault(error.info()))?;
        builder.take(event, span.start)?;
    }
    let empty = node(Marker::new(0, 1, 0), Value::Null);
    Ok(Document {
        root: builder.root.unwrap_or(empty),
        duplicates: builder.duplicates,
    })
}

/// A value at a place. The parser counts lines from 1, but columns from 0.
fn node(place: Marker, value: Value) -> Node {
    Node {
        value,
        line: place.line(),
        column: place.col() + 1,
    }
}

/// The tag in full.
fn name(tag: Option<Cow<'_, Tag>>) -> Option<String> {
    tag.map(|tag| format!("{}{}", tag.handle, tag.suffix))
}

/// A list or map that is not closed yet.
#[derive(Debug)]
struct Open {
    place: Marker,
    anchor: usize,
    content: Content,
}

#[derive(Debug)]
enum Content {
    List(Vec<Node>),
    Map(Entries),
}

#[derive(Debug, Default)]
struct Builder {
    root: Option<Node>,
    /// From the outermost to the innermost.
    open: Vec<Open>,
    /// What aliases stand for. The parser numbers anchors from 1; 0 is none.
    anchors: HashMap<usize, (Node, Size)>,
    /// All values so far, with those that are kept for aliases.
    size: Size,
    duplicates: Vec<(String, usize)>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, place: Marker) -> Result<(), Error> {
        let fault = |reason: &str| node(place, Value::Null).fault(reason);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(fault("a second document begins here; one is wanted"))
            }
            Event::DocumentStart(_) => Ok(()),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                if plain && tag.is_none() && text == "<<" && self.merge_next() {
                    return Ok(());
                }
                let value = resolve::scalar(&text, plain, name(tag).as_deref())
                    .map_err(|reason| fault(&reason))?;
                let scalar = node(place, value);
                self.charge(Size::of(&scalar), place)?;
                self.complete(scalar, anchor)
            }
            Event::Alias(anchor) => {
                let Some((original, size)) = self.anchors.get(&anchor) else {
                    return Err(fault("an alias inside of what it stands for"));
                };
                let (copy, size) = (original.clone(), *size);
                self.charge(size, place)?;
                self.complete(copy, 0)
            }
            Event::SequenceStart(anchor, tag) => {
                resolve::collection("seq", name(tag).as_deref())
                    .map_err(|reason| fault(&reason))?;
                self.begin(Content::List(Vec::new()), anchor, place)
            }
            Event::MappingStart(anchor, tag) => {
                resolve::collection("map", name(tag).as_deref())
                    .map_err(|reason| fault(&reason))?;
                self.begin(Content::Map(Entries::default()), anchor, place)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
        }
    }

    /// A plain `<<` is no text where a key stands. False: it stands elsewhere.
    fn merge_next(&mut self) -> bool {
        match self.open.last_mut().map(|open| &mut open.content) {
            Some(Content::Map(entries)) if entries.wants_key() => {
                entries.merge_next();
                true
            }
            _ => false,
        }
    }

    /// Makes room for a value inside of what is open.
    fn charge(&mut self, size: Size, place: Marker) -> Result<(), Error> {
        let fault = |reason: &str| node(place, Value::Null).fault(reason);
        self.size.add(size);
        if !self.size.is_allowed() {
            return Err(fault("too many values or too much text, aliases replaced"));
        }
        if self.open.len() + size.depth > MAX_DEPTH {
            let reason = format!("lists and maps are nested more than {MAX_DEPTH} deep");
            return Err(fault(&reason));
        }
        Ok(())
    }

    fn begin(&mut self, content: Content, anchor: usize, place: Marker) -> Result<(), Error> {
        self.charge(Size::COLLECTION, place)?;
        self.open.push(Open {
            place,
            anchor,
            content,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Error> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let value = match open.content {
            Content::List(items) => Value::List(items),
            Content::Map(entries) => Value::Map(entries.finish(&mut self.duplicates)?),
        };
        self.complete(node(open.place, value), open.anchor)
    }

    /// A value is there: it becomes an item, a key, a key's value or the root.
    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), Error> {
        if anchor > 0 {
            let size = Size::of(&node);
            // Kept until the end, so it counts once more.
            self.size.add(size);
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map(entries)) => entries.push(node)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MAX_BYTES, parse, parse_bytes};
    use super::*;

    fn json(text: &str) -> String {
        parse(text).unwrap().root.to_json().unwrap()
    }

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn documents_become_trees() {
        for (text, expected) in [
            ("", "null"),
            ("# nothing\n", "null"),
            ("---\n", "null"),
            ("\u{feff}a: 1\n", r#"{"a": 1}"#),
            ("a: 1\r\nb:\r\n- x\r\n", r#"{"a": 1, "b": ["x"]}"#),
            ("a: '1'\nb: \"\\u00e9\"\n", r#"{"a": "1", "b": "é"}"#),
            (
                "a: |\n  1\n  2\nb: >-\n  x\n  y\n",
                r#"{"a": "1\n2\n", "b": "x y"}"#,
            ),
            (
                "a:\nb: [1, {c: ~}]\n",
                r#"{"a": null, "b": [1, {"c": null}]}"#,
            ),
            (
                "{1: a, yes: b, ~: c, 1.0: d}",
                r#"{"1": "a", "true": "b", "null": "c", "1.0": "d"}"#,
            ),
            ("a: !!str 010\nb: !!seq []\n", r#"{"a": "010", "b": []}"#),
            ("a: !<tag:yaml.org,2002:str> 1", r#"{"a": "1"}"#),
            ("%YAML 1.1\n---\na: 1\n...\n", r#"{"a": 1}"#),
            ("a: &x [1]\nb: *x\n", r#"{"a": [1], "b": [1]}"#),
            ("- &x a\n- *x : 1\n", r#"["a", {"a": 1}]"#),
            ("'<<': 1\na: <<\n", r#"{"<<": 1, "a": "<<"}"#),
        ] {
            assert_eq!(json(text), expected, "{text:?}");
        }
    }

    #[test]
    fn merges_yield_to_explicit_keys() {
        let text = "\
- &a {x: 1, y: 1}
- &b {x: 2, z: 2}
- {y: 3, <<: *a}
- {<<: [*a, *b], y: 4}
";
        let merged = r#"{"x": 1, "y": 3}, {"x": 1, "z": 2, "y": 4}]"#;
        assert!(json(text).ends_with(merged), "{}", json(text));
        assert!(parse(text).unwrap().duplicates.is_empty());
        let reason = "`<<` merges a map or a list of maps only";
        assert_eq!(
            error("a:\n  <<: 1\n"),
            format!("line 2, column 7: {reason}")
        );
        assert_eq!(error("<<: [1]"), format!("line 1, column 5: {reason}"));
    }

    #[test]
    fn the_last_of_equal_keys_wins_and_all_are_told() {
        let document = parse("a: 1\nb: {c: 1, 'c': 2}\na: 3\na: 4\n").unwrap();
        assert_eq!(
            document.root.to_json().unwrap(),
            r#"{"a": 4, "b": {"c": 2}}"#
        );
        let told = [("c", 2), ("a", 3), ("a", 4)].map(|(key, line)| (key.to_owned(), line));
        assert_eq!(document.duplicates, told);
    }

    #[test]
    fn every_value_knows_its_place() {
        let root = parse("a: 1\nbé:   [x,\n  y]\n").unwrap().root;
        let Value::Map(entries) = root.value else {
            panic!("not a map");
        };
        let (key, list) = &entries[1];
        assert_eq!((key.line, key.column), (2, 1));
        assert_eq!((list.line, list.column), (2, 7));
        let Value::List(items) = &list.value else {
            panic!("not a list");
        };
        assert_eq!((items[1].line, items[1].column), (3, 3));
    }

    #[test]
    fn row_44_faults_name_their_place() {
        for (text, expected) in [
            (
                "a: 1\n---\nb: 2\n",
                "line 2, column 1: a second document begins here; one is wanted",
            ),
            (
                "a: !vault x\n",
                "line 1, column 4: the tag !vault is not known here",
            ),
            (
                "a: !!set {x}\n",
                "line 1, column 4: the tag !!set is not known here",
            ),
            (
                "a: 1\nb: 99999999999999999999\n",
                "line 2, column 4: this whole number is too large (beyond 64 bits)",
            ),
            (
                "[1]: x\n",
                "line 1, column 1: a list or map cannot be a key",
            ),
            (
                "&a [*a]\n",
                "line 1, column 5: an alias inside of what it stands for",
            ),
            (
                "a: b\nc: d\0e\n",
                "line 2, column 5: the character U+0000 may not stand in YAML",
            ),
        ] {
            assert_eq!(error(text), expected, "{text:?}");
        }
        // In the parser's own words.
        for (text, place) in [
            ("a: *b\n", "line 1, column 4: "),
            ("a: b: c\n", "line 1, column 5: "),
            ("a: [1\nb: 2\n", "line 2, column "),
            ("a: \"x\n", "line 1, column 4: "),
        ] {
            assert!(error(text).starts_with(place), "{text:?}: {}", error(text));
        }
        assert_eq!(
            parse_bytes(b"a: 1\nb: \xff").unwrap_err().to_string(),
            "line 2, column 4: this is not UTF-8"
        );
        let infinite = parse("- 1\n- [.inf]\n").unwrap().root.to_json();
        assert_eq!(
            infinite.unwrap_err().to_string(),
            "line 2, column 4: JSON has no number for this"
        );
    }

    #[test]
    fn row_44_depth_is_bounded_whatever_makes_it() {
        let reason = "lists and maps are nested more than 32 deep";
        assert!(parse(&"- ".repeat(MAX_DEPTH)).is_ok());
        for piece in ["- ", "[", "{a: ", "? ", "&a [", "!!seq ["] {
            let told = error(&piece.repeat(100));
            assert!(told.ends_with(reason), "{piece}: {told}");
            // Of brackets the parser itself refuses more than 255.
            assert!(parse(&piece.repeat(20_000)).is_err());
        }
        // Each line is as deep as the one above and one more.
        let mut aliases = "- &a0 []\n".to_owned();
        for at in 0..40 {
            aliases.push_str(&format!("- &a{} [*a{at}]\n", at + 1));
        }
        assert!(error(&aliases).ends_with(reason));
    }

    #[test]
    fn row_44_size_is_bounded_whatever_makes_it() {
        let huge = "a: b\n".repeat(2 << 20);
        assert_eq!(
            error(&huge),
            "line 1, column 1: the text is larger than 1048576 bytes"
        );
        // However it is cut.
        let cut = "é".repeat(MAX_BYTES).into_bytes();
        assert_eq!(
            parse_bytes(&cut[..=MAX_BYTES]).unwrap_err().to_string(),
            "line 1, column 1: the text is larger than 1048576 bytes"
        );
        let mut bomb = "- &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for at in 0..20 {
            let ten = format!("*a{at}, ").repeat(10);
            bomb.push_str(&format!("- &a{} [{ten}]\n", at + 1));
        }
        assert!(error(&bomb).contains("aliases replaced"));
        let text = format!("- &a {}\n{}", "x".repeat(1 << 19), "- *a\n".repeat(1000));
        assert!(error(&text).contains("aliases replaced"));
    }
}
