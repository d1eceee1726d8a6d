//! The entries of an archive that are about the next one: what does not fit into its
//! header.

use super::Fault;
use std::io::Read;
use tar::{Entry, PaxExtensions};

/// A record that holds a long name; in bytes.
const LONGEST_RECORD: u64 = 4 << 10;

/// What it holds.
pub(super) fn record(entry: &mut Entry<'_, impl Read>) -> Result<Vec<u8>, Fault> {
    if entry.size() > LONGEST_RECORD {
        return Err(Fault::Archive(format!(
            "it has a name or a record of {} bytes",
            entry.size()
        )));
    }
    let mut bytes = Vec::new();
    entry
        .read_to_end(&mut bytes)
        .map_err(|error| Fault::Archive(format!("it is broken: {error}")))?;
    Ok(bytes)
}

/// A name (GNU tar).
pub(super) fn long_name(entry: &mut Entry<'_, impl Read>) -> Result<Vec<u8>, Fault> {
    let mut name = record(entry)?;
    if name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

pub(super) type Name = Option<Vec<u8>>;

/// The name and the link's target in a PAX record (pax(1), "pax Extended Header").
pub(super) fn extensions(record: &[u8]) -> Result<(Name, Name), Fault> {
    let (mut name, mut target) = (None, None);
    for extension in PaxExtensions::new(record) {
        let extension =
            extension.map_err(|error| Fault::Archive(format!("it is broken: {error}")))?;
        let value = extension.value_bytes();
        match extension.key_bytes() {
            b"path" => name = Some(value.to_vec()),
            b"linkpath" => target = Some(value.to_vec()),
            b"size" => return Err(Fault::Archive("it has a file of more than 8 GiB".into())),
            key if key.starts_with(b"GNU.sparse") => {
                return Err(Fault::Archive("it has a file with holes".into()));
            }
            _ => {}
        }
    }
    Ok((name, target))
}
