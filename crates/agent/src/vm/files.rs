//! Where a VM's files are: one directory for each, below the state directory.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rackmem_api::VmName;
use rackmem_qemu::{MachineFiles, QemuError};

/// The files of one VM.
#[derive(Clone, Debug)]
pub(crate) struct VmFiles {
    directory: PathBuf,
}

impl VmFiles {
    /// Of the VM `name`, below `state`, which is absolute.
    pub(crate) fn new(state: &Path, name: &VmName) -> Self {
        Self { directory: state.join("vms").join(name.as_str()) }
    }

    /// The directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// QEMU's sockets and logs.
    pub(crate) fn machine(&self) -> Result<MachineFiles, QemuError> {
        MachineFiles::new(&self.directory)
    }

    /// Makes the directory, for this user alone.
    pub(crate) fn make(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)
    }

    /// Removes all of it. It is no error if there is nothing.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
