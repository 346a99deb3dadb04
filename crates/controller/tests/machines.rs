//! Virtual machines over the rack: whatever fails or dies, in the end a machine is there with all that is reserved for it, or
//! nothing of it is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Bricks, change, ended, register, settled, start, who};
use rackmem_api::agent::{Boot, ElasticBounds, StopRequest};
use rackmem_api::controller::{
    ControllerApi, MachineNew, MachineResize, MachineState, MachineView, Role, Who,
};
use rackmem_api::operation::OperationFilter;
use rackmem_api::{Change, LatencyClass, Operation, OperationState, Problem, VmName};
use rackmem_controller::{Controller, ControllerConfig};
use rackmem_types::Bytes;
use tempfile::tempdir;

/// What a machine of the example holds on the bricks: itself, a segment, a circuit, an entry.
const HELD: usize = 4;

fn web1() -> VmName {
    "web1".parse().unwrap()
}

/// A machine that can grow to 3 GiB.
fn new(memory: Bytes) -> MachineNew {
    let text = format!(
        r#"{{"name": "web1", "memory": {}, "memory_max": {}, "local": 268435456, "class": "tray", "boot": {{"kernel": "/k"}}}}"#,
        memory.0,
        3u64 << 30
    );
    serde_json::from_str(&text).unwrap()
}

const fn gib(count: u64) -> Bytes {
    Bytes(count << 30)
}

/// What is done with the machine, one after the other.
#[derive(Clone, Copy, Debug)]
enum Act {
    Create,
    Grow,
    Shrink,
    Follow,
    Widen,
    Pause,
    Resume,
    Unfollow,
    Stop,
    Start,
    Delete,
}

use Act::{Create, Delete, Follow, Grow, Pause, Resume, Shrink, Start, Stop, Unfollow, Widen};

const LIFE: [Act; 11] = [Create, Grow, Shrink, Follow, Widen, Pause, Resume, Unfollow, Stop, Start, Delete];

/// Between which sizes the machine follows its guest, and then.
const NARROW: ElasticBounds = ElasticBounds { min: gib(1), max: gib(2) };
const WIDE: ElasticBounds = ElasticBounds { min: gib(1), max: gib(3) };

async fn ask(controller: &Controller, act: Act) -> Result<Operation, Problem> {
    let change = change(controller).await;
    let to = |memory| MachineResize { memory };
    let follow = |bounds| controller.vm_elastic_set(change.clone(), who(), web1(), bounds);
    match act {
        Create => controller.vm_create(change, who(), new(gib(1))).await,
        Grow => controller.vm_resize(change, who(), web1(), to(gib(2))).await,
        Shrink => controller.vm_resize(change, who(), web1(), to(gib(1))).await,
        Follow => follow(Some(NARROW)).await,
        Widen => follow(Some(WIDE)).await,
        Unfollow => follow(None).await,
        Pause => controller.vm_pause(change, who(), web1()).await,
        Resume => controller.vm_resume(change, who(), web1()).await,
        Stop => controller.vm_stop(change, who(), web1(), StopRequest::default()).await,
        Start => controller.vm_start(change, who(), web1()).await,
        Delete => controller.vm_delete(change, who(), web1()).await,
    }
}

async fn done(controller: &Controller, act: Act) -> Operation {
    let asked = ask(controller, act).await.unwrap();
    let ended = ended(controller, &asked).await;
    assert_eq!(ended.state, OperationState::Done, "{act:?}: {ended:?}");
    ended
}

async fn listed(controller: &Controller) -> Option<MachineView> {
    controller.vm_list(who()).await.unwrap().pop()
}

/// The machine in the books has just what is reserved for it, and the bricks hold that and nothing else.
async fn whole(controller: &Controller, bricks: &Bricks, when: &str) {
    let reservations = controller.reservation_list(who()).await.unwrap();
    match listed(controller).await {
        None => {
            assert!(reservations.is_empty(), "{when}: {reservations:?}");
            assert_eq!(bricks.held(), 0, "{when}: {bricks:?}");
        }
        Some(machine) => {
            assert_eq!(reservations.len(), 1, "{when}");
            assert_eq!(reservations[0].id, machine.reservation, "{when}");
            assert_eq!(machine.far, machine.memory, "{when}: {machine:?}");
            assert_eq!(machine.operation, None, "{when}");
            let has = |text: &str| {
                bricks.holds.lock().unwrap().iter().filter(|held| held.starts_with(text)).count()
            };
            let segments = reservations[0].mappings.len();
            assert_eq!(
                (has("segment "), has("entry "), has("machine ")),
                (segments, segments, 1),
                "{when}: {bricks:?}"
            );
            assert_eq!(has("paused ") == 1, machine.state == MachineState::Paused, "{when}: {bricks:?}");
            let follows =
                machine.elastic.map(|bounds| format!("elastic web1 {}..{}", bounds.min, bounds.max));
            assert_eq!(has("elastic "), usize::from(follows.is_some()), "{when}: {bricks:?}");
            assert_eq!(follows.map(|text| has(&text)), machine.elastic.map(|_| 1), "{when}: {bricks:?}");
        }
    }
}

