//! The file that describes the segments' memory to programs on this machine, as EmuRackMem of D4.1 does.
//!
//! It names no owner and no secret. Whoever may open the server's descriptors (the same user, or root) may map the
//! memory; the kernel checks that, not this server.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::ServerError;
use crate::session::Store;

/// The regions file of a server.
#[derive(Debug)]
pub(crate) struct RegionsFile {
    path: PathBuf,
    written: Vec<u64>,
}

#[derive(Serialize)]
struct Regions {
    pid: u32,
    regions: Vec<Region>,
}

/// One segment's memory.
#[derive(Serialize)]
struct Region {
    id: u64,
    name: String,
    path: String,
    size: u64,
    pages: u64,
    data_offset: u64,
    meta_offset: u64,
}

impl RegionsFile {
    /// Creates the file, without regions yet.
    pub(crate) fn create(path: &Path, store: &Store) -> Result<Self, ServerError> {
        let mut file = Self { path: path.to_owned(), written: vec![u64::MAX] };
        file.update(store).map_err(|reason| ServerError::Regions { path: path.to_owned(), reason })?;
        Ok(file)
    }

    /// Writes the file anew if segments came or went. Readers see the old file or the new one, never a part.
    pub(crate) fn update(&mut self, store: &Store) -> io::Result<()> {
        let regions: Vec<_> = store.pool().segments().map(|segment| region(segment)).collect();
        let ids: Vec<_> = regions.iter().map(|region| region.id).collect();
        if ids == self.written {
            return Ok(());
        }
        let text = serde_json::to_string_pretty(&Regions { pid: std::process::id(), regions })?;
        let mut next = self.path.clone().into_os_string();
        next.push(".new");
        fs::write(&next, text + "\n")?;
        fs::rename(&next, &self.path)?;
        self.written = ids;
        Ok(())
    }
}

impl Drop for RegionsFile {
    fn drop(&mut self) {
        // Somebody may have removed it already.
        let _ = fs::remove_file(&self.path);
    }
}

fn region(segment: &rackmem_segment::Segment) -> Region {
    let layout = segment.layout();
    let descriptor = segment.memory().as_fd().as_raw_fd();
    Region {
        id: segment.id(),
        name: segment.name().to_owned(),
        path: format!("/proc/{}/fd/{descriptor}", std::process::id()),
        size: layout.len,
        pages: layout.pages,
        data_offset: layout.data_offset,
        meta_offset: layout.meta_offset,
    }
}
