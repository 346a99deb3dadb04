//! A guest's memory, changed while it runs, and seen from inside.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use guest_probe::{ProbeClient, Side};
use rackmem_qemu::command_line::{FAR_NODE, VIRTIO_MEM_ID};
use rackmem_qemu::memory::{Observed, Unplug, observe};
use rackmem_qemu::{FarNode, Machine, MachineConfig, QemuError};
use rackmem_types::Bytes;

use crate::guest::{MIB, PATIENCE, Place, config, start};

/// Nothing has moved for so long that nothing will.
const STALL: Duration = Duration::from_secs(10);

/// Runs orders to the probe, which wait, where they may.
async fn inside<T: Send + 'static>(
    mut probe: ProbeClient,
    orders: impl FnOnce(&mut ProbeClient) -> T + Send + 'static,
) -> (ProbeClient, T) {
    let run = move || {
        let answer = orders(&mut probe);
        (probe, answer)
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// Asks virtio-mem and waits until the guest has followed.
async fn plug(machine: &dyn Machine, size: Bytes) -> Observed {
    machine.virtio_mem_request(VIRTIO_MEM_ID, size).await.unwrap();
    observe(machine, STALL, |state| state.in_virtio_mem() == size).await.unwrap()
}

#[tokio::test]
async fn qemu_plugs_into_a_far_node_and_takes_back() {
    let place = Place::new();
    let far = MachineConfig { far_node: Some(FarNode { distance: 42 }), ..config() };
    let (machine, _reaper) = start(&far, &place).await;
    machine.resume().await.unwrap();
    let probe = place.probe().await;
    let before = machine.memory().await.unwrap();
    assert_eq!((before.boot, before.usable()), (Bytes(256 * MIB), Bytes(256 * MIB)));
    let device = before.virtio_mem_of(VIRTIO_MEM_ID).unwrap();
    assert_eq!((device.node, device.max, device.block), (FAR_NODE, Bytes(768 * MIB), Bytes(2 * MIB)));

    let plugged = plug(&machine, Bytes(512 * MIB)).await;
    assert!(
        matches!(&plugged, Observed::Reached(state) if state.usable() == Bytes(768 * MIB)),
        "{plugged:?}"
    );
    let (probe, info) = inside(probe, |probe| {
        probe.wait_total(Side::AtLeast, Bytes(640 * MIB), 60).unwrap();
        probe.info().unwrap()
    })
    .await;
    let node = info.nodes.iter().find(|node| node.node == FAR_NODE).unwrap();
    assert_eq!(node.cpus, [0u32; 0]);
    assert_eq!(node.distances, [42, 10]);
    assert!(node.total >= Bytes(500 * MIB), "{node:?}");

    assert!(matches!(plug(&machine, Bytes(0)).await, Observed::Reached(_)));
    let (_, gone) = inside(probe, |probe| {
        probe.wait_total(Side::AtMost, Bytes(256 * MIB), 60).map(|memory| memory.total)
    })
    .await;
    assert!(gone.unwrap() <= Bytes(256 * MIB));
}

#[tokio::test]
async fn qemu_guest_that_uses_its_memory_gives_only_a_part() {
    let place = Place::new();
    let (machine, _reaper) = start(&config(), &place).await;
    machine.resume().await.unwrap();
    let probe = place.probe().await;
    assert!(matches!(plug(&machine, Bytes(256 * MIB)).await, Observed::Reached(_)));
    let (probe, _) = inside(probe, |probe| {
        probe.wait_total(Side::AtLeast, Bytes(400 * MIB), 60).unwrap();
        probe.fill(7, Bytes(320 * MIB)).unwrap()
    })
    .await;
    let kept = plug(&machine, Bytes(0)).await;
    let Observed::Stalled(state) = kept else { panic!("it gave what it uses: {kept:?}") };
    assert!(state.in_virtio_mem() > Bytes(0));
    let (_, checked) = inside(probe, |probe| probe.check()).await;
    assert_eq!(checked.unwrap().pages, 320 * MIB / 4096);
}

#[tokio::test]
async fn qemu_balloon_takes_gives_and_tells() {
    let place = Place::new();
    let (machine, _reaper) = start(&config(), &place).await;
    machine.guest_memory_every(1).await.unwrap();
    machine.resume().await.unwrap();
    let _probe = place.probe().await;
    for size in [Bytes(192 * MIB), Bytes(256 * MIB)] {
        machine.balloon_to(size).await.unwrap();
        let moved = observe(&machine, STALL, |state| state.balloon == Some(size)).await.unwrap();
        assert!(matches!(moved, Observed::Reached(_)), "{moved:?}");
    }
    // What is plugged by virtio-mem is none of the balloon's business.
    plug(&machine, Bytes(64 * MIB)).await;
    assert_eq!(machine.memory().await.unwrap().balloon, Some(Bytes(256 * MIB)));
    let told = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(told) = machine.guest_memory().await.unwrap() {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let told = told.await.unwrap();
    let (total, available) = (told.total.unwrap(), told.available.unwrap());
    assert!(total > Bytes(128 * MIB) && available < total, "{told:?}");
}

#[tokio::test]
async fn qemu_dimm_comes_and_goes() {
    let place = Place::new();
    let (machine, _reaper) = start(&config(), &place).await;
    machine.resume().await.unwrap();
    let probe = place.probe().await;
    for _ in 0..2 {
        machine.dimm_plug("dimm0", Bytes(128 * MIB), None).await.unwrap();
    }
    assert_eq!(machine.memory().await.unwrap().in_dimms(), Bytes(128 * MIB));
    let (_probe, total) = inside(probe, |probe| {
        probe.wait_total(Side::AtLeast, Bytes(320 * MIB), 60).map(|memory| memory.total)
    })
    .await;
    assert!(total.unwrap() >= Bytes(320 * MIB));
    assert!(machine.dimm_plug("dimm0", Bytes(256 * MIB), None).await.is_err());
    // Too large for the address space: nothing of it stays.
    assert!(machine.dimm_plug("dimm1", Bytes(64 << 30), None).await.is_err());
    machine.dimm_plug("dimm1", Bytes(128 * MIB), None).await.unwrap();
    assert_eq!(machine.dimm_unplug("dimm0").await.unwrap(), Unplug::Asked);
    let gone = observe(&machine, STALL, |state| state.dimm_of("dimm0").is_none()).await.unwrap();
    assert!(matches!(gone, Observed::Reached(_)), "{gone:?}");
    assert_eq!(machine.dimm_unplug("dimm0").await.unwrap(), Unplug::Gone);
    machine.dimm_plug("dimm0", Bytes(256 * MIB), None).await.unwrap();
}

#[tokio::test]
async fn qemu_tells_where_a_page_of_the_guest_lies() {
    let place = Place::new();
    let (machine, reaper) = start(&config(), &place).await;
    machine.resume().await.unwrap();
    let probe = place.probe().await;
    let (_probe, page) = inside(probe, |probe| {
        probe.page().unwrap();
        probe.page_write(0x1234_5678_9abc_def0).unwrap()
    })
    .await;
    let address = machine.host_address(page.guest_physical_address).await.unwrap();
    let mut word = [0; 8];
    File::open(format!("/proc/{}/mem", reaper.0.pid)).unwrap().read_exact_at(&mut word, address).unwrap();
    assert_eq!(u64::from_le_bytes(word), 0x1234_5678_9abc_def0);
    let nowhere = machine.host_address(0xfee0_0000).await.unwrap_err();
    assert!(matches!(nowhere, QemuError::GuestAddress { address: 0xfee0_0000, .. }), "{nowhere}");
}

#[tokio::test]
async fn qemu_without_means_says_what_is_missing() {
    let place = Place::new();
    let bare = MachineConfig { memory_max: Bytes(256 * MIB), balloon: None, ..config() };
    let (machine, _reaper) = start(&bare, &place).await;
    let state = machine.memory().await.unwrap();
    assert_eq!((state.balloon, state.usable()), (None, Bytes(256 * MIB)));
    assert_eq!(machine.guest_memory().await.unwrap(), None);
    for missing in [
        machine.balloon_to(Bytes(128 * MIB)).await.unwrap_err(),
        machine.virtio_mem_request(VIRTIO_MEM_ID, Bytes(0)).await.unwrap_err(),
        machine.guest_memory_every(1).await.unwrap_err(),
    ] {
        assert!(matches!(missing, QemuError::Missing { .. }), "{missing}");
    }
    assert!(machine.host_address(0x1000).await.is_ok());
}
