//! Golden command lines: a reviewer sees what a change does to every kind of machine.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{Balloon, DiskFormat, FarNode, Growth};

fn capable() -> Capabilities {
    Capabilities {
        version: [7, 2, 0],
        package: String::new(),
        q35: true,
        kvm: true,
        tcg: true,
        virtio_mem: true,
        pc_dimm: true,
        balloon: true,
        free_page_reporting: true,
        unreserved_memory: true,
        sandbox: true,
        monitor: BTreeSet::new(),
    }
}

fn simple() -> MachineConfig {
    MachineConfig {
        name: "web1".to_owned(),
        memory: Bytes(512 << 20),
        memory_max: Bytes(512 << 20),
        vcpus: 1,
        kernel: Some(Kernel {
            image: "/boot/vmlinuz".into(),
            initrd: Some("/boot/initrd,1.img".into()),
            command_line: "console=ttyS0, quiet".to_owned(),
        }),
        disk: None,
        seed: None,
        growth: Growth { virtio_mem: false, dimm_slots: 0 },
        far_node: None,
        balloon: None,
        probe: false,
        network: Network::None,
        sandbox: false,
    }
}

fn growing() -> MachineConfig {
    MachineConfig {
        memory: Bytes(4 << 30),
        memory_max: Bytes(64 << 30),
        vcpus: 2,
        growth: Growth { virtio_mem: true, dimm_slots: 8 },
        far_node: Some(FarNode { distance: 40 }),
        balloon: Some(Balloon { free_page_reporting: true }),
        probe: true,
        network: Network::User,
        sandbox: true,
        ..simple()
    }
}

fn line_of(
    config: &MachineConfig,
    accelerator: AcceleratorKind,
    capabilities: &Capabilities,
) -> Result<String> {
    let files = MachineFiles::new("/run/rackmem/vms/web1").unwrap();
    let words = arguments(config, &files, accelerator, capabilities)?;
    let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
    Ok(words.join("\n").replace("\n-", "\u{0}-").replace('\n', " ").replace('\u{0}', "\n"))
}

#[test]
fn a_small_machine_by_translation() {
    insta::assert_snapshot!(line_of(&simple(), AcceleratorKind::Tcg, &capable()).unwrap());
}

#[test]
fn a_machine_that_grows_into_a_far_node_by_kvm() {
    insta::assert_snapshot!(line_of(&growing(), AcceleratorKind::Kvm, &capable()).unwrap());
}

#[test]
fn a_device_has_whole_blocks_of_the_guests_kernel_so_that_all_of_it_can_be_plugged() {
    let config = MachineConfig { memory: Bytes(192 << 20), memory_max: Bytes(512 << 20), ..growing() };
    let line = line_of(&config, AcceleratorKind::Kvm, &capable()).unwrap();
    assert!(line.contains("vmem0-memory,size=384M"), "{line}");
    assert!(line.contains(&format!("maxmem={}M", 192 + 384 + 320)), "{line}");
}

#[test]
fn a_disk_with_a_seed() {
    let config = MachineConfig {
        kernel: None,
        disk: Some(Disk { path: "/images/web,1.qcow2".into(), format: DiskFormat::Qcow2 }),
        seed: Some("/run/rackmem/vms/web1/seed.img".into()),
        network: Network::Tap { interface: "tap0".to_owned(), mac: "52:54:00:12:34:56".to_owned() },
        ..simple()
    };
    insta::assert_snapshot!(line_of(&config, AcceleratorKind::Tcg, &capable()).unwrap());
}

#[test]
fn what_this_qemu_lacks_is_said_before_it_starts() {
    let check = |capabilities: Capabilities, word: &str| {
        let error = line_of(&growing(), AcceleratorKind::Kvm, &capabilities).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    };
    check(Capabilities { virtio_mem: false, ..capable() }, "virtio-mem");
    check(Capabilities { pc_dimm: false, ..capable() }, "DIMMs");
    check(Capabilities { balloon: false, ..capable() }, "balloon");
    check(Capabilities { sandbox: false, ..capable() }, "sandbox");
    let plain = Capabilities { free_page_reporting: false, unreserved_memory: false, ..capable() };
    let line = line_of(&growing(), AcceleratorKind::Kvm, &plain).unwrap();
    assert!(!line.contains("free-page-reporting") && !line.contains("reserve="), "{line}");
}

#[test]
fn machines_that_cannot_be_are_refused_with_a_sentence() {
    let check = |config: MachineConfig, words: &str| {
        let error = line_of(&config, AcceleratorKind::Tcg, &capable()).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    };
    check(MachineConfig { name: "../web".to_owned(), ..simple() }, "cannot name");
    check(MachineConfig { name: "-daemonize".to_owned(), ..simple() }, "cannot name");
    check(MachineConfig { memory: Bytes(1 << 20), ..simple() }, "too little");
    check(MachineConfig { memory_max: Bytes(256 << 20), ..simple() }, "below");
    check(MachineConfig { memory: Bytes((512 << 20) - 4096), ..simple() }, "multiple of 2MiB");
    check(MachineConfig { memory_max: Bytes(1 << 30), ..simple() }, "neither virtio-mem nor DIMM");
    check(MachineConfig { vcpus: 0, ..simple() }, "0 virtual CPUs");
    check(MachineConfig { kernel: None, ..simple() }, "nothing to boot");
    check(MachineConfig { far_node: Some(FarNode { distance: 10 }), ..growing() }, "distance of 10");
}

proptest! {
    #[test]
    fn every_machine_that_passes_the_check_has_a_command_line(
        memory in 16u64..4096, growth in 0u64..4096, vcpus in 0u32..300, virtio_mem: bool, dimm_slots in 0u8..9,
        distance in prop::option::of(any::<u8>()),
    ) {
        let config = MachineConfig {
            memory: Bytes(memory << 21),
            memory_max: Bytes((memory + growth) << 21),
            vcpus,
            growth: Growth { virtio_mem, dimm_slots },
            far_node: distance.map(|distance| FarNode { distance }),
            ..simple()
        };
        let line = line_of(&config, AcceleratorKind::Tcg, &capable());
        prop_assert_eq!(line.is_ok(), config.check().is_ok());
        if let Ok(line) = line {
            prop_assert_eq!(line.contains("virtio-mem-pci"), virtio_mem && growth > 0);
            prop_assert_eq!(line.matches("nodeid").count(), if distance.is_some() { 2 } else { 0 });
        }
    }
}
