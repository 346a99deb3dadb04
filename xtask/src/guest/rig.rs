//! What turns a guest into a machine that has guests of its own under KVM: QEMU, `setpriv` and `rackmem` of the running system with
//! the libraries that they load, QEMU's firmware, and the guest itself to be booted once more inside. The kernel unpacks it on top of
//! the guest's own files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cpio::{Archive, Node};

/// KVM for the processor that QEMU's translator can play: AMD's, with nested paging.
pub(super) const MODULES: [&str; 1] = ["kvm_amd"];

/// Programs of the running system, where they lie in the rig as well: QEMU finds its firmware by its own place.
const QEMU: &str = "/usr/bin/qemu-system-x86_64";
const RACKMEM: &str = "/usr/bin/rackmem";

/// The agent starts what must not outlive it by this program; busybox has none that can.
const SETPRIV: &str = "/usr/bin/setpriv";

/// What a machine without a display and disks needs to boot a kernel, and its network card to be there.
const FIRMWARE: [&str; 4] = ["bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin", "efi-virtio.rom"];
const FIRMWARE_DIRECTORIES: [&str; 3] = ["/usr/share/seabios", "/usr/share/qemu", "/usr/lib/ipxe/qemu"];

/// The archive; `rackmem` is the program to test, `kernel` and `initrd` the guest inside.
pub(super) fn archive(rackmem: &Path, kernel: &Path, initrd: &[u8]) -> Result<Vec<u8>> {
    let mut files = Files::default();
    files.program(Path::new(QEMU), QEMU)?;
    files.program(rackmem, RACKMEM)?;
    files.program(Path::new(SETPRIV), SETPRIV)?;
    for name in FIRMWARE {
        let mut places = FIRMWARE_DIRECTORIES.iter().map(|directory| Path::new(directory).join(name));
        let path = places
            .find(|path| path.is_file())
            .with_context(|| format!("QEMU's {name} is missing: install it by `cargo xtask setup`"))?;
        files.copy(&path, &path.display().to_string(), false)?;
    }
    files.copy(kernel, "/guest/kernel", false)?;
    files.add("/guest/initrd", initrd.to_vec(), false);
    Ok(files.archive.finish())
}

/// An archive with the directories that its files need.
#[derive(Default)]
struct Files {
    archive: Archive,
    present: BTreeSet<String>,
}

impl Files {
    /// Adds a program with the libraries that it loads.
    fn program(&mut self, source: &Path, place: &str) -> Result<()> {
        self.copy(source, place, true)?;
        for library in libraries(source)? {
            let place = library.display().to_string();
            self.copy(&library, &place, true)?;
        }
        Ok(())
    }

    fn copy(&mut self, source: &Path, place: &str, executable: bool) -> Result<()> {
        let content = fs::read(source).with_context(|| format!("could not read {}", source.display()))?;
        self.add(place, content, executable);
        Ok(())
    }

    fn add(&mut self, place: &str, content: Vec<u8>, executable: bool) {
        let place = place.trim_start_matches('/');
        for (at, _) in place.match_indices('/') {
            if self.present.insert(place[..at].to_owned()) {
                self.archive.add(&place[..at], &Node::Directory);
            }
        }
        if self.present.insert(place.to_owned()) {
            self.archive.add(place, &Node::File { content, executable });
        }
    }
}

fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("could not start ldd")?;
    if !output.status.success() {
        bail!("ldd {}: {}", program.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(library_paths(&String::from_utf8(output.stdout)?))
}

/// Lines of `ldd`: `libc.so.6 => /lib/libc.so.6 (0x…)`, or the loader's path alone.
fn library_paths(text: &str) -> Vec<PathBuf> {
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    text.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_with_a_path() {
        let text = "\tlinux-vdso.so.1 (0x00007f)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(library_paths(text), ["/lib/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from));
        assert!(library_paths("\tstatically linked\n").is_empty());
    }

    #[test]
    fn a_directory_stands_before_its_files_and_once() {
        let mut files = Files::default();
        files.add("/usr/bin/a", vec![1], true);
        files.add("/usr/bin/b", vec![2], true);
        files.add("/usr/bin/a", vec![1], true);
        let mut expected = Archive::default();
        expected.add("usr", &Node::Directory);
        expected.add("usr/bin", &Node::Directory);
        expected.add("usr/bin/a", &Node::File { content: vec![1], executable: true });
        expected.add("usr/bin/b", &Node::File { content: vec![2], executable: true });
        assert_eq!(files.archive.finish(), expected.finish());
    }
}
