//! A control group that limits the memory of what runs in it, so that the kernel swaps the rest out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rackmem_types::Bytes;

use crate::undo::{self, Undo};

/// The group of a process that has just ended stays busy for a moment.
const REMOVE_TRIES: u32 = 100;

/// While slow swap writes are under way, the kernel may find nothing to reclaim in a group and call that out of memory. With
/// cgroup v1 the program can be made to wait instead of being killed; then it gets so much more for so long.
const RELIEF: Bytes = Bytes(4 << 20);
const RELIEF_INTERVAL: Duration = Duration::from_millis(5);

/// A memory control group, removed when this is dropped.
#[derive(Debug)]
pub(crate) struct MemoryGroup {
    path: PathBuf,
    members: &'static str,
    /// Ends the watch for programs that wait for memory.
    removed: Arc<AtomicBool>,
    _undo: Undo,
}

impl MemoryGroup {
    /// A new group with at most `limit` of memory; swap is not limited.
    pub(crate) fn create(limit: Bytes) -> Result<Self> {
        let name = format!("rackmem-bench-{}", std::process::id());
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let v2 = Path::new("/sys/fs/cgroup");
        let (parent, limit_file, members) = if v1.join("memory.limit_in_bytes").exists() {
            (v1, "memory.limit_in_bytes", "tasks")
        } else if fs::read_to_string(v2.join("cgroup.controllers")).is_ok_and(|all| all.contains("memory")) {
            fs::write(v2.join("cgroup.subtree_control"), "+memory")
                .context("could not switch the memory controller on; run as root")?;
            (v2, "memory.max", "cgroup.procs")
        } else {
            bail!(
                "no memory control groups on this machine: mount cgroup2, or the cgroup v1 memory controller"
            );
        };
        let path = parent.join(name);
        fs::create_dir(&path)
            .with_context(|| format!("could not make the control group {}; run as root", path.display()))?;
        let same = path.clone();
        let undo = undo::later(format!("remove {}", path.display()), move || remove(&same));
        let group = Self { path, members, removed: Arc::default(), _undo: undo };
        let limit_file = group.path.join(limit_file);
        fs::write(&limit_file, limit.0.to_string())
            .with_context(|| format!("could not limit memory to {limit}"))?;
        let control = group.path.join("memory.oom_control");
        if fs::write(&control, "1").is_ok() {
            let removed = Arc::clone(&group.removed);
            thread::spawn(move || relieve(&control, &limit_file, limit, &removed));
        }
        Ok(group)
    }

    /// The file that takes the id of a process that is to be in the group.
    pub(crate) fn members(&self) -> PathBuf {
        self.path.join(self.members)
    }

    /// `program`, to be run in the group from its first instruction on.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.members()).arg(program);
        command
    }
}

/// Lets programs go on that wait for memory although swap has room.
fn relieve(control: &Path, limit_file: &Path, limit: Bytes, removed: &AtomicBool) {
    while !removed.load(Ordering::Relaxed) {
        thread::sleep(RELIEF_INTERVAL);
        if fs::read_to_string(control).is_ok_and(|state| state.contains("under_oom 1")) {
            // Either may fail while the group is being removed, or while writes are still under way: then the next time.
            let _ = fs::write(limit_file, (limit.0 + RELIEF.0).to_string());
            thread::sleep(RELIEF_INTERVAL);
        }
        if fs::read_to_string(limit_file).is_ok_and(|now| now.trim() != limit.0.to_string()) {
            let _ = fs::write(limit_file, limit.0.to_string());
        }
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        self.removed.store(true, Ordering::Relaxed);
    }
}

fn remove(path: &Path) -> Result<()> {
    for _ in 1..REMOVE_TRIES {
        if fs::remove_dir(path).is_ok() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(fs::remove_dir(path)?)
}
