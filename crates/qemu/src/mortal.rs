//! Programs that must not outlive the process that asks them something, however it ends: the kernel kills them with it.
//!
//! `setpriv` arranges that for itself and for what it becomes. Whoever asked may have ended before that, and then no signal comes any
//! more: so a shell looks whose child it is before it becomes the program. The process is the program itself in the end. Machines are
//! started otherwise: they are meant to live on.

use std::env;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process;

use tokio::process::Command;

/// A command that runs `program`.
pub(crate) fn command(program: &Path) -> io::Result<Command> {
    child_of(process::id(), program)
}

fn child_of(parent: u32, program: &Path) -> io::Result<Command> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "sh", "-c", r#"test "$PPID" = "$0" && exec "$@""#]);
    // If there is no such program, the shell would say it only in words.
    command.arg(parent.to_string()).arg(find(program)?);
    Ok(command)
}

/// The program's file: a bare name is looked for as the kernel's callers do.
pub(crate) fn find(program: &Path) -> io::Result<PathBuf> {
    if program.components().count() > 1 {
        return check(program.to_owned());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let mut refused = io::ErrorKind::NotFound.into();
    for directory in env::split_paths(&path) {
        match check(directory.join(program)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => refused = error,
            found => return found,
        }
    }
    Err(refused)
}

fn check(file: PathBuf) -> io::Result<PathBuf> {
    let metadata = file.metadata()?;
    let runs = metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
    if runs { Ok(file) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_program_is_told_before_anything_is_started() {
        let why = |program: &str| find(Path::new(program)).unwrap_err().kind();
        assert_eq!(why("/nowhere/qemu"), io::ErrorKind::NotFound);
        assert_eq!(why("no-such-program"), io::ErrorKind::NotFound);
        assert_eq!(why("/etc/passwd"), io::ErrorKind::PermissionDenied);
        assert_eq!(why("/etc"), io::ErrorKind::PermissionDenied);
        assert!(find(Path::new("sh")).unwrap().is_absolute());
    }

    #[tokio::test]
    async fn the_process_is_the_program_itself() {
        let said =
            command(Path::new("sh")).unwrap().args(["-c", "cat /proc/$$/comm"]).output().await.unwrap();
        assert_eq!(said.stdout, b"sh\n");
    }

    #[tokio::test]
    async fn a_program_is_not_started_for_a_process_that_is_gone() {
        let mut gone = process::Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        let said = child_of(gone.id(), Path::new("echo")).unwrap().arg("alive").output().await.unwrap();
        assert_eq!((said.status.success(), said.stdout), (false, Vec::new()));
    }
}
