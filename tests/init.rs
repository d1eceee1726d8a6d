//! The agent on a machine that has little else: as what busybox's init runs, and
//! as what nobody prepared anything for.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::lab::{Lab, binary, signal, wait_until};
use support::means::{busybox, machine};
use testflinger_agent::job::Phase;

/// Copies a file to the same or another place below a root.
fn copy(from: &Path, root: &Path, to: &str) {
    let to = root.join(to.trim_start_matches('/'));
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap();
}

/// A machine's root: busybox under these names, what the program under test is
/// linked with (nothing, where it is what boards get), `/proc` and `/dev/null`.
fn make_root(lab: &Lab, busybox: &Path, names: &[&str]) -> PathBuf {
    let root = lab.scratch.path("root");
    for directory in ["bin", "sbin", "proc", "dev"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    File::create(root.join("dev/null")).unwrap();
    copy(busybox, &root, "bin/busybox");
    for name in names {
        symlink("/bin/busybox", root.join(name)).unwrap();
    }
    let linked = Command::new("ldd").arg(binary()).output().unwrap().stdout;
    let linked = String::from_utf8(linked).unwrap();
    for library in linked
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        copy(Path::new(library), &root, library);
    }
    root
}

/// The children of a process.
fn children(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let list = list.unwrap_or_default();
    list.split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

/// The agent among the children of a process.
fn agent_of(pid: i32) -> Option<i32> {
    let is_agent = |pid: &i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.starts_with("testflinger"))
    };
    children(pid).into_iter().find(is_agent)
}

fn wait_until_idle(lab: &Lab) {
    lab.wait("the agent is idle", |view| {
        let agent = view.agent("lab-agent");
        agent.is_some_and(|agent| agent.state == "waiting" && agent.job_id.is_empty())
    });
}

#[test]
fn busyboxs_init_runs_the_agent_and_starts_it_again_when_it_was_killed() {
    let Some(busybox) = busybox() else {
        return;
    };
    let state = "/var/lib/testflinger-agent";
    let lab = Lab::new()
        .set("execution_basedir", &format!("{state}/run"))
        .set("results_basedir", &format!("{state}/results"))
        .set("logging_basedir", &format!("{state}/logs"))
        .command(
            "test",
            "echo job $$ under $PPID; mkdir artifacts; echo x > artifacts/x; [ ! -e /long ] || sleep 99",
        )
        .command("cleanup", "[ ! -e /long ] || sleep 2; echo cleaned up");
    let names = "bin/sh bin/mkdir bin/pidof bin/sleep sbin/init";
    let names: Vec<_> = names.split(' ').collect();
    let root = make_root(&lab, &busybox, &names);
    let mount = "mount --bind /dev/null dev/null && mount -t proc proc proc";
    let Some(words) = machine(&root, mount, "/sbin/init") else {
        return;
    };
    // As it is installed on a board that has an inittab.
    fs::create_dir(root.join("etc")).unwrap();
    fs::write(root.join("etc/inittab"), "").unwrap();
    let installed = Command::new("sh")
        .arg("cross/install/install.sh")
        .env("DESTDIR", &root)
        .env("PREFIX", "")
        .env("INIT", "busybox")
        .env("BINARY", binary())
        .output()
        .unwrap();
    assert!(installed.status.success(), "{installed:?}");
    let config = root.join("etc/testflinger-agent.conf");
    fs::write(config, lab.configuration(&lab.agent_id)).unwrap();
    let state = root.join(state.trim_start_matches('/'));
    fs::copy(lab.scratch.path("token"), state.join("refresh_token")).unwrap();

    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let mut machine = lab.agent_under(&words, &lab.agent_id);
    let first = lab.submit_test();
    lab.wait_until_complete(&first);
    assert_eq!(lab.status(&first, "test"), Some(0));
    assert!(lab.server.artifact(&first).is_some());
    wait_until_idle(&lab);
    let init = children(machine.pid())[0];
    let killed = agent_of(init).unwrap();
    signal(killed, "KILL");
    wait_until("init starts it again", || {
        agent_of(init).is_some_and(|agent| agent != killed)
    });
    let second = lab.submit_test();
    lab.wait_until_complete(&second);
    assert_eq!(lab.status(&second, "test"), Some(0));
    wait_until_idle(&lab);

    // Power off in a job: init by itself would leave the agent a second.
    File::create(root.join("long")).unwrap();
    let third = lab.submit_test();
    lab.wait_for_output(&third, Phase::Test, "under");
    signal(init, "USR2");
    machine.wait();
    lab.wait_until_complete(&third);
    assert_eq!(lab.status(&third, "test"), Some(100));
    assert_eq!(lab.body(&third, Phase::Cleanup), "cleaned up\n");
    let log = fs::read_to_string(state.join("logs/testflinger-agent.log")).unwrap();
    assert_eq!(log.matches("for the queues lab").count(), 2, "{log}");
    assert!(log.ends_with("stopped\n"), "{log}");
    assert_eq!(fs::read_dir(state.join("run")).unwrap().count(), 0);
}

/// No console, no `/tmp`, `/etc` or `/usr`, nothing in the environment, nothing
/// that can be written to but one directory, and in the end no `/proc` either.
#[test]
fn the_agent_needs_a_shell_a_directory_and_dev_null() {
    let Some(busybox) = busybox() else {
        return;
    };
    for proc in ["mount -t proc proc proc", "true"] {
        let lab = Lab::new()
            .set("execution_basedir", "/data/run")
            .set("results_basedir", "/data/results")
            .set("logging_basedir", "/data/logs")
            .command(
                "test",
                "echo in $PWD with $PATH and ${HOME-no home}; echo x >&2",
            )
            .command("cleanup", "echo cleaned up");
        let root = make_root(&lab, &busybox, &["bin/sh"]);
        copy(Path::new(&binary()), &root, "agent");
        copy(&lab.scratch.path("token"), &root, "token");
        fs::write(root.join("conf"), lab.configuration(&lab.agent_id)).unwrap();
        fs::create_dir(root.join("data")).unwrap();
        let mount = format!(
            "mount --rbind . . && cd $PWD && mount --bind /dev/null dev/null && {proc} && \
             mount -o remount,bind,ro . && mount -t tmpfs -o mode=755 none data"
        );
        let command = "/agent -c /conf --token-file /token <&- >&- 2>&-";
        let Some(words) = machine(&root, &mount, command) else {
            return;
        };
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let mut machine = lab.agent_under(&words, &lab.agent_id);
        let job = lab.submit_test();
        lab.wait_until_complete(&job);
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        assert_eq!(
            lab.body(&job, Phase::Test),
            format!("in /data/run/{job} with {path} and no home\nx\n")
        );
        assert_eq!(lab.body(&job, Phase::Cleanup), "cleaned up\n");
        let agent = children(machine.pid())[0];
        for descriptor in 0..3 {
            let open = fs::read_link(format!("/proc/{agent}/fd/{descriptor}")).unwrap();
            assert!(open.ends_with("dev/null"), "{open:?}");
        }
        signal(agent, "TERM");
        assert_eq!(machine.wait(), 0);
    }
}
