//! One placement decision: how long it takes with 10,000 bricks and 100,000 segments, beside the same with a tenth of both.
//!
//! Both racks stand in this process and take turns, so that whatever the machine does meanwhile meets both. What is reserved is
//! replaced all the time: the racks are as full, and as fragmented, at the end as at the beginning.

use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use hdrhistogram::Histogram;
use rackmem_rack::{
    Event, LatencyClass, Power, Rack, RackError, Request, ReservationId, SwitchKind, planner,
};
use rackmem_types::Bytes;

use super::lab::{LARGE, Lab, SMALL, Size};
use super::support::{Dice, end, establish, name};
use crate::course::figure::{Bar, Figure};
use crate::course::samples::Samples;

const P99_MAX_US: f64 = 1000.0;
const GROWTH_MAX: f64 = 2.0;

/// Turns of each rack, and decisions in a turn: long enough that a rack's own memory is what the caches hold.
const TURNS: u64 = 25;
const DECISIONS: u64 = 2_000;

const KINDS: [(SwitchKind, &str); 2] = [(SwitchKind::Packet, "packet"), (SwitchKind::Circuit, "circuit")];

/// A rack in use.
struct Busy {
    rack: Rack,
    computes: u64,
    dice: Dice,
    live: Vec<u64>,
    next: u64,
    /// Nanoseconds of each decision.
    times: Histogram<u64>,
    refused: u64,
}

/// One round.
pub(crate) fn run(lab: &Lab, samples: &mut Samples) -> Result<()> {
    for (kind, kind_name) in KINDS {
        let mut racks =
            [SMALL, LARGE].map(|size| (size, Busy::new(kind, size, lab.scaled(size.reservations))));
        for _ in 0..lab.scaled(TURNS) + 1 {
            for (_, busy) in &mut racks {
                busy.turn()?;
            }
        }
        for (size, busy) in &racks {
            let wrong = busy.rack.audit();
            ensure!(wrong.is_empty(), "invariants do not hold: {}", wrong.join("; "));
            let us = |quantile| busy.times.value_at_quantile(quantile) as f64 / 1000.0;
            let of = |what| format!("decision/{kind_name}/{}/{what}", size.name);
            samples.add(of("p50 µs"), us(0.5));
            samples.add(of("p99 µs"), us(0.99));
            samples.add(of("p99.9 µs"), us(0.999));
            samples.add(of("refused %"), 100.0 * busy.refused as f64 / busy.times.len() as f64);
            samples.add(of("segments"), busy.rack.segments().count() as f64);
        }
    }
    Ok(())
}

impl Busy {
    fn new(kind: SwitchKind, size: Size, reservations: u64) -> Self {
        let mut rack = size.layout(kind, Power::Off).build();
        let (computes, mut dice) = (size.computes(), Dice(7));
        let made = |id: &u64| establish(&mut rack, *id, &request(&mut dice, computes)).is_ok();
        let live = (1..=reservations).filter(made).collect();
        let times = Histogram::new_with_bounds(1, 1_000_000_000, 3).unwrap_or_else(|_| unreachable!());
        Self { rack, computes, dice, live, next: reservations + 1, times, refused: 0 }
    }

    /// Replaces reservations, one by one; the time of each plan counts.
    fn turn(&mut self) -> Result<()> {
        for _ in 0..DECISIONS {
            let id = ReservationId(self.next);
            self.next += 1;
            let request = request(&mut self.dice, self.computes);
            let start = Instant::now();
            let plan = planner::reserve(&self.rack, id, &request);
            self.times.record(start.elapsed().as_nanos() as u64)?;
            match plan {
                Ok(plan) => {
                    for event in [Event::Accepted(Box::new(plan)), Event::Started(id), Event::Done(id)] {
                        self.rack.apply(&event)?;
                    }
                    let place = self.dice.next() as usize % self.live.len();
                    end(&mut self.rack, std::mem::replace(&mut self.live[place], id.0));
                }
                Err(RackError::Refused(_)) => self.refused += 1,
                Err(error) => return Err(anyhow!(error)),
            }
        }
        Ok(())
    }
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

/// The rows of this experiment.
pub(crate) fn figures(samples: &Samples) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (_, kind) in KINDS {
        let p99 = |size: Size| format!("decision/{kind}/{}/p99 µs", size.name);
        let (small, large) = (samples.median(&p99(SMALL)), samples.median(&p99(LARGE)));
        let growth = samples.ratio(&p99(LARGE), &p99(SMALL));
        figures.push(Figure {
            name: format!("p99 of a decision, 10000 bricks, {kind} switches"),
            unit: "µs",
            measured: large,
            bar: Some((Bar::AtMost, P99_MAX_US)),
            detail: String::new(),
        });
        let text = |us: Option<f64>| us.map_or_else(|| "?".to_owned(), |us| format!("{us:.1} µs"));
        let name = format!("p99 of a decision against 1000 bricks, {kind} switches");
        let detail = format!("{} against {}", text(large), text(small));
        figures.push(Figure::ratio(name, growth, Some((Bar::AtMost, GROWTH_MAX))).with_detail(detail));
    }
    figures
}
