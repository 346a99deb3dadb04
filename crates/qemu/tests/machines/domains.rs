//! Domains of a libvirtd of the test's own. It lives in a mount namespace, so that it neither finds nor leaves anything of the
//! machine's own libvirt.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use guest_probe::{GuestFiles, PORT_NAME};
use rackmem_qemu::libvirt::{Libvirt, LibvirtMachine};
use rackmem_qemu::memory::{Observed, observe};
use rackmem_qemu::{Driver, Ended, Event, Machine, QemuError, RunState};
use rackmem_types::Bytes;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::guest::{MIB, PATIENCE, Place, Reaper};

const STALL: Duration = Duration::from_secs(10);

/// Starts libvirtd in directory `$1`, where its socket then lies. The users that its package would make exist in here only.
const LIBVIRTD: &str = r#"
set -e
for place in /etc/libvirt /run/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt; do
    mkdir -p $place; mount -t tmpfs libvirt $place
done
for file in passwd group; do cp /etc/$file "$1/$file"; done
echo 'libvirt-qemu:x:64055:64055::/:/bin/false' >> "$1/passwd"
printf 'libvirt-qemu:x:64055:\nkvm:x:64056:\n' >> "$1/group"
for file in passwd group; do mount --bind "$1/$file" /etc/$file; done
printf 'unix_sock_dir = "%s"\nauth_unix_rw = "none"\n' "$1" > "$1/libvirtd.conf"
printf 'user = "root"\ngroup = "root"\nsecurity_driver = "none"\nseccomp_sandbox = 0\nnamespaces = []\n' > /etc/libvirt/qemu.conf
printf 'cgroup_controllers = []\nstdio_handler = "file"\nremember_owner = 0\n' >> /etc/libvirt/qemu.conf
exec libvirtd --config "$1/libvirtd.conf" --pid-file "$1/libvirtd.pid"
"#;

/// A libvirtd, until the test ends.
struct Daemon {
    _process: Child,
    libvirt: Libvirt,
}

impl Daemon {
    async fn start(directory: &Path) -> Self {
        let process = Command::new("unshare")
            .args(["--mount", "sh", "-c", LIBVIRTD, "libvirtd"])
            .arg(directory)
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(directory.join("libvirtd.log")).unwrap())
            .kill_on_drop(true)
            .spawn()
            .expect("unshare runs");
        let uri = format!("qemu+unix:///system?socket={}", directory.join("libvirt-sock").display());
        let connected = timeout(PATIENCE, async {
            loop {
                match Libvirt::connect(&uri).await {
                    Ok(libvirt) => return libvirt,
                    Err(_) => sleep(Duration::from_millis(100)).await,
                }
            }
        });
        let log = || std::fs::read_to_string(directory.join("libvirtd.log")).unwrap_or_default();
        let libvirt = connected.await.unwrap_or_else(|_| panic!("libvirtd does not answer: {}", log()));
        Self { _process: process, libvirt }
    }
}

/// The test guest as somebody else would define it.
fn xml(probe: &Path) -> String {
    let guest = GuestFiles::find().unwrap();
    format!(
        "<domain type='qemu'><name>theirs</name><memory unit='MiB'>256</memory>
        <maxMemory slots='4' unit='MiB'>1024</maxMemory><vcpu>1</vcpu>
        <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd>
        <cmdline>{arguments}</cmdline></os><features><acpi/></features>
        <cpu mode='maximum'><numa><cell id='0' cpus='0' memory='256' unit='MiB'/></numa></cpu><devices>
        <serial type='null'/><channel type='unix'><source mode='bind' path='{probe}'/><target type='virtio' name='{PORT_NAME}'/></channel>
        <memballoon model='virtio'><stats period='1'/></memballoon>
        <memory model='virtio-mem'><target><size unit='MiB'>512</size><node>0</node><block unit='MiB'>2</block>
        <requested unit='MiB'>0</requested></target></memory></devices></domain>",
        kernel = guest.kernel.display(),
        initrd = guest.initrd.display(),
        arguments = GuestFiles::KERNEL_ARGUMENTS,
        probe = probe.display(),
    )
}

