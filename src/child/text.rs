//! Bytes to text, as they come.

/// Decodes UTF-8 that arrives in pieces. What is broken becomes U+FFFD, one for
/// each maximal subpart (Unicode, "U+FFFD Substitution of Maximal Subparts"), so
/// that the text is the same wherever the pieces were cut.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The beginning of a character whose rest has not come yet: at most three
    /// bytes.
    held: Vec<u8>,
}

impl Decoder {
    /// Appends to `text` what `bytes` continue.
    pub fn push(&mut self, bytes: &[u8], text: &mut String) {
        let mut rest = bytes;
        while let (false, [byte, after @ ..]) = (self.held.is_empty(), rest) {
            self.held.push(*byte);
            match std::str::from_utf8(&self.held) {
                Ok(character) => {
                    text.push_str(character);
                    self.held.clear();
                    rest = after;
                }
                Err(error) if error.error_len().is_none() => rest = after,
                // This byte does not belong to what was held; it may begin
                // something of its own.
                Err(_) => {
                    text.push(char::REPLACEMENT_CHARACTER);
                    self.held.clear();
                }
            }
        }
        let mut left = rest.len();
        for chunk in rest.utf8_chunks() {
            text.push_str(chunk.valid());
            let broken = chunk.invalid();
            left -= chunk.valid().len() + broken.len();
            if left == 0 && is_beginning(broken) {
                self.held.extend_from_slice(broken);
            } else if !broken.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
    }

    /// What was held back is forgotten; how many bytes that is.
    pub fn give_up(&mut self) -> usize {
        std::mem::take(&mut self.held).len()
    }

    /// The end: a character that was never completed is broken.
    pub fn finish(&mut self, text: &mut String) {
        if !std::mem::take(&mut self.held).is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

/// Whether more bytes could make this one character.
fn is_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
        let (mut decoder, mut text) = (Decoder::default(), String::new());
        for piece in pieces {
            decoder.push(piece, &mut text);
        }
        decoder.finish(&mut text);
        text
    }

    /// Rows 12 and 13: whatever the bytes and wherever reads cut them, the text
    /// is what the standard library makes of the whole.
    #[test]
    fn row_12_the_text_is_the_same_wherever_it_was_cut() {
        let samples: [&[u8]; 9] = [
            b"plain",
            "zwölf Ω 漢字 🦀".as_bytes(),
            b"\xff\xfe broken \xc3",
            b"\xe2\x82 cut euro \xe2\x82\xac",
            b"\xf0\x9f\xa6\x80\xf0\x9f\xa6",
            b"\xed\xa0\x80 lone surrogate \xed\xbf\xbf",
            b"\xf4\x90\x80\x80 too large \xc0\x80 overlong",
            b"\xe2\xe2\xe2\x82\xac\x80\x80",
            b"NUL \0 and \x1b[31m escapes",
        ];
        for sample in samples {
            let whole = String::from_utf8_lossy(sample);
            for first in 0..=sample.len() {
                for second in first..=sample.len() {
                    let pieces = [&sample[..first], &sample[first..second], &sample[second..]];
                    assert_eq!(
                        decoded(pieces),
                        whole,
                        "{sample:x?} cut at {first}, {second}"
                    );
                }
            }
            assert_eq!(decoded(sample.chunks(1)), whole, "{sample:x?} byte by byte");
        }
    }
}
