//! As soon as a circuit over three switches is set, the memory brick serves its first page over it; how long that takes is
//! printed, not judged. Needs root, iproute2 and the built `rackmem` (`$RACKMEM_BIN`, or the one beside the tests).

#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rackmem_emulate::{Programs, Racks, Standing, enter};
use rackmem_far::{Credentials, Event, FarConfig, FarMemory, ReadRequest, WriteRequest};
use rackmem_rack::Name;
use rackmem_switch::{Change, Pair, SwitchDriver, TcSwitch};
use rackmem_types::{PAGE_SIZE, PageHash, Slot};

const ROUNDS: u64 = 20;

/// A compute brick and a memory brick in two trays: the circuit takes three switches.
const FILE: &str = r#"
rack = [{ name = "r1" }]
tray = [{ name = "t1", rack = "r1" }, { name = "t2", rack = "r1" }]
compute = [{ name = "c1", tray = "t1", cores = 1, local = "256MiB", ports = 1, power = "off" }]
memory = [{ name = "m1", tray = "t2", size = "1GiB", ports = 1 }]
switch = [
    { name = "s1", tray = "t1", kind = "circuit", ports = 2 },
    { name = "s2", tray = "t2", kind = "circuit", ports = 2 },
    { name = "s3", rack = "r1", kind = "circuit", ports = 2 },
]
cable = [
    { ends = ["c1:0", "s1:0"] },
    { ends = ["s1:1", "s3:0"] },
    { ends = ["s3:1", "s2:0"] },
    { ends = ["s2:1", "m1:0"] },
]
"#;

fn rackmem() -> PathBuf {
    let beside = || std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("rackmem");
    let path = std::env::var_os("RACKMEM_BIN").map_or_else(beside, PathBuf::from);
    assert!(path.is_file(), "{} is not there: build it, or name another with RACKMEM_BIN", path.display());
    path
}

/// Takes the rack down whatever becomes of the test.
struct Down<'a>(&'a Racks, Name);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        let _ = self.0.down(&self.1);
    }
}

/// Stores a page from the compute brick and reads it back, as a program would do it that starts now.
fn page_served(rack: &Standing) {
    enter(&rack.layout.brick(&"c1".parse().unwrap()).unwrap().namespace).unwrap();
    let memory = rack.layout.brick(&"m1".parse().unwrap()).unwrap();
    let token = std::fs::read(rack.token_file()).unwrap();
    let server = format!("{}:{}", memory.data, memory.port).parse().unwrap();
    let credentials = Credentials { token: Some(token), ..Credentials::default() };
    let far = FarMemory::connect(FarConfig::new(vec![server], credentials, "first page")).unwrap();
    let slot = Slot(far.grow().unwrap().unwrap().start);
    let mut port = far.port().unwrap();
    let data = [7; PAGE_SIZE];
    let checksum = PageHash::of(&data).checksum();
    port.write(&[WriteRequest { tag: 1, slot, version: 1, checksum, data: &data }]);
    port.read(&[ReadRequest { tag: 2, slot }]);
    let mut read = false;
    while port.in_flight() > 0 {
        port.wait(Some(Duration::from_secs(1)), &mut |event| match event {
            Event::Page { data: found, .. } => read = *found == data,
            Event::Stored { .. } => {}
            other => panic!("{other:?}"),
        });
    }
    assert!(read, "the page is as it was stored");
    far.destroy();
}

#[test]
fn root_first_page_comes_over_three_switches() {
    let directory = tempfile::tempdir().unwrap();
    let racks = Racks::new(directory.path().join("racks"));
    let name: Name = format!("first-page-{}", std::process::id()).parse().unwrap();
    let _down = Down(&racks, name.clone());
    let (rack, started) = racks.up(&name, FILE, &Programs { rackmem: rackmem() }).unwrap();
    assert_eq!(started, 2, "the memory server and the controller: the compute brick is off");
    let pair = [Pair::new(0, 1).unwrap()];
    let switches: Vec<TcSwitch> =
        rack.layout.switches.iter().map(|switch| TcSwitch::open(&switch.namespace).unwrap()).collect();
    let (mut switched, mut served) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let begun = Instant::now();
        for switch in &switches {
            switch.connect(&pair, round).unwrap();
        }
        switched.push(begun.elapsed());
        thread::scope(|scope| scope.spawn(|| page_served(&rack)).join()).unwrap();
        served.push(begun.elapsed());
        for switch in &switches {
            switch.change(&Change { disconnect: pair.to_vec(), connect: Vec::new() }, round).unwrap();
        }
    }
    switched.sort_unstable();
    served.sort_unstable();
    let (middle, last) = (served.len() / 2, served.len() - 1);
    println!("three switches set: median {:?}, most {:?}", switched[middle], switched[last]);
    println!("first page served: median {:?}, most {:?}", served[middle], served[last]);
}
