//! From the parser's events to a tree, with a stack that is no thread's stack.

use super::{Document, Error, MAX_BYTES, MAX_DEPTH, Node, Value, resolve};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// How many values a document may have once its aliases are replaced.
const MAX_NODES: usize = 100_000;

/// How much text it may have then, in bytes.
const MAX_TEXT: usize = 4 * MAX_BYTES;

/// Reads the whole text, whose size and characters are checked already.
pub(super) fn build(text: &str) -> Result<Document, Error> {
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(next) = parser.next_event() {
        let (event, span) = next.map_err(|error| {
            let marker = error.marker();
            fault(Place::of(*marker), error.info().to_owned())
        })?;
        builder.take(event, Place::of(span.start))?;
    }
    let empty = Place { line: 1, column: 1 }.node(Value::Null);
    Ok(Document {
        root: builder.root.unwrap_or(empty),
        duplicates: builder.duplicates,
    })
}

#[derive(Clone, Copy, Debug)]
struct Place {
    line: usize,
    column: usize,
}

impl Place {
    /// The parser counts lines from 1, but columns from 0.
    fn of(marker: Marker) -> Place {
        Place {
            line: marker.line(),
            column: marker.col() + 1,
        }
    }

    fn node(self, value: Value) -> Node {
        Node {
            value,
            line: self.line,
            column: self.column,
        }
    }
}

fn fault(place: Place, reason: impl Into<String>) -> Error {
    Error {
        line: place.line,
        column: place.column,
        reason: reason.into(),
    }
}

/// What a value costs, aliases replaced.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    nodes: usize,
    text: usize,
    /// The lists and maps in it, one inside the other.
    depth: usize,
}

impl Size {
    /// Recursive, over a tree whose depth is bounded.
    fn of(node: &Node) -> Size {
        let mut size = Size {
            nodes: 1,
            ..Size::default()
        };
        match &node.value {
            Value::Str(text) => size.text = text.len(),
            Value::List(items) => items.iter().for_each(|item| size.hold(item)),
            Value::Map(entries) => entries.iter().for_each(|(key, value)| {
                size.hold(key);
                size.hold(value);
            }),
            _ => {}
        }
        if matches!(node.value, Value::List(_) | Value::Map(_)) {
            size.depth += 1;
        }
        size
    }

    fn hold(&mut self, inner: &Node) {
        let inner = Size::of(inner);
        self.nodes += inner.nodes;
        self.text += inner.text;
        self.depth = self.depth.max(inner.depth);
    }
}

/// A list or map that is not closed yet.
#[derive(Debug)]
struct Open {
    place: Place,
    anchor: usize,
    content: Content,
}

#[derive(Debug)]
enum Content {
    List(Vec<Node>),
    Map(Entries),
}

/// A map that is being read.
#[derive(Debug, Default)]
struct Entries {
    own: Vec<(Node, Node)>,
    merged: Vec<Node>,
    key: Option<Key>,
}

#[derive(Debug)]
enum Key {
    Own(Node),
    /// `<<`
    Merge,
}

