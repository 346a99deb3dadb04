//! How long one placement decision takes with 10,000 bricks and 100,000 segments, beside the same with a tenth of both; and how
//! much memory the larger rack takes. `cargo bench -p rackmem-rack`; `-- --quick` shows only that it works.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use hdrhistogram::Histogram;
use rackmem_rack::{
    Event, LatencyClass, Power, Rack, RackError, Request, ReservationId, SwitchKind, planner,
};
use rackmem_types::Bytes;
use support::{Dice, Layout, end, establish, name};

/// Distinct reservations that each round replaces, one by one.
const DECISIONS: u64 = 50_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let scale = if quick { 10 } else { 1 };
    if let Some(place) = arguments.iter().position(|argument| argument == "--one") {
        let kind = if arguments[place + 1] == "packet" { SwitchKind::Packet } else { SwitchKind::Circuit };
        let large = arguments[place + 2] == "large";
        let (racks, trays, reservations) = if large { (25, 16, 100_000) } else { (4, 10, 10_000) };
        return measure(kind, racks, trays, reservations / scale, DECISIONS / scale);
    }
    println!(
        "{:8} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8}",
        "switches", "bricks", "segments", "p50 µs", "p99 µs", "max µs", "refused", "MiB"
    );
    for (kind, size) in [("packet", "small"), ("packet", "large"), ("circuit", "small"), ("circuit", "large")]
    {
        // Each in a process of its own, so that its memory is its own.
        let this = std::env::current_exe().expect("this program has a path");
        let mut one = std::process::Command::new(this);
        one.args(["--one", kind, size]).args(quick.then_some("--quick"));
        assert!(one.status().expect("it starts").success());
    }
}

/// Fills a rack, then replaces reservations; the time of each plan counts.
fn measure(kind: SwitchKind, racks: usize, trays: usize, reservations: u64, decisions: u64) {
    let before = resident();
    let layout = Layout {
        racks,
        trays,
        compute: 12,
        memory: 13,
        cores: 32,
        size: vec![Bytes(64 << 30)],
        compute_ports: 8,
        memory_ports: 8,
        trunks: 16,
        kind,
        power: Power::Off,
    };
    let mut rack = layout.build();
    let computes = (racks * trays * 12) as u64;
    let mut dice = Dice(7);
    let mut live = Vec::new();
    for id in 1..=reservations {
        if establish(&mut rack, id, &request(&mut dice, computes)).is_ok() {
            live.push(id);
        }
    }
    let mib = (resident() - before) >> 20;
    let mut times = Histogram::<u64>::new(3).expect("three digits");
    let mut refused = 0;
    for id in reservations + 1..=reservations + decisions {
        let request = request(&mut dice, computes);
        let start = Instant::now();
        let plan = planner::reserve(&rack, ReservationId(id), &request);
        times.record(start.elapsed().as_nanos() as u64).expect("it grows");
        match plan {
            Ok(plan) => {
                rack.apply(&Event::Accepted(Box::new(plan))).expect("the rack has not changed");
                rack.apply(&Event::Started(ReservationId(id))).expect("it is reserved");
                rack.apply(&Event::Done(ReservationId(id))).expect("it is being applied");
                let place = dice.next() as usize % live.len();
                end(&mut rack, std::mem::replace(&mut live[place], id));
            }
            Err(RackError::Refused(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(rack.audit(), Vec::<String>::new());
    report(kind, &rack, &times, refused, mib);
}

fn report(kind: SwitchKind, rack: &Rack, times: &Histogram<u64>, refused: u64, mib: usize) {
    let us = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
    println!(
        "{:8} {:>7} {:>9} {:>9.1} {:>9.1} {:>9.1} {:>9} {:>8}",
        format!("{kind:?}").to_lowercase(),
        rack.bricks().count(),
        rack.segments().count(),
        us(times.value_at_quantile(0.5)),
        us(times.value_at_quantile(0.99)),
        us(times.max()),
        refused,
        mib
    );
}

/// Two in ten want any compute brick; the others name one, and ask for each class in turn.
fn request(dice: &mut Dice, computes: u64) -> Request {
    let class = [LatencyClass::Tray, LatencyClass::Rack, LatencyClass::Rack, LatencyClass::Interrack]
        [dice.next() as usize % 4];
    let any = dice.between(1, 10) <= 2;
    let compute = (!any).then(|| name(&format!("c{}", dice.next() % computes)));
    let memory = Bytes::from_pages(dice.between(4, 32) << 15);
    Request { cores: u32::from(any), ..Request::memory("p", compute, memory, class) }
}

/// Memory of this process, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize =
        statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("the second number");
    pages * rackmem_types::PAGE_SIZE
}
