//! From what the API asks for to what QEMU is started with.

use rackmem_api::agent::{Driver, VmSpec};
use rackmem_api::problem::ProblemType;
use rackmem_api::{LatencyClass, Problem};
use rackmem_qemu::image::ImageInfo;
use rackmem_qemu::{Balloon, Disk, FarNode, Growth, Kernel, MachineConfig, MachineFiles, Network};

use super::Dimms;

/// The words that a kernel gets in any case: where it is to speak, and that plugged memory is to be used at once.
/// `online_movable` lets the guest give it back later.
const COMMAND_LINE: &str = "console=ttyS0 memhp_default_state=online_movable";

/// The machine for `spec`, whose first disk, if it has one, is `image`. It grows by what was asked for, else by virtio-mem where
/// QEMU has that, else by DIMMs.
pub(crate) fn machine_config(
    spec: &VmSpec,
    image: Option<&ImageInfo>,
    files: &MachineFiles,
    has_virtio_mem: bool,
) -> Result<MachineConfig, Problem> {
    let boot = &spec.boot;
    let kernel = boot.kernel.clone().map(|image| Kernel {
        image,
        initrd: boot.initrd.clone(),
        command_line: [COMMAND_LINE, boot.append.as_deref().unwrap_or_default()]
            .join(" ")
            .trim_end()
            .to_owned(),
    });
    let disk =
        boot.disks.first().zip(image).map(|(path, image)| Disk { path: path.clone(), format: image.format });
    let memory_max = spec.memory_max.unwrap_or(spec.memory);
    let grows = memory_max > spec.memory;
    let by_virtio_mem = match spec.growth {
        Some(growth) => growth == rackmem_api::agent::Growth::VirtioMem,
        None => has_virtio_mem,
    };
    let dimms = Dimms::of(spec);
    if grows && !by_virtio_mem && dimms.slots == 0 {
        let detail = format!(
            "with DIMMs a machine grows by {0} at a time: let memory_max be at least {0} more than memory",
            dimms.unit
        );
        return Err(Problem::new(ProblemType::Invalid, detail));
    }
    let growth = Growth {
        virtio_mem: grows && by_virtio_mem,
        dimm_slots: if grows && !by_virtio_mem { dimms.slots } else { 0 },
    };
    Ok(MachineConfig {
        name: spec.name.as_str().to_owned(),
        memory: spec.memory,
        memory_max,
        vcpus: spec.vcpus,
        kernel,
        disk,
        seed: boot.cloud_init.as_ref().map(|path| if path.is_dir() { files.seed() } else { path.clone() }),
        growth,
        far_node: spec.far_node.filter(|_| grows).map(|class| FarNode { distance: distance(class) }),
        balloon: Some(Balloon { free_page_reporting: true }),
        probe: true,
        network: Network::User,
        // A filtered process cannot be entered by the pager; libvirt has its own setting.
        sandbox: spec.local.is_none() && spec.driver == Driver::Qemu,
    })
}

/// The distance of a latency class as ACPI counts it, where 10 is a processor's own memory and 20 that of the next
/// socket, about 1.5 to 2 times as slow. Far memory is slower by orders of magnitude; what matters to a guest's kernel is
/// the order, and that all of it lies beyond any socket.
pub(super) const fn distance(class: LatencyClass) -> u8 {
    match class {
        LatencyClass::Local => 20,
        LatencyClass::Tray => 40,
        LatencyClass::Rack => 80,
        LatencyClass::Interrack => 160,
    }
}
