//! A QEMU that answers nobody for a while, here because it is stopped: whoever only looks is answered at once,
//! with what was known last.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::brick::{Brick, wait_until};

/// The agent waits for a quarter of a second; the rest is for a machine with much else to do. QEMU gets 20 s.
const AT_ONCE: Duration = Duration::from_secs(8);

#[test]
fn root_qemu_a_machine_that_does_not_answer_is_told_as_it_was() {
    let mut brick = Brick::start();
    brick.create("web1", &["--memory", "256MiB", "--memory-max", "512MiB"]);
    let mut probe = brick.probe("web1");
    brick.done(&["resize", "web1", "384MiB"]);
    assert_eq!(brick.mib("web1", "size"), 384);
    let qemu = Pid::from_raw(i32::try_from(brick.show("web1")["pid"].as_u64().unwrap()).unwrap()).unwrap();

    kill_process(qemu, Signal::STOP).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let begin = Instant::now();
    let shown = brick.show("web1");
    assert_eq!((&shown["state"], mib(&shown)), (&"running".into(), 384), "{shown}");
    assert!(warns(&shown, "does not answer at once"), "{shown}");
    let list: Value = serde_json::from_str(&brick.done(&["list", "--json"])).unwrap();
    assert_eq!(mib(&list[0]), 384, "{list}");
    assert!(begin.elapsed() < AT_ONCE, "two looks took {:?}", begin.elapsed());

    // Nor does the next agent wait for it, which knows of it only that it is there.
    brick.kill_agent();
    let begin = Instant::now();
    brick.start_agent(&[]);
    let shown = brick.show("web1");
    assert!(begin.elapsed() < AT_ONCE, "a start and a look took {:?}", begin.elapsed());
    assert_eq!(shown["state"], "running", "{shown}");
    assert!(warns(&shown, "QEMU has not answered yet"), "{shown}");

    kill_process(qemu, Signal::CONT).unwrap();
    wait_until("it is known again", || mib(&brick.show("web1")) == 384);
    assert_eq!(brick.show("web1")["warnings"], Value::Array(vec![]));
    probe.info().unwrap();
}

fn mib(shown: &Value) -> u64 {
    shown["memory"]["size"].as_u64().unwrap() >> 20
}

fn warns(shown: &Value, words: &str) -> bool {
    shown["warnings"].as_array().unwrap().iter().any(|warning| warning.as_str().unwrap().contains(words))
}