async fn change_memory(machine: &LibvirtMachine) {
    let device = machine.memory().await.unwrap().virtio_mem[0].id.clone().unwrap();
    for plugged in [Bytes(128 * MIB), Bytes(0)] {
        machine.virtio_mem_request(&device, plugged).await.unwrap();
        let moved = observe(machine, STALL, |state| state.in_virtio_mem() == plugged).await.unwrap();
        assert!(matches!(moved, Observed::Reached(_)), "{moved:?}");
    }
    for left in [Bytes(192 * MIB), Bytes(256 * MIB)] {
        machine.balloon_to(left).await.unwrap();
        let moved = observe(machine, STALL, |state| state.balloon == Some(left)).await.unwrap();
        assert!(matches!(moved, Observed::Reached(_)), "{moved:?}");
    }
    let none = machine.virtio_mem_request("no-such", Bytes(0)).await.unwrap_err();
    assert!(matches!(none, QemuError::Missing { .. }), "{none}");
    let told = machine.guest_memory().await.unwrap().expect("its statistics are on");
    assert!(told.total.is_some_and(|total| total > Bytes(128 * MIB)), "{told:?}");
}

#[tokio::test]
async fn libvirtd_domain_of_somebody_else_is_a_machine() {
    let place = Place::new();
    let daemon = Daemon::start(&place.files.directory).await;
    let libvirt = &daemon.libvirt;
    assert!(matches!(libvirt.machine("theirs").await, Err(QemuError::Missing { .. })));
    libvirt.define_xml(&xml(&place.files.probe())).await.unwrap();
    assert_eq!(libvirt.domains().await.unwrap()[0].name, "theirs");

    let machine = libvirt.machine("theirs").await.unwrap();
    assert_eq!((machine.driver(), machine.state().await.unwrap()), (Driver::Libvirt, RunState::Off));
    assert!(matches!(machine.process().await, Err(QemuError::NotRunning(_))));
    assert_eq!(machine.stop(PATIENCE).await.unwrap(), Ended::WasOff);
    let process = machine.start().await.unwrap();
    let _reaper = Reaper(process);
    assert_eq!(machine.start().await.unwrap(), process);
    assert_eq!(machine.state().await.unwrap(), RunState::Prepared);
    let mut events = machine.events();
    for _ in 0..2 {
        machine.resume().await.unwrap();
    }
    let mut probe = place.probe().await;

    // Somebody else's: found by its process alone, and through the trait alone.
    let theirs = libvirt.by_pid(process.pid).await.unwrap().expect("libvirt knows it");
    assert_eq!(theirs.uuid(), machine.uuid());
    assert!(libvirt.by_pid(std::process::id()).await.unwrap().is_none());
    change_memory(&theirs).await;
    let page = tokio::task::spawn_blocking(move || probe.page().unwrap()).await.unwrap();
    assert!(theirs.host_address(page.guest_physical_address).await.unwrap() > 0);
    for _ in 0..2 {
        theirs.pause().await.unwrap();
    }
    assert_eq!(machine.state().await.unwrap(), RunState::Paused);
    machine.resume().await.unwrap();
    assert_eq!(theirs.stop(PATIENCE).await.unwrap(), Ended::ByGuest);
    let mut heard = Vec::new();
    let ended = async {
        while let Some(event) = events.next().await {
            heard.push(event.clone());
            if event == Event::Ended {
                return;
            }
        }
    };
    timeout(PATIENCE, ended).await.expect("its end is told");
    assert!(heard.iter().any(|event| matches!(event, Event::MemorySizeChanged { .. })), "{heard:?}");
    assert!(heard.contains(&Event::Paused), "{heard:?}");

    machine.start().await.unwrap();
    assert_eq!(machine.stop(Duration::ZERO).await.unwrap(), Ended::Quit);
    libvirt.undefine("theirs").await.unwrap();
    assert!(libvirt.domains().await.unwrap().is_empty());
}
