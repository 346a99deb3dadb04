//! Swap areas. *Remote swap without drivers*: a RAM disk served over TCP (`nbdkit memory`), seen as a file through FUSE
//! (`nbdfuse`), as a block device through a loop device with direct IO. *Compressed swap*: zram, which never leaves the machine.
//!
//! The kernel's swap read-ahead is switched off meanwhile, as the touches are random. Only one area is in use at a time, and
//! none on a machine that swaps already: the figures would say nothing, and the machine's own swap must not be touched.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rackmem_types::Bytes;

use crate::process::{Daemon, call, free_port};
use crate::undo::{self, Undo};

const UNMOUNT_TRIES: u32 = 40;

const OOM_TRIES: u32 = 5;

const PAGE_CLUSTER: &str = "/proc/sys/vm/page-cluster";
const ZSWAP: &str = "/sys/module/zswap/parameters/enabled";

/// A swap area in use, taken out of use and taken down when this is dropped. The fields are dropped in the order in which
/// they stand: swap first, servers last.
#[derive(Debug)]
pub(crate) struct SwapArea {
    _used: Undo,
    _settings: Vec<Undo>,
    _device: Undo,
    _mount: Option<Undo>,
    _servers: Vec<Daemon>,
    _directory: Option<Undo>,
}

impl SwapArea {
    /// Swap on a memory server of `size` at the other end of a TCP connection.
    pub(crate) fn remote(size: Bytes) -> Result<Self> {
        require_no_swap()?;
        let (path, directory) = undo::temporary_directory()?;
        let port = free_port()?;
        let server = Daemon::spawn(
            Command::new("nbdkit")
                .args(["--foreground", "--ipaddr", "127.0.0.1", "--port", &port.to_string()])
                .arg("memory")
                .arg(size.0.to_string()),
        )?;
        server.wait_for_port(port)?;
        let file = path.join("disk");
        fs::write(&file, "")?;
        let bridge =
            // It reports its own regular end as an error.
            Daemon::spawn(
                Command::new("nbdfuse")
                    .arg(&file)
                    .arg(format!("nbd://127.0.0.1:{port}"))
                    .stderr(Stdio::null()),
            )?;
        let (mounted, path) = (file.clone(), file.clone());
        bridge.wait_until("its file", || fs::metadata(&mounted).is_ok_and(|disk| disk.len() == size.0))?;
        let mount = undo::later("unmount the FUSE file", move || unmount(&path));
        let device = call(Command::new("losetup").args(["--find", "--show", "--direct-io=on"]).arg(&file))?;
        let name = device.clone();
        let detach = undo::later(format!("detach {device}"), move || {
            call(Command::new("losetup").arg("--detach").arg(name)).map(drop)
        });
        Ok(Self {
            _used: swap_on(&device)?,
            _settings: settings()?,
            _device: detach,
            _mount: Some(mount),
            _servers: vec![bridge, server],
            _directory: Some(directory),
        })
    }

    /// Compressed swap in this machine's own memory, `size` before compression.
    pub(crate) fn zram(size: Bytes) -> Result<Self> {
        require_no_swap()?;
        let number = fs::read_to_string("/sys/class/zram-control/hot_add")
            .context("no zram on this machine: load the zram module")?
            .trim()
            .to_owned();
        let same = number.clone();
        let device = undo::later(format!("remove zram{number}"), move || {
            fs::write(format!("/sys/block/zram{same}/reset"), "1")?;
            Ok(fs::write("/sys/class/zram-control/hot_remove", same)?)
        });
        fs::write(format!("/sys/block/zram{number}/disksize"), size.0.to_string())?;
        Ok(Self {
            _used: swap_on(&format!("/dev/zram{number}"))?,
            _settings: settings()?,
            _device: device,
            _mount: None,
            _servers: Vec::new(),
            _directory: None,
        })
    }
}

/// Runs a measurement with swap again if it failed. While slow swap writes are under way the kernel may find nothing to
/// reclaim in a control group, and then its OOM killer ends the program although swap has room; that is the peer's weakness
/// and must not end the comparison.
pub(crate) fn surviving_oom<T>(mut measure: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..OOM_TRIES {
        match measure() {
            Err(error) => eprint!("[again, as the peer failed: {error:#}] "),
            done => return done,
        }
    }
    measure()
}

/// The kernel may hold a loop device's file for a moment after the device is detached.
fn unmount(path: &Path) -> Result<()> {
    let fusermount = || call(Command::new("fusermount").arg("-u").arg(path)).map(drop);
    for _ in 1..UNMOUNT_TRIES {
        if fusermount().is_ok() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    fusermount()
}

fn require_no_swap() -> Result<()> {
    let areas = fs::read_to_string("/proc/swaps")?;
    ensure!(
        areas.lines().count() <= 1,
        "this machine swaps already: switch its swap off (swapoff -a) to measure swap as a peer"
    );
    Ok(())
}

fn swap_on(device: &str) -> Result<Undo> {
    call(Command::new("mkswap").arg(device))?;
    call(Command::new("swapon").arg(device)).context("could not switch swap on; run as root")?;
    let device = device.to_owned();
    Ok(undo::later(format!("swapoff {device}"), move || call(Command::new("swapoff").arg(device)).map(drop)))
}

/// One page per swap-in, and no compressed cache in front of the swap area.
fn settings() -> Result<Vec<Undo>> {
    let mut undos = vec![setting(PAGE_CLUSTER, "0")?];
    if Path::new(ZSWAP).exists() {
        undos.push(setting(ZSWAP, "N")?);
    }
    Ok(undos)
}

fn setting(path: &'static str, value: &str) -> Result<Undo> {
    let before = fs::read_to_string(path)?;
    fs::write(path, value).with_context(|| format!("could not set {path}; run as root"))?;
    Ok(undo::later(format!("restore {path}"), move || Ok(fs::write(path, before.trim())?)))
}
