//! The README, `--help` and the code say the same.

use std::process::Command;
use testflinger_agent::cli::{DEFAULT_CONFIG, DEFAULT_TOKEN_FILE, HELP};
use testflinger_agent::config::KEYS;
use testflinger_agent::job::PHASES;

const README: &str = include_str!("../README.md");

/// The cells of the rows of the table with this head.
fn table(head: &str) -> Vec<Vec<String>> {
    let found = README.split_once(&format!("\n{head}\n"));
    assert!(found.is_some(), "no table {head}");
    let (_, after) = found.unwrap_or_default();
    after
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells = line.trim_matches('|').split(" | ");
            cells.map(|cell| cell.trim().to_owned()).collect()
        })
        .collect()
}

/// Text without its layout.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_key_is_in_the_table_with_its_default_and_no_other() {
    let rows = table("| key | meaning | default |");
    let wanted: Vec<Vec<String>> = KEYS
        .iter()
        .map(|key| {
            let default = match key.default {
                "" => String::new(),
                default => format!("`{default}`"),
            };
            vec![format!("`{}`", key.name), key.meaning.to_owned(), default]
        })
        .collect();
    assert_eq!(rows, wanted);
}

#[test]
fn every_option_of_the_help_is_in_the_table_and_no_other() {
    let (_, options) = HELP.split_once("Options:\n").unwrap();
    let (options, _) = options.split_once("\n\n").unwrap();
    let rows = table("| option | meaning |");
    let table: String = rows
        .iter()
        .map(|row| format!("{} {} ", row[0].replace('`', ""), row[1]))
        .collect();
    assert_eq!(words(&table), words(options));
    assert!(options.contains(DEFAULT_CONFIG) && options.contains(DEFAULT_TOKEN_FILE));
}

#[test]
fn every_exit_status_of_the_help_is_in_the_table_and_no_other() {
    let (_, statuses) = HELP.split_once("Exit status:\n").unwrap();
    let rows = table("| exit status | meaning |");
    let table: String = rows
        .iter()
        .map(|row| format!("{} {} ", row[0], row[1]))
        .collect();
    assert_eq!(words(&table), words(statuses));
}

#[test]
fn every_phase_is_in_the_table() {
    let rows = table("| phase | runs | limits | cancellation |");
    let names: Vec<_> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(names, PHASES.map(|phase| phase.name()));
}

#[test]
fn every_room_is_on_the_map() {
    let rows = table("| room | what it owns |");
    let map: String = rows.iter().map(|row| row[0].as_str()).collect();
    for entry in std::fs::read_dir("src").unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name != "lib.rs" {
            assert!(map.contains(&format!("src/{name}")), "{name} is missing");
        }
    }
}

#[test]
fn every_package_is_in_the_table() {
    let manifest = include_str!("../Cargo.toml");
    let (_, dependencies) = manifest.split_once("[dependencies]\n").unwrap();
    let (dependencies, _) = dependencies.split_once("\n\n").unwrap();
    let rows = table("| package | for | why this one |");
    let named: String = rows.iter().map(|row| row[0].as_str()).collect();
    for line in dependencies.lines() {
        let name = line.split(' ').next().unwrap();
        assert!(named.contains(&format!("`{name}`")), "{name} is missing");
        assert!(
            line.contains("\"=") && line.contains("default-features = false"),
            "{line}"
        );
    }
}

#[test]
fn what_is_to_be_pasted_is_there() {
    let makefile = include_str!("../Makefile");
    for line in README.lines().filter(|line| line.starts_with("make ")) {
        let target = line.split_whitespace().nth(1).unwrap();
        assert!(
            makefile.contains(&format!("\n{target}:")),
            "make {target} is missing"
        );
    }
}

#[test]
fn help_and_version_answer() {
    let run = |argument: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_testflinger-agent"))
            .arg(argument)
            .output()
            .unwrap();
        assert!(output.status.success() && output.stderr.is_empty());
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(run("--help"), HELP);
    assert_eq!(run("-h"), HELP);
    let version = format!("testflinger-agent {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run("--version"), version);
    for line in HELP.lines() {
        assert!(line.len() <= 80, "{line}");
    }
}
