//! What `make install` puts on a board: each file is tried, as far as this machine
//! can.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;
use support::lab::{Lab, Scratch, binary, is_alive, numbers, signal, wait_for_text, wait_until};
use support::means::{busybox, machine, systemd_analyze};
use testflinger_agent::config::Config;
use testflinger_agent::job::Phase;

fn install_below(root: &Path, prefix: &str, init: &str) -> Output {
    Command::new("sh")
        .arg("cross/install/install.sh")
        .env("DESTDIR", root)
        .env("PREFIX", prefix)
        .env("INIT", init)
        .env("BINARY", binary())
        .output()
        .unwrap()
}

/// Installs into a directory, with a prefix inside of it that is there for real.
fn install(scratch: &Scratch, init: &str) -> (Output, PathBuf) {
    let root = scratch.path("root");
    let prefix = scratch.path("prefix");
    let output = install_below(&root, prefix.to_str().unwrap(), init);
    let inside = root.join(prefix.strip_prefix("/").unwrap());
    if inside.exists() {
        symlink(inside, &prefix).unwrap();
    }
    (output, root)
}

fn installed(scratch: &Scratch, init: &str) -> PathBuf {
    let (output, root) = install(scratch, init);
    assert!(output.status.success(), "{output:?}");
    assert!(scratch.path("prefix/bin/testflinger-agent").exists());
    let state = fs::metadata(root.join("var/lib/testflinger-agent")).unwrap();
    assert_eq!(state.permissions().mode() & 0o777, 0o711);
    root
}

/// That a shell can read a script.
fn check_syntax(path: &Path) {
    let output = Command::new("sh").arg("-n").arg(path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn the_init_has_to_be_named() {
    let scratch = Scratch::new();
    for init in ["", "upstart"] {
        let (output, root) = install(&scratch, init);
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.contains("there are: systemd busybox sysvinit openrc"),
            "{said}"
        );
        assert!(!root.exists());
    }
}

#[test]
fn a_prefix_is_taken_or_refused_with_the_reason() {
    let scratch = Scratch::new();
    let root = scratch.path("root");
    for (prefix, why) in [
        ("usr/local", "it has to begin with /"),
        ("/opt/test flinger", "letters, digits and"),
        ("/opt/a#b", "letters, digits and"),
        ("/opt/a&b", "letters, digits and"),
        ("/opt/%i", "letters, digits and"),
        ("/opt/../..", "it has to do without"),
    ] {
        let output = install_below(&root, prefix, "systemd");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(why), "{said}");
        assert!(!root.exists());
    }
    // Units lie where systemd looks for them.
    for (prefix, program, units) in [
        ("", "/bin", "/lib/systemd/system"),
        ("/", "/bin", "/lib/systemd/system"),
        ("/usr/", "/usr/bin", "/usr/lib/systemd/system"),
        (
            "/usr/local",
            "/usr/local/bin",
            "/usr/local/lib/systemd/system",
        ),
        ("/opt/lab-1", "/opt/lab-1/bin", "/etc/systemd/system"),
    ] {
        let root = Scratch::new();
        let output = install_below(&root.path(""), prefix, "systemd");
        assert!(output.status.success(), "{output:?}");
        let inside = |path: &str| root.path(path.trim_start_matches('/'));
        assert!(inside(program).join("testflinger-agent").exists());
        let unit = inside(units).join("testflinger-agent.service");
        let unit = fs::read_to_string(unit).unwrap();
        let start = format!("ExecStart={program}/testflinger-agent -c ");
        assert!(unit.contains(&start), "{unit}");
    }
}

#[test]
fn the_units_are_without_a_fault() {
    let scratch = Scratch::new();
    let root = installed(&scratch, "systemd");
    let units = root.join("etc/systemd/system");
    // It ends with 0 whatever it finds: what it says counts.
    for unit in ["testflinger-agent.service", "testflinger-agent@.service"] {
        let unit = units.join(unit);
        if let Some(said) = systemd_analyze(&["verify", "--man=no", unit.to_str().unwrap()]) {
            assert_eq!(said, "");
        }
    }
    assert!(root.join("etc/testflinger-agent.conf").exists());
}

