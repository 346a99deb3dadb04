//! The racks of this machine, each with a directory that says what was made for it.
//!
//! Order is what makes a crash harmless. A rack's file is put into its directory before anything of it is made; it says which
//! namespaces are this rack's, since none of them existed then. `complete` is written when all of it stands. Taking a rack down ends
//! the processes in its namespaces, removes the namespaces, with them all devices, and last the directory; so after a crash at any
//! point taking it down once more does the rest. One command at a time works on the racks: they hold a lock on the directory, and so
//! does each `ip` that they run, which may live a moment longer than a command that was killed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rackmem_rack::{Name, file};
use rackmem_switch::iproute;
use rustix::fs::{FlockOperation, flock};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::layout::Layout;
use crate::programs::{controller_socket, files, registration_file, token_file};
use crate::{EmulateError, Programs, build, namespace};

/// The rack file as it was when the rack was built.
const RACK_FILE: &str = "rack.toml";

/// The rack's [`Layout`], for scripts.
const RACK_JSON: &str = "rack.json";

/// There once all of the rack stands.
const COMPLETE: &str = "complete";

/// How long processes get to end by themselves, and again when they are forced.
const PATIENCE: Duration = Duration::from_secs(5);

/// Random bytes of a token: more than anybody can try.
const TOKEN_BYTES: usize = 32;

/// The racks whose directories are in one directory.
#[derive(Debug)]
pub struct Racks {
    directory: PathBuf,
}

/// A rack that stands.
#[derive(Debug)]
pub struct Standing {
    /// What it consists of.
    pub layout: Layout,
    /// Its directory.
    pub directory: PathBuf,
    /// Whether all of it was made.
    pub complete: bool,
}

impl Standing {
    /// The token that its programs share.
    pub fn token_file(&self) -> PathBuf {
        token_file(&self.directory)
    }

    /// Where its controller listens.
    pub fn controller_socket(&self) -> PathBuf {
        controller_socket(&self.directory)
    }

    /// Whether its controller listens.
    pub fn controller_answers(&self) -> bool {
        UnixStream::connect(self.controller_socket()).is_ok()
    }

    /// How many processes there are beside the bricks, where its controller runs.
    pub fn controller_processes(&self) -> usize {
        namespace::processes([self.layout.management()].into_iter()).len()
    }

    /// Where the programs of `brick` have their control sockets.
    pub fn runtime_directory(&self, brick: &Name) -> Result<PathBuf, EmulateError> {
        Ok(files(&self.directory, self.layout.brick(brick)?).join("run"))
    }

    /// How many processes there are in the brick.
    pub fn processes(&self, brick: &Name) -> Result<usize, EmulateError> {
        Ok(namespace::processes([self.layout.brick(brick)?.namespace.as_str()].into_iter()).len())
    }
}

impl Racks {
    /// The racks in `directory`, which is made when the first rack is.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Builds the rack `name` of the rack file `source`, or what is missing of it. Gives it and how many programs were started.
    pub fn up(
        &self,
        name: &Name,
        source: &str,
        programs: &Programs,
    ) -> Result<(Standing, usize), EmulateError> {
        let layout = Layout::new(name, file::read(source)?)?;
        if !namespace::may_be_made() {
            return Err(EmulateError::NotRoot);
        }
        make_directory(&self.directory)?;
        let lock = self.lock()?;
        let rack = self.rack(name);
        match fs::read_to_string(rack.join(RACK_FILE)) {
            Ok(made_from) if made_from != source => return Err(EmulateError::Differs(name.clone())),
            Ok(_) if rack.join(COMPLETE).exists() => {
                let started = programs.start(&layout, &rack)?;
                return Ok((Standing { layout, directory: rack, complete: true }, started));
            }
            // Half of it: whoever was building it is gone.
            Ok(_) => self.clear(&layout, &lock)?,
            Err(_) => {}
        }
        if let Some(foreign) = layout.namespaces().find(|name| namespace::exists(name)) {
            return Err(EmulateError::Foreign(foreign.to_owned()));
        }
        let built = prepare(&rack, &layout, source)
            .and_then(|()| self.lending(&lock, || build::make(&layout)))
            .and_then(|()| programs.start(&layout, &rack))
            .and_then(|started| write(&rack.join(COMPLETE), b"").map(|()| started));
        match built {
            Ok(started) => Ok((Standing { layout, directory: rack, complete: true }, started)),
            Err(error) => {
                // The first error says why; what could not be cleared is cleared by the next `down`.
                let _ = self.clear(&layout, &lock);
                Err(error)
            }
        }
    }

