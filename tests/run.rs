//! `run`: one job file, with no server.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::gate::Gate;
use support::lab::{Scratch, is_alive, numbers, program, signal, wait_for_file};
use support::means::with_mounts;
use support::program::{Ended, Program, run};
use testflinger_agent::json::Json;

/// Writes a file into the directory where the program runs.
fn write(scratch: &Scratch, name: &str, text: &str) {
    fs::write(scratch.path(name), text).unwrap();
}

/// A configuration with these lines beside what it must have. Its server is
/// nowhere, and its directories are the test's.
fn config(scratch: &Scratch, lines: &str) {
    let base = scratch.path("agent");
    let base = base.display();
    let text = format!(
        "agent_id: pi-4\nserver_address: http://127.0.0.1:9\njob_queues: [elsewhere]\n\
         execution_basedir: {base}/run\nlogging_basedir: {base}/logs\n\
         results_basedir: {base}/results\n{lines}"
    );
    write(scratch, "agent.conf", &text);
}

/// The one directory with results.
fn results(scratch: &Scratch) -> PathBuf {
    let entries = fs::read_dir(scratch.path("results")).unwrap();
    let paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(paths.len(), 1, "{paths:?}");
    paths[0].clone()
}

fn file(directory: &Path, name: &str) -> String {
    fs::read_to_string(directory.join(name)).unwrap()
}

