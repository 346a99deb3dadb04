//! The guest's first and only root directory: busybox, the probe, the kernel's modules and the program that starts them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::cpio::{Archive, Node};
use super::modules::Module;

/// The guest's first program.
const INIT: &str = include_str!("init");

/// What the power button runs.
const POWER_BUTTON: (&str, &str) = ("etc/acpi/PWRF/00000080", "#!/bin/sh\nexec poweroff -f\n");

const DIRECTORIES: [&str; 9] =
    ["bin", "dev", "proc", "sys", "tmp", "modules", "etc", "etc/acpi", "etc/acpi/PWRF"];

/// The archive as the kernel unpacks it.
pub(super) fn archive(busybox: &Path, probe: &Path, modules: &[Module]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in DIRECTORIES {
        archive.add(directory, &Node::Directory);
    }
    // The kernel opens the console before the first program can mount anything.
    archive.add("dev/console", &Node::Device { major: 5, minor: 1 });
    archive.add("init", &program(INIT.into()));
    archive.add("bin/busybox", &program(read(busybox)?));
    archive.add("bin/sh", &Node::Link { target: "busybox".to_owned() });
    archive.add("bin/guest-probe", &program(read(probe)?));
    archive.add(POWER_BUTTON.0, &program(POWER_BUTTON.1.into()));
    for (number, module) in modules.iter().enumerate() {
        let path = format!("modules/{number:02}-{}.ko", module.name);
        archive.add(&path, &Node::File { content: module.content.clone(), executable: false });
    }
    Ok(archive.finish())
}

fn program(content: Vec<u8>) -> Node {
    Node::File { content, executable: true }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("could not read {}", path.display()))
}
