//! A machine with the test guest, which ends with the test whatever happens in it.

use std::path::Path;
use std::time::Duration;

use guest_probe::{GuestFiles, ProbeClient};
use rackmem_qemu::{
    Accelerator, AcceleratorKind, Balloon, Capabilities, DirectMachine, Growth, Kernel, Machine,
    MachineConfig, MachineFiles, Network, PROGRAM, ProcessIdentity, Qemu,
};
use rackmem_types::Bytes;
use tempfile::TempDir;

pub(crate) const MIB: u64 = 1 << 20;

/// The guest boots in three seconds by translation, on a busy machine in many more.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A place for one machine.
pub(crate) struct Place {
    pub(crate) files: MachineFiles,
    _directory: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { files: MachineFiles::new(directory.path()).unwrap(), _directory: directory }
    }

    /// Connects to the guest's probe.
    pub(crate) async fn probe(&self) -> ProbeClient {
        let socket = self.files.probe();
        tokio::task::spawn_blocking(move || ProbeClient::connect(&socket, PATIENCE)).await.unwrap().unwrap()
    }
}

/// Ends the process when the test does.
pub(crate) struct Reaper(pub(crate) ProcessIdentity);

impl Drop for Reaper {
    fn drop(&mut self) {
        if self.0.is_alive() {
            let _ = std::process::Command::new("kill").args(["-KILL", &self.0.pid.to_string()]).status();
        }
    }
}

/// The test guest with 256 MiB that can grow to 1 GiB.
pub(crate) fn config() -> MachineConfig {
    let guest = GuestFiles::find().unwrap();
    MachineConfig {
        name: "test-guest".to_owned(),
        memory: Bytes(256 * MIB),
        memory_max: Bytes(1024 * MIB),
        vcpus: 1,
        kernel: Some(Kernel {
            image: guest.kernel,
            initrd: Some(guest.initrd),
            command_line: GuestFiles::KERNEL_ARGUMENTS.to_owned(),
        }),
        disk: None,
        seed: None,
        growth: Growth { virtio_mem: true, dimm_slots: 4 },
        far_node: None,
        balloon: Some(Balloon { free_page_reporting: true }),
        probe: true,
        network: Network::None,
        sandbox: false,
    }
}

/// QEMU by translation, which runs everywhere.
pub(crate) async fn qemu() -> Qemu {
    let program = Path::new(PROGRAM);
    let accelerator = Accelerator { kind: AcceleratorKind::Tcg, reason: "the test wants it".to_owned() };
    Qemu { program: program.to_owned(), capabilities: Capabilities::ask(program).await.unwrap(), accelerator }
}

/// Starts a machine; its processors stand.
pub(crate) async fn start(config: &MachineConfig, place: &Place) -> (DirectMachine, Reaper) {
    let machine = qemu().await.start(config, &place.files).await.unwrap();
    let reaper = Reaper(machine.process().await.unwrap());
    (machine, reaper)
}
