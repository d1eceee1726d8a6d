//! Where a command's output goes: the phase's log, and a copy for scripts.

use super::{Decoder, Masker, Secrets};
use crate::sys::files;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

/// How much of the output scripts find in their working directory, in bytes.
pub const SCRIPT_COPY_LIMIT: u64 = 10 << 20;

/// The log of one phase. Only whole text is ever in it, so that it can be cut
/// into fragments wherever a character ends; and no secret, because they are
/// replaced before anything is counted, written or told.
#[derive(Debug)]
pub struct OutputFile {
    /// None where it cannot be made.
    log: Option<File>,
    length: u64,
    /// How many more bytes of the command's output are kept.
    room: u64,
    limit: u64,
    /// Bytes of its output that were left out since that was last said.
    beyond: u64,
    /// Bytes of text that the disk did not take since it last took any.
    missing: u64,
    /// And all of those.
    lost: u64,
    decoder: Decoder,
    masker: Masker,
    copy: Option<Copy>,
}

#[derive(Debug)]
struct Copy {
    file: File,
    room: u64,
}

impl OutputFile {
    /// Opens the log; `copy` is for the phase's own scripts. A log that an earlier life
    /// of the agent began goes on.
    ///
    /// Of what the command prints, `limit` bytes are kept; a mask counts as what it
    /// is, and not as what it stands for.
    ///
    /// # Errors
    /// When the log cannot be opened; the copy is only a convenience.
    pub fn open(
        log: &Path,
        copy: Option<File>,
        limit: u64,
        secrets: &Arc<Secrets>,
    ) -> io::Result<OutputFile> {
        let copy = copy.map(|file| Copy {
            file,
            room: SCRIPT_COPY_LIMIT,
        });
        let file = files::open_append(log)?;
        let length = files::length_of_text(log)?;
        file.set_len(length)?;
        Ok(OutputFile {
            log: Some(file),
            length,
            room: limit.saturating_sub(length),
            copy,
            ..OutputFile::unwritten(limit, secrets)
        })
    }

    /// In place of a log that cannot be made: all of the output is lost.
    #[must_use]
    pub fn unwritten(limit: u64, secrets: &Arc<Secrets>) -> OutputFile {
        OutputFile {
            log: None,
            length: 0,
            room: limit,
            limit,
            beyond: 0,
            missing: 0,
            lost: 0,
            decoder: Decoder::default(),
            masker: Masker::new(Arc::clone(secrets)),
            copy: None,
        }
    }

