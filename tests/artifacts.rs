//! What a job leaves in `artifacts/`, however strange.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use support::gate::Gate;
use support::lab::{Lab, wait_until};
use support::means::{as_user, with_mounts};
use testflinger_agent::job::Phase;

const NOBODY: u32 = 65_534;

/// Everything that cannot be stored, or hardly: run as an ordinary user, because root can
/// read anything.
const LEFT: &str = r#"
mkdir artifacts && cd artifacts
long=$(printf %0255d 0)
mkdir -p $long/$long/$long && echo deep > $long/$long/$long/$long
printf 'bytes' > "$(printf 'latin-\351\012name')"
mkfifo fifo
perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0); bind(S, sockaddr_un("socket"))' 
echo secret > unreadable && chmod 000 unreadable
mkdir closed && echo x > closed/x && chmod 000 closed
ln -s /etc/passwd link
ln -s nowhere dangling
head -c 3000000 /dev/zero > grows
echo left
"#;

/// What GNU tar, and nothing else, makes of an archive: its paths.
fn unpacked(archive: &Path, to: &Path) -> BTreeSet<String> {
    std::fs::create_dir(to).unwrap();
    let tar = Command::new("tar")
        .arg("-xzpf")
        .arg(archive)
        .arg("-C")
        .arg(to)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&tar.stderr);
    assert!(tar.status.success() && errors.is_empty(), "{errors}");
    let find = Command::new("find")
        .arg(to)
        .args(["-mindepth", "2", "-printf", "%P\\0"])
        .output()
        .unwrap();
    assert!(find.status.success());
    let paths = find.stdout.split(|&byte| byte == 0);
    paths
        .filter(|path| !path.is_empty())
        .map(|path| format!("{:?}", OsStr::from_bytes(path)))
        .collect()
}

#[test]
fn row_43_strange_artifacts_make_a_valid_archive_and_what_is_left_out_is_said_once() {
    let user = NOBODY.to_string();
    let Some(words) = as_user(&user) else {
        return;
    };
    let lab = Lab::new();
    let script = lab.scratch.path("leave");
    std::fs::write(&script, LEFT).unwrap();
    let lab = lab.command("test", &format!("sh -e '{}'", script.display()));
    for name in ["run", "results", "logs", "token"] {
        let path = lab.scratch.path(name);
        if name != "token" {
            std::fs::create_dir(&path).unwrap();
        }
        std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    // It is packed a second time.
    lab.server
        .answer("POST", "/v1/result/*/artifact", 1, 500, "");
    let job = lab.submit_test();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let agent = lab.agent_under(&words, &lab.agent_id);
    // Somebody writes to one of them all the time.
    let grows = lab
        .scratch
        .path("results")
        .join(&job)
        .join("artifacts/grows");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let is_complete = || lab.server.job_state(&job).as_deref() == Some("complete");
            while !is_complete() {
                let file = std::fs::File::options().append(true).open(&grows);
                // Before it is there, and after it is gone.
                let _ = file.and_then(|mut file| file.write_all(&[0; 10_000]));
            }
        });
        lab.wait_until_complete(&job);
    });
    assert_eq!(lab.body(&job, Phase::Test), "left\n");
    assert_eq!(lab.status(&job, "test"), Some(0));

    let archive = lab.server.artifact(&job).expect("artifacts");
    let paths = unpacked(&archive, &lab.scratch.path("unpacked"));
    let long = "0".repeat(255);
    let deep = format!("{long}/{long}/{long}/{long}");
    let wanted = [
        long.as_bytes(),
        &deep.as_bytes()[..511],
        &deep.as_bytes()[..767],
        deep.as_bytes(),
        b"latin-\xe9\nname",
        b"link",
        b"dangling",
        b"grows",
    ]
    .map(|path| [b"artifacts/", path].concat())
    .map(|path| format!("{:?}", OsStr::from_bytes(&path)));
    assert_eq!(paths, BTreeSet::from(wanted), "{}", agent.log());
    let unpacked = lab.scratch.path("unpacked").join("artifacts");
    assert_eq!(
        std::fs::read_to_string(unpacked.join(deep)).unwrap(),
        "deep\n"
    );
    let name = OsStr::from_bytes(b"latin-\xe9\nname");
    assert_eq!(std::fs::read(unpacked.join(name)).unwrap(), b"bytes");
    assert!(std::fs::metadata(unpacked.join("grows")).unwrap().len() >= 3_000_000);

    let log = agent.log();
    for said in [
        "fifo\" was left out",
        "socket\" was left out",
        "unreadable\" was left out",
        "closed",
    ] {
        let lines = log.lines().filter(|line| line.contains(said)).count();
        assert_eq!(lines, 1, "{said}\n{log}");
    }
}

/// Left by sudo or in a container: a directory of another owner cannot be moved.
#[test]
fn artifacts_of_another_owner_come_home_from_where_they_are() {
    let user = NOBODY.to_string();
    for disk in ["true", "mount -t tmpfs -o mode=700,uid=65534 none"] {
        let lab = Lab::new();
        let results = lab.scratch.path("results");
        let mount = format!("{disk} '{}'", results.display());
        let (Some(mount), Some(user)) = (with_mounts(&mount), as_user(&user)) else {
            return;
        };
        let gate = Gate::new(&lab.scratch, "given");
        let leave = format!("mkdir artifacts; echo x > artifacts/kept; {}", gate.words());
        let lab = lab.command("test", &format!("{leave}; echo left"));
        for name in ["run", "results", "logs", "token"] {
            let path = lab.scratch.path(name);
            if name != "token" {
                std::fs::create_dir(&path).unwrap();
            }
            std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let job = lab.submit_test();
        let words = [mount, user].concat();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let agent = lab.agent_under(&words, &lab.agent_id);
        let workspace = lab.scratch.path("run").join(&job);
        let artifacts = workspace.join("artifacts");
        wait_until("the artifacts are there", || {
            artifacts.join("kept").exists()
        });
        std::os::unix::fs::chown(&artifacts, Some(0), Some(0)).unwrap();
        gate.open();
        lab.wait_until_complete(&job);
        let archive = lab.server.artifact(&job);
        let archive = archive.unwrap_or_else(|| panic!("{disk}: {}", agent.log()));
        let paths = unpacked(&archive, &lab.scratch.path("unpacked"));
        assert_eq!(paths, BTreeSet::from(["\"artifacts/kept\"".to_owned()]));
        // They are not the agent's to remove, but will not be sent again; the job with
        // its secrets is gone.
        let left = std::fs::read_dir(&workspace).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["artifacts.removing"], "{}", agent.log());
    }
}
