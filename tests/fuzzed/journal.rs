//! The journal, with anything between its lines: what other programs, crashes and full disks
//! leave. Each line that was written whole is read, in order.
//!
//! The input is a piece of rubbish a part; what separates them is 0xFF, which no JSON has. Before
//! every second one the end of the file is torn off.

use std::fs::File;
use std::io::Write;

use orphand::store::journal::{FILE, Journal, LineKind};
use orphand::store::json::BySerde;
use serde_json::{Value, json};

pub(crate) fn check(data: &[u8]) {
    let state = tempfile::tempdir().expect("a folder");
    let path = state.path().join(FILE);
    let mut file = File::create(&path).expect("a journal");
    let journal = Journal::new(Some(state.path()));
    let mut whole: Vec<Value> = Vec::new();
    for (index, rubbish) in data.split(|byte| *byte == 0xff).take(8).enumerate() {
        if index % 2 == 1 {
            let length = file.metadata().expect("its size").len();
            let torn = u64::from(rubbish.first().map_or(1, |byte| byte % 8));
            file.set_len(length.saturating_sub(torn)).expect("torn");
            // Without its "\n" the line before is whole, unless the rubbish runs on from it.
            let runs_on = rubbish.first().is_some_and(|byte| *byte != b'\n');
            if torn > 1 || (torn == 1 && runs_on) {
                whole.pop();
            }
        }
        append(&path, rubbish);
        let outcome = json!({"event": "reaped", "path": "/srv/\n\u{1b}é", "number": index});
        journal.write(LineKind::Outcome, [BySerde(&outcome)]);
        whole.push(outcome);
        file = File::options()
            .write(true)
            .open(&path)
            .expect("the journal");
    }
    let mut read: Vec<Value> = Vec::new();
    journal
        .outcomes(|outcome| read.push(outcome))
        .expect("read");
    // The rubbish may hold lines too.
    let mut read = read.iter();
    for outcome in &whole {
        assert!(read.any(|read| read == outcome), "lost: {outcome}");
    }
}

fn append(path: &std::path::Path, rubbish: &[u8]) {
    let mut file = File::options()
        .append(true)
        .open(path)
        .expect("the journal");
    file.write_all(rubbish).expect("written");
}