    /// Bytes of text in the log.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes of text that are missing because the disk did not take them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Output of the command, as it was read.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let mut text = String::with_capacity(bytes.len());
        self.decoder.push(bytes, &mut text);
        let masked = self.masker.push(text);
        self.append_within_limit(&masked);
    }

    /// Something that the agent itself has to say. A character or a secret that the
    /// command has begun is not over by that: it comes afterwards, in one piece.
    pub fn say(&mut self, text: &str) {
        self.say_beyond();
        self.append(&self.masker.secrets().masked(text));
    }

    /// So many bytes are not even looked at. What was held back before them may be half
    /// a secret, of which nobody knows, and nothing is kept after a gap.
    pub fn leave_out(&mut self, bytes: u64) {
        if bytes > 0 {
            let held = self.masker.give_up() + self.decoder.give_up();
            self.beyond += bytes + held as u64;
            self.room = 0;
        }
    }

    /// The command says nothing more.
    pub fn finish(&mut self) {
        let mut text = String::new();
        self.decoder.finish(&mut text);
        let mut masked = self.masker.push(text);
        masked.push_str(&self.masker.finish());
        self.append_within_limit(&masked);
        self.say_beyond();
        // Where nothing else has room, this may have.
        if self.missing > 0 && self.write(&self.mark()) {
            self.missing = 0;
        }
    }

    fn say_beyond(&mut self) {
        let beyond = std::mem::take(&mut self.beyond);
        if beyond > 0 {
            let limit = self.limit;
            self.append(&format!(
                "\n[{beyond} bytes of output left out: output_limit is {limit}]\n"
            ));
        }
    }

    fn append_within_limit(&mut self, text: &str) {
        let room = usize::try_from(self.room).unwrap_or(usize::MAX);
        let (kept, rest) = text.split_at(text.floor_char_boundary(room));
        self.room -= kept.len() as u64;
        if !rest.is_empty() {
            // Nothing is kept after a gap.
            self.room = 0;
            self.beyond += rest.len() as u64;
        }
        self.append(kept);
    }

    fn append(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        if let Some(copy) = &mut self.copy {
            let room = usize::try_from(copy.room).unwrap_or(usize::MAX);
            let part = text.as_bytes().get(..room).unwrap_or(text.as_bytes());
            copy.room -= part.len() as u64;
            if copy.file.write_all(part).is_err() || copy.room == 0 {
                self.copy = None;
            }
        }
        // Both or neither: else a full disk would hold nothing but marks.
        let marked = format!("{}{text}", self.mark());
        if self.write(&marked) {
            self.missing = 0;
        } else {
            self.missing += text.len() as u64;
            self.lost += text.len() as u64;
        }
    }

    /// Says what is missing, if something is.
    fn mark(&self) -> String {
        match self.missing {
            0 => String::new(),
            missing => {
                format!("\n[{missing} bytes of output left out: the agent's disk was full]\n")
            }
        }
    }

    /// Adds text to the log, whole or not at all.
    fn write(&mut self, text: &str) -> bool {
        let Some(log) = &mut self.log else {
            return false;
        };
        let is_written = log.write_all(text.as_bytes()).is_ok();
        if is_written {
            self.length += text.len() as u64;
        } else {
            let _ = log.set_len(self.length);
        }
        is_written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> Arc<Secrets> {
        Arc::default()
    }

    #[test]
    fn the_copy_stops_at_its_limit_and_the_log_does_not() {
        let directory = std::env::temp_dir().join(format!("tfa-output-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (log, copy) = (directory.join("log"), directory.join("copy"));
        let mut output = OutputFile::open(
            &log,
            Some(files::create_fresh(&copy).unwrap()),
            u64::MAX,
            &none(),
        )
        .unwrap();
        let chunk = vec![b'x'; 3 << 20];
        for _ in 0..4 {
            output.bytes(&chunk);
        }
        output.bytes(b"\xe2\x82");
        output.say("\nend\n");
        assert_eq!(output.length(), (12 << 20) + 5);
        output.bytes(b"\xac");
        assert_eq!(output.length(), (12 << 20) + 5 + 3);
        assert_eq!(std::fs::metadata(&log).unwrap().len(), output.length());
        assert_eq!(std::fs::metadata(&copy).unwrap().len(), SCRIPT_COPY_LIMIT);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_log_goes_on_after_its_last_whole_character() {
        let directory = std::env::temp_dir().join(format!("tfa-go-on-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let log = directory.join("log");
        let text = "aé€😀";
        for cut in 0..=text.len() {
            std::fs::write(&log, &text.as_bytes()[..cut]).unwrap();
            let mut output = OutputFile::open(&log, None, 1 << 20, &none()).unwrap();
            output.say("!");
            let whole = &text[..text.floor_char_boundary(cut)];
            let found = std::fs::read_to_string(&log).unwrap();
            assert_eq!(found, format!("{whole}!"), "cut at {cut}");
            assert_eq!(output.length(), found.len() as u64);
        }
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_is_beyond_the_limit_is_counted_and_said() {
        let directory = std::env::temp_dir().join(format!("tfa-limit-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let log = directory.join("log");
        let mut output = OutputFile::open(&log, None, 6, &none()).unwrap();
        output.say("banner\n");
        output.bytes("abcd".as_bytes());
        // The euro does not fit, and nothing comes after it.
        output.bytes("e€f".as_bytes());
        output.bytes(b"g");
        output.say("stopped\n");
        output.finish();
        assert_eq!(
            std::fs::read_to_string(&log).unwrap(),
            "banner\nabcde\n[5 bytes of output left out: output_limit is 6]\nstopped\n"
        );
        std::fs::remove_dir_all(directory).unwrap();
    }

    /// Row 38: what comes after the limit is not looked at, so that nobody knows whether
    /// a secret goes on there.
    #[test]
    fn row_38_no_half_of_a_secret_stands_before_what_is_left_out() {
        let directory = std::env::temp_dir().join(format!("tfa-gap-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let log = directory.join("log");
        let secrets = Arc::new(Secrets::new(["correct horse"]));
        let mask = secrets.masked("correct horse");
        let mut output = OutputFile::open(&log, None, 1_000, &secrets).unwrap();
        output.bytes(b"correct horse, correct ho\xc3");
        output.leave_out(7);
        output.finish();
        assert_eq!(
            std::fs::read_to_string(&log).unwrap(),
            format!("{mask}, \n[18 bytes of output left out: output_limit is 1000]\n")
        );
        std::fs::remove_dir_all(directory).unwrap();
    }

    /// Row 38: what the agent says in between does not part a secret, and what is
    /// held back counts for nothing until it is there.
    #[test]
    fn row_38_no_half_of_a_secret_is_in_the_log_or_its_copy() {
        let directory = std::env::temp_dir().join(format!("tfa-secret-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (log, copy) = (directory.join("log"), directory.join("copy"));
        let secrets = Arc::new(Secrets::new(["pass€word", "killed"]));
        let (long, short) = (secrets.masked("pass€word"), secrets.masked("killed"));
        let mut output = OutputFile::open(
            &log,
            Some(files::create_fresh(&copy).unwrap()),
            30,
            &secrets,
        )
        .unwrap();
        let text = || std::fs::read_to_string(&log).unwrap();
        output.bytes(b"one pass\xe2");
        assert_eq!((output.length(), &text()[..]), (4, "one "));
        output.say("\nkilled\n");
        output.bytes(b"\x82\xacword two pass");
        let told = format!("one \n{short}\n{long} two ");
        assert_eq!(text(), told);
        // Of the 30 bytes, 19 are used; a mask that does not fit is cut.
        output.bytes("word pass€word".as_bytes());
        output.finish();
        let rest = format!("password {}", &long[..2]);
        let beyond = long.len() - 2;
        assert_eq!(
            text(),
            format!("{told}{rest}\n[{beyond} bytes of output left out: output_limit is 30]\n")
        );
        assert_eq!(output.length(), text().len() as u64);
        assert_eq!(std::fs::read_to_string(&copy).unwrap(), text());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
