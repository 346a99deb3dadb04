//! Disk images, looked at by `qemu-img` before a machine is given one: a file that is missing or holds something else is
//! refused with a sentence, and a format is settled once, never guessed at start.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::{DiskFormat, QemuError, Result};

const PROGRAM: &str = "qemu-img";

/// Reading a header takes milliseconds; a file on a dead network file system takes for ever.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A disk begins with this many bytes, and with this mark at their end if a BIOS or a partition table is meant to be found.
const SECTOR_BYTES: usize = 512;
const BOOT_MARK: [u8; 2] = [0x55, 0xaa];

/// What a disk image is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// Its format.
    pub format: DiskFormat,
    /// The disk that the guest sees.
    pub virtual_size: Bytes,
    /// The image on which this one is a layer. QEMU will read it, whatever it is: a stranger's image must have none.
    pub backing: Option<PathBuf>,
}

/// Looks at a disk image. An image that a machine uses just now may be looked at too.
pub async fn inspect(path: &Path) -> Result<ImageInfo> {
    let not_an_image = |reason: String| QemuError::NotAnImage { path: path.to_owned(), reason };
    let unreadable = |reason| QemuError::File { what: "the disk image", path: path.to_owned(), reason };
    let boot_marked = match std::fs::metadata(path).map_err(unreadable)?.is_file() {
        true => is_boot_marked(path).map_err(unreadable)?,
        false => return Err(not_an_image("it is not a file".to_owned())),
    };
    let asked = Command::new(PROGRAM)
        .args(["info", "--output=json", "--force-share", "--"])
        .arg(path)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let answered = timeout(TIMEOUT, asked)
        .await
        .map_err(|_| not_an_image(format!("{PROGRAM} could not read it within {} s", TIMEOUT.as_secs())))?
        .map_err(|reason| QemuError::Program { program: PROGRAM.into(), package: "qemu-utils", reason })?;
    if !answered.status.success() {
        return Err(not_an_image(String::from_utf8_lossy(&answered.stderr).trim().to_owned()));
    }
    let said = serde_json::from_slice(&answered.stdout).map_err(|error| not_an_image(error.to_string()))?;
    read(&said, boot_marked).map_err(not_an_image)
}

/// Judges what `qemu-img` said. To it everything is at least raw; to us a raw disk has a boot sector or partition table.
fn read(said: &Value, boot_marked: bool) -> Result<ImageInfo, String> {
    let format = match said["format"].as_str() {
        Some("qcow2") => DiskFormat::Qcow2,
        Some("raw") if boot_marked => DiskFormat::Raw,
        Some("raw") => {
            return Err("it is neither qcow2 nor a raw disk with a boot sector or partition table".to_owned());
        }
        Some(other) => {
            return Err(format!(
                "format {other} is not used here: convert it with `qemu-img convert -O qcow2`"
            ));
        }
        None => return Err(format!("{PROGRAM} does not tell its format")),
    };
    if said.pointer("/format-specific/data/data-file").is_some() {
        return Err("its data lie in another file: convert it with `qemu-img convert -O qcow2`".to_owned());
    }
    let virtual_size = said["virtual-size"].as_u64().map(Bytes).ok_or("qemu-img does not tell its size")?;
    let backing = said["full-backing-filename"].as_str().or(said["backing-filename"].as_str());
    Ok(ImageInfo { format, virtual_size, backing: backing.map(PathBuf::from) })
}

fn is_boot_marked(path: &Path) -> std::io::Result<bool> {
    let mut sector = [0; SECTOR_BYTES];
    match File::open(path)?.read_exact(&mut sector) {
        Ok(()) => Ok(sector[SECTOR_BYTES - 2..] == BOOT_MARK),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn make(directory: &Path, arguments: &[&str]) {
        let made =
            std::process::Command::new(PROGRAM).current_dir(directory).args(arguments).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    #[tokio::test]
    async fn qemu_images_are_known_by_what_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        make(directory.path(), &["create", "-q", "-f", "qcow2", "base.qcow2", "64M"]);
        make(
            directory.path(),
            &["create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "layer.qcow2"],
        );
        let base = inspect(&path("base.qcow2")).await.unwrap();
        let expect = ImageInfo { format: DiskFormat::Qcow2, virtual_size: Bytes(64 << 20), backing: None };
        assert_eq!(base, expect);
        let layer = inspect(&path("layer.qcow2")).await.unwrap();
        assert!(layer.backing.is_some_and(|backing| backing.ends_with("base.qcow2")));
        let mut disk = vec![0; 1 << 20];
        disk[510..512].copy_from_slice(&BOOT_MARK);
        fs::write(path("disk.raw"), disk).unwrap();
        let raw = inspect(&path("disk.raw")).await.unwrap();
        assert_eq!((raw.format, raw.virtual_size), (DiskFormat::Raw, Bytes(1 << 20)));
    }

    #[tokio::test]
    async fn qemu_img_does_not_make_an_image_of_what_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        make(directory.path(), &["create", "-q", "-f", "vmdk", "disk.vmdk", "1M"]);
        fs::write(path("letter.txt"), "Dear reader, ").unwrap();
        fs::write(path("empty"), "").unwrap();
        fs::write(path("broken.qcow2"), b"QFI\xfb\0\0\0\x03 and nothing more").unwrap();
        for (name, words) in [
            ("disk.vmdk", "format vmdk"),
            ("letter.txt", "neither qcow2 nor a raw disk"),
            ("empty", "neither qcow2 nor a raw disk"),
            ("broken.qcow2", "is not a disk image"),
            ("", "it is not a file"),
            ("missing", "cannot be read"),
        ] {
            let error = inspect(&path(name)).await.unwrap_err().to_string();
            assert!(error.contains(words), "{name}: {error}");
        }
    }

    #[test]
    fn an_image_whose_data_lie_elsewhere_is_refused() {
        let said = serde_json::json!({ "format": "qcow2", "virtual-size": 1,
            "format-specific": { "data": { "data-file": "/etc/shadow" } } });
        assert!(read(&said, true).unwrap_err().contains("another file"));
    }
}
