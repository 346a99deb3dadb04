//! From what a machine should be to a domain's definition in libvirt's XML: the same machine that
//! [`crate::command_line`] describes to QEMU itself. Pure, and what the QEMU lacks is said before libvirt is asked.

use std::fmt::{Display, Write};
use std::path::Path;

use rackmem_types::Bytes;

use crate::command_line::{BALLOON_ID, FAR_NODE, NEAR_NODE, PROBE_PORT, TRANSLATED_MIB, VIRTIO_MEM_ID, able};
use crate::{
    AcceleratorKind, Disk, Driver, Kernel, MEMORY_BLOCK, MachineConfig, MachineFiles, Network, Qemu,
    QemuError, Result,
};

/// libvirt gives every node memory that is there from the start, and QEMU takes none of zero bytes: of the boot memory the far node
/// has this much. Linux passes over nodes of less than 4 MiB.
const FAR_NODE_OWN: Bytes = Bytes(16 << 20);

/// A processor's distance to its own memory, as ACPI counts it.
const DISTANCE_OWN: u8 = 10;

/// What a domain is defined from.
#[derive(Clone, Copy, Debug)]
pub struct Definition<'a> {
    /// The machine.
    pub config: &'a MachineConfig,
    /// Where its sockets and its console's log lie.
    pub files: &'a MachineFiles,
    /// What runs it.
    pub qemu: &'a Qemu,
    /// By what libvirt shall know it.
    pub uuid: &'a str,
    /// libvirt's security drivers beside the one of users and groups.
    pub confinements: &'a [String],
}

