//! A map that is being read: its keys, merges and repetitions.

use super::{Error, Node, Value};
use std::collections::{HashMap, HashSet};

/// Keys and values in the order in which they come.
#[derive(Debug, Default)]
pub(super) struct Entries {
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

impl Entries {
    /// Whether the next value is a key.
    pub(super) fn wants_key(&self) -> bool {
        self.key.is_none()
    }

    /// The next key is `<<`.
    pub(super) fn merge_next(&mut self) {
        self.key = Some(Key::Merge);
    }

    /// The next key, or the value of the last one.
    pub(super) fn push(&mut self, node: Node) -> Result<(), Error> {
        match self.key.take() {
            Some(Key::Own(key)) => self.own.push((key, node)),
            Some(Key::Merge) => self.merged.push(node),
            None if node.key_text().is_none() => {
                return Err(node.fault("a list or map cannot be a key"));
            }
            None => self.key = Some(Key::Own(node)),
        }
        Ok(())
    }

    /// Merges what is to be merged, and lets the last of equal keys win; the
    /// repetitions go to `duplicates`. As in Python the merged entries come
    /// first, and of several maps in a list the first wins.
    pub(super) fn finish(
        self,
        duplicates: &mut Vec<(String, usize)>,
    ) -> Result<Vec<(Node, Node)>, Error> {
        let mut map = UniqueKeys::default();
        for node in self.merged {
            let fault = node.fault("`<<` merges a map or a list of maps only");
            let sources = match node.value {
                Value::List(items) => items,
                _ => vec![node],
            };
            for source in sources.into_iter().rev() {
                let Value::Map(inherited) = source.value else {
                    return Err(fault);
                };
                for (key, value) in inherited {
                    map.put(key, value);
                }
            }
        }
        let mut seen = HashSet::new();
        for (key, value) in self.own {
            let line = key.line;
            let name = map.put(key, value);
            if let Some(again) = seen.replace(name) {
                duplicates.push((again, line));
            }
        }
        Ok(map.entries)
    }
}

#[derive(Debug, Default)]
struct UniqueKeys {
    entries: Vec<(Node, Node)>,
    index: HashMap<String, usize>,
}

impl UniqueKeys {
    /// Adds an entry, or replaces the one with that key; tells what the key is
    /// called.
    fn put(&mut self, key: Node, value: Node) -> String {
        let name = key.key_text().unwrap_or_default();
        let end = self.entries.len();
        let at = *self.index.entry(name.clone()).or_insert(end);
        match self.entries.get_mut(at) {
            Some(entry) => *entry = (key, value),
            None => self.entries.push((key, value)),
        }
        name
    }
}
