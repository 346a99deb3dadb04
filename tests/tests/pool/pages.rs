//! Reservations set circuits and tables, and pages flow.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::rack::Rack;

#[test]
fn root_a_reservation_brings_pages_and_its_release_ends_them() {
    let rack = Rack::up("a");
    let bricks = rack.json("brick list");
    let names: Vec<_> =
        bricks.as_array().unwrap().iter().map(|brick| brick["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["c1", "c2", "m1", "m2"]);
    let preview = rack.done("reserve --compute c1 --memory 256MiB --class tray --preview");
    assert!(preview.contains("circuit: c1:0 s1:0 s1:"), "{preview}");
    assert!(preview.contains("create segment new.0 of 65536 pages"), "{preview}");
    assert_eq!(rack.circuits(), "none", "a preview changes nothing");
    let begun = Instant::now();
    let told = rack.done("reserve --compute c1 --memory 256MiB --class tray");
    println!("reserve took {:?}", begun.elapsed());
    assert_eq!(told, "reservation 1: applied\n");
    let server = rack.server(1);
    assert_eq!(rack.segments(), [("s1.0".to_owned(), 256 << 20)], "the memory servers have it");
    assert_eq!(rack.circuits(), if server.contains("0.3:") { "0-4" } else { "0-5" });
    assert!(rack.reaches("c1", server), "over its circuit");
    assert!(!rack.reaches("c2", server), "another brick has none");
    assert_eq!(rack.table(), ["s1.0"]);
    rack.refused("brick remove c1", "reservation 1");
    assert_eq!(rack.done("release 1"), "reservation 1: released\n");
    rack.is_empty("after the release");
    assert!(!rack.reaches("c1", server), "after the release");
    assert_eq!(rack.json("reservation list"), Value::Array(Vec::new()));
    let kinds: Vec<_> =
        rack.json("operation list").as_array().unwrap().iter().map(|one| one["kind"].clone()).collect();
    assert_eq!(kinds, ["reservation.release", "reservation.create", "rack.register"], "the newest first");
}

#[test]
fn root_what_somebody_else_changed_is_told_within_bounded_time() {
    let rack = Rack::up("d");
    rack.done("reserve --compute c2 --memory 64MiB --class tray");
    let circuit = rack.circuits();
    rack.done(&format!("rack disconnect {} s1 {circuit}", rack.name()));
    rack.told("rack.difference");
    // The switch has seen a newer reign, and refuses older ones.
    rack.refused(&format!("rack connect {} s1 {circuit} --generation 1", rack.name()), "overtaken");
}

#[test]
fn root_a_circuit_that_was_lost_is_told_and_set_again_and_the_program_goes_on() {
    let rack = Rack::up("l");
    rack.done("reserve --compute c1 --memory 64MiB --class tray");
    let (circuit, server) = (rack.circuits(), rack.server(1));
    let mut running = rack.fill_check("c1", server, 60, 192);
    thread::sleep(Duration::from_millis(1500));
    // What a wrong hand at the switch does: the kernel forgets both directions.
    for port in circuit.split('-') {
        let device = format!("p{port}");
        let namespace = format!("{}:s1", rack.name());
        let words = ["netns", "exec", &namespace, "tc", "filter", "del", "dev", &device, "ingress"];
        assert!(Command::new("ip").args(words).status().unwrap().success());
    }
    assert!(running.is_running(), "it is in the middle of its work");
    rack.told("rack.difference");
    rack.told("rack.repair");
    let begun = Instant::now();
    while rack.circuits() != circuit {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", rack.done("events"));
        thread::sleep(Duration::from_millis(50));
    }
    assert!(running.finish().expect_success("the program").stdout.contains("as written"));
    let repairs = rack.json("operation list");
    let repair = repairs.as_array().unwrap().iter().find(|one| one["kind"] == "rack.repair").unwrap();
    assert_eq!((repair["state"].as_str(), repair["by"].as_str()), (Some("done"), Some("controller")));
    rack.done("release 1");
    assert_eq!(rack.circuits(), "none");
}
