//! `rackmem shared mount`: shared memory as a file, by FUSE. The kernel keeps none of its content: each read and write of a program is
//! one of the memory servers.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, anyhow, ensure};
use clap::Args;
use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, Session, TimeOrNow, WriteFlags,
};
use rackmem_far::{FarError, SharedMemory};
use rackmem_types::PAGE_SIZE;
use tokio::signal::unix::{SignalKind, signal};

use super::Memory;
use crate::logging;
use crate::out;

/// The file's name.
const NAME: &str = "memory";
const FILE: INodeNo = INodeNo(2);
/// Nothing changes but the content.
const VALID: Duration = Duration::from_secs(3600);

#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    memory: Memory,
    /// Directory in which the file 'memory' appears
    #[arg(value_name = "DIRECTORY", long = "at")]
    directory: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    logging::begin();
    let directory = &arguments.directory;
    ensure!(
        directory.is_dir(),
        "{} is no directory: make it first, or name another with --at",
        directory.display()
    );
    let memory = arguments.memory.open()?;
    let size = memory.size();
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("rackmem".to_owned()),
        MountOption::Subtype("rackmem".to_owned()),
        MountOption::DefaultPermissions,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoExec,
        MountOption::NoAtime,
    ];
    let file = SharedFile { memory: Mutex::new(memory), size };
    let mut session = Session::new(file, directory, &config).with_context(|| {
        format!("cannot mount at {}: this needs root or fusermount3, and /dev/fuse", directory.display())
    })?;
    // Nobody has to read this line for the file to be there.
    let _ = out::line(format_args!("{} bytes of shared memory: {}", size, directory.join(NAME).display()));
    let mut unmounter = session.unmount_callable();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let mut ended = tokio::task::spawn_blocking(|| session.run());
        let (mut interrupted, mut terminated) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            result = &mut ended => return result?.map_err(|error| anyhow!("the mount ended: {error}")),
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
        unmounter.unmount().with_context(|| format!("cannot unmount {}", directory.display()))?;
        ended.await?.map_err(anyhow::Error::from)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A directory with one file.
struct SharedFile {
    memory: Mutex<SharedMemory>,
    size: u64,
}

impl SharedFile {
    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let (kind, perm, nlink, size) = match inode {
            INodeNo::ROOT => (FileType::Directory, 0o755, 2, 0),
            FILE => (FileType::RegularFile, 0o600, 1, self.size),
            _ => return None,
        };
        let owner = rustix::process::getuid().as_raw();
        Some(FileAttr {
            ino: inode,
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink,
            uid: owner,
            gid: rustix::process::getgid().as_raw(),
            rdev: 0,
            blksize: PAGE_SIZE as u32,
            flags: 0,
        })
    }

    fn access<T>(&self, what: impl FnOnce(&mut SharedMemory) -> Result<T, FarError>) -> Result<T, Errno> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        what(&mut memory).map_err(|error| {
            tracing::warn!("{error}");
            if matches!(error, FarError::Full { .. }) { Errno::ENOSPC } else { Errno::EIO }
        })
    }
}

impl Filesystem for SharedFile {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.attributes(FILE).filter(|_| parent == INodeNo::ROOT && name == NAME) {
            Some(file) => reply.entry(&VALID, &file, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(attributes) => reply.attr(&VALID, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    /// Its size is what it is: as with a block device, truncating it changes nothing.
    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changes_more = mode.is_some() || uid.is_some() || gid.is_some();
        match self.attributes(inode) {
            Some(_) if changes_more || size.is_some_and(|size| size > self.size) => reply.error(Errno::EPERM),
            Some(attributes) => reply.attr(&VALID, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Without the kernel's page cache, which would show what was here.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut bytes = vec![0; size as usize];
        match self.access(|memory| memory.read_at(offset, &mut bytes)) {
            Ok(len) => reply.data(&bytes[..len]),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.access(|memory| memory.write_at(offset, data)) {
            Ok(0) if !data.is_empty() => reply.error(Errno::ENOSPC),
            Ok(len) => reply.written(len as u32),
            Err(error) => reply.error(error),
        }
    }

    /// What was written is on the memory servers already.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    /// What was written is on the memory servers already.
    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readdir(&self, _: &Request, _: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let entries = [
            (INodeNo::ROOT, FileType::Directory, "."),
            (INodeNo::ROOT, FileType::Directory, ".."),
            (FILE, FileType::RegularFile, NAME),
        ];
        for (next, (inode, kind, name)) in (1..).zip(entries).skip(offset as usize) {
            if reply.add(inode, next, kind, name) {
                break;
            }
        }
        reply.ok();
    }
}
