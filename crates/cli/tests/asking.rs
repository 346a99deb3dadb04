//! The commands that ask a pager, against a stub of one.
#![allow(clippy::unwrap_used)]

mod stub;

use rackmem_control::Access;
use rackmem_types::Bytes;

use stub::{PID, Stub};

#[test]
fn ps_prints_a_table_that_fits_and_the_warnings() {
    let text = Stub::start().says("ps");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            " PID  COMMAND       MANAGED   LOCAL     FAR   LIMIT  FAULTS/S  P50µs  P99µs",
            "4242  redis-server     1GiB  256MiB  768MiB  256MiB      1000   20.0   90.0",
            "process 4242: the memory server 10.0.0.7:7070 is lost",
        ]
    );
}

#[test]
fn ps_json_has_everything() {
    let rows: serde_json::Value = serde_json::from_str(&Stub::start().says("ps --json")).unwrap();
    let row = &rows[0];
    assert_eq!((&row["pid"], &row["rates"]["faults_per_s"]), (&PID.into(), &1000.0.into()));
    assert_eq!((&row["far"], &row["servers"][0]["state"]), (&(768 << 20).into(), &"lost".into()));
}

#[test]
fn limit_and_detach_say_what_they_did() {
    let stub = Stub::start();
    assert_eq!(stub.says("limit 4242 64MiB"), "process 4242: local limit 64MiB\n");
    assert_eq!(*stub.target.limit.lock().unwrap(), Bytes(64 << 20));
    assert_eq!(stub.says("detach 4242"), "process 4242: detached, 4MiB brought home in 13 ms\n");
}

#[test]
fn watch_prints_a_line_per_access_and_why_it_ended() {
    let stub = Stub::start();
    let output = stub.rackmem("watch 4242 0x7000");
    let lines =
        "     1.500000  thread 4242     read   0x7000\n     2.000000  thread 4242     write  0x7008\n";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), lines);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "rackmem: the page is no longer mapped\n");
    assert_eq!(output.status.code(), Some(1));
    let json = String::from_utf8(stub.rackmem("watch 4242 28672 --json").stdout).unwrap();
    let first: Access = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!((first.address, first.write), (0x7000, false));
}

#[test]
fn a_full_disk_is_an_error_and_a_reader_that_goes_away_is_none() {
    let stub = Stub::start();
    for line in ["ps", "ps --json", "limit 4242 64MiB", "watch 4242 0x7000", "doctor", "completions bash"] {
        let mut command = Stub::command(line);
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = stub.known_to(&mut command).stdout(full).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.contains("No space left")), (Some(1), true), "{line}: {said}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = stub.known_to(&mut command).stdout(writer).output().unwrap();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{line}");
    }
}

#[test]
fn refusals_are_one_sentence_with_a_way_out() {
    let stub = Stub::start();
    let check = |line: &str, sentence: &str| {
        let said = stub.refuses(line);
        assert!(said.starts_with("rackmem: ") && said.contains(sentence), "{line}: {said}");
    };
    check("limit 77 64MiB", "process 77 has no far memory: 'rackmem ps' lists");
    check("detach 77", "process 77 has no far memory");
    check("watch 77 0x7000", "process 77 has no far memory");
    check("top", "use 'rackmem ps'");
    let options = "--memory-server 127.0.0.1:1 --local 8MiB";
    check(&format!("attach 4194304 {options}"), "there is no process 4194304");
    check(&format!("attach 2 {options}"), "is a kernel thread");
}

#[test]
fn a_program_that_cannot_be_started_ends_as_in_a_shell() {
    let stub = Stub::start();
    let code = |program: &str| {
        let line = format!("run --memory-server 127.0.0.1:1 --local 8MiB -- {program}");
        stub.rackmem(&line).status.code()
    };
    assert_eq!(code("no-such-program-anywhere"), Some(127));
    assert_eq!(code("/no/such/program"), Some(127));
    assert_eq!(code("/etc/passwd"), Some(126));
    assert_eq!(code("/"), Some(126));
}

#[test]
fn manual_pages_and_completions_are_made() {
    let stub = Stub::start();
    let directory = stub.directory.path().join("man");
    stub.says(&format!("man {}", directory.display()));
    let page = std::fs::read_to_string(directory.join("rackmem-attach.1")).unwrap();
    assert!(page.contains("memory\\-server"), "{page}");
    assert!(stub.says("completions bash").contains("_rackmem"));
}
