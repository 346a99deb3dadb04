//! What is killed in the middle of an operation leaves nothing half done.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::rack::Rack;

const RESERVE: &str = "reserve --compute c1 --memory 64MiB --class tray";

#[test]
fn root_a_controller_that_is_killed_in_the_middle_goes_on_where_it_was() {
    let rack = Rack::up("k");
    for wait_ms in [0, 2, 5, 10, 15, 20, 30, 50] {
        let reserving = rack.begin(RESERVE);
        thread::sleep(Duration::from_millis(wait_ms));
        rack.kill_controller();
        assert!(rack.ask("brick list").stderr.contains("controller.sock"), "it is told that nobody answers");
        assert!(rack.start().contains("1 programs started"));
        // It waits for what was accepted over the restart.
        reserving.finish();
        // What was accepted ends well, whatever it was at; what was not accepted never was.
        for operation in rack.json("operation list --state running").as_array().unwrap() {
            rack.done(&format!("operation wait {}", operation["id"].as_str().unwrap()));
        }
        let reservations = rack.json("reservation list");
        let reservations = reservations.as_array().unwrap();
        assert_eq!(rack.circuits() == "none", reservations.is_empty(), "killed after {wait_ms} ms");
        for reservation in reservations {
            assert_eq!(reservation["state"], "applied");
            assert!(rack.reaches("c1", rack.server(reservation["id"].as_u64().unwrap())));
            rack.done(&format!("release {}", reservation["id"]));
        }
        assert_eq!(rack.circuits(), "none");
    }
}

#[test]
fn root_agents_and_memory_servers_that_are_killed_in_the_middle_leave_nothing_half_done() {
    let rack = Rack::up("x");
    for (victim, wait_ms) in ["c1", "m1"].into_iter().flat_map(|one| [0, 10, 20, 40, 80].map(|ms| (one, ms)))
    {
        let what = format!("{victim} killed after {wait_ms} ms");
        let reserving = rack.begin(RESERVE);
        thread::sleep(Duration::from_millis(wait_ms));
        rack.kill_brick(victim);
        assert!(rack.start().contains("1 programs started"), "{what}");
        reserving.finish();
        rack.settled();
        for reservation in rack.json("reservation list").as_array().unwrap() {
            assert_eq!(reservation["state"], "applied", "{what}");
            let id = reservation["id"].as_u64().unwrap();
            assert_eq!(rack.table(), [format!("s{id}.0")], "{what}");
            assert_ne!(rack.circuits(), "none", "{what}");
            // A memory server that was killed comes back empty, and that is believed.
            let begun = Instant::now();
            let is_lost = || rack.json(&format!("reservation show {id}"))["mappings"][0]["lost"] == true;
            while rack.segments().is_empty() != is_lost() {
                assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
                thread::sleep(Duration::from_millis(100));
            }
            rack.done(&format!("release {id}"));
        }
        rack.is_empty(&what);
    }
}

#[test]
fn root_what_is_killed_in_the_middle_of_a_resize_or_a_release_leaves_nothing_half_done() {
    let rack = Rack::up("y");
    for (victim, wait_ms) in
        ["the controller", "c1", "m1"].into_iter().flat_map(|one| [0, 6, 12, 20].map(|ms| (one, ms)))
    {
        let kill_during = |line: &str| {
            let asking = rack.begin(line);
            thread::sleep(Duration::from_millis(wait_ms));
            match victim {
                "the controller" => rack.kill_controller(),
                brick => rack.kill_brick(brick),
            }
            assert!(rack.start().contains("1 programs started"), "{line}");
            // It may have been told that nobody answers.
            asking.finish();
            rack.settled();
        };
        rack.done(RESERVE);
        let id = rack.json("reservation list")[0]["id"].as_u64().unwrap();
        kill_during(&format!("reservation resize {id} 192MiB"));
        let what = format!("{victim} killed {wait_ms} ms into a resize: {}", rack.done("operation list"));
        let view = rack.json(&format!("reservation show {id}"));
        let mappings = view["mappings"].as_array().unwrap();
        let sizes = mappings.iter().map(|one| one["segment"]["size"].as_u64().unwrap());
        let memory = view["memory"].as_u64().unwrap();
        assert_eq!((view["state"].as_str(), sizes.sum::<u64>()), (Some("applied"), memory), "{what}");
        assert!([64 << 20, 192 << 20].contains(&memory), "{what}");
        let mut attached: Vec<&str> =
            mappings.iter().map(|one| one["attachment"].as_str().unwrap()).collect();
        attached.sort_unstable();
        assert_eq!(rack.table(), attached, "{what}");
        let there: u64 = rack.segments().iter().map(|(_, size)| size).sum();
        assert!(there == memory || victim == "m1", "{there} of {memory} on the memory bricks; {what}");

        kill_during(&format!("release {id}"));
        let what = format!("{victim} killed {wait_ms} ms into a release: {}", rack.done("operation list"));
        if rack.json("reservation list") != Value::Array(Vec::new()) {
            // It was not accepted yet, or ended undone.
            rack.done(&format!("release {id}"));
        }
        rack.is_empty(&what);
    }
}
