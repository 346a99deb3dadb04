//! `cargo xtask guest`: a small virtual machine for tests, made of the distribution's kernel for virtual machines, its static
//! busybox and our `guest-probe`. Nothing is installed into the running system. See `docs/test-guests.md`.

mod cpio;
mod initramfs;
mod modules;
mod package;
mod rig;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::commands::{self, cargo};

/// What the guest has drivers for, beside what the kernel has built in.
const MODULES: [&str; 11] = [
    "virtio_pci",
    "virtio_mem",
    "virtio_balloon",
    "virtio_console",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "vmw_vsock_virtio_transport",
    "button",
    "evdev",
    "zram",
];

const BUSYBOX: &str = "busybox-static";
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the guest
#[derive(Args, Default)]
pub(crate) struct Options {
    /// Look for a newer kernel package; else the one that was downloaded before is used
    #[arg(long)]
    update: bool,
    /// A kernel package of Debian's form to take instead of the distribution's
    #[arg(long, value_name = "FILE.deb")]
    kernel_package: Option<PathBuf>,
    /// Also build the machine in which QEMU has KVM, with this `rackmem` program in it
    #[arg(long, value_name = "RACKMEM")]
    kvm_rig: Option<PathBuf>,
}

/// Builds the guest's kernel and initramfs into `guest` in the target directory.
pub(crate) fn run(options: &Options) -> Result<()> {
    let place = target_directory()?.join("guest");
    let cache = place.join("packages");
    fs::create_dir_all(&cache)?;
    let package = kernel_package(&place, &cache, options)?;
    let image = only_entry(&package.join("boot"), "vmlinuz-")?;
    let modules = only_entry(&package.join("lib/modules"), "")?;
    let modules = modules.join("kernel");
    let busybox = package::unpacked(&cache, BUSYBOX)?.join("bin/busybox");
    let probe = probe()?;
    let initrd = |wanted: &[&str]| initramfs::archive(&busybox, &probe, &modules::closure(&modules, wanted)?);
    let guest = initrd(&MODULES)?;
    if let Some(rackmem) = &options.kvm_rig {
        let mut outer = initrd(&[&MODULES[..], &rig::MODULES].concat())?;
        outer.extend(rig::archive(rackmem, &image, &guest)?);
        appear(&place.join("kvm-rig"), &outer)?;
    }
    appear(&place.join("kernel"), &fs::read(&image)?)?;
    appear(&place.join("initrd"), &guest)?;
    eprintln!("{} and initrd are ready ({})", place.join("kernel").display(), file_name(&image));
    Ok(())
}

/// Downloaded once: tests should not depend on a network, and a kernel should not change from run to run.
fn kernel_package(place: &Path, cache: &Path, options: &Options) -> Result<PathBuf> {
    if let Some(file) = &options.kernel_package {
        let name = file.file_stem().context("--kernel-package names no file")?;
        let unpacked = cache.join(name);
        return if unpacked.is_dir() { Ok(unpacked) } else { package::unpack(file, &unpacked) };
    }
    let chosen = place.join("kernel-package");
    let name = match fs::read_to_string(&chosen) {
        Ok(name) if !options.update => name,
        _ => package::kernel_name()?,
    };
    let unpacked = package::unpacked(cache, &name)?;
    appear(&chosen, name.as_bytes())?;
    Ok(unpacked)
}

/// The probe, linked without shared libraries: the guest has none.
fn probe() -> Result<PathBuf> {
    let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", TARGET.to_uppercase().replace('-', "_"));
    commands::run(cargo()?.env(flags, "-C target-feature=+crt-static").args([
        "build",
        "--release",
        "--package",
        "guest-probe",
        "--bin",
        "guest-probe",
        "--target",
        TARGET,
    ]))?;
    Ok(target_directory()?.join(TARGET).join("release/guest-probe"))
}

/// This program lies in it, beside `release`.
fn target_directory() -> Result<PathBuf> {
    let own = env::current_exe()?;
    let target = own.parent().and_then(Path::parent).context("xtask lies in no target directory")?;
    Ok(target.to_owned())
}

/// The one entry of `directory` whose name starts with `prefix`.
fn only_entry(directory: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(directory)
        .with_context(|| format!("the kernel package has no {}", directory.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let mut matching = paths.into_iter().filter(|path| file_name(path).starts_with(prefix));
    match (matching.next(), matching.next()) {
        (Some(path), None) => Ok(path),
        _ => bail!("{} holds not just one {prefix}…: is this a kernel package?", directory.display()),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Writes a file that is never seen half: guests may be starting from it.
fn appear(path: &Path, content: &[u8]) -> Result<()> {
    let directory = path.parent().context("a file lies in a directory")?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    std::io::Write::write_all(&mut file, content)?;
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(readable)?;
    file.persist(path)?;
    Ok(())
}
