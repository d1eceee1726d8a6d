//! The tar, compressed: what is sent, or kept in the record.

use super::tar::Tar;
use flate2::Compression;
use flate2::bufread::GzEncoder;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// Bytes that are handed on at a time, before and after the compressor. Less
/// costs calls, more fills the caches of small machines.
const BUFFER: usize = 64 * 1024;

/// A directory as `.tar.gz`, made while it is read: constant memory, no
/// temporary file, no thread. The same tree gives the same bytes, however they
/// are read.
#[derive(Debug)]
pub struct TarGz(BufReader<GzEncoder<BufReader<Tar>>>);

impl TarGz {
    /// Begins to pack a directory, which is called `prefix` in the archive.
    ///
    /// # Errors
    /// When it is not a directory (a symbolic link is none) or cannot be
    /// listed. What goes wrong later is left out and is in the notes: reading
    /// does not fail.
    pub fn new(directory: &Path, prefix: &str) -> io::Result<TarGz> {
        let tar = BufReader::with_capacity(BUFFER, Tar::new(directory, prefix)?);
        // Level 1 packs logs to a quarter at several times the speed of the
        // usual 6: on a small controller the processor is what is scarce.
        let gzip = GzEncoder::new(tar, Compression::fast());
        Ok(TarGz(BufReader::with_capacity(BUFFER, gzip)))
    }

    /// What was left out or is not as it was, a sentence each; the first 20,
    /// and the number of the others. Complete once all has been read.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.0.get_ref().get_ref().get_ref().notes()
    }
}

impl Read for TarGz {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}