#[test]
fn the_openrc_script_is_one() {
    let scratch = Scratch::new();
    let root = installed(&scratch, "openrc");
    let script = root.join("etc/init.d/testflinger-agent");
    check_syntax(&script);
    let text = fs::read_to_string(script).unwrap();
    let program = scratch.path("prefix/bin/testflinger-agent");
    assert!(text.contains(&format!("command={}\n", program.display())));
}

#[test]
fn the_example_configuration_is_one_and_a_changed_one_stays() {
    let scratch = Scratch::new();
    let root = installed(&scratch, "openrc");
    let path = root.join("etc/testflinger-agent.conf");
    // As it is, it is nobody's.
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(error.contains("agent_id is missing"), "{error}");
    // What is commented out is right as well.
    let text = fs::read_to_string(&path).unwrap();
    let all: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') || key.starts_with("  ") => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let config = Config::parse(&path, all.as_bytes()).unwrap();
    assert_eq!(config.warnings, []);
    assert_eq!(
        config.results_basedir,
        Path::new("/var/lib/testflinger-agent/results")
    );
    assert!(config.watchdog_device.is_some() && config.command(Phase::Cleanup).is_some());

    fs::write(&path, "mine").unwrap();
    fs::remove_file(scratch.path("prefix")).unwrap();
    installed(&scratch, "openrc");
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}

#[test]
fn inittab_gets_its_line_once() {
    let scratch = Scratch::new();
    let inittab = scratch.path("root/etc/inittab");
    fs::create_dir_all(inittab.parent().unwrap()).unwrap();
    // Its last line has no end.
    let old = "::sysinit:/etc/init.d/rcS\n::shutdown:/bin/umount -a -r";
    fs::write(&inittab, old).unwrap();
    installed(&scratch, "busybox");
    fs::remove_file(scratch.path("prefix")).unwrap();
    installed(&scratch, "busybox");
    let text = fs::read_to_string(&inittab).unwrap();
    let prefix = scratch.path("prefix");
    let shipped = include_str!("../cross/install/inittab");
    let shipped = shipped.replace("/usr/local", prefix.to_str().unwrap());
    // What waits for the agent is before what unmounts the disk.
    assert_eq!(text, format!("{shipped}{old}"));
}

