//! How many memory bricks stay off: the synthetic classes of virtual machines, and small racks against an exact optimum.

use anyhow::{Result, ensure};
use rackmem_rack::{LatencyClass, Power, Request, Role};
use rackmem_types::Bytes;

use super::lab::Lab;
use super::support::classes::{CLASSES, Class, RUNS, mean, off};
use super::support::exact::cheapest;
use super::support::{Dice, Layout, establish, name, powered};
use crate::course::figure::{Bar, Figure};
use crate::course::samples::Samples;

const POINTS_MAX: f64 = 3.0;

/// Small racks that are held against the optimum.
const RACKS: u64 = 20_000;

const POINTS: &str = "power/points above the optimum";
const OFF: &str = "memory off %";
const ABOVE: &str = "bricks on above the least";

fn sample(class: &Class, what: &str) -> String {
    format!("power/{}/{what}", class.name)
}

/// One round. The dice are the same in each: so is what comes out.
pub(crate) fn run(lab: &Lab, samples: &mut Samples) -> Result<()> {
    for class in CLASSES {
        let runs: Vec<_> = RUNS.map(|seed| class.place(seed)).collect();
        for run in &runs {
            let wrong = run.rack.audit();
            ensure!(wrong.is_empty(), "invariants do not hold: {}", wrong.join("; "));
        }
        samples.add(sample(&class, OFF), mean(runs.iter().map(|run| off(&run.rack, Role::Memory))));
        let above: u64 = runs.iter().map(|run| run.on - run.least).sum();
        samples.add(sample(&class, ABOVE), above as f64);
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
    let share = |class: &Class| {
        let detail = match samples.median(&sample(class, ABOVE)) {
            Some(0.0) => "no placement could do with less".to_owned(),
            Some(above) => format!("{above:.0} bricks above the least"),
            None => String::new(),
        };
        let name = format!("memory bricks off, class {}", class.name);
        let measured = samples.median(&sample(class, OFF));
        Figure { name, unit: "%", measured, bar: Some((Bar::AtLeast, class.memory_off)), detail }
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