impl Definition<'_> {
    /// libvirt's XML.
    pub(super) fn xml(&self) -> Result<String> {
        self.config.check()?;
        able(self.config, &self.qemu.capabilities)?;
        let mut xml = String::new();
        self.identity(&mut xml)?;
        self.memory(&mut xml);
        self.processors(&mut xml);
        self.boot(&mut xml)?;
        xml += "<devices>\n";
        let emulator = crate::mortal::find(&self.qemu.program)
            .map_err(|reason| QemuError::program(&self.qemu.program, reason))?;
        let _ = writeln!(xml, "<emulator>{}</emulator>", self.path(&emulator)?);
        xml += "<controller type='usb' model='none'/>\n<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>\n";
        self.disks(&mut xml)?;
        self.channels(&mut xml)?;
        self.network(&mut xml);
        self.memory_devices(&mut xml);
        xml += "</devices>\n</domain>\n";
        Ok(xml)
    }

    fn identity(&self, xml: &mut String) -> Result<()> {
        let kind = match self.qemu.accelerator.kind {
            AcceleratorKind::Kvm => "kvm",
            AcceleratorKind::Tcg => "qemu",
        };
        let (name, uuid) = (text(&self.config.name), text(self.uuid));
        let _ = writeln!(xml, "<domain type='{kind}'>\n<name>{name}</name>\n<uuid>{uuid}</uuid>");
        let _ = writeln!(
            xml,
            "<description>Made by the rackmem agent with its files in {}: change it by 'rackmem vm'</description>",
            self.path(&self.files.directory)?
        );
        *xml += "<on_poweroff>destroy</on_poweroff>\n<on_reboot>restart</on_reboot>\n<on_crash>destroy</on_crash>\n";
        // As the agent's own machines: QEMU reaches what the agent reaches, and the pager may enter it.
        *xml += "<seclabel type='static' model='dac' relabel='no'><label>+0:+0</label></seclabel>\n";
        for model in self.confinements {
            let _ = writeln!(xml, "<seclabel type='none' model='{}'/>", text(model));
        }
        Ok(())
    }

    fn memory(&self, xml: &mut String) {
        let MachineConfig { memory, growth, .. } = self.config;
        let growable = self.config.growable();
        let _ = writeln!(xml, "<memory unit='MiB'>{}</memory>", mib(*memory));
        if growable > Bytes(0) {
            // Each means of growth has address space for all of the growth.
            let for_dimms = if growth.dimm_slots > 0 { growable.0 } else { 0 };
            let most = mib(Bytes(memory.0 + self.config.virtio_mem_size().0 + for_dimms));
            let slots = growth.dimm_slots.max(1);
            let _ = writeln!(xml, "<maxMemory slots='{slots}' unit='MiB'>{most}</maxMemory>");
        }
    }

    fn processors(&self, xml: &mut String) {
        let _ = writeln!(xml, "<vcpu>{}</vcpu>", self.config.vcpus);
        *xml += "<features><acpi/><apic/><vmport state='off'/>";
        let model = match self.qemu.accelerator.kind {
            AcceleratorKind::Kvm => "host-passthrough",
            AcceleratorKind::Tcg => {
                let _ = write!(xml, "<tcg><tb-cache unit='MiB'>{TRANSLATED_MIB}</tb-cache></tcg>");
                "maximum"
            }
        };
        let _ = write!(xml, "</features>\n<cpu mode='{model}' check='none'>");
        // libvirt plugs only into nodes.
        if self.config.growable() > Bytes(0) {
            self.nodes(xml);
        }
        *xml += "</cpu>\n";
    }

    fn nodes(&self, xml: &mut String) {
        let last = self.config.vcpus - 1;
        let cell = |id: u32, cpus: &str, size: u64, distances: &str| {
            format!("<cell id='{id}'{cpus} memory='{size}' unit='MiB'>{distances}</cell>\n")
        };
        let cpus = format!(" cpus='0-{last}'");
        let memory = mib(self.config.memory);
        *xml += "<numa>\n";
        match self.config.far_node {
            None => *xml += &cell(NEAR_NODE, &cpus, memory, ""),
            Some(far) => {
                let distances = |near: u8, far: u8| {
                    format!(
                        "<distances><sibling id='{NEAR_NODE}' value='{near}'/><sibling id='{FAR_NODE}' value='{far}'/></distances>"
                    )
                };
                let own = mib(FAR_NODE_OWN);
                *xml += &cell(NEAR_NODE, &cpus, memory - own, &distances(DISTANCE_OWN, far.distance));
                *xml += &cell(FAR_NODE, "", own, &distances(far.distance, DISTANCE_OWN));
            }
        }
        *xml += "</numa>";
    }

    fn boot(&self, xml: &mut String) -> Result<()> {
        *xml += "<os><type arch='x86_64' machine='q35'>hvm</type>";
        if let Some(Kernel { image, initrd, command_line }) = &self.config.kernel {
            let _ = write!(xml, "<kernel>{}</kernel>", self.path(image)?);
            if let Some(initrd) = initrd {
                let _ = write!(xml, "<initrd>{}</initrd>", self.path(initrd)?);
            }
            let _ = write!(xml, "<cmdline>{}</cmdline>", text(command_line));
        }
        *xml += "</os>\n";
        Ok(())
    }

    fn disks(&self, xml: &mut String) -> Result<()> {
        if let Some(Disk { path, format }) = &self.config.disk {
            self.disk(xml, "vda", path, format.as_str(), "<boot order='1'/>")?;
        }
        if let Some(seed) = &self.config.seed {
            self.disk(xml, "vdb", seed, "raw", "<readonly/>")?;
        }
        Ok(())
    }

    fn disk(&self, xml: &mut String, target: &str, path: &Path, format: &str, rest: &str) -> Result<()> {
        let path = self.path(path)?;
        let _ = writeln!(
            xml,
            "<disk type='file' device='disk'><driver name='qemu' type='{format}' discard='unmap'/><source file='{path}'/><target dev='{target}' bus='virtio'/>{rest}</disk>"
        );
        Ok(())
    }

    fn channels(&self, xml: &mut String) -> Result<()> {
        let (console, log) = (self.path(&self.files.console())?, self.path(&self.files.console_log())?);
        let _ = writeln!(
            xml,
            "<serial type='unix'><source mode='bind' path='{console}'/><log file='{log}' append='on'/><target port='0'/></serial>"
        );
        if self.config.probe {
            let probe = self.path(&self.files.probe())?;
            let _ = writeln!(
                xml,
                "<channel type='unix'><source mode='bind' path='{probe}'/><target type='virtio' name='{PROBE_PORT}'/></channel>"
            );
        }
        Ok(())
    }

    fn network(&self, xml: &mut String) {
        match &self.config.network {
            Network::None => {}
            Network::User => *xml += "<interface type='user'><model type='virtio'/></interface>\n",
            Network::Tap { interface, mac } => {
                let (interface, mac) = (text(interface), text(mac));
                let _ = writeln!(
                    xml,
                    "<interface type='ethernet'><mac address='{mac}'/><target dev='{interface}' managed='no'/><model type='virtio'/></interface>"
                );
            }
        }
    }

    fn memory_devices(&self, xml: &mut String) {
        match self.config.balloon {
            None => *xml += "<memballoon model='none'/>\n",
            Some(balloon) => {
                let reports = balloon.free_page_reporting && self.qemu.capabilities.free_page_reporting;
                let reports = if reports { "on" } else { "off" };
                let id = Driver::Libvirt.device_id(BALLOON_ID);
                let _ = writeln!(
                    xml,
                    "<memballoon model='virtio' autodeflate='on' freePageReporting='{reports}'><alias name='{id}'/></memballoon>"
                );
            }
        }
        let size = self.config.virtio_mem_size();
        if size > Bytes(0) {
            let node = if self.config.far_node.is_some() { FAR_NODE } else { NEAR_NODE };
            let (size, block) = (mib(size), mib(MEMORY_BLOCK));
            let id = Driver::Libvirt.device_id(VIRTIO_MEM_ID);
            let _ = writeln!(
                xml,
                "<memory model='virtio-mem'><target><size unit='MiB'>{size}</size><node>{node}</node><block unit='MiB'>{block}</block><requested unit='MiB'>0</requested></target><alias name='{id}'/></memory>"
            );
        }
    }

    /// A path, as XML has it.
    fn path(&self, path: &Path) -> Result<String> {
        match path.to_str() {
            Some(path) => Ok(text(path)),
            None => {
                let reason = format!("libvirt takes no path like {}: give one in UTF-8", path.display());
                Err(QemuError::Config { name: self.config.name.clone(), reason })
            }
        }
    }
}

/// A DIMM that is plugged into a running domain.
pub(super) fn dimm(id: &str, size: Bytes, node: Option<u32>) -> String {
    format!(
        "<memory model='dimm'><target><size unit='MiB'>{}</size><node>{}</node></target><alias name='{}'/></memory>",
        mib(size),
        node.unwrap_or(NEAR_NODE),
        text(id)
    )
}

/// Every amount is a multiple of a MiB by now.
fn mib(size: Bytes) -> u64 {
    size.0 >> 20
}

/// Text or an attribute's value, as XML has it. What no XML can hold becomes a question mark, and names no file.
fn text(value: impl Display) -> String {
    let mut text = String::new();
    for character in value.to_string().chars() {
        match character {
            '&' => text += "&amp;",
            '<' => text += "&lt;",
            '>' => text += "&gt;",
            '\'' => text += "&apos;",
            '"' => text += "&quot;",
            '\t' | '\n' | '\r' => {
                let _ = write!(text, "&#{};", u32::from(character));
            }
            control if control.is_control() => text.push('?'),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests;
