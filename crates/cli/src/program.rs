//! Finds the program that `run` shall start, as a shell does.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

/// Exit code of a shell for a program that is not there.
pub(crate) const EXIT_NOT_FOUND: u8 = 127;
/// Exit code of a shell for a program that is there but cannot be run.
pub(crate) const EXIT_NOT_EXECUTABLE: u8 = 126;

/// Why a program cannot be started.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    NotFound(String),
    NotExecutable(String),
}

/// The file to execute for `name`: itself if it has a slash, else the first executable of that name in `path`.
pub(crate) fn find(name: &OsStr, path: Option<OsString>) -> Result<PathBuf, Missing> {
    let shown = Path::new(name).display();
    if name.as_bytes().contains(&b'/') {
        return match check(Path::new(name)) {
            State::Executable => Ok(name.into()),
            State::Unusable(why) => Err(Missing::NotExecutable(format!("cannot run {shown}: {why}"))),
            State::Missing => Err(Missing::NotFound(format!("there is no program {shown}; check the path"))),
        };
    }
    let path = path.unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let mut unusable = None;
    for directory in std::env::split_paths(&path) {
        // An empty entry of PATH means the working directory.
        let file =
            if directory.as_os_str().is_empty() { Path::new(".").join(name) } else { directory.join(name) };
        match check(&file) {
            State::Executable => return Ok(file),
            State::Unusable(why) => {
                unusable.get_or_insert_with(|| format!("cannot run {}: {why}", file.display()));
            }
            State::Missing => {}
        }
    }
    Err(unusable.map_or_else(
        || {
            Missing::NotFound(format!(
                "there is no program '{shown}' in PATH; install it, or give its path, for example ./{shown}"
            ))
        },
        Missing::NotExecutable,
    ))
}

enum State {
    Executable,
    Unusable(&'static str),
    Missing,
}

fn check(file: &Path) -> State {
    match file.metadata() {
        Err(_) => State::Missing,
        Ok(metadata) if metadata.is_dir() => State::Unusable("it is a directory"),
        Ok(_) if rustix::fs::access(file, Access::EXEC_OK).is_err() => {
            State::Unusable("it is not executable; allow it with chmod +x")
        }
        Ok(_) => State::Executable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn finds_what_a_shell_finds() {
        let directory = tempfile::tempdir().unwrap();
        let make = |name: &str, mode| {
            let file = directory.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            file
        };
        make("a/tool", 0o644);
        let tool = make("b/tool", 0o755);
        let plain = make("a/plain", 0o644);
        let path =
            || Some(std::env::join_paths([directory.path().join("a"), directory.path().join("b")]).unwrap());

        assert_eq!(find("tool".as_ref(), path()), Ok(tool.clone()));
        assert_eq!(find(tool.as_os_str(), None), Ok(tool));
        assert!(matches!(find("plain".as_ref(), path()), Err(Missing::NotExecutable(_))));
        assert!(matches!(find(plain.as_os_str(), None), Err(Missing::NotExecutable(_))));
        assert!(matches!(find(directory.path().as_os_str(), None), Err(Missing::NotExecutable(_))));
        assert!(matches!(find("nothing".as_ref(), path()), Err(Missing::NotFound(_))));
        assert!(matches!(find("/no/such/tool".as_ref(), path()), Err(Missing::NotFound(_))));
    }
}
