//! Memory that several bricks share: what a program on one of them writes, programs on the others read. The racks need root and
//! iproute2, the mounts FUSE.

#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rackmem_e2e::{Ended, Process, Rack, StandingRack, rackmem};
use rustix::process::Signal;

const LIMIT: Duration = Duration::from_secs(60);

/// Two compute bricks that a memory brick has a port each for.
const RACK: &str = r#"
rack = [{ name = "r1" }]
tray = [{ name = "t1", rack = "r1" }]
compute = [
    { name = "c1", tray = "t1", cores = 1, local = "256MiB", ports = 1 },
    { name = "c2", tray = "t1", cores = 1, local = "256MiB", ports = 1 },
]
memory = [{ name = "m1", tray = "t1", size = "1GiB", ports = 2 }]
switch = [{ name = "s1", tray = "t1", kind = "circuit", ports = 4 }]
cable = [
    { ends = ["c1:0", "s1:0"] },
    { ends = ["c2:0", "s1:1"] },
    { ends = ["m1:0", "s1:2"] },
    { ends = ["m1:1", "s1:3"] },
]
"#;

/// That rack, standing.
struct Place(StandingRack);

impl Place {
    fn new() -> Self {
        Self(StandingRack::up("g", RACK))
    }

    /// `rackmem shared` on a brick.
    fn shared(&self, brick: &str, words: &[&str]) -> Command {
        let mut command = self.0.exec(brick, rackmem());
        command.arg("shared").args(words);
        command
    }

    #[track_caller]
    fn write(&self, brick: &str, offset: &str, content: &str) -> Output {
        let file = self.0.path("content");
        fs::write(&file, content).unwrap();
        let mut command = self.shared(brick, &["write", "pool", "--offset", offset]);
        command.stdin(File::open(file).unwrap()).output().unwrap()
    }

    #[track_caller]
    fn read(&self, brick: &str, offset: &str, size: &str) -> Output {
        self.shared(brick, &["read", "pool", "--offset", offset, "--size", size]).output().unwrap()
    }
}

/// A mount, which ends with it.
struct Mount {
    process: Option<Process>,
    file: PathBuf,
}

impl Mount {
    #[track_caller]
    fn start(mut command: Command, at: &Path, size: u64) -> Self {
        fs::create_dir_all(at).unwrap();
        let file = at.join("memory");
        let mut process = Process::start(command.arg("--at").arg(at), LIMIT);
        process.expect_line(&format!("{size} bytes of shared memory: {}", file.display()));
        Self { process: Some(process), file }
    }

    fn open(&self) -> File {
        OpenOptions::new().read(true).write(true).open(&self.file).unwrap()
    }

    fn end(mut self) -> Ended {
        let process = self.process.take().unwrap();
        process.signal(Signal::TERM);
        process.finish()
    }
}

#[track_caller]
fn refused(ended: &Output, why: &str) {
    let stderr = String::from_utf8_lossy(&ended.stderr);
    let told = stderr.contains(why) && !stderr.contains("panicked");
    assert!(!ended.status.success() && told, "{why}: {ended:?}");
}

#[test]
fn root_what_one_brick_writes_another_reads_until_it_leaves() {
    let place = Place::new();
    place.0.done("reserve --compute c1 --memory 64MiB --class tray --init pool");
    refused(&place.read("c2", "0", "8"), "this brick has no part in 'pool'");
    assert!(place.write("c1", "4090", "from c1, across a page").status.success());
    place.0.done("reserve --compute c2 --join pool --class tray");
    assert_eq!(place.read("c2", "4090", "22").stdout, b"from c1, across a page");
    assert!(place.write("c2", "4095", "c2").status.success());
    assert_eq!(place.read("c1", "4090", "22").stdout, b"from c2, across a page");

    // Any program can have it as a file.
    let mount = |brick: &str| {
        let at = place.0.path(&format!("at-{brick}"));
        Mount::start(place.shared(brick, &["mount", "pool"]), &at, 64 << 20)
    };
    let (one, two) = (mount("c1"), mount("c2"));
    let (here, there) = (one.open(), two.open());
    assert_eq!(there.metadata().unwrap().len(), 64 << 20);
    let content: Vec<u8> = (0..3_000_001_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    here.write_all_at(&content, (1 << 20) + 777).unwrap();
    let mut found = vec![0; content.len()];
    there.read_exact_at(&mut found, (1 << 20) + 777).unwrap();
    assert!(found == content);
    for count in 0..100_u64 {
        let (writer, reader) = if count % 2 == 0 { (&here, &there) } else { (&there, &here) };
        writer.write_all_at(&count.to_le_bytes(), 5000).unwrap();
        let mut seen = [0; 8];
        reader.read_exact_at(&mut seen, 5000).unwrap();
        assert_eq!(u64::from_le_bytes(seen), count);
    }
    drop((here, there));
    assert!(one.end().status.success());

    // Whoever began it may leave, and come back; the content stays as long as somebody has it.
    place.0.done("release 1");
    refused(&place.read("c1", "0", "8"), "this brick has no part in 'pool'");
    assert_eq!(place.read("c2", "4090", "7").stdout, b"from c2");
    place.0.done("reserve --compute c1 --join pool --class tray");
    assert_eq!(place.read("c1", "4090", "7").stdout, b"from c2");

    // A file that is still open when its brick leaves tells of errors, not of zeros.
    let there = two.open();
    place.0.done("release 2");
    let error = there.read_exact_at(&mut [0; 8], 4090).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{error}");
    drop(there);
    assert!(two.end().status.success());
    place.0.done("release 3");
    refused(&place.read("c1", "0", "8"), "this brick has no part in 'pool'");
}

#[test]
fn segments_are_shared_without_agent_or_controller() {
    let rack = Rack::start();
    let file = rack.directory().join("segments");
    let file = file.to_str().unwrap();
    let create = ["segment", "create", "--size", "1MiB", "--out", file, "--memory-server", rack.address()];
    Process::start(&mut rack.command(create), LIMIT).finish().expect_success("segment create");
    let shared = |words: &[&str]| {
        let mut command = rack.command(["shared"]);
        command.args(words).args(["--segments", file]).stdin(Stdio::null());
        command
    };
    let input = rack.directory().join("input");
    fs::write(&input, vec![7; 3000]).unwrap();
    let write = |offset: &str| {
        let mut command = shared(&["write", "--offset", offset]);
        command.stdin(File::open(&input).unwrap()).output().unwrap()
    };
    assert!(write("1000").status.success());
    refused(&write("1047000"), "the shared memory ends at");
    refused(&write("2MiB"), "nothing is at offset");
    let read = |words: &[&str]| shared(words).output().unwrap();
    assert_eq!(read(&["read", "--size", "1002"]).stdout[998..], [0, 0, 7, 7]);
    assert_eq!(read(&["read", "--offset", "1048570"]).stdout, [7; 6], "it was written to its end");
    refused(&read(&["read", "pool"]), "cannot be used with");
    refused(&read(&["mount", "--at", "/no/such/directory"]), "is no directory");

    let at = rack.directory().join("mounted");
    let mount = Mount::start(shared(&["mount"]), &at, 1 << 20);
    let opened = mount.open();
    let mut bytes = [0; 4];
    opened.read_exact_at(&mut bytes, 998).unwrap();
    assert_eq!(bytes, [0, 0, 7, 7]);
    assert_eq!(opened.write_at(&[1; 9], (1 << 20) - 4).unwrap(), 4, "it ends there");
    assert!(opened.set_len(2 << 20).is_err());
    drop(opened);
    assert!(mount.end().status.success());
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0, "it is unmounted");
}
