//! What the device runs, as it says itself: a look at its /etc/os-release by ssh, after
//! it was provisioned. It is in nobody's way: started, it is polled with everything else,
//! and ended with its job or after half a minute.

use crate::json::Json;
use crate::sys::{self, Exit, Pipe, Spawn, User};
use std::ffi::OsString;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// A device that boots or hangs is not waited for longer.
const PATIENCE: Duration = Duration::from_secs(30);
/// That file has a dozen lines; in bytes.
const LARGEST: usize = 16 << 10;
/// As whom a device is asked where its job says nothing, as in the original.
const USER: &str = "ubuntu";
/// The status of our own for a board without ssh; ssh itself has 255, and cat 1.
const NO_SSH: i32 = 99;

/// The look-up while it is under way.
#[derive(Debug)]
pub(super) struct Lookup {
    /// Its process and session, until that has ended.
    pid: Option<i32>,
    pipe: Option<Pipe>,
    text: Vec<u8>,
    until: Instant,
}

impl Lookup {
    /// Asks a device. What there was to be said goes nowhere but to the file's text.
    ///
    /// # Errors
    /// Why that cannot be.
    pub(super) fn start(
        user: &str,
        host: &str,
        environment: &[(OsString, OsString)],
        run_as: Option<&User>,
        now: Instant,
    ) -> Result<Lookup, String> {
        let command = command(user, host)?;
        let cannot = |error: std::io::Error| format!("ssh cannot be started: {error}");
        let (pipe, output) = sys::pipe().map_err(cannot)?;
        let pid = sys::spawn(Spawn {
            command: &command,
            // Whatever becomes of the job's own.
            directory: Path::new("/"),
            environment,
            output,
            user: run_as,
            cgroup: None,
        })
        .map_err(cannot)?;
        Ok(Lookup {
            pid: Some(pid),
            pipe: Some(pipe),
            text: Vec::new(),
            until: now + PATIENCE,
        })
    }

    pub(super) fn pid(&self) -> Option<i32> {
        self.pid
    }

    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// Why it is of no use to go on.
    pub(super) fn attend(&mut self, now: Instant) -> Result<(), String> {
        if self.until <= now {
            return Err(format!("no answer within {} s", PATIENCE.as_secs()));
        }
        let mut buffer = [0; 4 << 10];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut buffer) {
                Ok(None) => break,
                Ok(Some(count @ 1..)) => {
                    let piece = buffer.get(..count).unwrap_or_default();
                    self.text.extend_from_slice(piece);
                }
                Ok(Some(_)) | Err(_) => self.pipe = None,
            }
            if self.text.len() > LARGEST {
                return Err(format!("its /etc/os-release has more than {LARGEST} bytes"));
            }
        }
        Ok(())
    }

    /// Its process has ended: what the device runs.
    ///
    /// # Errors
    /// Why that is not known.
    pub(super) fn ended(mut self, exit: Exit, now: Instant) -> Result<String, String> {
        self.pid = None;
        self.attend(now)?;
        match exit {
            Exit::Code(0) => {
                let text = String::from_utf8_lossy(&self.text);
                let release = release(&text);
                release.ok_or_else(|| "its /etc/os-release names no version".into())
            }
            Exit::Code(NO_SSH) => Err("there is no ssh here".into()),
            other => Err(format!("ssh ended with {}", other.status())),
        }
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            // It has a session of its own; the main loop reaps it. One that is gone
            // needs no signal.
            let _ = sys::signal_group(pid, true);
        }
    }
}

/// The command that asks the device. Neither name comes from us: what could be taken
/// for anything but a name is refused.
fn command(user: &str, host: &str) -> Result<String, String> {
    let is_word = |text: &str, more: &[u8], longest: usize| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || more.contains(&byte);
        let begins = text
            .bytes()
            .next()
            .is_some_and(|first| !b"-.".contains(&first));
        begins && text.len() <= longest && text.bytes().all(allowed)
    };
    if host.parse::<IpAddr>().is_err() && !is_word(host, b"-._", 253) {
        return Err("its device_ip is no address".into());
    }
    if !is_word(user, b"-._", 64) {
        return Err("the job's test_username is no name".into());
    }
    Ok(format!(
        "command -v ssh >/dev/null || exit {NO_SSH}; exec ssh -o BatchMode=yes \
         -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=10 \
         -o ControlPath=none -o LogLevel=ERROR {user}@{host} cat /etc/os-release 2>/dev/null"
    ))
}

/// As whom a job's device is asked.
pub(super) fn user_of(document: &str) -> String {
    let named = Json::parse(document).ok().and_then(|job| {
        let name = job.get("test_data")?.get("test_username")?;
        name.string()
    });
    named.unwrap_or_else(|| USER.to_owned())
}

