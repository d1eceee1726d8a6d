//! Secrets are replaced in text as it comes, before it goes anywhere.

mod automaton;
mod forms;
mod sha256;

use automaton::{Automaton, Node, ROOT};
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

/// What must not be seen: secrets, and the forms in which they show.
///
/// A form of a secret is replaced by the mask of the whole: readers see which one
/// it is. An empty secret is none.
#[derive(Default)]
pub struct Secrets {
    /// What is looked for; nothing where there are no secrets.
    automaton: Option<Automaton>,
    /// For each text of the automaton its length, and the mask in its place.
    texts: Vec<(u32, u32)>,
    masks: Vec<String>,
}

/// Never what they are.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.masks.len())
    }
}

impl Secrets {
    /// These secrets. Each of their bytes costs 70 to 90 of memory, for all forms.
    #[must_use]
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Secrets {
        let secrets: BTreeSet<&str> = secrets.into_iter().filter(|one| !one.is_empty()).collect();
        let others: Vec<_> = secrets.iter().map(|secret| forms::others(secret)).collect();
        // What is a secret itself counts as that, before it is a form of another.
        let themselves = (0..).zip(&secrets).map(|(mask, &text)| (text, false, mask));
        let forms = (0..).zip(&others).flat_map(|(mask, forms)| {
            let texts = forms.iter().map(String::as_str);
            texts.map(move |text| (text, true, mask))
        });
        let mut texts: Vec<(&str, bool, u32)> = themselves.chain(forms).collect();
        texts.sort_unstable();
        texts.dedup_by_key(|(text, ..)| *text);
        let bytes: Vec<_> = texts.iter().map(|(text, ..)| text.as_bytes()).collect();
        Secrets {
            automaton: (!bytes.is_empty()).then(|| Automaton::of(&bytes)),
            texts: texts
                .iter()
                .map(|&(text, _, mask)| (text.len() as u32, mask))
                .collect(),
            masks: secrets.into_iter().map(mask).collect(),
        }
    }

    /// A text that is whole, without the secrets in it.
    #[must_use]
    pub fn masked(self: &Arc<Secrets>, text: &str) -> String {
        let mut masker = Masker::new(Arc::clone(self));
        let mut masked = masker.push(text.to_owned());
        masked.push_str(&masker.finish());
        masked
    }
}

/// What stands in a secret's place: it tells two of them apart, and says no more.
fn mask(secret: &str) -> String {
    format!("**{:06x}**", sha256::first_word(secret.as_bytes()) >> 8)
}

/// Replaces secrets in a stream of text.
///
/// From the left on, each place where a secret begins becomes the mask of the
/// longest one that begins there. Where another one overlaps its end, the rest of
/// that becomes a mask of its own, so that no part of it is seen.
///
/// What may be the beginning of a secret is held back until more text decides, or
/// the end: never more than the longest secret. All else goes on at once. The
/// time for each byte is bounded, whatever the secrets and the text are.
#[derive(Debug)]
pub struct Masker {
    secrets: Arc<Secrets>,
    state: Node,
    /// Text that is not decided from `decided` on; what stands before is over.
    held: String,
    decided: usize,
    /// Secrets found that are not decided, or reach beyond that. Each begins and
    /// ends after the one before it.
    found: VecDeque<Found>,
}

/// Where in the held text a secret stands.
#[derive(Clone, Copy, Debug)]
struct Found {
    start: usize,
    end: usize,
    mask: u32,
}

impl Masker {
    /// At the beginning of a stream.
    #[must_use]
    pub fn new(secrets: Arc<Secrets>) -> Masker {
        Masker {
            secrets,
            state: ROOT,
            held: String::new(),
            decided: 0,
            found: VecDeque::new(),
        }
    }

    /// What is replaced.
    #[must_use]
    pub fn secrets(&self) -> &Arc<Secrets> {
        &self.secrets
    }

    /// Takes text that continues the stream; returns what is decided by now.
    #[must_use]
    pub fn push(&mut self, text: String) -> String {
        let secrets = Arc::clone(&self.secrets);
        let Some(automaton) = &secrets.automaton else {
            return text;
        };
        let mut masked = String::with_capacity(text.len());
        let mut at = self.held.len();
        self.held.push_str(&text);
        while let Some(rest @ [byte, ..]) = self.held.as_bytes().get(at..) {
            if self.state == ROOT {
                let skipped = automaton.skip(rest);
                if skipped > 0 {
                    at += skipped;
                    continue;
                }
            }
            self.state = automaton.step(self.state, *byte);
            at += 1;
            if let Some(number) = automaton.end(self.state) {
                let (length, mask) = secrets.texts[number];
                self.note(Found {
                    // It may begin in what is over already.
                    start: at.saturating_sub(length as usize),
                    end: at,
                    mask,
                });
                self.state = automaton.open(self.state);
                self.decide(at.saturating_sub(automaton.depth(self.state)), &mut masked);
            }
        }
        self.decide(at.saturating_sub(automaton.depth(self.state)), &mut masked);
        self.forget();
        masked
    }

