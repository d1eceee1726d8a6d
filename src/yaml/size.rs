//! How large a document may become, aliases replaced.

use super::{MAX_BYTES, Node, Value};

/// How many values a document may have.
const MAX_NODES: usize = 100_000;

/// How much text it may have, in bytes.
const MAX_TEXT: usize = 4 * MAX_BYTES;

/// What a value takes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    pub(super) nodes: usize,
    pub(super) text: usize,
    /// The lists and maps in it, one inside the other.
    pub(super) depth: usize,
}

impl Size {
    /// Of an empty list or map.
    pub(super) const COLLECTION: Size = Size {
        nodes: 1,
        text: 0,
        depth: 1,
    };

    /// Recursive, over a tree whose depth is bounded.
    pub(super) fn of(node: &Node) -> Size {
        let mut size = Size {
            nodes: 1,
            ..Size::default()
        };
        match &node.value {
            Value::Str(text) => size.text = text.len(),
            Value::List(items) => {
                items.iter().for_each(|item| size.add(Size::of(item)));
                size.depth += 1;
            }
            Value::Map(entries) => {
                for (key, value) in entries {
                    size.add(Size::of(key));
                    size.add(Size::of(value));
                }
                size.depth += 1;
            }
            _ => {}
        }
        size
    }

    /// Takes in another value, side by side with those that are there.
    pub(super) fn add(&mut self, other: Size) {
        self.nodes += other.nodes;
        self.text += other.text;
        self.depth = self.depth.max(other.depth);
    }

    /// Whether a document may hold this much.
    pub(super) fn is_allowed(self) -> bool {
        self.nodes <= MAX_NODES && self.text <= MAX_TEXT
    }
}
