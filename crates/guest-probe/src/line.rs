//! The line to the host: a virtio port by its name, or the second serial port. Beside it nothing here knows of either.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use guest_probe::{LINE_BYTES_MAX, PORT_NAME, Reply, SERIAL_PORT};

use crate::refusal::Refusal;

/// Ports of the virtio bus by number, each with its name.
const VIRTIO_PORTS: &str = "/sys/class/virtio-ports";

/// How long a port's name may come later than its driver.
const PORT_PATIENCE: Duration = Duration::from_secs(2);

/// While nobody is connected at the host, a virtio port reads as ended.
const ABSENT_PAUSE: Duration = Duration::from_millis(20);

/// More orders than this wait in the port.
const ORDERS_WAITING_MAX: usize = 64;

/// Who listens at the host.
pub(crate) struct Line {
    path: PathBuf,
    file: File,
}

impl Line {
    /// Finds and opens the line.
    pub(crate) fn open() -> Result<Self, Refusal> {
        let path = find().ok_or(Refusal::NoLine { name: PORT_NAME, serial: SERIAL_PORT })?;
        if path == Path::new(SERIAL_PORT) {
            raw(&path)?;
        }
        let shown = path.display().to_string();
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(Refusal::file(shown))?;
        Ok(Self { path, file })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Lines that arrive from now on, read by a thread of their own: the probe works between them.
    pub(crate) fn lines(&self) -> Result<Receiver<String>, Refusal> {
        let mut reader = BufReader::new(self.file.try_clone().map_err(Refusal::Line)?);
        let (sender, receiver) = sync_channel(ORDERS_WAITING_MAX);
        thread::spawn(move || {
            loop {
                let mut line = Vec::new();
                match reader.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line) {
                    Ok(0) => thread::sleep(ABSENT_PAUSE),
                    Ok(_) if line.trim_ascii().is_empty() => {}
                    Ok(_) => {
                        if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        eprintln!("guest-probe: {}", Refusal::Line(error));
                        return;
                    }
                }
            }
        });
        Ok(receiver)
    }

    /// Sends a line. On a virtio port this waits while nobody is connected at the host.
    pub(crate) fn send(&mut self, reply: &Reply) -> Result<(), Refusal> {
        let mut line = serde_json::to_vec(reply).map_err(|error| Refusal::Line(error.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(Refusal::Line)
    }
}

fn find() -> Option<PathBuf> {
    let deadline = Instant::now() + PORT_PATIENCE;
    loop {
        if let Some(path) = virtio_port(Path::new(VIRTIO_PORTS)) {
            return Some(path);
        }
        // Where the machine has a bus of such ports, ours is on its way. Else nothing is waited for.
        let bus = fs::read_dir(VIRTIO_PORTS).is_ok_and(|mut ports| ports.next().is_some());
        if !bus && is_serial_port(Path::new(SERIAL_PORT)) {
            return Some(SERIAL_PORT.into());
        }
        if Instant::now() > deadline {
            return is_serial_port(Path::new(SERIAL_PORT)).then(|| SERIAL_PORT.into());
        }
        thread::sleep(ABSENT_PAUSE);
    }
}

fn virtio_port(ports: &Path) -> Option<PathBuf> {
    let named =
        |path: &PathBuf| fs::read_to_string(path.join("name")).is_ok_and(|name| name.trim() == PORT_NAME);
    let port = fs::read_dir(ports).ok()?.filter_map(|entry| Some(entry.ok()?.path())).find(named)?;
    Some(Path::new("/dev").join(port.file_name()?))
}

/// The kernel makes the files of four serial ports whether they are there or not; one that is not has the type 0.
fn is_serial_port(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    let kind = Path::new("/sys/class/tty").join(name).join("type");
    fs::read_to_string(kind).is_ok_and(|kind| kind.trim() != "0")
}

/// No echo, no end of line changed, no byte with a meaning.
fn raw(path: &Path) -> Result<(), Refusal> {
    let mut stty = Command::new("stty");
    let status = stty.arg("-F").arg(path).args(["raw", "-echo"]).status();
    match status.map_err(|source| Refusal::Program { program: "stty", source })? {
        status if status.success() => Ok(()),
        status => Err(Refusal::ProgramFailed { program: "stty", status }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_by_its_name() {
        let ports = tempfile::tempdir().unwrap();
        for (port, name) in [("vport1p1", "org.qemu.guest_agent.0\n"), ("vport1p2", "rackmem.probe\n")] {
            fs::create_dir(ports.path().join(port)).unwrap();
            fs::write(ports.path().join(port).join("name"), name).unwrap();
        }
        assert_eq!(virtio_port(ports.path()), Some("/dev/vport1p2".into()));
        fs::remove_dir_all(ports.path().join("vport1p2")).unwrap();
        assert_eq!(virtio_port(ports.path()), None);
    }
}