    /// The stream is over; returns what was held back.
    #[must_use]
    pub fn finish(&mut self) -> String {
        let mut masked = String::new();
        self.decide(self.held.len(), &mut masked);
        self.state = ROOT;
        self.forget();
        masked
    }

    /// The stream has a gap, behind which nothing can be decided: what was held back is
    /// forgotten. How many bytes that is.
    pub fn give_up(&mut self) -> usize {
        let held = self.held.len() - self.decided;
        *self = Masker::new(Arc::clone(&self.secrets));
        held
    }

    /// What lies wholly in a longer one says nothing of its own.
    fn note(&mut self, found: Found) {
        while self
            .found
            .back()
            .is_some_and(|last| last.start >= found.start)
        {
            self.found.pop_back();
        }
        self.found.push_back(found);
    }

    /// Nothing that begins before this place will be found any more: what stands
    /// there is what it is.
    fn decide(&mut self, before: usize, masked: &mut String) {
        while self.decided < before {
            // Of those that begin here or earlier, the one that ends last.
            while self
                .found
                .get(1)
                .is_some_and(|next| next.start <= self.decided)
            {
                self.found.pop_front();
            }
            match self.found.front() {
                Some(found) if found.end <= self.decided => {
                    self.found.pop_front();
                }
                Some(found) if found.start <= self.decided => {
                    masked.push_str(&self.secrets.masks[found.mask as usize]);
                    self.decided = found.end;
                }
                next => {
                    let end = next.map_or(before, |next| next.start.min(before));
                    // Texts begin and end where characters do.
                    masked.push_str(self.held.get(self.decided..end).unwrap_or_default());
                    self.decided = end;
                }
            }
        }
    }

