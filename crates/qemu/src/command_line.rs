//! From what a machine should be to QEMU's arguments. Pure: the same configuration gives the same arguments, and whatever
//! this QEMU lacks is said before it is started.

use std::ffi::OsString;
use std::path::Path;

use rackmem_types::Bytes;

use crate::option::Opt;
use crate::{
    AcceleratorKind, Capabilities, Disk, Kernel, MEMORY_BLOCK, MachineConfig, MachineFiles, Network,
    QemuError, Result,
};

/// The id of the virtio-mem device in machines that are started here.
pub const VIRTIO_MEM_ID: &str = "vmem0";

/// The id of the balloon in machines that are started here.
pub const BALLOON_ID: &str = "balloon0";

/// The name of the probe's port inside the guest: `/dev/virtio-ports/rackmem.probe`.
pub const PROBE_PORT: &str = "rackmem.probe";

/// Its value tells one machine's process from another's.
pub(crate) const PIDFILE_FLAG: &str = "-pidfile";

/// NUMA node of the processors and of the memory that the guest boots with.
pub(crate) const NEAR_NODE: u32 = 0;

/// NUMA node of what grows, if it has one of its own.
pub const FAR_NODE: u32 = 1;

/// Room for translated code, in MiB. QEMU's own choice is 1 GiB; it is memory of the process like the guest's, and a guest's
/// hot code fits in this.
pub(crate) const TRANSLATED_MIB: u32 = 256;

/// QEMU's arguments for a machine. Its virtual CPUs stand until it is told to go on.
pub fn arguments(
    config: &MachineConfig,
    files: &MachineFiles,
    accelerator: AcceleratorKind,
    capabilities: &Capabilities,
) -> Result<Vec<OsString>> {
    config.check()?;
    able(config, capabilities)?;
    let mut line = Line(Vec::new());
    line.process(config, files);
    line.processors(config, accelerator);
    line.memory(config, capabilities);
    line.boot(config);
    line.channels(config, files);
    line.network(&config.network);
    line.add("-device", Opt::new("virtio-rng-pci"));
    Ok(line.0)
}

/// Says what this QEMU lacks.
pub(crate) fn able(config: &MachineConfig, capabilities: &Capabilities) -> Result<()> {
    let growable = config.growable() > Bytes(0);
    let lacks = [
        (
            growable && config.growth.virtio_mem && !capabilities.virtio_mem,
            "virtio-mem",
            "use DIMM slots instead",
        ),
        (config.growth.dimm_slots > 0 && !capabilities.pc_dimm, "DIMMs", "use virtio-mem instead"),
        (config.balloon.is_some() && !capabilities.balloon, "a balloon", "make the machine without one"),
        (config.sandbox && !capabilities.sandbox, "a sandbox", "make the machine without one"),
    ];
    match lacks.into_iter().find(|(lacking, ..)| *lacking) {
        Some((_, what, remedy)) => Err(QemuError::Unable {
            program: crate::PROGRAM.into(),
            version: capabilities.version_text(),
            what: format!("give '{}' {what}", config.name),
            remedy: remedy.to_owned(),
        }),
        None => Ok(()),
    }
}

/// Arguments as they grow.
struct Line(Vec<OsString>);

impl Line {
    fn add(&mut self, flag: &str, option: Opt) {
        self.0.extend([flag.into(), option.finish()]);
    }

    fn bare(&mut self, flag: &str) {
        self.0.push(flag.into());
    }

    fn process(&mut self, config: &MachineConfig, files: &MachineFiles) {
        self.add("-name", Opt::keyed("guest", &config.name).set("debug-threads", "on"));
        // In a session of its own, so that it outlives whoever starts it; vCPUs stand until far memory is in force.
        for flag in ["-S", "-daemonize", "-nodefaults", "-no-user-config"] {
            self.bare(flag);
        }
        self.add("-display", Opt::new("none"));
        self.plain(PIDFILE_FLAG, &files.pid());
        self.plain("-D", &files.log());
        self.add("-msg", Opt::keyed("timestamp", "on"));
        if config.sandbox {
            // `spawn` and `elevateprivileges` would also deny QEMU to go into a session of its own.
            self.add("-sandbox", Opt::new("on").set("obsolete", "deny").set("resourcecontrol", "deny"));
        }
    }

    /// An argument that QEMU takes as it is, commas and all.
    fn plain(&mut self, flag: &str, path: &Path) {
        self.0.extend([flag.into(), path.into()]);
    }

    fn processors(&mut self, config: &MachineConfig, accelerator: AcceleratorKind) {
        let near = if config.far_node.is_none() { Some("ram0") } else { None };
        self.add("-machine", Opt::new("q35").set("vmport", "off").set_some("memory-backend", near));
        match accelerator {
            AcceleratorKind::Kvm => {
                self.add("-accel", Opt::new("kvm"));
                self.add("-cpu", Opt::new("host"));
            }
            AcceleratorKind::Tcg => {
                self.add("-accel", Opt::new("tcg").set("thread", "multi").set("tb-size", TRANSLATED_MIB));
                self.add("-cpu", Opt::new("max"));
            }
        }
        self.add("-smp", Opt::keyed("cpus", config.vcpus));
    }

