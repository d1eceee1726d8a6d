//! What a packer has to say about what it met, in a bounded number of sentences.

use std::ffi::OsStr;
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;

/// Sentences that are kept word for word. A directory of a million sockets
/// should not fill the log, nor the memory.
const KEPT: usize = 20;

/// Sentences for a human, the first of them whole and the others counted.
#[derive(Debug, Default)]
pub(super) struct Notes {
    kept: Vec<String>,
    more: usize,
}

impl Notes {
    /// Says something about the entry with this path. The path is quoted and
    /// escaped: whoever named the file does not get to write to a terminal.
    pub(super) fn say(&mut self, path: &[u8], what: impl Display) {
        if self.kept.len() < KEPT {
            let path = OsStr::from_bytes(path);
            self.kept.push(format!("{path:?} {what}"));
        } else {
            self.more += 1;
        }
    }

    /// All that was said, and how much more there was to say.
    pub(super) fn sentences(&self) -> Vec<String> {
        let mut sentences = self.kept.clone();
        match self.more {
            0 => {}
            1 => sentences.push("1 more entry has a fault of that kind".to_owned()),
            more => sentences.push(format!("{more} more entries have faults of that kind")),
        }
        sentences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_kept_and_the_others_counted() {
        let mut notes = Notes::default();
        assert!(notes.sentences().is_empty());
        for _ in 0..KEPT + 7 {
            notes.say(b"a/\x1b[2J\xff", "was left out: it is a socket");
        }
        let sentences = notes.sentences();
        assert_eq!(sentences.len(), KEPT + 1);
        assert_eq!(
            sentences[0],
            r#""a/\u{1b}[2J\xFF" was left out: it is a socket"#
        );
        assert_eq!(sentences[KEPT], "7 more entries have faults of that kind");
    }
}
