//! What only some machines can do, and a test says so when they cannot: strace,
//! mounts, other users.

use super::lab::{Lab, program};
use std::fs;
use std::io::Read;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Says that a test cannot be done here, unless nobody may say that.
fn skip(what: &str) {
    let may_not = std::env::var_os("TESTFLINGER_NO_SKIP").is_some();
    assert!(!may_not, "this machine lacks {what}");
    println!("skipped: needs {what}");
}

/// Whether the program under test runs as itself and not in an emulator, where
/// it cannot do what the test is about: the reason says what, and is said.
/// Nobody can install what is missing there, so that this is no skip.
pub fn is_native(reason: &str) -> bool {
    let native = program().len() == 1;
    if !native {
        println!("not under an emulator: {reason}");
    }
    native
}

/// Whether a command works at all.
fn works(words: &[&str]) -> bool {
    Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The words before a program whose main thread meets faults in its system
/// calls, such as `fork:error=EAGAIN:when=1`. Its other threads and its children
/// meet none, and it is itself the process that is started, not strace.
///
/// `None`, once that is said: strace is missing, or may not trace.
pub fn strace(faults: &[&str]) -> Option<Vec<String>> {
    let mut words = vec!["strace".to_owned(), "-D".into(), "-qq".into()];
    words.extend(["-o".into(), "/dev/null".into()]);
    if !works(&["strace", "-qq", "-o", "/dev/null", "true"]) {
        skip("strace");
        return None;
    }
    for fault in faults {
        words.push("-e".into());
        words.push(format!("inject={fault}"));
    }
    Some(words)
}

/// The system call by which this program's C library forks; not the one by
/// which it makes threads.
pub fn fork_call() -> &'static str {
    let musl = cfg!(target_env = "musl");
    match musl && cfg!(any(target_arch = "x86_64", target_arch = "arm")) {
        true => "fork",
        false => "clone",
    }
}

/// The words before a program that sees other files than the rest of the
/// machine: `mount` is a shell command that changes them.
///
/// `None`, once that is said: this user may not mount.
pub fn with_mounts(mount: &str) -> Option<Vec<String>> {
    if !works(&["unshare", "--mount", "true"]) {
        skip("mount namespaces");
        return None;
    }
    let script = format!("{mount} && exec \"$@\"");
    let words = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    Some(words.map(str::to_owned).to_vec())
}

/// The words before a program that is process 1 of its machine, as far as it can
/// see. `unshare` waits for it and gives its exit status.
///
/// `None`, once that is said: this user may not do that.
pub fn as_process_1() -> Option<Vec<String>> {
    let words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    if !works(&[&words[..], &["true"]].concat()) {
        skip("process namespaces");
        return None;
    }
    Some(words.map(str::to_owned).to_vec())
}

/// Runs a shell command where a process sees its files and processes.
pub fn beside(pid: i32, command: &str) {
    let status = Command::new("nsenter")
        .arg(format!("--target={pid}"))
        .args(["--mount", "--pid", "sh", "-c", command])
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{command}");
}

/// Something that is mounted and never answers, as one whose server is gone, until this
/// is dropped.
pub struct DeadMount(Child);

/// Mounts that at a place, as a process sees its files.
///
/// `None`, once that is said: there is no FUSE.
pub fn dead_mount(pid: i32, place: &Path) -> Option<DeadMount> {
    let script = "exec 3<>/dev/fuse && \
                  mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none \"$0\" && \
                  echo mounted && exec sleep 10000";
    let child = Command::new("nsenter")
        .arg(format!("--target={pid}"))
        .args(["--mount", "sh", "-c", script])
        .arg(place)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut mount = DeadMount(child.ok()?);
    let mut said = [0; 8];
    let told = mount.0.stdout.as_mut().map(|out| out.read_exact(&mut said));
    if !matches!(told, Some(Ok(()))) {
        skip("FUSE");
        return None;
    }
    Some(mount)
}

