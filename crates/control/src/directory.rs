//! The runtime directory: where the sockets of all pagers of this user are, and which of them are alive.
//!
//! A socket file is made and removed only under the directory's lock, so that nobody takes a socket that is
//! just being bound for a dead one. A socket is dead when nothing listens on it; process ids are not asked, they
//! come round again.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::ControlError;

/// The runtime directory of this user: `$RACKMEM_RUNTIME_DIR`, else `/run/rackmem` for root, else
/// `$XDG_RUNTIME_DIR/rackmem`. It need not exist.
pub fn directory() -> Result<PathBuf, ControlError> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    choose(variable("RACKMEM_RUNTIME_DIR"), rustix::process::geteuid().is_root(), variable("XDG_RUNTIME_DIR"))
}

fn choose(own: Option<PathBuf>, root: bool, xdg: Option<PathBuf>) -> Result<PathBuf, ControlError> {
    match (own, root, xdg) {
        (Some(own), _, _) => Ok(own),
        (None, true, _) => Ok("/run/rackmem".into()),
        (None, false, Some(xdg)) => Ok(xdg.join("rackmem")),
        (None, false, None) => Err(ControlError::NoDirectory),
    }
}

/// Process ids of all targets that have a live pager, in ascending order. Sockets of dead pagers are removed.
pub fn targets() -> Result<Vec<u32>, ControlError> {
    targets_in(&directory()?)
}

/// [`targets`] of another runtime directory than the user's own.
pub fn targets_in(directory: &Path) -> Result<Vec<u32>, ControlError> {
    let failed = |source| ControlError::Directory { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut pids = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_suffix(".sock")?.parse().ok()) else {
            continue;
        };
        if is_live(&socket(directory, pid)) {
            pids.push(pid);
        } else {
            // A reader without the right to remove it still gets a right list.
            let _ = Lock::take(directory).and_then(|lock| lock.remove_dead(pid));
        }
    }
    pids.sort_unstable();
    Ok(pids)
}

/// Path of a target's socket.
pub(crate) fn socket(directory: &Path, pid: u32) -> PathBuf {
    directory.join(format!("{pid}.sock"))
}

/// Makes the directory if it is missing, for this user alone, and refuses one that others can write: who can
/// write there can pose as a pager.
pub fn prepare(directory: &Path) -> Result<(), ControlError> {
    let failed = |source| ControlError::Directory { path: directory.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let metadata = fs::metadata(directory).map_err(failed)?;
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user || metadata.mode() & 0o022 != 0 {
        return Err(ControlError::UnsafeDirectory(directory.to_owned()));
    }
    Ok(())
}

/// The right to make and remove socket files, until dropped.
pub(crate) struct Lock<'a> {
    directory: &'a Path,
    _file: File,
}

impl<'a> Lock<'a> {
    pub(crate) fn take(directory: &'a Path) -> Result<Self, ControlError> {
        let failed = |source| ControlError::Directory { path: directory.to_owned(), source };
        let file = File::open(directory).map_err(failed)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
        Ok(Self { directory, _file: file })
    }

    /// Removes the socket of `pid` unless something listens on it.
    pub(crate) fn remove_dead(&self, pid: u32) -> Result<(), ControlError> {
        let path = socket(self.directory, pid);
        if is_live(&path) {
            return Err(ControlError::AlreadyAttached(pid));
        }
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(ControlError::Socket { path, source })
            }
            _ => Ok(()),
        }
    }
}

fn is_live(socket: &Path) -> bool {
    match UnixStream::connect(socket) {
        Ok(_) => true,
        // A full backlog (EAGAIN) or a missing permission is a sign of life; only these two are not.
        Err(error) => !matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    #[test]
    fn the_variable_comes_first_then_root_then_the_session() {
        let some = |text: &str| Some(PathBuf::from(text));
        assert_eq!(choose(some("/a"), true, some("/x")).unwrap(), Path::new("/a"));
        assert_eq!(choose(None, true, some("/x")).unwrap(), Path::new("/run/rackmem"));
        assert_eq!(choose(None, false, some("/x")).unwrap(), Path::new("/x/rackmem"));
        assert!(matches!(choose(None, false, None), Err(ControlError::NoDirectory)));
    }

    #[test]
    fn lists_the_living_and_buries_the_dead() {
        let directory = tempfile::tempdir().unwrap();
        let _live = UnixListener::bind(socket(directory.path(), 70)).unwrap();
        drop(UnixListener::bind(socket(directory.path(), 9)).unwrap());
        fs::write(directory.path().join("70.log"), "").unwrap();
        assert_eq!(targets_in(directory.path()).unwrap(), [70]);
        assert!(!socket(directory.path(), 9).exists());
        assert_eq!(targets_in(&directory.path().join("missing")).unwrap(), [0u32; 0]);
    }

    #[test]
    fn refuses_a_directory_that_others_can_write() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("run/rackmem");
        prepare(&inner).unwrap();
        assert_eq!(fs::metadata(&inner).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(prepare(&inner), Err(ControlError::UnsafeDirectory(_))));
    }
}