#[derive(Debug, Default)]
struct Builder {
    root: Option<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, Size)>,
    used: Size,
    duplicates: Vec<(String, usize)>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, place: Place) -> Result<(), Error> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(fault(place, "a second document begins here; one is wanted"))
            }
            Event::DocumentStart(_) => Ok(()),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                if plain && tag.is_none() && text == "<<" && self.await_key(Key::Merge) {
                    return Ok(());
                }
                let value = resolve::scalar(&text, plain, name(tag).as_deref())
                    .map_err(|reason| fault(place, reason))?;
                let node = place.node(value);
                self.charge(Size::of(&node), place)?;
                self.complete(node, anchor)
            }
            Event::Alias(anchor) => {
                let Some((node, size)) = self.anchors.get(&anchor) else {
                    return Err(fault(place, "an alias inside of what it stands for"));
                };
                let (node, size) = (node.clone(), *size);
                self.charge(size, place)?;
                self.complete(node, 0)
            }
            Event::SequenceStart(anchor, tag) => {
                let content = Content::List(Vec::new());
                self.begin("seq", name(tag).as_deref(), content, anchor, place)
            }
            Event::MappingStart(anchor, tag) => {
                let content = Content::Map(Entries::default());
                self.begin("map", name(tag).as_deref(), content, anchor, place)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
        }
    }

    /// Notes the key of the innermost map, if that is what is expected there.
    fn await_key(&mut self, key: Key) -> bool {
        match self.open.last_mut() {
            Some(Open {
                content: Content::Map(entries),
                ..
            }) if entries.key.is_none() => {
                entries.key = Some(key);
                true
            }
            _ => false,
        }
    }

    /// Makes room for a value, before it is copied or opened.
    fn charge(&mut self, size: Size, place: Place) -> Result<(), Error> {
        self.used.nodes += size.nodes;
        self.used.text += size.text;
        if self.used.nodes > MAX_NODES || self.used.text > MAX_TEXT {
            let reason = format!("more than {MAX_NODES} values or {MAX_TEXT} bytes of text");
            return Err(fault(place, format!("{reason}, aliases replaced")));
        }
        if self.open.len() + size.depth > MAX_DEPTH {
            let reason = format!("lists and maps are nested more than {MAX_DEPTH} deep");
            return Err(fault(place, reason));
        }
        Ok(())
    }

    fn begin(
        &mut self,
        kind: &str,
        tag: Option<&str>,
        content: Content,
        anchor: usize,
        place: Place,
    ) -> Result<(), Error> {
        resolve::collection(kind, tag).map_err(|reason| fault(place, reason))?;
        let size = Size {
            nodes: 1,
            text: 0,
            depth: 1,
        };
        self.charge(size, place)?;
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
            Content::Map(entries) => Value::Map(self.settle(entries)?),
        };
        self.complete(open.place.node(value), open.anchor)
    }

    /// A value is there: it becomes a key, an entry, an item or the root.
    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), Error> {
        if anchor > 0 {
            let size = Size::of(&node);
            let place = place_of(&node);
            // The copy is kept until the end, so it counts as well; its depth
            // was counted when it was opened.
            self.charge(Size { depth: 0, ..size }, place)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.content {
            Content::List(items) => items.push(node),
            Content::Map(entries) => match entries.key.take() {
                Some(Key::Own(key)) => entries.own.push((key, node)),
                Some(Key::Merge) => entries.merged.push(node),
                None if node.key_text().is_none() => {
                    let reason = "a list or map cannot be a key";
                    return Err(fault(place_of(&node), reason));
                }
                None => entries.key = Some(Key::Own(node)),
            },
        }
        Ok(())
    }

    /// Merges what is to be merged and lets the last of equal keys win. As in
    /// Python the merged entries come first, and of several the first wins.
    fn settle(&mut self, entries: Entries) -> Result<Vec<(Node, Node)>, Error> {
        let mut map = UniqueKeys::default();
        for node in entries.merged {
            let place = place_of(&node);
            let sources = match node.value {
                Value::List(items) => items,
                _ => vec![node],
            };
            for source in sources.into_iter().rev() {
                let Value::Map(inherited) = source.value else {
                    let reason = "`<<` merges a map or a list of maps only";
                    return Err(fault(place, reason));
                };
                for (key, value) in inherited {
                    map.put(key, value);
                }
            }
        }
        let mut seen = HashSet::new();
        for (key, value) in entries.own {
            let name = key.key_text().unwrap_or_default();
            if !seen.insert(name.clone()) {
                self.duplicates.push((name, key.line));
            }
            map.put(key, value);
        }
        Ok(map.entries)
    }
}

fn place_of(node: &Node) -> Place {
    Place {
        line: node.line,
        column: node.column,
    }
}

/// The tag in full.
fn name(tag: Option<Cow<'_, Tag>>) -> Option<String> {
    tag.map(|tag| format!("{}{}", tag.handle, tag.suffix))
}

#[derive(Debug, Default)]
struct UniqueKeys {
    entries: Vec<(Node, Node)>,
    index: HashMap<String, usize>,
}

impl UniqueKeys {
    fn put(&mut self, key: Node, value: Node) {
        let name = key.key_text().unwrap_or_default();
        let end = self.entries.len();
        let at = *self.index.entry(name).or_insert(end);
        match self.entries.get_mut(at) {
            Some(entry) => *entry = (key, value),
            None => self.entries.push((key, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{parse, parse_bytes};
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
    fn faults_name_their_place() {
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
    fn depth_is_bounded_whatever_makes_it() {
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
    fn size_is_bounded_whatever_makes_it() {
        let huge = "a: b\n".repeat(2 << 20);
        assert_eq!(
            error(&huge),
            "line 1, column 1: the text is larger than 1048576 bytes"
        );
        assert!(parse_bytes(huge.as_bytes()).is_err());
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