/// The release that an os-release file names (os-release(5)): its version, with the
/// point release where the text of the version has one, or `Core N`.
fn release(text: &str) -> Option<String> {
    let value = |key: &str| {
        let lines = text.lines().map(str::trim);
        let mut found = lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        found
            .next_back()
            .map(|value| value.trim_matches(['"', '\'']))
    };
    let version = value("VERSION_ID")?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if version.is_empty() || version.len() > 32 || !version.bytes().all(allowed) {
        return None;
    }
    let is_core = value("NAME").is_some_and(|name| name.contains("Ubuntu Core"));
    if is_core || value("ID") == Some("ubuntu-core") {
        return Some(format!("Core {version}"));
    }
    let long = value("VERSION")
        .or_else(|| value("PRETTY_NAME"))
        .unwrap_or_default();
    let words = long.split(|other: char| !other.is_ascii_digit() && other != '.');
    let is_point = |word: &&str| {
        let point = word
            .strip_prefix(version)
            .and_then(|rest| rest.strip_prefix('.'));
        point.is_some_and(|point| {
            (1..=4).contains(&point.len()) && point.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    let point = words.into_iter().find(is_point);
    Some(point.unwrap_or(version).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_os_release_file_names_a_release() {
        for (text, wanted) in [
            (
                "VERSION_ID=\"22.04\"\nVERSION=\"22.04.4 LTS (Jammy Jellyfish)\"\n",
                "22.04.4",
            ),
            ("VERSION=\"24.04 LTS\"\r\nVERSION_ID=\"24.04\"\r\n", "24.04"),
            (
                "PRETTY_NAME='Ubuntu 20.04.6 LTS'\nVERSION_ID='20.04'",
                "20.04.6",
            ),
            (
                "ID=debian\nVERSION_ID=\"12\"\nVERSION=\"12 (bookworm)\"",
                "12",
            ),
            ("VERSION_ID=22.04\nVERSION=122.04.4", "22.04"),
            ("VERSION_ID=22.04\nVERSION=22.04.4.4", "22.04"),
            (
                "NAME=\"Ubuntu Core\"\nVERSION_ID=22\nVERSION=22.1",
                "Core 22",
            ),
            ("ID=ubuntu-core\nVERSION_ID=\"24\"", "Core 24"),
        ] {
            assert_eq!(release(text).as_deref(), Some(wanted), "{text}");
        }
        for text in [
            "",
            "VERSION_ID=",
            "VERSION=22.04",
            "VERSION_ID=a b",
            "VERSION_ID=\"é\"",
        ] {
            assert_eq!(release(text), None, "{text}");
        }
        assert_eq!(release(&format!("VERSION_ID={}", "1".repeat(33))), None);
    }

    #[test]
    fn only_names_get_into_the_command() {
        let said = command("ubuntu", "10.1.2.3").unwrap();
        assert!(
            said.contains(" ubuntu@10.1.2.3 cat /etc/os-release "),
            "{said}"
        );
        for host in ["device-1.lab", "fd00::1", "::ffff:10.0.0.1", "pi_4"] {
            assert!(command("u-1", host).is_ok(), "{host}");
        }
        for word in [
            "",
            "-oProxyCommand=x",
            "a b",
            "a;b",
            "$(x)",
            "a\nb",
            "é",
            ".x",
            "a@b",
        ] {
            assert!(command("ubuntu", word).is_err(), "{word}");
            assert!(command(word, "10.1.2.3").is_err(), "{word}");
        }
        let long = "a".repeat(254);
        assert!(command("ubuntu", &long).is_err() && command(&long, "x").is_err());
        assert_eq!(
            user_of(r#"{"test_data": {"test_username": "root"}}"#),
            "root"
        );
        assert_eq!(user_of(r#"{"test_data": {"test_username": 7}}"#), "ubuntu");
        assert_eq!(user_of("{}"), "ubuntu");
    }

    fn lookup(now: Instant) -> (Lookup, std::fs::File) {
        let (pipe, output) = sys::pipe().unwrap();
        let lookup = Lookup {
            pid: None,
            pipe: Some(pipe),
            text: Vec::new(),
            until: now + PATIENCE,
        };
        (lookup, output.into())
    }

    #[test]
    fn a_device_is_given_half_a_minute() {
        let now = Instant::now();
        let (mut lookup, _output) = lookup(now);
        assert_eq!(lookup.until(), now + Duration::from_secs(30));
        let late = now + Duration::from_millis(29_999);
        assert_eq!(lookup.attend(late), Ok(()));
        let reason = lookup.attend(lookup.until()).unwrap_err();
        assert_eq!(reason, "no answer within 30 s");
    }

    #[test]
    fn what_it_says_counts_only_if_it_ends_well_and_is_short() {
        use std::io::Write;
        let now = Instant::now();
        let told = |text: &str, exit| {
            let (mut lookup, mut output) = lookup(now);
            for piece in text.as_bytes().chunks(1 << 10) {
                output.write_all(piece).unwrap();
                lookup.attend(now)?;
            }
            drop(output);
            lookup.ended(exit, now)
        };
        let good = "VERSION_ID=12\n";
        assert_eq!(told(good, Exit::Code(0)), Ok("12".to_owned()));
        assert_eq!(
            told(good, Exit::Code(255)),
            Err("ssh ended with 255".to_owned())
        );
        assert!(told(good, Exit::Signal(9)).unwrap_err().contains("247"));
        assert!(told("", Exit::Code(NO_SSH)).unwrap_err().contains("no ssh"));
        assert!(told("", Exit::Code(0)).unwrap_err().contains("no version"));
        let long = good.to_owned() + &"#".repeat(LARGEST);
        assert!(
            told(&long, Exit::Code(0))
                .unwrap_err()
                .contains("more than")
        );
    }
}