async fn world(state: &Path, bricks: &Arc<Bricks>) -> Controller {
    let controller = start(state, bricks, None).await;
    register(&controller).await;
    controller
}

#[tokio::test]
async fn a_machine_lives_and_leaves_nothing() {
    for twice in [false, true] {
        let (state, bricks) = (tempdir().unwrap(), Arc::new(Bricks { twice, ..Bricks::default() }));
        let controller = world(state.path(), &bricks).await;
        done(&controller, Create).await;
        let machine = listed(&controller).await.unwrap();
        assert_eq!((machine.state, machine.far), (MachineState::Running, gib(1)));
        assert!(machine.compute.is_some() && machine.memory_bricks.len() == 1, "{machine:?}");
        assert_eq!(bricks.held(), HELD);
        let reservation = controller.reservation_show(who(), machine.reservation).await.unwrap();
        assert_eq!((reservation.cores, reservation.local), (1, Bytes(256 << 20)));
        for (act, state, far) in [
            (Grow, MachineState::Running, gib(2)),
            (Shrink, MachineState::Running, gib(1)),
            (Follow, MachineState::Running, gib(1)),
            (Pause, MachineState::Paused, gib(1)),
            (Resume, MachineState::Running, gib(1)),
            (Widen, MachineState::Running, gib(1)),
            (Pause, MachineState::Paused, gib(1)),
            (Stop, MachineState::Stopped, gib(1)),
            (Start, MachineState::Running, gib(1)),
        ] {
            done(&controller, act).await;
            let machine = listed(&controller).await.unwrap();
            assert_eq!((machine.state, machine.far, machine.memory), (state, far, far), "{act:?}");
            whole(&controller, &bricks, "in its life").await;
        }
        done(&controller, Delete).await;
        assert_eq!(listed(&controller).await, None);
        assert_eq!(bricks.held(), 0);
    }
}

/// What one act does, leg by leg, fails at each of them in turn.
#[tokio::test]
async fn each_leg_that_fails_is_undone() {
    let acts = [(0, Create, 5), (1, Grow, 5), (3, Follow, 1), (4, Widen, 1), (5, Pause, 1), (6, Resume, 1)];
    for (until, act, legs) in acts.into_iter().chain([(7, Unfollow, 1)]) {
        for fails_at in 1..=legs {
            let (state, bricks) = (tempdir().unwrap(), Arc::new(Bricks::default()));
            let controller = world(state.path(), &bricks).await;
            for before in &LIFE[..until] {
                done(&controller, *before).await;
            }
            let held = || bricks.holds.lock().unwrap().clone();
            let before = (listed(&controller).await, held());
            bricks.fail_after(fails_at);
            let asked = ask(&controller, act).await.unwrap();
            let failed = ended(&controller, &asked).await;
            assert_eq!(failed.state, OperationState::Failed, "{act:?}, leg {fails_at}: {failed:?}");
            assert!(failed.error.unwrap().detail.contains("told to fail"));
            assert_eq!((listed(&controller).await, held()), before, "{act:?}, leg {fails_at}: {bricks:?}");
            whole(&controller, &bricks, "after a failure").await;
        }
    }
}

