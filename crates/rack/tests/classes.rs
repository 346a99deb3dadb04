//! How much memory can stay off: the synthetic classes of virtual machines against the prototype's shares; for memory each run is also
//! held against the least that any placement could do with.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use rackmem_rack::Role;
use support::classes::{CLASSES, Mean, off};

const SEEDS: u64 = 300;

#[test]
fn as_much_stays_off_as_with_the_prototype() {
    println!("{:9} {:>9} {:>12} {:>12}", "class", "machines", "memory off", "compute off");
    let mut short = Vec::new();
    for class in CLASSES {
        let (mut memory, mut compute, mut count) = (Vec::new(), Vec::new(), 0);
        for seed in 0..SEEDS {
            let outcome = class.place(seed);
            count += outcome.machines;
            assert_eq!(outcome.rack.audit(), Vec::<String>::new());
            assert_eq!(outcome.on, outcome.least, "{} seed {seed}", class.name);
            memory.push(off(&outcome.rack, Role::Memory));
            compute.push(off(&outcome.rack, Role::Compute));
        }
        let (memory, compute) = (Mean::of(&memory), Mean::of(&compute));
        let machines = count as u64 / SEEDS;
        println!("{:9} {machines:>9} {:>10.1} % {:>10.1} %", class.name, memory.value, compute.value);
        for (what, is, want) in
            [("memory", memory, class.memory_off), ("compute", compute, class.compute_off)]
        {
            if is.value + is.uncertainty < want {
                short.push(format!("{}: {:.2} % of {what} bricks off, not {want} %", class.name, is.value));
            }
        }
    }
    assert_eq!(short, Vec::<String>::new());
}
