//! A rack file: whatever is in it, it is a consistent rack or a mistake whose place is in the file.

use rackmem_rack::{Rack, file};

pub(crate) fn run(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else { return };
    match file::read(source) {
        Ok(events) => {
            let mut rack = Rack::default();
            for event in events {
                rack.apply(&event).unwrap();
            }
            assert_eq!(rack.audit(), Vec::<String>::new());
        }
        Err(mistake) => {
            let line = source.split('\n').nth(mistake.line - 1).unwrap();
            assert!(mistake.column <= line.chars().count() + 1, "{mistake:?}");
            assert_eq!(source.lines().nth(mistake.line - 1).unwrap_or(""), mistake.text);
            assert!(!mistake.problem.is_empty());
            assert!(mistake.to_string().lines().count() >= 4);
        }
    }
}