    fn memory(&mut self, config: &MachineConfig, capabilities: &Capabilities) {
        let (memory, growable, for_virtio_mem) = (config.memory, config.growable(), config.virtio_mem_size());
        let by_dimms = config.growth.dimm_slots > 0 && growable > Bytes(0);
        // Each means of growth has address space for all of the growth.
        let for_dimms = if by_dimms { growable.0 } else { 0 };
        let address_space = memory.0 + for_virtio_mem.0 + for_dimms;
        let size = Opt::keyed("size", mib(memory))
            .set_if(growable > Bytes(0), "maxmem", mib(Bytes(address_space)))
            .set_if(by_dimms, "slots", config.growth.dimm_slots);
        self.add("-m", size);
        self.add("-object", backend("ram0", memory, capabilities));
        if let Some(far) = config.far_node {
            let cpus = match config.vcpus {
                1 => "0".to_owned(),
                count => format!("0-{}", count - 1),
            };
            let near = Opt::new("node").set("nodeid", NEAR_NODE).set("cpus", cpus).set("memdev", "ram0");
            self.add("-numa", near);
            self.add("-numa", Opt::new("node").set("nodeid", FAR_NODE));
            let distance =
                Opt::new("dist").set("src", NEAR_NODE).set("dst", FAR_NODE).set("val", far.distance);
            self.add("-numa", distance);
        }
        if for_virtio_mem > Bytes(0) {
            self.add("-object", backend("vmem0-memory", for_virtio_mem, capabilities));
            let device = Opt::new("virtio-mem-pci")
                .set("id", VIRTIO_MEM_ID)
                .set("memdev", "vmem0-memory")
                .set_some("node", config.far_node.map(|_| FAR_NODE))
                .set("block-size", mib(MEMORY_BLOCK))
                .set("requested-size", 0);
            self.add("-device", device);
        }
        if let Some(balloon) = config.balloon {
            let reporting = balloon.free_page_reporting && capabilities.free_page_reporting;
            let device = Opt::new("virtio-balloon-pci")
                .set("id", BALLOON_ID)
                .set("deflate-on-oom", "on")
                .set_if(reporting, "free-page-reporting", "on");
            self.add("-device", device);
        }
    }

    fn boot(&mut self, config: &MachineConfig) {
        if let Some(Kernel { image, initrd, command_line }) = &config.kernel {
            self.plain("-kernel", image);
            if let Some(initrd) = initrd {
                self.plain("-initrd", initrd);
            }
            self.0.extend(["-append".into(), command_line.into()]);
        }
        if let Some(Disk { path, format }) = &config.disk {
            self.drive("disk0", path, format.as_str(), "off", Some(1));
        }
        if let Some(seed) = &config.seed {
            self.drive("seed0", seed, "raw", "on", None);
        }
    }

    fn drive(&mut self, id: &str, path: &Path, format: &str, read_only: &str, boot_index: Option<u32>) {
        let block = Opt::keyed("driver", format)
            .set("node-name", id)
            .set("read-only", read_only)
            .set("discard", "unmap")
            .set("file.driver", "file")
            .path("file.filename", path);
        self.add("-blockdev", block);
        let device = Opt::new("virtio-blk-pci").set("drive", id).set_some("bootindex", boot_index);
        self.add("-device", device);
    }

    fn channels(&mut self, config: &MachineConfig, files: &MachineFiles) {
        let socket = |id: &str, path: &Path| {
            Opt::new("socket").set("id", id).path("path", path).set("server", "on").set("wait", "off")
        };
        self.add("-chardev", socket("qmp", &files.qmp()));
        self.add("-mon", Opt::keyed("chardev", "qmp").set("mode", "control"));
        let console =
            socket("console", &files.console()).path("logfile", files.console_log()).set("logappend", "on");
        self.add("-chardev", console);
        self.add("-serial", Opt::new("chardev:console"));
        if config.probe {
            self.add("-device", Opt::new("virtio-serial-pci"));
            self.add("-chardev", socket("probe", &files.probe()));
            let port = Opt::new("virtserialport").set("chardev", "probe").set("name", PROBE_PORT);
            self.add("-device", port);
        }
    }

    fn network(&mut self, network: &Network) {
        match network {
            Network::None => {}
            Network::User => {
                self.add("-netdev", Opt::new("user").set("id", "net0"));
                self.add("-device", Opt::new("virtio-net-pci").set("netdev", "net0"));
            }
            Network::Tap { interface, mac } => {
                let tap = Opt::new("tap").set("id", "net0").set("ifname", interface);
                self.add("-netdev", tap.set("script", "no").set("downscript", "no"));
                self.add("-device", Opt::new("virtio-net-pci").set("netdev", "net0").set("mac", mac));
            }
        }
    }
}

/// Private anonymous memory: the kind that the pager manages. It is not reserved, because what is far needs no room here.
fn backend(id: &str, size: Bytes, capabilities: &Capabilities) -> Opt {
    Opt::new("memory-backend-ram").set("id", id).set("size", mib(size)).set("share", "off").set_if(
        capabilities.unreserved_memory,
        "reserve",
        "off",
    )
}

/// Every amount is a multiple of a MiB by now, and reads better so.
fn mib(size: Bytes) -> String {
    format!("{}M", size.0 >> 20)
}

#[cfg(test)]
mod tests;
