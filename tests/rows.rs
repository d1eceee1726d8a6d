//! The fault table in tests/README.md and the tests name each other.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const TABLE: &str = include_str!("README.md");
const HEAD: &str = "| # | fault | tests | remark |\n|---|---|---|---|\n";
const ROWS: usize = 47;

/// The cells of each row: number, fault, tests, remark.
fn table() -> Vec<Vec<&'static str>> {
    let (_, table) = TABLE.split_once(HEAD).unwrap();
    let rows = table.lines().map(|line| {
        let cells = line.trim_matches('|').split('|');
        cells.map(str::trim).collect()
    });
    rows.collect()
}

/// The tests that a cell names: `file::name`.
fn named(cell: &str) -> impl Iterator<Item = &str> {
    let tests = cell.split("<br>").filter(|test| !test.is_empty());
    tests.map(|test| test.trim_matches('`'))
}

/// Every test below a directory whose name is that of a row, as `file::name`.
fn find(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let lines: Vec<_> = text.lines().map(str::trim).collect();
            let starts = lines.windows(2).filter(|two| two[0] == "#[test]");
            let names = starts.filter_map(|two| two[1].strip_prefix("fn ")?.split('(').next());
            let of_rows = names.filter(|name| name.starts_with("row_"));
            found.extend(of_rows.map(|name| format!("{}::{name}", path.display())));
        }
    }
}

#[test]
fn every_row_is_in_the_table_with_a_test_or_a_reason() {
    let table = table();
    assert_eq!(table.len(), ROWS);
    for (number, row) in (1..).zip(&table) {
        let [at, fault, tests, remark] = row[..] else {
            panic!("{row:?}");
        };
        assert_eq!(at, number.to_string());
        assert!(!fault.is_empty(), "row {number}");
        assert!(!tests.is_empty() || !remark.is_empty(), "row {number}");
        for test in named(tests) {
            assert!(test.contains(&format!("::row_{number:02}_")), "{test}");
        }
    }
}

#[test]
fn every_test_of_a_row_is_in_the_table_and_every_named_one_is_there() {
    let table = table();
    let in_table: BTreeSet<_> = table
        .iter()
        .flat_map(|row| named(row[2]))
        .map(str::to_owned)
        .collect();
    let mut in_code = BTreeSet::new();
    for directory in ["src", "tests"] {
        find(Path::new(directory), &mut in_code);
    }
    let missing: Vec<_> = in_code.difference(&in_table).collect();
    assert!(missing.is_empty(), "not in tests/README.md: {missing:#?}");
    let gone: Vec<_> = in_table.difference(&in_code).collect();
    assert!(gone.is_empty(), "only in tests/README.md: {gone:#?}");
}