    /// Takes the rack `name` down, whatever state it is in.
    pub fn down(&self, name: &Name) -> Result<(), EmulateError> {
        if !self.rack(name).exists() {
            return Err(self.unknown(name));
        }
        let lock = self.lock()?;
        match fs::read_to_string(self.rack(name).join(RACK_FILE)) {
            Ok(source) => self.clear(&Layout::new(name, file::read(&source)?)?, &lock),
            // Nothing was made yet.
            Err(_) => remove_directory(&self.rack(name)),
        }
    }

    /// The rack `name`.
    pub fn find(&self, name: &Name) -> Result<Standing, EmulateError> {
        let directory = self.rack(name);
        let source = fs::read_to_string(directory.join(RACK_FILE)).map_err(|_| self.unknown(name))?;
        let layout = Layout::new(name, file::read(&source)?)?;
        Ok(Standing { layout, complete: directory.join(COMPLETE).exists(), directory })
    }

    /// The names of all racks here, in order.
    pub fn names(&self) -> Vec<Name> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let mut names: Vec<Name> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        names.sort();
        names
    }

    fn rack(&self, name: &Name) -> PathBuf {
        self.directory.join(name.as_str())
    }

    fn unknown(&self, name: &Name) -> EmulateError {
        let known = self.names().iter().map(Name::to_string).collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "none".to_owned() } else { known };
        EmulateError::NoRack { name: name.clone(), known }
    }

    fn lock(&self) -> Result<File, EmulateError> {
        let locked = File::open(&self.directory).and_then(|file| {
            flock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        });
        locked.map_err(|reason| self.unusable(reason))
    }

    /// Does some work whose processes hold the lock too, until the last of them has ended.
    fn lending<T>(
        &self,
        lock: &File,
        work: impl FnOnce() -> Result<T, EmulateError>,
    ) -> Result<T, EmulateError> {
        let flag = |flags| fcntl_setfd(lock, flags).map_err(|error| self.unusable(error.into()));
        flag(FdFlags::empty())?;
        let done = work();
        flag(FdFlags::CLOEXEC)?;
        done
    }

    fn unusable(&self, reason: io::Error) -> EmulateError {
        EmulateError::State { path: self.directory.clone(), reason }
    }

    fn clear(&self, layout: &Layout, lock: &File) -> Result<(), EmulateError> {
        let there: Vec<&str> = layout.namespaces().filter(|name| namespace::exists(name)).collect();
        let stuck = namespace::end_processes(&there, PATIENCE);
        if !stuck.is_empty() {
            let pids =
                stuck.iter().map(|pid| pid.as_raw_nonzero().to_string()).collect::<Vec<_>>().join(", ");
            return Err(EmulateError::Stuck { rack: layout.name.clone(), pids });
        }
        let lines: Vec<String> = there.iter().map(|name| format!("netns del {name}")).collect();
        self.lending(lock, || Ok(iproute::batch("ip", None, &lines)?))?;
        remove_directory(&self.rack(&layout.name))
    }
}

/// Writes down what is about to be made. The rack file comes last: without it nothing has been made.
fn prepare(rack: &Path, layout: &Layout, source: &str) -> Result<(), EmulateError> {
    make_directory(rack)?;
    for brick in &layout.bricks {
        make_directory(&files(rack, brick).join("run"))?;
    }
    write(&token_file(rack), token()?.as_bytes())?;
    let path = rack.join(RACK_JSON);
    let json = serde_json::to_vec_pretty(layout)
        .map_err(|error| EmulateError::State { path: path.clone(), reason: error.into() })?;
    write(&path, &json)?;
    write(&registration_file(rack), layout.registration(source)?.as_bytes())?;
    write(&rack.join(RACK_FILE), source.as_bytes())
}

fn token() -> Result<String, EmulateError> {
    let mut bytes = [0; TOKEN_BYTES];
    let path = PathBuf::from("/dev/urandom");
    let read = File::open(&path).and_then(|mut random| random.read_exact(&mut bytes));
    read.map_err(|reason| EmulateError::State { path, reason })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Writes a file that only its owner reads, whole or not at all.
fn write(path: &Path, content: &[u8]) -> Result<(), EmulateError> {
    let half = path.with_extension("new");
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&half)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(&half, path));
    written.map_err(|reason| EmulateError::State { path: path.to_owned(), reason })
}

fn make_directory(path: &Path) -> Result<(), EmulateError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|reason| EmulateError::State { path: path.to_owned(), reason })
}

fn remove_directory(path: &Path) -> Result<(), EmulateError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(EmulateError::State { path: path.to_owned(), reason: error })
        }
        _ => Ok(()),
    }
}
