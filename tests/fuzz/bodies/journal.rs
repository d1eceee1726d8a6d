//! A job's journal: whatever stands in it, it is read; and what is torn off at its
//! end changes nothing before that.

use super::Place;
use std::fs;
use testflinger_agent::job::{Entry, Progress, Record};

const TAKEN: &str = "{\"entry\": \"taken\", \"job_id\": \"j\", \"agent_id\": \"a\"}\n";

fn progress(lines: &[Entry]) -> Progress {
    let mut progress = Progress::default();
    lines.iter().for_each(|entry| progress.apply(entry));
    progress
}

pub fn try_it(data: &[u8]) {
    thread_local! {
        static PLACE: Place = Place::new();
    }
    let read = |bytes: &[u8]| {
        PLACE.with(|place| {
            fs::write(place.path("journal"), bytes).unwrap();
            Record::read(&place.path("")).unwrap()
        })
    };
    let _ = read(data);
    let entries: Vec<Entry> = String::from_utf8_lossy(data)
        .lines()
        .filter_map(Entry::parse)
        .collect();
    for entry in &entries {
        assert_eq!(Entry::parse(&entry.to_line()).as_ref(), Some(entry));
    }
    // Written down as the agent does it, it is the same again.
    let mut journal = TAKEN.to_owned();
    let mut all = vec![Entry::parse(TAKEN).unwrap()];
    for entry in entries {
        journal.push_str(&entry.to_line());
        all.push(entry);
    }
    let whole = progress(&all);
    assert_eq!(read(journal.as_bytes()), Some(whole.clone()));
    let _ = (
        whole.interrupted(),
        whole.owes_artifacts(),
        whole.statuses().count(),
    );
    // Its last line is torn.
    let torn = journal.len() - all.last().unwrap().to_line().len() / 2 - 1;
    let (_, before) = all.split_last().unwrap();
    if before.is_empty() {
        assert_eq!(read(&journal.as_bytes()[..torn]), None);
    } else {
        assert_eq!(read(&journal.as_bytes()[..torn]), Some(progress(before)));
    }
}
