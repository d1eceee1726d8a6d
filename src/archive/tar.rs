//! A directory as a tar that is made while it is read.

use super::header::{BLOCK, header};
use super::notes::Notes;
use super::walk::{Content, Walk};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// The tar. Reading never fails: once begun, the archive comes to its proper
/// end, and what went wrong on the way is in its notes.
#[derive(Debug)]
pub(super) struct Tar {
    walk: Walk,
    notes: Notes,
    /// Headers, padding, the end: what is short enough to be held.
    pending: Vec<u8>,
    given: usize,
    body: Option<Body>,
    ended: bool,
}

/// The content of a regular file, which is as long as its header says even if
/// the file is not any more.
#[derive(Debug)]
struct Body {
    file: File,
    path: Vec<u8>,
    left: u64,
    /// Zeros to round it up to whole blocks.
    padding: usize,
    /// Nothing more can be read: the rest is zeros.
    failed: bool,
}

impl Tar {
    pub(super) fn new(directory: &Path, prefix: &str) -> io::Result<Tar> {
        Ok(Tar {
            walk: Walk::new(directory, prefix)?,
            notes: Notes::default(),
            pending: Vec::new(),
            given: 0,
            body: None,
            ended: false,
        })
    }

    pub(super) fn notes(&self) -> Vec<String> {
        self.notes.sentences()
    }

    /// Gives a piece of what is at hand; 0 when nothing is.
    fn give(&mut self, out: &mut [u8]) -> usize {
        if let Some(pending) = self.pending.get(self.given..)
            && !pending.is_empty()
        {
            let length = pending.len().min(out.len());
            out[..length].copy_from_slice(&pending[..length]);
            self.given += length;
            return length;
        }
        self.body
            .as_mut()
            .map_or(0, |body| body.give(out, &mut self.notes))
    }

    /// Gets hold of the next part; false when there is none.
    fn advance(&mut self) -> bool {
        self.given = 0;
        if let Some(body) = self.body.take() {
            self.pending = vec![0; body.padding];
        } else if let Some(entry) = self.walk.next(&mut self.notes) {
            self.pending = header(&entry);
            if let Content::File(file) = entry.content {
                self.body = Some(Body::new(file, entry.path, entry.metadata.len()));
            }
        } else if self.ended {
            self.pending.clear();
            return false;
        } else {
            self.pending = vec![0; 2 * BLOCK];
            self.ended = true;
        }
        true
    }
}

impl Read for Tar {
    /// Fills the whole buffer until the end, so that many small files reach
    /// the compressor in big pieces.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < out.len() {
            let given = self.give(&mut out[filled..]);
            if given == 0 && !self.advance() {
                break;
            }
            filled += given;
        }
        Ok(filled)
    }
}

impl Body {
    fn new(file: File, path: Vec<u8>, size: u64) -> Body {
        let over = (size % BLOCK as u64) as usize;
        Body {
            file,
            path,
            left: size,
            padding: (BLOCK - over) % BLOCK,
            failed: false,
        }
    }

    fn give(&mut self, out: &mut [u8], notes: &mut Notes) -> usize {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let length = left.min(out.len());
        let out = &mut out[..length];
        if out.is_empty() {
            return 0;
        }
        let given = if self.failed {
            out.fill(0);
            out.len()
        } else {
            self.read(out, notes)
        };
        self.left -= given as u64;
        given
    }

    /// Reads on in the file; where it ends too early the zeros begin.
    fn read(&mut self, out: &mut [u8], notes: &mut Notes) -> usize {
        let why = loop {
            match self.file.read(out) {
                Ok(0) => break "it became shorter meanwhile".to_owned(),
                Ok(read) => return read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break error.to_string(),
            }
        };
        let left = self.left;
        notes.say(
            &self.path,
            format_args!("ends in {left} zero bytes instead of its own: {why}"),
        );
        self.failed = true;
        out.fill(0);
        out.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::scratch::Scratch;
    use std::fs::{self, OpenOptions};
    use std::io::Write;

    /// Packs two files and does something to the first one when half of it
    /// has been read; gives the two as packed, and the notes.
    fn packed_while(happens: impl Fn(&mut File)) -> (Vec<u8>, Vec<u8>, Vec<String>) {
        let scratch = Scratch::new();
        let path = scratch.path("a");
        fs::write(&path, [b'a'; 1000]).unwrap();
        fs::write(scratch.path("b"), "next").unwrap();
        let mut tar = Tar::new(&scratch.path(""), "p").unwrap();
        let mut bytes = vec![0; 2 * BLOCK + 500];
        tar.read_exact(&mut bytes).unwrap();
        happens(&mut OpenOptions::new().append(true).open(&path).unwrap());
        tar.read_to_end(&mut bytes).unwrap();

        assert!(bytes.ends_with(&[0; 2 * BLOCK]));
        let mut files = Vec::new();
        for entry in ::tar::Archive::new(&bytes[..]).entries().unwrap() {
            let mut content = Vec::new();
            entry.unwrap().read_to_end(&mut content).unwrap();
            files.push(content);
        }
        assert_eq!(files.len(), 3);
        (files.remove(1), files.remove(1), tar.notes())
    }

    #[test]
    fn row_43_a_file_that_grows_is_cut() {
        let (first, second, notes) = packed_while(|file| file.write_all(&[b'x'; 5000]).unwrap());
        assert_eq!(first, [b'a'; 1000]);
        assert_eq!(second, b"next");
        assert!(notes.is_empty());
    }

    #[test]
    fn a_file_that_shrinks_is_filled_with_zeros() {
        for length in [0, 499, 500, 501, 999] {
            let (first, second, notes) = packed_while(|file| file.set_len(length).unwrap());
            let own = usize::try_from(length.max(500)).unwrap();
            assert_eq!(first[..own], vec![b'a'; own]);
            assert_eq!(first[own..], vec![0; 1000 - own]);
            assert_eq!(second, b"next");
            let left = 1000 - own;
            assert_eq!(
                notes,
                [format!(
                    "\"p/a\" ends in {left} zero bytes instead of its own: it became shorter meanwhile"
                )]
            );
        }
    }
}
