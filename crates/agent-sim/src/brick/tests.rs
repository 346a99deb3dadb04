//! Whatever is asked of a brick, in whatever order, and whatever fails: no more memory is promised than there is, and
//! nothing is left in the end.

use proptest::prelude::*;
use rackmem_api::agent::{
    Attachment, Boot, Driver, ElasticBounds, ResizeRequest, StopRequest, VmSpec, VmState,
};
use rackmem_api::change::Change;
use rackmem_api::operation::OperationFilter;
use rackmem_api::{AttachmentId, Generation, LatencyClass, OperationState, VmName};
use rackmem_types::Bytes;

use super::{Brick, Command};
use crate::config::{Failures, Latencies, SimConfig};

const MIB: u64 = 1 << 20;
/// Room for one attachment in the far address space of the brick.
const RANGE: u64 = 1 << 30;

fn vm(number: u8) -> VmName {
    format!("vm{number}").parse().unwrap()
}

fn attachment(number: u8) -> AttachmentId {
    format!("m{number}").parse().unwrap()
}

fn entry(number: u8, mib: u64) -> Attachment {
    let start = u64::from(number) * RANGE;
    Attachment {
        id: attachment(number),
        start,
        end: start + mib * MIB,
        port: 1,
        offset: 0,
        server: "m1:7070".parse().unwrap(),
        segment: None,
        token: None,
        class: LatencyClass::Rack,
        shared: None,
    }
}

fn spec(number: u8, mib: u64, local: Option<u64>, attached: Option<u8>, start: bool) -> VmSpec {
    VmSpec {
        name: vm(number),
        memory: Bytes(mib * MIB),
        memory_max: Some(Bytes(mib * 4 * MIB)),
        local: local.map(|mib| Bytes(mib * MIB)),
        vcpus: 1,
        boot: Boot { kernel: Some("/k".into()), ..Boot::default() },
        memory_servers: Vec::new(),
        attachments: attached.map(attachment).into_iter().collect(),
        far_node: None,
        growth: None,
        driver: Driver::Qemu,
        start,
    }
}

/// What may happen to a brick.
#[derive(Clone, Debug)]
enum Act {
    Ask(Box<Command>, u64),
    CancelNewest,
    GuestUses(u8, u64),
    Wait(u64),
    Restart,
}

fn command() -> impl Strategy<Value = Command> {
    let name = || (0u8..4).prop_map(vm);
    let id = || (0u8..4).prop_map(attachment);
    prop_oneof![
        4 => (0u8..4, (8u64..300).prop_map(|blocks| 2 * blocks), prop::option::of(8u64..400), prop::option::of(0u8..4), any::<bool>())
            .prop_map(|(number, mib, local, attached, start)| Command::Create(spec(number, mib, local, attached, start))),
        2 => name().prop_map(Command::Delete),
        2 => name().prop_map(Command::Start),
        1 => (name(), any::<bool>()).prop_map(|(name, force)| Command::Stop(name, StopRequest { force, ..StopRequest::default() })),
        1 => name().prop_map(Command::Pause),
        1 => name().prop_map(Command::Resume),
        4 => (name(), prop::option::of(16u64..1200), prop::option::of(8u64..400)).prop_map(|(name, memory, local)| {
            let bytes = |mib: Option<u64>| mib.map(|mib| Bytes(mib * MIB));
            Command::Resize(name, ResizeRequest { memory: bytes(memory), local: bytes(local), ..Default::default() })
        }),
        2 => (name(), prop::option::of((16u64..300, 16u64..900))).prop_map(|(name, bounds)| {
            let bounds = bounds.map(|(min, max)| ElasticBounds { min: Bytes(min * MIB), max: Bytes(max * MIB) });
            Command::Elastic(name, bounds)
        }),
        3 => (0u8..4, 1u64..1024).prop_map(|(number, mib)| Command::AttachmentCreate(entry(number, mib))),
        1 => id().prop_map(Command::AttachmentDelete),
        2 => (name(), id()).prop_map(|(name, id)| Command::Attach(name, id)),
        2 => (name(), id()).prop_map(|(name, id)| Command::Detach(name, id)),
        2 => (name(), prop::collection::btree_set(id(), 0..3)).prop_map(|(name, to)| {
            Command::Attachments { name, from: Vec::new(), to: to.into_iter().collect() }
        }),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        10 => (command(), 0u64..4).prop_map(|(command, behind)| Act::Ask(Box::new(command), behind)),
        1 => Just(Act::CancelNewest),
        2 => (0u8..4, 0u64..800).prop_map(|(number, mib)| Act::GuestUses(number, mib)),
        6 => (0u64..400).prop_map(Act::Wait),
        1 => Just(Act::Restart),
    ]
}

