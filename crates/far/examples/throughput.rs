//! How many pages go to and from a memory server in a second, over TCP as it is and over TLS: batches of 32 random pages
//! out of 64 MiB, four in flight, every page checked against its checksum at both ends.
//!
//! `cargo run --release -p rackmem-far --example throughput`; client and server are threads of one process.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on says where")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use common::{Host, Random, certificates, config};
use rackmem_far::{Credentials, Event, FarMemory, Port, ReadRequest, WriteRequest};
use rackmem_types::{PAGE_SIZE, PageHash, Slot};

const PAGES: u32 = 16384;
const BATCH: u32 = 32;
const IN_FLIGHT: usize = 4 * BATCH as usize;
const MEASURED: Duration = Duration::from_secs(2);

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let files = certificates(directory.path(), "throughput");
    let mut plain = 0.0;
    for tls in [false, true] {
        let host = if tls { Host::tls(PAGES.into(), &files) } else { Host::tcp(PAGES.into()) };
        let mut config = config(vec![host.address()]);
        config.extent_pages = PAGES;
        config.credentials = Credentials { tls: tls.then(|| files.clone()), token: None };
        let memory = FarMemory::connect(config).unwrap();
        memory.grow().unwrap().unwrap();
        let mut port = memory.port().unwrap();
        let (writes, reads) = (writes_per_second(&mut port), reads_per_second(&mut port));
        let name = if tls { "TLS 1.3" } else { "plain" };
        println!("{name:8} writes {writes:8.0} pages/s   reads {reads:8.0} pages/s");
        if tls {
            println!(
                "TLS gives {:.0} % of the plain rate (both ways together)",
                (writes + reads) / plain * 100.0
            );
        }
        plain = writes + reads;
        drop(port);
        memory.destroy();
        host.stop();
    }
}

/// Keeps `IN_FLIGHT` pages in flight with what `send` sends.
fn per_second(port: &mut Port, mut send: impl FnMut(&mut Port)) -> f64 {
    let start = Instant::now();
    let mut answered = 0u64;
    while start.elapsed() < MEASURED {
        while port.in_flight() < IN_FLIGHT {
            send(port);
        }
        port.wait(None, &mut |event| {
            assert!(matches!(event, Event::Page { .. } | Event::Stored { .. }), "{event:?}");
            answered += 1;
        });
    }
    let rate = answered as f64 / start.elapsed().as_secs_f64();
    while port.in_flight() > 0 {
        port.wait(None, &mut |_| {});
    }
    rate
}

fn writes_per_second(port: &mut Port) -> f64 {
    let data = [7; PAGE_SIZE];
    let checksum = PageHash::of(&data).checksum();
    let mut version = 0;
    let mut write = |port: &mut Port, slots: &mut dyn Iterator<Item = u32>| {
        version += 1;
        let page = |slot| WriteRequest { tag: slot, slot: Slot(slot), version, checksum, data: &data };
        port.write(&slots.map(page).collect::<Vec<_>>());
    };
    // All pages once, so that there is something to read.
    write(port, &mut (0..PAGES));
    while port.in_flight() > 0 {
        port.wait(None, &mut |_| {});
    }
    let mut random = Random(1);
    per_second(port, |port| {
        let mut slots: Vec<u32> = (0..BATCH).map(|_| random.below(PAGES.into()) as u32).collect();
        slots.sort_unstable();
        slots.dedup();
        write(port, &mut slots.into_iter());
    })
}

fn reads_per_second(port: &mut Port) -> f64 {
    let mut random = Random(2);
    per_second(port, |port| {
        let slots = (0..BATCH).map(|_| random.below(PAGES.into()) as u32);
        let reads: Vec<ReadRequest> = slots.map(|slot| ReadRequest { tag: slot, slot: Slot(slot) }).collect();
        port.read(&reads);
    })
}
