//! A libvirtd of the test's own, in a mount namespace: it neither finds nor leaves anything of the machine's own libvirt.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use guest_probe::{GuestFiles, PORT_NAME};
use rackmem_e2e::Process;

use crate::brick::wait_until;

/// Starts libvirtd in directory `$1`, where its socket then lies. The users that its package would make exist in here only.
const LIBVIRTD: &str = r#"
set -e
for place in /etc/libvirt /run/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt; do
    mkdir -p $place; mount -t tmpfs libvirt $place
done
for file in passwd group; do cp /etc/$file "$1/$file"; done
grep -q ^libvirt-qemu: "$1/passwd" || echo 'libvirt-qemu:x:64055:64055::/:/bin/false' >> "$1/passwd"
grep -q ^libvirt-qemu: "$1/group" || printf 'libvirt-qemu:x:64055:\n' >> "$1/group"
grep -q ^kvm: "$1/group" || printf 'kvm:x:64056:\n' >> "$1/group"
for file in passwd group; do mount --bind "$1/$file" /etc/$file; done
printf 'unix_sock_dir = "%s"\nauth_unix_rw = "none"\n' "$1" > "$1/libvirtd.conf"
printf 'user = "root"\ngroup = "root"\nsecurity_driver = "none"\nseccomp_sandbox = 0\nnamespaces = []\n' > /etc/libvirt/qemu.conf
printf 'cgroup_controllers = []\nstdio_handler = "file"\nremember_owner = 0\n' >> /etc/libvirt/qemu.conf
exec libvirtd --config "$1/libvirtd.conf" --pid-file "$1/libvirtd.pid"
"#;

/// A libvirtd, until the test ends.
pub(crate) struct Libvirtd {
    directory: PathBuf,
    _daemon: Process,
}

impl Libvirtd {
    /// Starts it with its files in `directory`.
    pub(crate) fn start(directory: &Path) -> Self {
        std::fs::create_dir(directory).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", LIBVIRTD, "libvirtd"]).arg(directory);
        let daemon = Process::start(&mut command, Duration::from_secs(600));
        let libvirtd = Self { directory: directory.to_owned(), _daemon: daemon };
        wait_until("libvirtd answers", || libvirtd.ask(&["uri"]).status.success());
        libvirtd
    }

    /// Where it is reached.
    pub(crate) fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.directory.join("libvirt-sock").display())
    }

    /// The socket of the probe in the guest.
    pub(crate) fn probe(&self) -> PathBuf {
        self.directory.join("probe.sock")
    }

    /// `virsh …`, which has to succeed.
    #[track_caller]
    pub(crate) fn virsh(&self, arguments: &[&str]) -> String {
        let said = self.ask(arguments);
        assert!(said.status.success(), "virsh {arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8_lossy(&said.stdout).into_owned()
    }

    /// The domains that it knows and in which state they are, `NAME STATE` on a line each.
    pub(crate) fn domains(&self) -> Vec<String> {
        let names = self.virsh(&["list", "--all", "--name"]);
        let names = names.lines().map(str::trim).filter(|name| !name.is_empty());
        names.map(|name| format!("{name} {}", self.virsh(&["domstate", name]).trim())).collect()
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        Command::new("virsh").args(["--quiet", "--connect", &self.uri()]).args(arguments).output().unwrap()
    }

    /// Defines the test guest as somebody else would.
    pub(crate) fn define(&self, name: &str, guest: &GuestFiles) {
        let xml = format!(
            "<domain type='qemu'><name>{name}</name><memory unit='MiB'>384</memory><vcpu>1</vcpu>
            <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd>
            <cmdline>{arguments}</cmdline></os><features><acpi/></features><cpu mode='maximum'/><devices>
            <serial type='null'/><channel type='unix'><source mode='bind' path='{probe}'/>
            <target type='virtio' name='{PORT_NAME}'/></channel>
            <memballoon model='virtio'><stats period='1'/></memballoon></devices></domain>",
            kernel = guest.kernel.display(),
            initrd = guest.initrd.display(),
            arguments = GuestFiles::KERNEL_ARGUMENTS,
            probe = self.probe().display(),
        );
        let path = self.directory.join("domain.xml");
        std::fs::File::create(&path).unwrap().write_all(xml.as_bytes()).unwrap();
        self.virsh(&["define", &path.display().to_string()]);
    }
}

impl Drop for Libvirtd {
    fn drop(&mut self) {
        // A domain lives on without its libvirtd, but not beyond the test.
        let listed = self.ask(&["list", "--name"]);
        for name in String::from_utf8_lossy(&listed.stdout).lines().filter(|name| !name.is_empty()) {
            self.ask(&["destroy", name]);
        }
    }
}
