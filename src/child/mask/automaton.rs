//! Looks for many texts at once: the automaton of Aho and Corasick (1975), whose
//! state is the longest end of what was read that begins one of the texts. It
//! takes a time for each byte that does not grow with the texts, whatever they
//! and the bytes are.

/// A state of the automaton: a node of the tree of all texts.
pub(super) type Node = u32;

/// Nothing of any text.
pub(super) const ROOT: Node = 0;

/// The tree. Its nodes are numbered by depth, and those of one depth in the order
/// of their texts: so the children of a node stand in a row, and a node costs 13
/// bytes.
#[derive(Default)]
pub(super) struct Automaton {
    /// For each node the byte that leads to it.
    labels: Vec<u8>,
    /// Its first child; its last one stands before the first of the next node.
    children: Vec<Node>,
    /// The node of the longest end of its text that is another node's text.
    shorter: Vec<Node>,
    /// The longest text that ends here, counted from 1; 0 for none.
    ends: Vec<u32>,
    /// The first node of each depth.
    depths: Vec<Node>,
    /// The children of the root by their bytes, because it is there that most of
    /// the time is spent; the root itself for none.
    first: Vec<Node>,
}

impl Automaton {
    /// The automaton that looks for these texts; none is empty, and they are sorted
    /// without a double.
    pub(super) fn of(texts: &[&[u8]]) -> Automaton {
        let mut automaton = Automaton {
            labels: vec![0],
            ends: vec![0],
            first: vec![ROOT; 256],
            ..Automaton::default()
        };
        automaton.grow(texts);
        for child in automaton.children_of(ROOT) {
            let label = automaton.labels[child];
            automaton.first[usize::from(label)] = child as Node;
        }
        automaton.link();
        automaton
    }

    /// Makes the nodes, depth by depth.
    fn grow(&mut self, texts: &[&[u8]]) {
        // For each node of a depth, which of the texts pass through it.
        let all = 0..texts.len();
        let mut passing = vec![all];
        while !passing.is_empty() {
            let depth = self.depths.len();
            self.depths.push(self.children.len() as Node);
            let mut below = Vec::new();
            for mut range in passing {
                self.children.push(self.labels.len() as Node);
                // One that ends here stands first.
                range.start +=
                    usize::from(texts.get(range.start).is_some_and(|t| t.len() == depth));
                while let Some(text) = texts[range.clone()].first() {
                    let label = text[depth];
                    let same = texts[range.clone()].partition_point(|text| text[depth] == label);
                    let end = range.start + same;
                    let ends_here = text.len() == depth + 1;
                    self.labels.push(label);
                    self.ends
                        .push(u32::from(ends_here) * (range.start as u32 + 1));
                    below.push(range.start..end);
                    range.start = end;
                }
            }
            passing = below;
        }
        self.children.push(self.labels.len() as Node);
    }

    /// Finds for each node the next shorter one; those are of a smaller depth.
    fn link(&mut self) {
        self.shorter = vec![ROOT; self.labels.len()];
        for node in 1..self.labels.len() {
            for child in self.children_of(node as Node) {
                let shorter = self.step(self.shorter[node], self.labels[child]);
                self.shorter[child] = shorter;
                if self.ends[child] == 0 {
                    self.ends[child] = self.ends[shorter as usize];
                }
            }
        }
    }

    fn children_of(&self, node: Node) -> std::ops::Range<usize> {
        let node = node as usize;
        self.children[node] as usize..self.children[node + 1] as usize
    }

    /// Reads a byte.
    pub(super) fn step(&self, mut node: Node, byte: u8) -> Node {
        while node != ROOT {
            let children = self.children_of(node);
            if let Ok(at) = self.labels[children.clone()].binary_search(&byte) {
                return (children.start + at) as Node;
            }
            node = self.shorter[node as usize];
        }
        self.first[usize::from(byte)]
    }

    /// The longest end of what was read with which a text can go on: where one has
    /// ended and none goes on, a shorter one.
    pub(super) fn open(&self, mut node: Node) -> Node {
        while node != ROOT && self.children_of(node).is_empty() {
            node = self.shorter[node as usize];
        }
        node
    }

    /// How many bytes begin no text.
    pub(super) fn skip(&self, bytes: &[u8]) -> usize {
        let begins = |byte: &u8| self.first[usize::from(*byte)] != ROOT;
        bytes.iter().position(begins).unwrap_or(bytes.len())
    }

    /// The longest text that ends here, by its number.
    pub(super) fn end(&self, node: Node) -> Option<usize> {
        (self.ends[node as usize] as usize).checked_sub(1)
    }

    /// How many bytes of what was read are the beginning of a text.
    pub(super) fn depth(&self, node: Node) -> usize {
        self.depths.partition_point(|first| *first <= node) - 1
    }
}
