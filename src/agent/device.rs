//! What device connectors leave for the server: `device-info.json`.

use super::Agent;
use super::work::Running;
use crate::child::Secrets;
use crate::job::Entry;
use crate::json::{Json, Kind, Object};
use crate::sys::files;
use crate::warning;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What is known of a device is a few addresses and names; in bytes.
const LARGEST: u64 = 1 << 20;

/// What was found there last.
#[derive(Debug, Default)]
pub(super) struct DeviceInfo {
    version: u64,
    text: String,
    /// Why the last one cannot be used.
    fault: Option<String>,
}

impl DeviceInfo {
    /// After the version that an earlier life of the agent came to.
    pub(super) fn of_an_earlier_life(version: u64) -> DeviceInfo {
        DeviceInfo {
            version,
            ..DeviceInfo::default()
        }
    }

    /// The device's address, as far as it was found there.
    pub(super) fn ip(&self) -> Option<String> {
        let info = Json::parse(&self.text).ok()?.get("device_info")?;
        info.get("device_ip")?.string()
    }
}

impl Agent {
    /// Passes on what is known of the device, if that is new. Any command may
    /// have written anything there: what is no use is said once, and ignored.
    pub(super) fn look_at_device_info(&mut self, running: &mut Running) {
        let Some(workspace) = &running.workspace else {
            return;
        };
        let path = workspace.device_info();
        let found = read(&path, workspace.owner(), &running.secrets);
        let info = &mut running.device_info;
        let kept = match found {
            Ok(None) => return,
            Ok(Some(text)) if text == info.text => return,
            Ok(Some(text)) => running.record.keep_device_info(&text).map(|()| text),
            Err(error) => Err(error),
        };
        match kept {
            Ok(text) => {
                info.version += 1;
                info.text = text;
                info.fault = None;
                let entry = Entry::DeviceInfo(info.version);
                self.record(running, &entry);
            }
            Err(error) => {
                let fault = error.to_string();
                if info.fault.as_ref() != Some(&fault) {
                    let id = &running.job.id;
                    warning!("device-info.json of job {id} is not used: {fault}");
                    info.fault = Some(fault);
                }
            }
        }
    }
}

/// The value of `device_info` in the file, if there is one, without the secrets.
fn read(path: &Path, owner: Option<u32>, secrets: &Arc<Secrets>) -> io::Result<Option<String>> {
    let Some(bytes) = files::read_regular_of(path, owner, LARGEST)? else {
        return Ok(None);
    };
    let json = Json::from_bytes(&bytes).map_err(|error| io::Error::other(error.to_string()))?;
    match json.get("device_info") {
        Some(info) if info.kind() == Kind::Object => {
            // As a member of an object of our own: nothing else gets out.
            let info = info.rewritten(&|text| secrets.masked(text));
            let info = Json::parse(&info).map_err(|error| io::Error::other(error.to_string()))?;
            let mut only = Object::new();
            only.json("device_info", info);
            Ok(Some(only.finish()))
        }
        _ => Err(io::Error::other("it does not hold {\"device_info\": {…}}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Row 42: whatever a command wrote there.
    #[test]
    fn row_42_garbage_in_device_info_is_no_use_and_no_harm() {
        let directory = std::env::temp_dir().join(format!("tfa-device-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("device-info.json");
        let read = |path: &Path| read(path, None, &Arc::default());
        assert!(read(&path).unwrap().is_none());
        let fault = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read(&path).unwrap_err().to_string()
        };
        assert!(fault(b"").contains("not valid JSON"));
        assert!(fault(b"\xff\xfe").contains("not valid JSON"));
        assert!(fault(b"[1,2}").contains("not valid JSON"));
        assert!(fault("[".repeat(100_000).as_bytes()).contains("not valid JSON"));
        assert!(fault(b"{\"device_info\": 7}").contains("does not hold"));
        assert!(fault(&vec![b' '; 2 << 20]).contains("more than"));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(read(&path).is_err());
        fs::remove_file(&path).unwrap();
        let fifo = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(fifo.unwrap().success());
        assert!(read(&path).unwrap_err().to_string().contains("regular"));
        fs::remove_file(&path).unwrap();
        fs::write(
            &path,
            "{\"x\": 1, \"device_info\": {\"device_ip\": \"1.2.3.4\"}}",
        )
        .unwrap();
        assert_eq!(
            read(&path).unwrap().unwrap(),
            "{\"device_info\": {\"device_ip\": \"1.2.3.4\"}}"
        );
        fs::write(&path, r#"{"device_info": {"name": "\ud800"}}"#).unwrap();
        assert_eq!(
            read(&path).unwrap().unwrap(),
            "{\"device_info\": {\"name\": \"\u{fffd}\"}}"
        );
        fs::remove_dir_all(directory).unwrap();
    }
}