/// They lead where the board will have something, and this machine something else.
#[test]
fn links_in_the_board_s_root_do_not_lead_out_of_it() {
    for link in ["etc", "var/lib", "usr", "etc/inittab"] {
        let scratch = Scratch::new();
        let (root, outside) = (scratch.path("root"), scratch.path("outside"));
        fs::create_dir_all(outside.join("local/bin")).unwrap();
        let link = root.join(link);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(&outside, &link).unwrap();
        let output = install_below(&root, "/usr/local", "busybox");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{said}");
        let why = match link.ends_with("inittab") {
            true => "is a link",
            false => "leads out of",
        };
        assert!(said.contains(why), "{said}");
        assert_eq!(fs::read_dir(outside.join("local/bin")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    }
    // One that stays in it is as good as what it leads to.
    let scratch = Scratch::new();
    let root = scratch.path("root");
    fs::create_dir_all(root.join("usr")).unwrap();
    symlink("usr", root.join("opt")).unwrap();
    let output = install_below(&root, "/opt", "busybox");
    assert!(output.status.success(), "{output:?}");
    assert!(root.join("usr/bin/testflinger-agent").exists());
}

/// On a machine of its own, with busybox's tools.
#[test]
fn the_root_of_the_machine_itself_may_be_named() {
    let Some(busybox) = busybox() else {
        return;
    };
    let tools = "cat chmod cp dirname env grep mkdir mv readlink sed sh";
    for (destdir, before) in [("", ""), ("/", ""), ("//", "/"), ("/.", "/.")] {
        let scratch = Scratch::new();
        let root = scratch.path("root");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::copy(&busybox, root.join("bin/busybox")).unwrap();
        for tool in tools.split(' ') {
            symlink("busybox", root.join("bin").join(tool)).unwrap();
        }
        fs::create_dir(root.join("install")).unwrap();
        for file in fs::read_dir("cross/install").unwrap().flatten() {
            fs::copy(file.path(), root.join("install").join(file.file_name())).unwrap();
        }
        let command = format!(
            "/bin/env DESTDIR={destdir} INIT=openrc BINARY=/bin/busybox /bin/sh /install/install.sh"
        );
        let Some(words) = machine(&root, "true", &command) else {
            return;
        };
        let output = Command::new(&words[0]).args(&words[1..]).output().unwrap();
        assert!(output.status.success(), "{destdir}: {output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        let program = format!("{before}/usr/local/bin/testflinger-agent\n");
        assert!(said.starts_with(&program), "{said}");
        assert!(root.join("usr/local/bin/testflinger-agent").exists());
        assert!(root.join("etc/init.d/testflinger-agent").exists());
    }
}

#[test]
fn sysvinit_gets_a_line_of_its_own_behind_those_that_boot_the_board() {
    let scratch = Scratch::new();
    let inittab = scratch.path("root/etc/inittab");
    fs::create_dir_all(inittab.parent().unwrap()).unwrap();
    let program = scratch.path("prefix/bin/testflinger-agent");
    // The line before may have no end.
    for end in ["\n", ""] {
        let old = format!("id:3:initdefault:\nrcS:12345:wait:/etc/init.d/rcS{end}");
        fs::write(&inittab, &old).unwrap();
        for _ in ["first", "again"] {
            let _ = fs::remove_file(scratch.path("prefix"));
            installed(&scratch, "sysvinit");
        }
        let text = fs::read_to_string(&inittab).unwrap();
        let lines: Vec<_> = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .collect();
        // In this order they are started: first what boots the board.
        let wanted = format!(
            "id:3:initdefault:\nrcS:12345:wait:/etc/init.d/rcS\n\
             tfa:2345:respawn:{} -c /etc/testflinger-agent.conf",
            program.display()
        );
        assert_eq!(lines.join("\n"), wanted);
        assert!(
            text.starts_with(&old) && text.ends_with(".conf\n"),
            "{text}"
        );
    }
    // Without an inittab there is the script.
    let scratch = Scratch::new();
    let root = installed(&scratch, "sysvinit");
    assert!(root.join("etc/init.d/S90testflinger-agent").exists());
}

/// The agent whose process id is in a file; it is ended with its test.
struct Daemon(PathBuf);

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(pid) = fs::read_to_string(&self.0) {
            let _ = Command::new("kill").args(["-KILL", pid.trim()]).status();
        }
    }
}

/// The script under busybox's shell, with busybox's tools and no others.
#[test]
fn the_busybox_script_starts_stops_restarts_reloads_and_tells() {
    let Some(busybox) = busybox() else {
        return;
    };
    let lab = Lab::new();
    let root = installed(&lab.scratch, "busybox");
    let script = root.join("etc/init.d/S90testflinger-agent");
    check_syntax(&script);
    let config = root.join("etc/testflinger-agent.conf");
    let text = lab.configuration(&lab.agent_id);
    fs::write(&config, format!("{text}test_command: echo $$ one\n")).unwrap();
    let token = lab.scratch.path("token");
    // Nobody has made its directory.
    let pid_file = lab.scratch.path("var/run/pid");
    let inittab = lab.scratch.path("inittab");
    let _daemon = Daemon(pid_file.clone());
    let run = |action: &str| {
        let output = Command::new(&busybox)
            .arg("ash")
            .arg(&script)
            .arg(action)
            .env("CONFIG", &config)
            .env("OPTIONS", format!("--token-file {}", token.display()))
            .env("PIDFILE", &pid_file)
            .env("INITTAB", &inittab)
            .env("PATH", lab.scratch.path("tools"))
            .output()
            .unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), said)
    };
    let tools = lab.scratch.path("tools");
    fs::create_dir(&tools).unwrap();
    let names = "cat cut grep kill ls mkdir readlink rm sed sleep start-stop-daemon usleep";
    for tool in names.split(' ') {
        symlink(&busybox, tools.join(tool)).unwrap();
    }
    let none = (3, "testflinger-agent does not run\n".to_owned());
    assert_eq!(run("status"), none);
    assert_eq!(run("reload").0, 1);
    assert_eq!(run("start"), (0, "Starting testflinger-agent: OK\n".into()));
    let first = numbers(&pid_file)[0];
    let runs = |pid: i32| (0, format!("testflinger-agent runs (process {pid})\n"));
    assert_eq!(run("status"), runs(first));
    let again = format!("testflinger-agent runs already (process {first})\n");
    assert_eq!(run("start"), (0, again));
    let is_waiting = || {
        lab.wait("the agent is idle", |view| {
            view.agent("lab-agent")
                .is_some_and(|agent| agent.state == "waiting")
        });
    };
    is_waiting();

    fs::write(&config, format!("{text}test_command: echo two\n")).unwrap();
    assert_eq!(run("reload"), (0, String::new()));
    let log = lab.scratch.path("logs/testflinger-agent.log");
    wait_for_text(&log, "beginning anew");
    // It is the same one also when another program lies where its own did.
    let program = lab.scratch.path("prefix/bin/testflinger-agent");
    fs::copy(&program, program.with_extension("new")).unwrap();
    fs::rename(program.with_extension("new"), &program).unwrap();
    assert_eq!(run("status"), runs(first));

    fs::write(&config, "agent_id: x\n").unwrap();
    let why = "server_address is missing";
    for action in ["restart", "reload"] {
        let (status, said) = run(action);
        assert!(status == 1 && said.contains(why), "{action}: {said}");
    }
    assert_eq!(run("status"), runs(first));
    fs::write(&config, format!("{text}test_command: echo two\n")).unwrap();
    let (status, said) = run("restart");
    assert_eq!(status, 0);
    assert_eq!(
        said,
        "Stopping testflinger-agent: OK\nStarting testflinger-agent: OK\n"
    );
    let second = numbers(&pid_file)[0];
    assert!(!is_alive(first) && first != second);
    let job = lab.submit_test();
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Test), "two\n");
    assert_eq!(run("stop"), (0, "Stopping testflinger-agent: OK\n".into()));
    assert!(!is_alive(second));
    assert_eq!(run("stop"), (0, "testflinger-agent does not run\n".into()));
    assert_eq!(run("status"), none);
    assert_eq!(run("").0, 2);

    fs::write(&config, "agent_id: x\n").unwrap();
    let (status, said) = run("start");
    assert!(status == 1 && said.contains(why), "{said}");
    fs::write(&config, &text).unwrap();
    // This process is not the agent, though its command line has the name.
    let mut other = Command::new("sh")
        .args(["-c", "read line", "testflinger-agent"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    fs::write(&pid_file, other.id().to_string()).unwrap();
    assert_eq!(run("status"), none);
    assert_eq!(run("stop").0, 0);
    drop(other.stdin.take());
    other.wait().unwrap();
    fs::remove_file(&pid_file).unwrap();

    assert_eq!(run("start").0, 0);
    let third = numbers(&pid_file)[0];
    // After a crash, that number is another agent's.
    signal(third, "KILL");
    wait_until("it is gone", || !is_alive(third));
    // Two that began in the same hundredth of a second are one to the script; in
    // between, the numbers of a whole machine would have to be used up.
    sleep(Duration::from_millis(20));
    let another = lab.agent_named("another");
    fs::write(&pid_file, another.pid().to_string()).unwrap();
    assert_eq!(run("status"), none);
    assert_eq!(run("stop").0, 0);
    assert!(is_alive(another.pid()));
    fs::remove_file(&pid_file).unwrap();
    fs::create_dir(&pid_file).unwrap();
    let (status, said) = run("start");
    assert!(status == 1 && said.contains("cannot be written"), "{said}");
    fs::remove_dir(&pid_file).unwrap();

    let line = "::respawn:/opt/bin/testflinger-agent -c /etc/testflinger-agent.conf";
    fs::write(&inittab, format!("null::sysinit:/bin/true\n{line}\n")).unwrap();
    let (status, said) = run("start");
    assert!(status == 1 && said.contains("init does that"), "{said}");
    assert!(!pid_file.exists());
}
