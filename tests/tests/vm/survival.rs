//! The agent is killed at each moment of an operation; the next one finds every machine and finishes what was begun.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread::sleep;
use std::time::Duration;

use rackmem_types::Bytes;
use serde_json::Value;

use crate::brick::{Brick, wait_until};

/// More moments than any operation has.
const MOMENTS_MAX: u64 = 60;

/// Runs `operation` under agents that die at the first, second, … moment, until one lives long enough. After each death
/// a new agent comes and `settled` is called once nothing is in progress.
pub(crate) fn at_each_moment(
    brick: &mut Brick,
    operation: impl Fn(&Brick, u64) -> Vec<String>,
    settled: impl FnMut(&Brick, u64),
) {
    at_moments(1, brick, operation, settled);
}

/// The same for operations that take long to prepare: agents die before each record of the journal is written, when a step was done
/// and nobody knows; not behind it as well.
pub(crate) fn before_each_record(
    brick: &mut Brick,
    operation: impl Fn(&Brick, u64) -> Vec<String>,
    settled: impl FnMut(&Brick, u64),
) {
    at_moments(2, brick, operation, settled);
}

fn at_moments(
    step: usize,
    brick: &mut Brick,
    operation: impl Fn(&Brick, u64) -> Vec<String>,
    mut settled: impl FnMut(&Brick, u64),
) {
    for moment in (1..MOMENTS_MAX).step_by(step) {
        brick.kill_agent();
        brick.start_agent(&["--dies-at", &moment.to_string()]);
        let line = operation(brick, moment);
        let ended = brick.vm(&line.iter().map(String::as_str).collect::<Vec<_>>());
        // The last moment is behind the end, when the answer may have been given already.
        std::thread::sleep(std::time::Duration::from_millis(100));
        let died = brick.agent_died();
        brick.kill_agent();
        brick.start_agent(&[]);
        wait_until("nothing is in progress", || {
            let list: Value = serde_json::from_str(&brick.done(&["list", "--json"])).unwrap();
            list.as_array().unwrap().iter().all(|vm| vm["operation"].is_null())
        });
        eprintln!("moment {moment}: died {died}, {} {}", ended.status, ended.stderr.trim());
        let judged = catch_unwind(AssertUnwindSafe(|| settled(brick, moment)));
        if let Err(panic) = judged {
            brick.kill_agent();
            eprintln!("the agent said:\n{}", brick.said);
            resume_unwind(panic);
        }
        if !died {
            assert!(ended.status.success(), "{}", ended.stderr);
            assert!(moment > 5, "only {moment} moments");
            return;
        }
    }
    panic!("it never lived to the end");
}