/// What always holds.
fn check(brick: &Brick) {
    assert!(brick.promised_local(None) <= brick.config.pool(), "the brick is promised twice");
    assert!(brick.promised_far(None) <= brick.config.far, "far memory is promised twice");
    for vm in brick.vms.values() {
        assert!(vm.used <= vm.size() && vm.size() <= vm.max, "{vm:?}");
        assert!(
            vm.local() <= vm.promised.local && vm.far() <= vm.promised.far,
            "more than was promised: {vm:?}"
        );
        assert_eq!(vm.local().0 + vm.far().0, if vm.is_on() { vm.used.0 } else { 0 }, "{vm:?}");
        let runs = matches!(vm.state, VmState::Running | VmState::Paused);
        assert!(vm.is_on() == runs || vm.state == VmState::Deleting, "{vm:?}");
        for id in &vm.attachments {
            assert!(brick.attachments.contains_key(id), "'{}' has attachment '{id}', which is gone", vm.name);
            let owners = brick.vms.values().filter(|other| other.attachments.contains(id)).count();
            assert_eq!(owners, 1, "attachment '{id}'");
        }
    }
    let entries: Vec<_> = brick.attachments.values().map(|one| &one.entry).collect();
    for (index, one) in entries.iter().enumerate() {
        assert!(!entries[..index].iter().any(|other| other.overlaps(one)), "{one:?} overlaps");
    }
    let running = OperationFilter { state: Some(OperationState::Running), ..OperationFilter::default() };
    let mut targets: Vec<_> = brick.operations.list(&running).into_iter().map(|one| one.target).collect();
    targets.sort_unstable();
    assert!(
        targets.is_sorted_by(|one, other| one < other),
        "one thing is changed twice at a time: {targets:?}"
    );
}

fn state(brick: &Brick) -> String {
    format!("{:?} {:?}", brick.vms, brick.attachments)
}

/// Asks with a generation so far behind the present one; sometimes ahead.
fn ask(brick: &mut Brick, now: u64, command: Command, behind: u64) {
    brick.settle(now);
    let (before, present) = (state(brick), brick.generation.0);
    let asked = Generation((present + 1).saturating_sub(behind));
    let accepted = brick.accept(now, Change::new(asked, "test"), command);
    assert!(brick.generation.0 >= present, "the generation fell");
    match accepted {
        Ok(operation) => {
            assert!(asked.0 >= present, "an older generation was accepted");
            assert_eq!(operation.generation, brick.generation.0);
        }
        Err(problem) => {
            assert_eq!(state(brick), before, "refused ({problem}), and something changed");
            assert_eq!(problem.status == 412, asked.0 < present, "{problem}");
        }
    }
}

/// Takes everything away again, with nothing failing any more.
fn clear(brick: &mut Brick, mut now: u64) {
    brick.config.failures = Failures::default();
    for number in 0..4 {
        now += 100_000;
        ask(brick, now, Command::Delete(vm(number)), 1);
    }
    // What had been doomed to fail before may leave a machine behind, which is deleted again.
    for number in 0..4 {
        now += 100_000;
        ask(brick, now, Command::Delete(vm(number)), 1);
    }
    for number in (0..4).chain(0..4) {
        now += 100_000;
        ask(brick, now, Command::AttachmentDelete(attachment(number)), 1);
    }
    brick.settle(now + 100_000);
    assert!(brick.vms.is_empty(), "left: {:?}", brick.vms);
    assert!(brick.attachments.is_empty(), "left: {:?}", brick.attachments);
    assert_eq!((brick.promised_local(None), brick.promised_far(None)), (Bytes(0), Bytes(0)));
    assert_eq!(brick.next_due(), None);
}

