//! A job's journal: whatever stands in it, it is read; and what is torn off at its
//! end changes nothing before that, or of what is added afterwards.

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
    let directory = PLACE.with(|place| place.path(""));
    let read = |bytes: &[u8]| {
        fs::write(directory.join("journal"), bytes).unwrap();
        Record::read(&directory).unwrap()
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
    // It is torn anywhere: an entry that lacks the end of its line only is whole.
    let torn = data.iter().map(|byte| usize::from(*byte)).sum::<usize>() % journal.len();
    let mut end = 0;
    let is_before = |entry: &Entry| {
        end += entry.to_line().len();
        end <= torn + 1
    };
    let mut before: Vec<Entry> = all.into_iter().take_while(is_before).collect();
    let found = read(&journal.as_bytes()[..torn]);
    if before.is_empty() {
        assert_eq!(found, None);
        return;
    }
    assert_eq!(found, Some(progress(&before)));
    // What is added to that is read as well.
    let record = Record::open(&directory);
    record.append(&Entry::Complete).unwrap();
    before.push(Entry::Complete);
    assert_eq!(Record::read(&directory).unwrap(), Some(progress(&before)));
}