fn words(line: &[&str]) -> Vec<String> {
    line.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn root_qemu_a_create_is_finished_wherever_the_agent_dies() {
    let mut brick = Brick::start();
    at_each_moment(
        &mut brick,
        |brick, _| brick.create_line("web1", &["--memory", "256MiB", "--local", "64MiB"]),
        |brick, moment| {
            let shown = brick.show("web1");
            assert_eq!(
                (&shown["state"], &shown["pager"]["state"]),
                (&"running".into(), &"up".into()),
                "{moment}"
            );
            assert_eq!(brick.qemus().len(), 1, "moment {moment}");
            brick.done(&["delete", "web1"]);
            assert!(brick.qemus().is_empty() && !brick.state().join("vms/web1").exists(), "moment {moment}");
        },
    );
}

#[test]
fn root_qemu_a_delete_is_finished_wherever_the_agent_dies() {
    let mut brick = Brick::start();
    brick.create("web1", &["--memory", "256MiB", "--local", "64MiB"]);
    at_each_moment(
        &mut brick,
        |_, _| words(&["delete", "web1"]),
        |brick, moment| {
            assert!(brick.refused(&["show", "web1"]).contains("there is no"), "moment {moment}");
            assert!(brick.qemus().is_empty() && !brick.state().join("vms/web1").exists(), "moment {moment}");
            brick.create("web1", &["--memory", "256MiB", "--local", "64MiB"]);
        },
    );
}

#[test]
fn root_qemu_a_resize_is_finished_wherever_the_agent_dies() {
    let mut brick = Brick::start();
    brick.create("web1", &["--memory", "384MiB", "--memory-max", "768MiB", "--local", "128MiB"]);
    let mut probe = brick.probe("web1");
    probe.fill(9, Bytes(120 << 20)).unwrap();
    let size = |moment| if moment % 2 == 1 { "640MiB" } else { "512MiB" };
    at_each_moment(
        &mut brick,
        |_, moment| words(&["resize", "web1", size(moment)]),
        |brick, moment| {
            let shown = brick.show("web1");
            assert_eq!(shown["state"], "running");
            assert_eq!(format!("{}MiB", brick.mib("web1", "size")), size(moment), "moment {moment}: {shown}");
        },
    );
    probe.check().unwrap();
}

#[test]
fn root_qemu_machines_and_their_memory_live_on_without_an_agent() {
    let mut brick = Brick::start();
    for name in ["a", "b"] {
        brick.create(name, &["--memory", "256MiB", "--local", "64MiB"]);
    }
    let mut probe = brick.probe("a");
    probe.fill(4, Bytes(100 << 20)).unwrap();
    brick.kill_agent();
    probe.check().unwrap();
    brick.start_agent(&[]);
    for name in ["a", "b"] {
        assert_eq!(brick.show(name)["state"], "running");
    }
    probe.check().unwrap();
}

/// Agents killed in the middle of steps, in one test.
const KILLS: u64 = 8;

/// Pagers killed in one test; between two of them the guest makes a round through its memory.
const PAGERS: u64 = 5;

#[test]
fn root_qemu_a_machine_whose_pager_is_killed_under_load_waits_and_goes_on() {
    let brick = Brick::start();
    brick.create("web1", &["--memory", "384MiB", "--local", "96MiB"]);
    let mut probe = brick.probe("web1");
    probe.fill(6, Bytes(200 << 20)).unwrap();
    let before = probe.churn_start(50).unwrap().checked;
    for kill in 0..PAGERS {
        // At another moment of the guest's rounds each time.
        sleep(Duration::from_millis(500 + 170 * kill));
        let dead = brick.kill_pager("web1");
        let shown = brick.show("web1");
        assert_eq!(shown["state"], "running", "{shown}");
        assert_ne!(shown["pager"]["pid"], dead, "{shown}");
        probe.churn().unwrap_or_else(|error| panic!("kill {kill}: {error}"));
    }
    let churned = probe.churn_stop().unwrap();
    assert!(churned.checked > before);
    probe.check().unwrap();
}

/// Kills the agent at moments of `operation` that have nothing to do with its journal: in the middle of steps.
fn in_the_middle(
    brick: &mut Brick,
    operation: impl Fn(u64) -> Vec<String>,
    mut settled: impl FnMut(&Brick, u64),
) {
    for kill in 0..KILLS {
        let line = operation(kill);
        let asked = brick.vm_process(&line.iter().map(String::as_str).collect::<Vec<_>>());
        sleep(Duration::from_millis(10 + 45 * kill * kill));
        brick.kill_agent();
        drop(asked);
        brick.start_agent(&[]);
        wait_until("nothing is in progress", || {
            let list: Value = serde_json::from_str(&brick.done(&["list", "--json"])).unwrap();
            list.as_array().unwrap().iter().all(|vm| vm["operation"].is_null())
        });
        settled(brick, kill);
    }
}

#[test]
fn root_qemu_creates_and_deletes_survive_agents_that_die_in_the_middle_of_steps() {
    let mut brick = Brick::start();
    let create = brick.create_line("web1", &["--memory", "256MiB", "--local", "64MiB"]);
    in_the_middle(
        &mut brick,
        |_| create.clone(),
        |brick, kill| {
            // It may have died before it heard of the request.
            if brick.vm(&["show", "web1"]).status.success() {
                let shown = brick.show("web1");
                assert_eq!(
                    (&shown["state"], &shown["pager"]["state"]),
                    (&"running".into(), &"up".into()),
                    "{kill}"
                );
                assert_eq!(brick.qemus().len(), 1, "kill {kill}");
                brick.done(&["delete", "web1"]);
            }
            assert!(brick.qemus().is_empty() && !brick.state().join("vms/web1").exists(), "kill {kill}");
        },
    );
    brick.create("web1", &["--memory", "256MiB", "--local", "64MiB"]);
    in_the_middle(
        &mut brick,
        |_| words(&["delete", "web1"]),
        |brick, kill| {
            if brick.vm(&["show", "web1"]).status.success() {
                assert_eq!(
                    (brick.qemus().len(), &brick.show("web1")["state"]),
                    (1, &"running".into()),
                    "{kill}"
                );
                return;
            }
            assert!(brick.qemus().is_empty() && !brick.state().join("vms/web1").exists(), "kill {kill}");
            brick.create("web1", &["--memory", "256MiB", "--local", "64MiB"]);
        },
    );
}

#[test]
fn root_qemu_resizes_survive_agents_that_die_in_the_middle_of_steps() {
    let mut brick = Brick::start();
    brick.create("web1", &["--memory", "384MiB", "--memory-max", "768MiB", "--local", "128MiB"]);
    let mut probe = brick.probe("web1");
    probe.fill(9, Bytes(120 << 20)).unwrap();
    let mut size = 384;
    let wanted = |kill: u64| if kill.is_multiple_of(2) { 640 } else { 512 };
    in_the_middle(
        &mut brick,
        |kill| words(&["resize", "web1", &format!("{}MiB", wanted(kill))]),
        |brick, kill| {
            let now = brick.mib("web1", "size");
            assert!(
                now == wanted(kill) || now == size,
                "kill {kill}: {now} MiB, neither {size} nor {}",
                wanted(kill)
            );
            size = now;
        },
    );
    probe.check().unwrap();
}
