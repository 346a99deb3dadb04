//! cloud-init's seed for a guest without a network to ask: a small FAT disk that is labelled as NoCloud wants it, with the
//! owner's `user-data` and our `meta-data` in it.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions, format_volume};

use crate::{QemuError, Result};

/// NoCloud looks for a file system of this label, filled up as FAT has it.
const LABEL: [u8; 11] = *b"CIDATA     ";

/// The disk. FAT12 of this size holds far more than cloud-init reads.
const DISK_BYTES: u64 = 4 << 20;

/// The longest user data: what the large clouds take is 16 to 64 KiB.
pub const USER_DATA_BYTES_MAX: usize = 1 << 20;

/// Writes a seed for the machine `name`. `instance` tells cloud-init whether it has met this machine before: with a new one it
/// sets the guest up from the start.
pub fn write(path: &Path, name: &str, instance: &str, user_data: &[u8]) -> Result<()> {
    crate::name_check(name)?;
    let failed = |reason| QemuError::Seed { path: path.to_owned(), reason };
    if user_data.len() > USER_DATA_BYTES_MAX {
        let reason = format!("{} bytes of user data are more than {USER_DATA_BYTES_MAX}", user_data.len());
        return Err(failed(io::Error::other(reason)));
    }
    // JSON is YAML, and quotes whatever the instance's id contains.
    let meta_data = serde_json::json!({ "instance-id": instance, "local-hostname": name }).to_string();
    fill(path, &[("meta-data", meta_data.as_bytes()), ("user-data", user_data)]).map_err(failed)
}

fn fill(path: &Path, contents: &[(&str, &[u8])]) -> io::Result<()> {
    let disk = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    disk.set_len(DISK_BYTES)?;
    format_volume(&disk, FormatVolumeOptions::new().volume_label(LABEL))?;
    let volume = FileSystem::new(&disk, FsOptions::new())?;
    for (name, content) in contents {
        volume.root_dir().create_file(name)?.write_all(content)?;
    }
    volume.unmount()?;
    disk.sync_all()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_seed_holds_what_cloud_init_looks_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seed.img");
        let user_data = "#cloud-config\n".repeat(9000);
        write(&path, "web1", "id: \"7\"", user_data.as_bytes()).unwrap();
        // cloud-init finds its seed by what this program says.
        let seen =
            std::process::Command::new("blkid").args(["-p", "-o", "export"]).arg(&path).output().unwrap();
        let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
        assert!(seen.contains("\nLABEL=CIDATA\n") && seen.contains("\nTYPE=vfat\n"), "{seen}");
        let disk = File::options().read(true).write(true).open(&path).unwrap();
        let volume = FileSystem::new(disk, FsOptions::new()).unwrap();
        assert_eq!(volume.volume_label_as_bytes(), b"CIDATA");
        let content = |name: &str| {
            let mut text = String::new();
            volume.root_dir().open_file(name).unwrap().read_to_string(&mut text).unwrap();
            text
        };
        assert_eq!(content("user-data"), user_data);
        let meta: serde_json::Value = serde_json::from_str(&content("meta-data")).unwrap();
        assert_eq!(meta["local-hostname"], "web1");
        assert_eq!(meta["instance-id"], "id: \"7\"");
    }

    #[test]
    fn a_seed_that_cannot_be_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seed.img");
        assert!(write(&path, "web1", "i", &vec![b'#'; USER_DATA_BYTES_MAX + 1]).is_err());
        assert!(write(&path, "web 1", "i", b"").is_err());
        assert!(write(Path::new("/nonexistent/seed.img"), "web1", "i", b"").is_err());
    }
}