fn nothing_is_left(scratch: &Scratch) {
    let left: Vec<_> = fs::read_dir(scratch.path("tmp")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

fn run_job(scratch: &Scratch, line: &str) -> Ended {
    let line: Vec<_> = line.split(' ').collect();
    let ended = run(&scratch.path(""), &line);
    nothing_is_left(scratch);
    ended
}

#[test]
fn a_yaml_job_runs_without_a_configuration() {
    let scratch = Scratch::new();
    write(
        &scratch,
        "job.yaml",
        "job_queue: any\nprovision_data:\n  distro: noble\ntest_data:\n  test_cmds: |\n    \
         echo one\n    echo two >&2\n    mkdir artifacts\n    echo three > artifacts/file\n",
    );
    let ended = run_job(&scratch, "run job.yaml");
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(ended.stdout.ends_with("\none\ntwo\n"), "{ended:?}");
    let results = results(&scratch);
    let id = results.file_name().unwrap().to_str().unwrap();
    let summary = format!("\nexit statuses: test 0\nresults: results/{id}/\n");
    let (told, rest) = ended.stderr.split_once('\n').unwrap();
    assert!(told.starts_with("[test ended with 0 after "), "{told}");
    assert_eq!(rest, summary);
    assert_eq!(file(&results, "test.log"), ended.stdout);
    let result = file(&results, "result.json");
    let result = Json::parse(&result).unwrap();
    let text = |name| result.get(name).unwrap().string();
    assert_eq!(text("test_output").as_deref(), Some(ended.stdout.as_str()));
    assert_eq!(text("job_state").as_deref(), Some("complete"));
    assert_eq!(result.get("test_status").unwrap().integer(), Some(0));
    let packed = Command::new("tar")
        .arg("-xzOf")
        .arg(results.join("artifacts.tar.gz"))
        .arg("artifacts/file")
        .output()
        .unwrap();
    assert_eq!(packed.stdout, b"three\n");
}

#[test]
fn a_kept_workspace_lies_with_the_results() {
    let scratch = Scratch::new();
    write(
        &scratch,
        "job.yaml",
        "test_data:\n  test_cmds: pwd; echo kept > file\n",
    );
    let ended = run_job(&scratch, "run --keep job.yaml");
    assert_eq!(ended.status, 0, "{ended:?}");
    let results = results(&scratch);
    let id = results.file_name().unwrap().to_str().unwrap();
    let workspace = results.join("workspace").join(id);
    assert_eq!(file(&workspace, "file"), "kept\n");
    assert!(
        ended
            .stdout
            .ends_with(&format!("\n{}\n", workspace.display()))
    );
}

#[test]
fn a_json_job_with_a_list_of_commands_runs_them_all_and_fails_if_one_does() {
    let scratch = Scratch::new();
    write(
        &scratch,
        "job.json",
        r#"{"test_data": {"test_cmds": ["echo one", "exit 3", "echo three"]}}"#,
    );
    let ended = run_job(&scratch, "run job.json");
    assert_eq!(ended.status, 1, "{ended:?}");
    assert!(ended.stdout.ends_with("\none\nthree\n"), "{ended:?}");
    assert!(
        ended.stderr.contains("exit statuses: test 3\n"),
        "{ended:?}"
    );
    assert!(!results(&scratch).join("artifacts.tar.gz").exists());
}

#[test]
fn a_script_names_its_interpreter() {
    let scratch = Scratch::new();
    let job = "test_data:\n  test_cmds: |\n    #!/usr/bin/env cat\n    I am the output.\n";
    write(&scratch, "job.yaml", job);
    let ended = run_job(&scratch, "run job.yaml");
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(
        ended
            .stdout
            .ends_with("\n#!/usr/bin/env cat\nI am the output.\n"),
        "{ended:?}"
    );
}

#[test]
fn a_job_runs_through_the_phases_of_a_configuration() {
    for line in ["run job.json -c agent.conf", "-c agent.conf run job.json"] {
        let scratch = Scratch::new();
        config(
            &scratch,
            "setup_command: echo set up by $agent_id\nprovision_command: echo provisioned\n\
             test_command: exit 9\nreserve_command: echo never\ncleanup_command: echo cleaned\n",
        );
        write(
            &scratch,
            "job.json",
            r#"{"job_queue": "q", "provision_data": {"distro": "x"}, "test_data": {"test_cmds": "x"}}"#,
        );
        let ended = run_job(&scratch, line);
        assert_eq!(ended.status, 1, "{ended:?}");
        let wanted = "exit statuses: setup 0, provision 0, test 9, cleanup 0\n";
        assert!(ended.stderr.contains(wanted), "{ended:?}");
        let results = results(&scratch);
        for (phase, said) in [
            ("setup", "\nset up by pi-4\n"),
            ("provision", "\nprovisioned\n"),
            ("cleanup", "\ncleaned\n"),
        ] {
            assert!(file(&results, &format!("{phase}.log")).ends_with(said));
            assert!(ended.stdout.contains(said), "{ended:?}");
        }
        assert!(!results.join("reserve.log").exists());
        // The agent beside it keeps its directories for itself.
        assert!(!scratch.path("agent/run").exists());
    }
}

#[test]
fn a_job_or_a_configuration_that_is_wrong_is_explained() {
    let scratch = Scratch::new();
    config(&scratch, "tset_command: x\n");
    write(&scratch, "good.yaml", "test_data:\n  test_cmds: x\n");
    write(&scratch, "list.yaml", "- test_cmds\n");
    write(&scratch, "broken.yaml", "test_data: {test_cmds: [x\n");
    write(&scratch, "unknown.yaml", "test_date:\n  test_cmds: x\n");
    for (line, wanted) in [
        ("run none.yaml", "none.yaml: cannot be read: "),
        (
            "run list.yaml",
            "list.yaml: this is no job; wanted: a map of keys such as test_data",
        ),
        ("run broken.yaml", "broken.yaml: "),
        ("run unknown.yaml", "unknown.yaml: the job is refused: "),
        (
            "run good.yaml -c agent.conf",
            "agent.conf:7:1: unknown key `tset_command`",
        ),
        ("run good.yaml -c none.conf", "none.conf: cannot be read: "),
    ] {
        let ended = run_job(&scratch, line);
        assert_eq!(ended.status, 2, "{ended:?}");
        let said = format!("testflinger-agent: {wanted}");
        assert!(ended.stderr.starts_with(&said), "{}", ended.stderr);
        assert_eq!(ended.stdout, "");
    }
    assert!(!scratch.path("results").exists());
}

#[test]
fn ctrl_c_ends_the_phase_cleans_up_and_ends_with_130() {
    let scratch = Scratch::new();
    let (pid, gate) = (scratch.path("pid"), Gate::new(&scratch, "never"));
    let test = format!("echo $$ > '{}'; {}", pid.display(), gate.words());
    config(
        &scratch,
        &format!("test_command: \"{test}\"\ncleanup_command: echo cleaned\n"),
    );
    write(&scratch, "job.yaml", "test_data:\n  test_cmds: x\n");
    let line = ["run", "-c", "agent.conf", "job.yaml"];
    let program = Program::start(&scratch.path(""), &line);
    wait_for_file(&pid);
    signal(program.pid(), "INT");
    let ended = program.wait();
    assert_eq!(ended.status, 130, "{ended:?}");
    assert!(!is_alive(numbers(&pid)[0]));
    assert!(ended.stdout.ends_with("\ncleaned\n"), "{ended:?}");
    let wanted = "exit statuses: test 247, cleanup 0\n";
    assert!(ended.stderr.contains(wanted), "{ended:?}");
    assert!(results(&scratch).join("result.json").exists());
    nothing_is_left(&scratch);
}

#[test]
fn a_job_file_finds_what_it_attaches_and_the_secrets_that_it_is_given() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path("jobs/tools/deep")).unwrap();
    write(&scratch, "jobs/image", "image\n");
    write(&scratch, "jobs/tools/deep/run", "run\n");
    write(&scratch, "key", "correct-horse\n");
    write(
        &scratch,
        "jobs/job.yaml",
        "provision_data:\n  attachments:\n  - local: image\n    agent: /images/first\n\
         test_data:\n  secrets: {KEY: some/path}\n  attachments:\n  - local: tools\n  test_cmds: |\n    \
         cd attachments && find . -type f | sort\n    cat test/tools/deep/run\n    \
         [ \"$KEY\" = correct-horse ] && echo right; echo $KEY\n",
    );
    let ended = run_job(&scratch, "run jobs/job.yaml --secret KEY=key");
    assert_eq!(ended.status, 0, "{ended:?}");
    let expected = "./provision/images/first\n./test/tools/deep/run\nrun\nright\n**9dca66**\n";
    assert!(ended.stdout.ends_with(expected), "{ended:?}");
}

