//! Programs with runtimes of their own. Needs root, Go, a JDK and Python.

use std::ffi::OsString;

use rackmem_e2e::{Case, at_every_limit, go_program, java_program, python_program};

fn with_size(mut line: Vec<OsString>, mebibytes: u64) -> Vec<OsString> {
    line.push(mebibytes.to_string().into());
    line
}

at_every_limit! {
    /// Goroutines, trees, maps and a garbage collector that walks through everything.
    go => Case::new(200, with_size(vec![go_program("pages")], 96));
    /// Three threads and a compacting garbage collector.
    java => Case::new(160, with_size(java_program("Pages", 192), 80));
    /// Small objects, buffers, threads and a fork; the fork doubles what is written, not what one process holds.
    python => Case::new(72, with_size(python_program("objects"), 96));
    /// SQLite with its database in memory, by way of Python.
    sqlite => Case::new(128, with_size(python_program("database"), 64));
}