    /// Lets go of text that is over. Only when that is more than is left, so that
    /// whoever prints byte by byte does not have all of it moved for each.
    fn forget(&mut self) {
        if self.decided * 2 >= self.held.len() {
            self.held.drain(..self.decided);
            self.found.retain(|found| found.end > self.decided);
            for found in &mut self.found {
                found.start = found.start.saturating_sub(self.decided);
                found.end -= self.decided;
            }
            self.decided = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn masker(secrets: &[&str]) -> Masker {
        Masker::new(Arc::new(Secrets::new(secrets.iter().copied())))
    }

    fn through<'a>(masker: &mut Masker, pieces: impl IntoIterator<Item = &'a str>) -> String {
        let mut masked = String::new();
        for piece in pieces {
            masked.push_str(&masker.push(piece.to_owned()));
        }
        masked + &masker.finish()
    }

    fn masked(secrets: &[&str], text: &str) -> String {
        through(&mut masker(secrets), [text])
    }

    /// What has to come out, plainly: at each place the secret that begins there or
    /// earlier and ends last.
    fn expected(secrets: &[&str], text: &str) -> String {
        let occurrences: Vec<_> = secrets
            .iter()
            .filter(|secret| !secret.is_empty())
            .flat_map(|secret| {
                let starts = (0..text.len())
                    .filter(|at| text.as_bytes()[*at..].starts_with(secret.as_bytes()));
                starts.map(|start| (start, start + secret.len(), *secret))
            })
            .collect();
        let (mut out, mut at) = (String::new(), 0);
        while at < text.len() {
            let here = occurrences
                .iter()
                .filter(|(start, end, _)| *start <= at && *end > at);
            // Of the same end, the longest.
            match here.max_by_key(|(start, end, _)| (*end, text.len() - start)) {
                Some((_, end, secret)) => {
                    out.push_str(&mask(secret));
                    at = *end;
                }
                None => {
                    let character = text[at..].chars().next().unwrap();
                    out.push(character);
                    at += character.len_utf8();
                }
            }
        }
        out
    }

    #[test]
    fn a_secret_is_replaced_by_the_beginning_of_its_hash() {
        assert_eq!(masked(&["abc"], "xabcx"), "x**ba7816**x");
        assert_eq!(masked(&[], "xabcx"), "xabcx");
        assert_eq!(masked(&[""], "xabcx"), "xabcx", "an empty one is none");
        assert_eq!(
            masked(&["a.c*", "(", "\\"], "abc a.c*"),
            format!("abc {}", mask("a.c*"))
        );
    }

    #[test]
    fn the_leftmost_goes_first_then_the_longest() {
        let (short, long) = (mask("abc"), mask("abcdef"));
        let both = ["abc", "abcdef"];
        assert_eq!(
            masked(&both, "abcdef abcde abc"),
            format!("{long} {short}de {short}")
        );
        assert_eq!(
            masked(&both, "abcabcdefabc"),
            format!("{short}{long}{short}"),
            "adjacent"
        );
        // One inside the other, and one that begins earlier.
        assert_eq!(
            masked(&["cd", "abcdef"], "abcdef cd"),
            format!("{long} {}", mask("cd"))
        );
        // What is left of one that begins inside another is not seen either.
        let other = mask("defg");
        assert_eq!(
            masked(&["abcdef", "defg"], "abcdefgh"),
            format!("{long}{other}h")
        );
        assert_eq!(masked(&["aba"], "ababac"), format!("{0}{0}c", mask("aba")));
    }

    /// Row 38: whatever the secret is, and wherever reads cut it.
    #[test]
    fn row_38_a_secret_that_is_cut_anywhere_is_found() {
        let secret = "-----BEGIN-----\nzwölf+(.*)Ω漢\n-----END-----\n";
        let secrets = [secret, "zwölf", "hunter2", "2hunt"];
        let terminal = secret.replace('\n', "\r\n");
        let mut tried = 0;
        for text in [
            format!("before {secret}hunter2hunter2 after"),
            format!("before {terminal}after"),
            format!("only a part: {}", &secret[..22]),
        ] {
            let whole = masked(&secrets, &text);
            assert!(
                !whole.contains("hunter2") && !whole.contains("zwölf"),
                "{whole}"
            );
            let cuts: Vec<_> = text.char_indices().map(|(at, _)| at).collect();
            for (number, first) in cuts.iter().enumerate() {
                for second in &cuts[number..] {
                    let pieces = [&text[..*first], &text[*first..*second], &text[*second..]];
                    let cut = through(&mut masker(&secrets), pieces);
                    assert_eq!(cut, whole, "{text:?} cut at {first}, {second}");
                    tried += 1;
                }
            }
        }
        let text = format!("before {terminal}after");
        assert_eq!(
            masked(&secrets, &text),
            format!("before {}after", mask(secret))
        );
        println!("cut at {tried} pairs of offsets: 0 leaks");
    }

    /// Row 38: against the plain way, with secrets and text of few letters, where
    /// everything overlaps everything.
    #[test]
    fn row_38_what_comes_out_is_what_the_plain_way_makes_of_it() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 16) as usize % below
        };
        for round in 0..20_000 {
            let letters = &["a", "b", "é", "c"][..2 + round % 3];
            let mut word = |longest: usize| -> String {
                let length = random(longest + 1);
                (0..length)
                    .map(|_| letters[random(letters.len())])
                    .collect()
            };
            // Too short for other forms than themselves.
            let secrets: Vec<String> = (0..1 + round % 5)
                .map(|_| word(6))
                .filter(|secret| secret.len() < 8)
                .collect();
            let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
            let pieces: Vec<String> = (0..1 + round % 7).map(|_| word(8)).collect();
            let pieces = pieces.iter().map(String::as_str);
            let text: String = pieces.clone().collect();
            let found = through(&mut masker(&secrets), pieces);
            assert_eq!(found, expected(&secrets, &text), "{secrets:?} in {text:?}");
        }
    }

    #[test]
    fn row_38_lines_and_base64_are_found() {
        let secret = "first line\nshort\nlast line";
        let all = mask(secret);
        let text = "| last line\r\n| short\r\n| first line\r\n";
        assert_eq!(
            masked(&[secret], text),
            format!("| {all}\r\n| short\r\n| {all}\r\n")
        );
        // A line that is a secret itself is that one.
        let line = mask("last line");
        assert_eq!(masked(&[secret, "last line"], "last line"), line);
        // "hunter2!hunter2!" on its own, after one byte and after two.
        let twice = "hunter2!hunter2!";
        for text in [
            "aHVudGVyMiFodW50ZXIyIQ==",
            "eGh1bnRlcjIhaHVudGVyMiE=",
            "eHhodW50ZXIyIWh1bnRlcjIh",
        ] {
            let masked = masked(&[twice], text);
            assert!(
                masked.contains(&mask(twice)) && masked.len() < 18,
                "{masked}"
            );
        }
    }

    #[test]
    fn only_what_may_be_the_beginning_of_a_secret_is_held_back() {
        let mut masker = masker(&["secret", "crew"]);
        assert_eq!(masker.push("no sec".to_owned()), "no ");
        assert_eq!(masker.push("r".to_owned()), "");
        // Of the longer half match, the end may still be the beginning of another.
        assert_eq!(masker.push("ew".to_owned()), format!("se{}", mask("crew")));
        assert_eq!(masker.push(" se".to_owned()), " ");
        assert_eq!(masker.finish(), "se");
        assert_eq!(masker.push("cret".to_owned()), "cret", "a new stream");
    }

    /// Long runs of a letter against secrets that are such runs: here a plain search
    /// takes hours.
    #[test]
    fn the_time_for_a_byte_does_not_grow_with_the_secrets() {
        let run = "a".repeat(64 << 10);
        let secrets: Vec<String> = (0..4u8)
            .map(|number| format!("{run}{}", char::from(b'b' + number)))
            .chain(["a".to_owned(), run.clone()])
            .collect();
        let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
        let begun = Instant::now();
        let mut masker = masker(&secrets);
        let text = "a".repeat(200_000);
        let mut masked = String::new();
        for piece in text.as_bytes().chunks(7) {
            masked.push_str(&masker.push(String::from_utf8_lossy(piece).into_owned()));
        }
        masked.push_str(&masker.push("!".to_owned()));
        masked.push_str(&masker.finish());
        let one = mask(&run);
        assert_eq!(masked, format!("{}!", one.repeat(4)));
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{:?}",
            begun.elapsed()
        );
    }
}