/// A link in what is attached leads nowhere while it is gathered.
#[test]
fn what_is_attached_twice_is_what_it_is_last_and_nothing_else_is_written() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path("jobs/tools")).unwrap();
    write(&scratch, "jobs/victim", "precious\n");
    write(&scratch, "jobs/file", "content\n");
    symlink("../victim", scratch.path("jobs/tools/one")).unwrap();
    symlink(scratch.path("jobs"), scratch.path("jobs/tools/two")).unwrap();
    write(
        &scratch,
        "jobs/job.yaml",
        "test_data:\n  attachments:\n  - local: tools\n  - local: tools/one\n  \
         - {local: file, agent: tools/one}\n  - {local: file, agent: tools/two/victim}\n  \
         test_cmds: cat attachments/test/tools/one attachments/test/tools/two/victim\n",
    );
    let ended = run_job(&scratch, "run jobs/job.yaml");
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(ended.stdout.ends_with("content\ncontent\n"), "{ended:?}");
    assert_eq!(file(&scratch.path("jobs"), "victim"), "precious\n");
}

#[test]
fn what_a_job_file_is_given_wrongly_is_named() {
    let scratch = Scratch::new();
    write(&scratch, "key", "x");
    write(&scratch, "job", "{\"test_data\": {\"test_cmds\": \"x\"}}");
    write(&scratch, "none", "{}");
    write(
        &scratch,
        "out",
        "{\"test_data\": {\"attachments\": [{\"local\": \"../key\"}]}}",
    );
    write(
        &scratch,
        "gone",
        "{\"test_data\": {\"attachments\": [{\"local\": \"gone.img\"}]}}",
    );
    for (line, why) in [
        ("run job --secret KEY", "wanted: NAME=FILE"),
        (
            "run job --secret KEY=nowhere",
            "cannot be read: No such file",
        ),
        ("run none --secret KEY=key", "the job has no test_data"),
        ("run out", "../key leads out of its directory"),
        ("run gone", "gone.img: No such file"),
    ] {
        let ended = run_job(&scratch, line);
        assert_eq!(ended.status, 2, "{ended:?}");
        assert!(ended.stderr.contains(why), "{ended:?}");
    }
}

#[test]
fn a_temporary_directory_that_is_full_is_named() {
    let scratch = Scratch::new();
    let tmp = scratch.path("tmp");
    let tmp = tmp.display();
    let mounted = with_mounts(&format!(
        "mkdir -p '{tmp}' && mount -t tmpfs -o mode=1777,size=2m none '{tmp}'"
    ));
    let Some(words) = mounted else {
        return;
    };
    let job = "test_data:\n  test_cmds: mkdir artifacts; head -c 3000000 /dev/zero > artifacts/x\n";
    write(&scratch, "job.yaml", job);
    let ended = std::process::Command::new(&words[0])
        .args(&words[1..])
        .args(program())
        .args(["run", "job.yaml"])
        .env("TMPDIR", scratch.path("tmp"))
        .current_dir(scratch.path(""))
        .output()
        .unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    println!("{said}");
    assert!(!said.contains("was not given to this agent"), "{said}");
}
