//! A machine that lives as long as its test.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use guest_probe::{GuestFiles, ProbeClient};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The guest needs three seconds alone, and much longer on a busy machine.
pub(crate) const BOOT_PATIENCE: Duration = Duration::from_secs(90);

const END_PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Machine {
    qemu: Child,
    directory: TempDir,
    monitor: Option<BufReader<UnixStream>>,
}

impl Machine {
    /// A machine whose guest has the probe's virtio port.
    pub(crate) fn with_probe(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let line = GuestFiles::probe_options(&socket(&directory));
        Self::start(directory, line.to_vec(), options)
    }

    /// A machine whose guest has a second serial port only.
    pub(crate) fn with_serial_line(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let line = format!("unix:{},server=on,wait=off", socket(&directory).display());
        Self::start(directory, vec!["-serial".to_owned(), line], options)
    }

    /// A machine whose guest has QEMU, KVM and `rackmem`, and the guest's files for a guest of its own.
    pub(crate) fn with_kvm(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let line = GuestFiles::probe_options(&socket(&directory));
        let mut guest = GuestFiles::find().unwrap();
        guest.initrd.set_file_name("kvm-rig");
        assert!(
            guest.initrd.is_file(),
            "the rig is missing: cargo xtask guest --kvm-rig target/release/rackmem"
        );
        Self::boot(&guest, directory, line.to_vec(), options)
    }

    fn start(directory: TempDir, line: Vec<String>, options: &[&str]) -> Self {
        Self::boot(&GuestFiles::find().unwrap(), directory, line, options)
    }

    fn boot(guest: &GuestFiles, directory: TempDir, line: Vec<String>, options: &[&str]) -> Self {
        let path = |name: &str| directory.path().join(name).display().to_string();
        let qemu = Command::new("qemu-system-x86_64")
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(["-machine", "q35", "-accel", "tcg", "-cpu", "max"])
            .arg("-kernel")
            .arg(&guest.kernel)
            .arg("-initrd")
            .arg(&guest.initrd)
            .args(["-append", GuestFiles::KERNEL_ARGUMENTS])
            .args(["-serial", &format!("file:{}", path("console"))])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", path("monitor"))])
            .args(line)
            .args(options)
            .stdin(Stdio::null())
            .stderr(fs::File::create(directory.path().join("errors")).unwrap())
            .spawn()
            .expect("qemu-system-x86_64 is missing: cargo xtask setup");
        Self { qemu, directory, monitor: None }
    }

    /// A connection to the probe; the guest has booted then.
    pub(crate) fn probe(&self) -> ProbeClient {
        ProbeClient::connect(&socket(&self.directory), BOOT_PATIENCE).unwrap_or_else(|error| {
            let read = |name| fs::read(self.directory.path().join(name)).unwrap_or_default();
            let (console, errors) = (read("console"), read("errors"));
            let (console, errors) = (String::from_utf8_lossy(&console), String::from_utf8_lossy(&errors));
            panic!("{error}\nQEMU said: {errors}\nThe console shows: {console}")
        })
    }

    /// Asks the guest to use so much of the memory that can be plugged.
    pub(crate) fn plug(&mut self, bytes: u64) {
        let path = "/machine/peripheral/plug";
        self.command("qom-set", &json!({ "path": path, "property": "requested-size", "value": bytes }));
    }

    /// Bytes of the guest's physical memory.
    pub(crate) fn physical(&mut self, address: u64, count: usize) -> Vec<u8> {
        let file = self.directory.path().join("physical");
        self.command("pmemsave", &json!({ "val": address, "size": count, "filename": file }));
        fs::read(file).unwrap()
    }

    /// Waits until QEMU has ended by itself.
    pub(crate) fn ends(mut self) {
        let deadline = Instant::now() + END_PATIENCE;
        loop {
            if let Some(status) = self.qemu.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return;
            }
            assert!(Instant::now() < deadline, "the guest does not end");
            sleep(Duration::from_millis(20));
        }
    }

    /// Gives QEMU a command and waits until it is done.
    pub(crate) fn command(&mut self, command: &str, arguments: &Value) -> Value {
        let path = self.directory.path().join("monitor");
        let monitor = self.monitor.get_or_insert_with(|| open(&path));
        exchange(monitor, command, arguments)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn socket(directory: &TempDir) -> PathBuf {
    directory.path().join("probe")
}

fn open(path: &Path) -> BufReader<UnixStream> {
    let mut monitor = BufReader::new(UnixStream::connect(path).unwrap());
    let mut greeting = String::new();
    monitor.read_line(&mut greeting).unwrap();
    exchange(&mut monitor, "qmp_capabilities", &json!({}));
    monitor
}

fn exchange(monitor: &mut BufReader<UnixStream>, command: &str, arguments: &Value) -> Value {
    let request = json!({ "execute": command, "arguments": arguments });
    writeln!(monitor.get_mut(), "{request}").unwrap();
    loop {
        let mut line = String::new();
        assert_ne!(monitor.read_line(&mut line).unwrap(), 0, "QEMU ended");
        let mut message: Value = serde_json::from_str(&line).unwrap();
        assert!(message.get("error").is_none(), "{command}: {message}");
        if let Some(answer) = message.get_mut("return") {
            return answer.take();
        }
    }
}