fn brick(step_permille: u32, latencies: Latencies, seed: u64) -> Brick {
    Brick::new(SimConfig {
        memory: Bytes(1200 * MIB),
        far: Bytes(700 * MIB),
        failures: Failures { step_permille, request_permille: 0 },
        latencies,
        seed,
        ..SimConfig::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn memory_is_never_promised_twice_and_nothing_is_left(
        acts in prop::collection::vec(act(), 1..80),
        permille in prop::sample::select(vec![0u32, 100, 1000]),
        slow in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let latencies =
            if slow { Latencies { step_ms: 0..=90, boot_ms: 0..=300, shut_down_ms: 0..=90, gib_ms: 0..=200 } } else { Latencies::none() };
        let mut brick = brick(permille, latencies, seed);
        let mut now = 1_000_000;
        for act in acts {
            match act {
                Act::Ask(command, behind) => ask(&mut brick, now, *command, behind),
                Act::CancelNewest => {
                    let newest = brick.operations.list(&OperationFilter { limit: Some(1), ..Default::default() });
                    let change = Change::new(brick.generation, "test");
                    if let Some(newest) = newest.first() {
                        // A delete may refuse.
                        let _ = brick.cancel(now, &change, newest.id);
                    }
                }
                // The machine may not be there.
                Act::GuestUses(number, mib) => drop(brick.guest_uses(now, &vm(number), Bytes(mib * MIB))),
                Act::Wait(ms) => { now += ms; brick.settle(now); }
                Act::Restart => { now += 500; brick.resume(now); }
            }
            check(&brick);
        }
        clear(&mut brick, now);
    }
}

#[test]
fn an_elastic_machine_follows_its_guest_and_rests() {
    let mut brick = brick(0, Latencies::none(), 1);
    let change = || Change::new(Generation(0), "test");
    brick.accept(0, change(), Command::Create(spec(0, 256, None, None, true))).unwrap();
    let bounds = ElasticBounds { min: Bytes(96 * MIB), max: Bytes(800 * MIB) };
    brick.accept(0, change(), Command::Elastic(vm(0), Some(bounds))).unwrap();
    assert_eq!(brick.vms[&vm(0)].size(), Bytes(96 * MIB), "64 MiB are in use");
    let size_with = |brick: &mut Brick, now, mib| {
        brick.guest_uses(now, &vm(0), Bytes(mib * MIB)).unwrap();
        brick.settle(now);
        brick.vms[&vm(0)].size()
    };
    assert_eq!(size_with(&mut brick, 10, 90), Bytes(96 * MIB), "too early after the last decision");
    assert_eq!(brick.next_due(), Some(1000), "and it will be seen to");
    assert_eq!(size_with(&mut brick, 1000, 90), Bytes(136 * MIB), "135 MiB, in whole blocks");
    assert_eq!(size_with(&mut brick, 9000, 80), Bytes(136 * MIB), "a little less is no reason");
    assert_eq!(size_with(&mut brick, 9000, 30), Bytes(96 * MIB), "never below the bound");
    let decisions = &brick.vms[&vm(0)].elastic.as_ref().unwrap().decisions;
    assert_eq!(decisions.len(), 3, "{decisions:?}");
    assert!(decisions.iter().all(|one| one.reason.contains("the guest uses")), "{decisions:?}");
    assert!(brick.happened.iter().any(|event| event.kind == "elastic.grow"));
}

#[test]
fn a_shrink_stops_where_the_guests_programs_begin_and_says_so() {
    let mut brick = brick(0, Latencies::none(), 1);
    let change = || Change::new(Generation(0), "test");
    brick.accept(0, change(), Command::Create(spec(0, 512, None, None, true))).unwrap();
    brick.guest_uses(0, &vm(0), Bytes(300 * MIB)).unwrap();
    let request = ResizeRequest { memory: Some(Bytes(128 * MIB)), ..ResizeRequest::default() };
    let plan = brick.resize_plan(&vm(0), request).unwrap();
    assert!(plan.warnings.iter().any(|warning| warning.contains("300MiB")), "{plan:?}");
    let operation = brick.accept(0, change(), Command::Resize(vm(0), request)).unwrap();
    assert_eq!(operation.state, OperationState::Done);
    assert!(operation.note.as_ref().is_some_and(|note| note.contains("188MiB")), "{operation:?}");
    assert_eq!(brick.vms[&vm(0)].size(), Bytes(316 * MIB));
}

#[test]
fn one_seed_is_one_run() {
    let run = |seed| {
        let mut brick = brick(300, Latencies::default(), seed);
        for number in 0..4 {
            // Some do not fit, which is the same in each run.
            let _ = brick.accept(
                0,
                Change::new(Generation(0), "test"),
                Command::Create(spec(number, 100, None, None, true)),
            );
        }
        brick.settle(50_000);
        format!("{:?}", brick.operations.list(&OperationFilter::default()))
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
