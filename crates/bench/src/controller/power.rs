//! How many memory bricks stay off: the synthetic classes of virtual machines, and small racks against an exact optimum.

use anyhow::{Result, ensure};
use rackmem_rack::{LatencyClass, Power, Request, Role};
use rackmem_types::Bytes;

use super::lab::Lab;
use super::support::classes::{CLASSES, Mean, off};
use super::support::exact::cheapest;
use super::support::{Dice, Layout, establish, name, powered};
use crate::engine::figure::{Bar, Figure};
use crate::engine::samples::Samples;

const SEEDS: u64 = 300;
const POINTS_MAX: f64 = 3.0;

/// Small racks that are held against the optimum.
const RACKS: u64 = 20_000;

const POINTS: &str = "power/points above the optimum";

/// One round. The dice are the same in each: so is what comes out.
pub(crate) fn run(lab: &Lab, samples: &mut Samples) -> Result<()> {
    for class in CLASSES {
        let (mut memory, mut compute, mut above) = (Vec::new(), Vec::new(), 0);
        for seed in 0..lab.scaled(SEEDS) {
            let outcome = class.place(seed);
            let wrong = outcome.rack.audit();
            ensure!(wrong.is_empty(), "invariants do not hold: {}", wrong.join("; "));
            memory.push(off(&outcome.rack, Role::Memory));
            compute.push(off(&outcome.rack, Role::Compute));
            above += outcome.on - outcome.least;
        }
        let of = |what| format!("power/{}/{what}", class.name);
        let mean = Mean::of(&memory);
        samples.add(of("memory off %"), mean.value);
        samples.add(of("memory off, uncertain by"), mean.uncertainty);
        samples.add(of("compute off %"), Mean::of(&compute).value);
        samples.add(of("bricks on above the least"), above as f64);
    }
    samples.add(POINTS, points(&mut Dice(1), lab.scaled(RACKS)));
    Ok(())
}

/// By how many percent of the memory a small rack draws power for more than the optimum: the worst of `racks`.
fn points(dice: &mut Dice, racks: u64) -> f64 {
    let mut worst: f64 = 0.0;
    for _ in 0..racks {
        let bricks = dice.between(2, 12) as usize;
        let size = dice.between(8, 64);
        let size = vec![Bytes::from_pages(size)];
        let mut rack =
            Layout { size: size.clone(), power: Power::Off, ..Layout::tray(1, bricks, Bytes(0)) }.build();
        let mut sum = 0;
        for id in 1..=dice.between(1, 12) {
            let pages = dice.between(1, size[0].pages() * 3 / 2);
            let request =
                Request::memory("p", Some(name("c0")), Bytes::from_pages(pages), LatencyClass::Tray);
            if establish(&mut rack, id, &request).is_ok() {
                sum += pages;
            }
        }
        let (on, all) = powered(&rack);
        let one = size[0].pages();
        let optimum = cheapest(&mut vec![(one, one); bricks], sum, bricks).unwrap_or(all);
        worst = worst.max(100.0 * (on - optimum) as f64 / all as f64);
    }
    worst
}

/// The rows of this experiment.
pub(crate) fn figures(samples: &Samples) -> Vec<Figure> {
    let share = |class: &super::support::classes::Class| {
        let of = |what| samples.median(&format!("power/{}/{what}", class.name));
        let measured = of("memory off %");
        let detail = match (of("bricks on above the least"), of("memory off, uncertain by")) {
            (Some(0.0), Some(by)) => {
                format!("no placement could do with less; the two means are certain to {by:.1}")
            }
            (Some(above), Some(by)) => {
                format!("{above:.0} bricks above the least; the two means are certain to {by:.1}")
            }
            _ => String::new(),
        };
        let bar = Some((Bar::AtLeast, class.memory_off));
        Figure { name: format!("memory bricks off, class {}", class.name), unit: "%", measured, bar, detail }
    };
    let mut figures: Vec<Figure> = CLASSES.iter().map(share).collect();
    figures.push(Figure {
        name: "memory on above the exact optimum, small racks".to_owned(),
        unit: "points",
        measured: samples.median(POINTS),
        bar: Some((Bar::AtMost, POINTS_MAX)),
        detail: "the worst rack".to_owned(),
    });
    figures
}
