//! How many descriptors this process may have.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Takes as many as the system lets us without asking. The usual 1024 are for programs that use `select`: a memory server
/// has one for each connection and segment, a pager some for each process that it follows.
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Refused, it stays as it was, and running out is told where it happens.
    let _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit });
}