/// The store takes so many changes and then no more; a second controller goes on with what is on the disk.
#[test]
fn a_controller_that_dies_after_any_record_is_followed_by_one_that_finishes() {
    let life = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    // All of a life takes about as many changes as the last of these.
    for changes in 2..=56 {
        let (state, bricks) = (tempdir().unwrap(), Arc::new(Bricks::default()));
        let first = life();
        first.block_on(async {
            let controller = start(state.path(), &bricks, Some(changes)).await;
            let work = async {
                register(&controller).await;
                for act in LIFE {
                    done(&controller, act).await;
                }
            };
            // It hangs where the store stopped; nobody waits for the dead.
            let _ = tokio::time::timeout(Duration::from_millis(400), work).await;
        });
        first.shutdown_timeout(Duration::from_secs(5));
        life().block_on(async {
            let controller = start(state.path(), &bricks, None).await;
            for operation in settled(&controller).await {
                assert_eq!(operation.state, OperationState::Done, "after {changes} changes: {operation:?}");
            }
            whole(&controller, &bricks, &format!("after {changes} changes")).await;
        });
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_the_reason() {
    let (state, bricks) = (tempdir().unwrap(), Arc::new(Bricks::default()));
    let controller = world(state.path(), &bricks).await;
    let change = change(&controller).await;
    let refused = async |new: MachineNew, status: u16, words: &str| {
        let problem = controller.vm_create(change.clone(), who(), new).await.unwrap_err();
        assert_eq!((problem.status, problem.detail.contains(words)), (status, true), "{problem}");
    };
    refused(MachineNew { memory: Bytes(4096), local: None, ..new(gib(1)) }, 422, "too little").await;
    refused(MachineNew { compute: Some("c9".to_owned()), ..new(gib(1)) }, 404, "c9").await;
    refused(MachineNew { spread: Some(0), ..new(gib(1)) }, 422, "spread").await;
    assert_eq!(controller.vm_show(who(), web1()).await.unwrap_err().status, 404);
    // What no brick can have is found out by the operation, and explained.
    let asked =
        controller.vm_create(change.clone(), who(), MachineNew { vcpus: 64, ..new(gib(1)) }).await.unwrap();
    let failed = ended(&controller, &asked).await;
    assert_eq!((failed.state, failed.error.unwrap().status), (OperationState::Failed, 409));
    let reasons = controller.operation_why(who(), asked.id).await.unwrap();
    assert!(
        reasons.iter().any(|reason| reason.brick == "c1" && !reason.serves && reason.why.contains("cores")),
        "{reasons:?}"
    );
    whole(&controller, &bricks, "after a refusal").await;
    done(&controller, Create).await;
    refused(new(gib(1)), 409, "already").await;
    for (act, status, words) in [(Start, 409, "runs already"), (Create, 409, "already")] {
        let problem = ask(&controller, act).await.unwrap_err();
        assert_eq!((problem.status, problem.detail.contains(words)), (status, true), "{act:?}: {problem}");
    }
    let too_much =
        controller.vm_resize(change.clone(), who(), web1(), MachineResize { memory: gib(4) }).await;
    assert_eq!(too_much.unwrap_err().status, 422);
    let id = listed(&controller).await.unwrap().reservation;
    let by_hand = controller.reservation_release(change.clone(), who(), id).await.unwrap_err();
    assert_eq!((by_hand.status, by_hand.detail.contains("'web1'")), (409, true), "{by_hand}");
    done(&controller, Stop).await;
    assert_eq!(ask(&controller, Grow).await.unwrap_err().status, 409);
}

#[tokio::test]
async fn a_paused_machine_is_let_go_on_before_anything_that_needs_its_guest() {
    let (state, bricks) = (tempdir().unwrap(), Arc::new(Bricks::default()));
    let controller = world(state.path(), &bricks).await;
    done(&controller, Create).await;
    let refused = async |act: Act, words: &str| {
        let problem = ask(&controller, act).await.unwrap_err();
        assert_eq!((problem.status, problem.detail.contains(words)), (409, true), "{act:?}: {problem}");
    };
    refused(Resume, "not paused").await;
    done(&controller, Pause).await;
    refused(Pause, "paused already").await;
    for act in [Start, Grow] {
        refused(act, "rackmem vm resume web1").await;
    }
    done(&controller, Follow).await;
    done(&controller, Stop).await;
    for act in [Pause, Resume] {
        refused(act, "rackmem vm start web1").await;
    }
    done(&controller, Start).await;
    done(&controller, Pause).await;
    done(&controller, Delete).await;
    assert_eq!(bricks.held(), 0);
}

#[tokio::test]
async fn bounds_that_make_no_sense_are_refused_at_once() {
    let (state, bricks) = (tempdir().unwrap(), Arc::new(Bricks::default()));
    let controller = world(state.path(), &bricks).await;
    done(&controller, Create).await;
    for (min, max, words) in [
        (gib(2), gib(1), "more than max"),
        (gib(1), gib(4), "more than the machine can have"),
        (Bytes(0), gib(1), "no guest runs with less than 96MiB"),
    ] {
        let bounds = Some(ElasticBounds { min, max });
        let change = change(&controller).await;
        let problem = controller.vm_elastic_set(change, who(), web1(), bounds).await.unwrap_err();
        assert_eq!((problem.status, problem.detail.contains(words)), (422, true), "{problem}");
    }
    assert_eq!(listed(&controller).await.unwrap().elastic, None);
}

#[tokio::test]
async fn machines_belong_to_projects_and_count_against_their_quota() {
    let state = tempdir().unwrap();
    let mut config = ControllerConfig::new(state.path());
    config.quotas =
        serde_json::from_str(r#"{"default": {}, "projects": {"p1": {"tray": 1073741824}}}"#).unwrap();
    config.images = Some("/images".parse().unwrap());
    let controller = Controller::start(config, Arc::new(Bricks::default())).await.unwrap();
    register(&controller).await;
    let change = change(&controller).await;
    let member = |project: &str| Who {
        name: "alice".to_owned(),
        role: Role::Member,
        project: Some(project.to_owned()),
    };
    let problem = controller.vm_create(change.clone(), member("p1"), new(gib(1))).await.unwrap_err();
    assert_eq!((problem.status, problem.detail.contains("/images/p1")), (403, true), "{problem}");
    let own = Boot { kernel: Some("/images/p1/vmlinuz".into()), ..Boot::default() };
    let asked = MachineNew { boot: own, ..new(gib(1)) };
    let asked = controller.vm_create(change.clone(), member("p1"), asked).await.unwrap();
    assert_eq!(ended(&controller, &asked).await.state, OperationState::Done);
    let resize = MachineResize { memory: gib(2) };
    let grow = controller.vm_resize(change.clone(), member("p1"), web1(), resize).await.unwrap();
    let error = ended(&controller, &grow).await.error.unwrap();
    assert_eq!((error.status, error.detail.contains("p1")), (409, true), "{error}");
    assert!(controller.vm_list(member("p2")).await.unwrap().is_empty());
    assert_eq!(controller.vm_show(member("p2"), web1()).await.unwrap_err().status, 404);
    assert_eq!(controller.vm_delete(change.clone(), member("p2"), web1()).await.unwrap_err().status, 404);
    assert_eq!(controller.vm_list(member("p1")).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_agent_asks_for_its_own_machines_and_for_nothing_else() {
    let (state, bricks) = (tempdir().unwrap(), Arc::new(Bricks::default()));
    let controller = world(state.path(), &bricks).await;
    let change = change(&controller).await;
    let on = |compute: &str| MachineNew { compute: Some(compute.to_owned()), ..new(gib(1)) };
    let asked = controller.vm_create(change.clone(), who(), on("c1")).await.unwrap();
    ended(&controller, &asked).await;
    let agent = |name: &str| Who { name: name.to_owned(), role: Role::Agent, project: None };
    let fit = async |who: Who, memory| {
        let change = Change { by: who.name.clone(), ..change.clone() };
        controller.vm_fit(change, who, web1(), MachineResize { memory }).await
    };
    assert_eq!(fit(agent("c2"), gib(2)).await.unwrap_err().status, 404, "another brick's");
    assert_eq!(fit(agent("c1"), gib(4)).await.unwrap_err().status, 422, "more than it can have");
    for memory in [gib(2), gib(1)] {
        let asked = fit(agent("c1"), memory).await.unwrap();
        assert_eq!(ended(&controller, &asked).await.state, OperationState::Done);
        assert!(controller.operation_show(agent("c1"), asked.id).await.is_ok());
        assert_eq!(controller.operation_show(agent("c2"), asked.id).await.unwrap_err().status, 404);
        let machine = listed(&controller).await.unwrap();
        assert_eq!((machine.far, machine.memory), (memory, memory));
        whole(&controller, &bricks, "as its agent asked").await;
    }
    assert_eq!(controller.operation_list(agent("c1"), OperationFilter::default()).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_machine_of_the_class_local_takes_nothing_far() {
    let (state, bricks) = (tempdir().unwrap(), Arc::new(Bricks::default()));
    let controller = world(state.path(), &bricks).await;
    let change = change(&controller).await;
    let local = MachineNew { class: LatencyClass::Local, local: None, memory_max: None, ..new(gib(1)) };
    let asked = controller.vm_create(change, who(), local).await.unwrap();
    assert_eq!(ended(&controller, &asked).await.state, OperationState::Done);
    let machine = listed(&controller).await.unwrap();
    assert_eq!((machine.local, machine.far, bricks.held()), (gib(1), Bytes(0), 1));
    done(&controller, Delete).await;
    assert_eq!(bricks.held(), 0);
    assert!(bricks.steps.load(Ordering::Relaxed) >= 2);
}
