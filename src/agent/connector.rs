//! What device connectors leave about a failure: `device-connector-error.json`.

use super::work::Running;
use crate::job::Phase;
use crate::json::{Json, Kind, Scanner, Token};
use crate::sys::files;
use crate::warning;
use std::cell::Cell;
use std::io;
use std::path::Path;

/// In bytes.
const LARGEST: u64 = 1 << 20;

/// What a connector says of the failure of a phase; nothing when it does not, or
/// wrote something that is of no use.
pub(super) fn fault(running: &Running, phase: Phase) -> String {
    let Some(workspace) = &running.workspace else {
        return String::new();
    };
    match read(&workspace.connector_error(), workspace.owner(), phase) {
        Ok(detail) => detail,
        Err(error) => {
            let id = &running.job.id;
            warning!("device-connector-error.json of job {id} is not used: {error}");
            String::new()
        }
    }
}

fn read(path: &Path, owner: Option<u32>, phase: Phase) -> io::Result<String> {
    let bytes = files::read_regular_of(path, owner, LARGEST)?.unwrap_or_default();
    let name = format!("{phase}_exception_info");
    let mut detail = String::new();
    for document in documents(&bytes) {
        let json =
            Json::from_bytes(document).map_err(|error| io::Error::other(error.to_string()))?;
        // What was written last is nearest to the failure.
        if let Some(told) = json.get(&name).and_then(told) {
            detail = told;
        }
    }
    Ok(detail)
}

/// `name: message caused by cause`, as far as that is there.
fn told(info: Json<'_>) -> Option<String> {
    if info.kind() != Kind::Object {
        return None;
    }
    let text = |name: &str| {
        let text = info.get(&format!("exception_{name}"))?.string()?;
        (!text.is_empty() && text != "None").then_some(text)
    };
    let parts = [text("name"), text("message")];
    let mut told: String = parts.into_iter().flatten().collect::<Vec<_>>().join(": ");
    if let Some(cause) = text("cause") {
        told.push_str(" caused by ");
        told.push_str(&cause);
    }
    Some(told)
}

/// Connectors append one JSON document after the other.
fn documents(bytes: &[u8]) -> Vec<&[u8]> {
    let mut documents = Vec::new();
    let mut rest = bytes.trim_ascii();
    while !rest.is_empty() {
        let mut scanner = Scanner::new();
        let is_over = Cell::new(false);
        let mut sink = |depth: u32, token: Token<'_>| {
            is_over.set(is_over.get() || (depth == 0 && token == Token::Close));
        };
        let mut length = rest.len();
        for (at, byte) in rest.chunks(1).enumerate() {
            if scanner.push(byte, &mut sink).is_err() || is_over.get() {
                length = at + 1;
                break;
            }
        }
        let (document, more) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        documents.push(document);
        if !is_over.get() {
            break;
        }
        rest = more.trim_ascii();
    }
    documents
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Row 42: whatever a connector wrote there.
    #[test]
    fn row_42_garbage_of_a_connector_is_no_use_and_no_harm() {
        let directory = std::env::temp_dir().join(format!("tfa-connector-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("device-connector-error.json");
        let look = |phase| read(&path, None, phase);
        assert_eq!(look(Phase::Test).unwrap(), "", "no file");
        let write = |bytes: &[u8]| fs::write(&path, bytes).unwrap();
        write(b"");
        assert_eq!(look(Phase::Test).unwrap(), "");
        for garbage in [
            &b"[1,2}"[..],
            b"\xff",
            b"{\"a\": 1} x",
            &b"[".repeat(100_000),
        ] {
            write(garbage);
            let error = look(Phase::Test).unwrap_err().to_string();
            assert!(error.contains("not valid JSON"), "{error}");
        }
        write(&vec![b' '; 2 << 20]);
        let error = look(Phase::Test).unwrap_err().to_string();
        assert!(error.contains("more than"), "{error}");
        write(
            br#"{"provision_exception_info": {"exception_name": "ProvisioningError",
                "exception_message": "no {bootloader}", "exception_cause": null}}
               {"provision_exception_info": {"exception_name": "E", "exception_message": "m",
                "exception_cause": "OSError()"}}{"test_exception_info": 7}"#,
        );
        assert_eq!(look(Phase::Provision).unwrap(), "E: m caused by OSError()");
        assert_eq!(look(Phase::Test).unwrap(), "");
        fs::remove_file(&path).unwrap();
        let fifo = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(fifo.unwrap().success());
        assert!(look(Phase::Test).is_err());
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(look(Phase::Test).is_err());
        fs::remove_dir_all(directory).unwrap();
    }
}
