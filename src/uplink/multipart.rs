//! One file as multipart/form-data (RFC 7578), made while it is read.

use crate::sys;
use std::io::{self, Cursor, Read};

/// A body with one part.
#[derive(Debug)]
pub(super) struct Multipart<R> {
    /// Random: the file holds it by a chance of one in 2^128, so that nobody
    /// has to look for it there.
    boundary: String,
    head: Cursor<Vec<u8>>,
    file: R,
    tail: Cursor<Vec<u8>>,
}

impl<R: Read> Multipart<R> {
    /// The part gets this name and file name, which are plain text.
    pub(super) fn new(name: &str, filename: &str, file: R) -> Multipart<R> {
        let boundary = format!("{:016x}{:016x}", sys::random(), sys::random());
        let head = format!(
            "--{boundary}\r\n\
             Content-Disposition: form-data; name=\"{name}\"; filename=\"{filename}\"\r\n\
             Content-Type: application/gzip\r\n\r\n"
        );
        Multipart {
            head: Cursor::new(head.into_bytes()),
            file,
            tail: Cursor::new(format!("\r\n--{boundary}--\r\n").into_bytes()),
            boundary,
        }
    }

    /// The bytes of the body besides the file's.
    pub(super) fn overhead(&self) -> u64 {
        (self.head.get_ref().len() + self.tail.get_ref().len()) as u64
    }

    /// The body's media type.
    pub(super) fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={}", self.boundary)
    }
}

impl<R: Read> Read for Multipart<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let head = self.head.read(buffer)?;
        if head > 0 {
            return Ok(head);
        }
        match self.file.read(buffer)? {
            0 => self.tail.read(buffer),
            read => Ok(read),
        }
    }
}
