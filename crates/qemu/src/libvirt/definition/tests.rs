//! Golden definitions: a reviewer sees what a change does to a domain.

use proptest::prelude::*;

use super::*;
use crate::{Accelerator, Balloon, Capabilities, DiskFormat, FarNode, Growth};

fn qemu(kind: AcceleratorKind) -> Qemu {
    let capabilities = Capabilities {
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
        monitor: std::collections::BTreeSet::new(),
    };
    let accelerator = Accelerator { kind, reason: String::new() };
    // Any program that is everywhere in the same place.
    Qemu { program: "/bin/sh".into(), capabilities, accelerator }
}

fn simple() -> MachineConfig {
    MachineConfig {
        name: "web1".to_owned(),
        memory: Bytes(512 << 20),
        memory_max: Bytes(512 << 20),
        vcpus: 1,
        kernel: Some(Kernel {
            image: "/boot/vmlinuz".into(),
            initrd: Some("/boot/it's <one>.img".into()),
            command_line: "console=ttyS0 a&b".to_owned(),
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

fn xml(config: &MachineConfig, qemu: &Qemu, confinements: &[String]) -> Result<String> {
    let files = MachineFiles::new("/run/rackmem/vms/web1").unwrap();
    let uuid = "0194a7c2-0000-7000-8000-000000000001";
    Definition { config, files: &files, qemu, uuid, confinements }.xml()
}

#[test]
fn a_small_domain_by_translation() {
    insta::assert_snapshot!(xml(&simple(), &qemu(AcceleratorKind::Tcg), &[]).unwrap());
}

#[test]
fn a_domain_that_grows_into_a_far_node() {
    let growing = MachineConfig {
        memory_max: Bytes(64 << 30),
        vcpus: 2,
        kernel: None,
        disk: Some(Disk { path: "/images/web1.qcow2".into(), format: DiskFormat::Qcow2 }),
        seed: Some("/run/rackmem/vms/web1/seed.img".into()),
        growth: Growth { virtio_mem: true, dimm_slots: 0 },
        far_node: Some(FarNode { distance: 80 }),
        balloon: Some(Balloon { free_page_reporting: true }),
        probe: true,
        network: Network::User,
        ..simple()
    };
    let confinements = ["apparmor".to_owned()];
    insta::assert_snapshot!(xml(&growing, &qemu(AcceleratorKind::Kvm), &confinements).unwrap());
}

#[test]
fn a_dimm() {
    insta::assert_snapshot!(dimm("ua-dimm0", Bytes(128 << 20), None));
}

#[test]
fn what_qemu_lacks_is_told() {
    let mut qemu = qemu(AcceleratorKind::Tcg);
    qemu.capabilities.pc_dimm = false;
    let growth = Growth { virtio_mem: false, dimm_slots: 4 };
    let config = MachineConfig { memory_max: Bytes(1 << 30), growth, ..simple() };
    let error = xml(&config, &qemu, &[]).unwrap_err().to_string();
    assert!(error.contains("DIMMs"), "{error}");
}

proptest! {
    #[test]
    fn no_word_adds_an_element_of_its_own(word in "\\PC*") {
        let config = MachineConfig {
            kernel: simple().kernel.map(|kernel| Kernel { command_line: word, ..kernel }),
            ..simple()
        };
        let with = |config| xml(config, &qemu(AcceleratorKind::Tcg), &[]).unwrap().matches(['<', '>']).count();
        prop_assert_eq!(with(&config), with(&simple()));
    }
}