impl Drop for DeadMount {
    fn drop(&mut self) {
        // Nobody holds its end any more, and whoever waits for it has an error.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Changes how many descriptors a running process may have.
///
/// False, once that is said: there is no prlimit.
pub fn limit_descriptors(pid: i32, count: usize) -> bool {
    let pid = format!("--pid={pid}");
    // The soft limit only: so it can be raised again.
    let done = works(&["prlimit", &pid, &format!("--nofile={count}:")]);
    if !done {
        skip("prlimit");
    }
    done
}

/// The words before a program that runs as another user, given by number.
///
/// `None`, once that is said: this user may not become that one, or that one may
/// not see the program.
pub fn as_user(user: &str) -> Option<Vec<String>> {
    let group = format!("--regid={user}");
    let words = [
        "setpriv",
        &format!("--reuid={user}"),
        &group,
        "--clear-groups",
    ];
    let program = program();
    let program: Vec<_> = program.iter().map(String::as_str).collect();
    if !works(&[&words[..], &program, &["--version"]].concat()) {
        skip("another user");
        return None;
    }
    Some(words.map(str::to_owned).to_vec())
}

/// Whether control groups of version 2 can be made here.
pub fn has_cgroups() -> bool {
    let probe = format!("testflinger-probe-{}", std::process::id());
    let script = format!(
        "set -e; p=$(awk '/ - cgroup2 / {{ print $5; exit }}' /proc/self/mountinfo); \
         o=$(sed -n 's/^0:://p' /proc/self/cgroup); mkdir \"$p$o/{probe}\"; rmdir \"$p$o/{probe}\""
    );
    let has = works(&["sh", "-c", &script]);
    if !has {
        skip("control groups (version 2) that this user can make");
    }
    has
}

/// The name of a user with no rights, as whom this one can run commands.
///
/// `None`, once that is said: only root can do that.
pub fn another_user() -> Option<&'static str> {
    let user = "nobody";
    if !works(&[
        "setpriv",
        &format!("--reuid={user}"),
        "--clear-groups",
        "true",
    ]) {
        skip("root, and the user nobody");
        return None;
    }
    Some(user)
}

/// A name server of the loopback network that is asked and never answers, and
/// its address.
///
/// `None`, once that is said: this user may not be one.
pub fn silent_name_server() -> Option<(UdpSocket, &'static str)> {
    let address = "127.53.53.53";
    let socket = UdpSocket::bind((address, 53)).ok();
    if socket.is_none() {
        skip("port 53");
    }
    Some((socket?, address))
}

/// Does what openssl does with these words.
///
/// False, once that is said: there is none.
pub fn openssl(words: &[&str]) -> bool {
    let done = works(&[&["openssl"], words].concat());
    if !done {
        skip("openssl");
    }
    done
}

/// What systemd-analyze says with these words.
///
/// `None`, once that is said: there is none.
pub fn systemd_analyze(words: &[&str]) -> Option<String> {
    if !works(&["systemd-analyze", "--version"]) {
        skip("systemd-analyze");
        return None;
    }
    let output = Command::new("systemd-analyze").args(words).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&said).into_owned())
}

/// A busybox that is one static file, with an init in it, to start the agent.
///
/// `None`, once that is said: there is none.
pub fn busybox() -> Option<PathBuf> {
    if !is_native("busybox starts the program itself, which no emulator sees") {
        return None;
    }
    let found = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    let found = found.into_iter().find(|path| {
        let path = path.to_str().unwrap();
        // It says so of itself, in the list of what it can do.
        works(&["sh", "-c", &format!("{path} --list | grep -qx init")])
            && !works(&["sh", "-c", &format!("ldd {path}")])
    });
    if found.is_none() {
        skip("busybox-static");
    }
    found
}

/// The words before a program, and its words, of a machine of its own: process 1
/// of it is `command`, which sees nothing but the directory `root`. `mount` is a
/// shell command that prepares that; the network is this machine's.
///
/// `None`, once that is said: this user may not do that.
pub fn machine(root: &Path, mount: &str, command: &str) -> Option<Vec<String>> {
    let words = ["unshare", "--pid", "--fork", "--mount", "--kill-child"];
    if !works(&[&words[..], &["mount", "-t", "proc", "proc", "/proc"]].concat()) {
        skip("namespaces");
        return None;
    }
    // What is found in the path here is not there.
    let script = format!(
        "chroot=$(command -v chroot) && cd {} && {mount} && exec env -i $chroot . {command}",
        root.display()
    );
    let words = words.into_iter().chain(["sh", "-c", &script]);
    Some(words.map(str::to_owned).collect())
}

/// A lab whose agent believes that it is this date (UTC), and where time goes on from
/// there. The machine's own clock stays as it is: libfaketime stands between
/// the agent, or the emulator that runs it, and the C library.
///
/// `None`, once that is said: there is no libfaketime.
pub fn at_date(lab: Lab, date: &str) -> Option<Lab> {
    let started_at = format!("@{date}");
    Some(with_faketime(lab)?.environment("FAKETIME", &started_at))
}

/// The same where [`set_date`] says, before and while the agent runs, what date it is.
pub fn at_any_date(lab: Lab) -> Option<Lab> {
    let date = date_of(&lab);
    let lab = with_faketime(lab)?
        .environment("FAKETIME_TIMESTAMP_FILE", date.to_str().unwrap())
        .environment("FAKETIME_NO_CACHE", "1");
    Some(lab)
}

/// What its agent takes for the moment at which it was started.
pub fn set_date(lab: &Lab, date: &str) {
    let next = lab.scratch.path("date.next");
    fs::write(&next, format!("@{date}\n")).unwrap();
    // It is read all the time.
    fs::rename(next, date_of(lab)).unwrap();
}

fn date_of(lab: &Lab) -> PathBuf {
    lab.scratch.path("date")
}

/// Puts libfaketime before a lab's agent; only dates are faked.
fn with_faketime(lab: Lab) -> Option<Lab> {
    let library = format!(
        "/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1",
        std::env::consts::ARCH
    );
    if !Path::new(&library).exists() {
        skip("libfaketime");
        return None;
    }
    let loads = format!("ldd \"$(command -v {})\" | grep -q libc", program()[0]);
    if !works(&["sh", "-c", &loads]) {
        println!("not for a static program: it loads no library that lies about the date");
        return None;
    }
    let lab = lab
        .environment("LD_PRELOAD", &library)
        .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .environment("TZ", "UTC");
    Some(lab)
}

/// A shell command that runs the fixture with these words.
pub fn fixture_command(words: &str) -> String {
    format!("{} {words}", super::fixture().display())
}
