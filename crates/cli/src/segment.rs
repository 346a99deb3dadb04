//! `rackmem segment`: segments that are made for others by hand, and the file that names them to a pager.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use rackmem_api::agent::{SegmentId, SegmentToken};
use rackmem_far::{Credentials, GivenSegment, SegmentView, Segments, TlsFiles};
use rackmem_types::{Bytes, PAGE_SIZE, ServerAddress};
use serde::{Deserialize, Serialize};

use crate::out;
use crate::table::printable;
use crate::tls::ClientTls;
use crate::token;

/// Longest file of segments: a few thousand of them.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Make segments on a memory server, for a pager that is told to use them with --segments
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a segment, and write the file that names it and opens it
    Create(Create),
    /// List what a memory server has, whoever made it
    List(List),
    /// Destroy the segments that a file names; programs that still use them lose their pages
    Destroy(Destroy),
}

#[derive(Args, Debug)]
struct Create {
    /// How large
    #[arg(long, value_name = "SIZE")]
    size: Bytes,
    /// The file to write; it holds the segment's secret and is readable by its owner only
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The memory server: HOST:PORT, unix:PATH or shm:PATH
    #[arg(long, value_name = "ADDRESS", env = "RACKMEM_MEMORY_SERVER")]
    memory_server: ServerAddress,
    /// What the memory server's list calls it
    #[arg(long, default_value = "segment")]
    name: String,
    /// How long it outlives the last program that uses it
    #[arg(long, value_name = "SECONDS", default_value = "86400", value_parser = clap::value_parser!(u64).range(1..=604_800))]
    lease: u64,
    #[command(flatten)]
    proof: Proof,
}

#[derive(Args, Debug)]
struct List {
    /// The memory server: HOST:PORT, unix:PATH or shm:PATH
    #[arg(long, value_name = "ADDRESS", env = "RACKMEM_MEMORY_SERVER")]
    memory_server: ServerAddress,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    proof: Proof,
}

#[derive(Args, Debug)]
struct Destroy {
    /// The file
    file: PathBuf,
    #[command(flatten)]
    proof: Proof,
}

/// What proves to the memory server who asks.
#[derive(Args, Debug)]
pub(crate) struct Proof {
    /// File with the token that the memory server knows
    #[arg(long, value_name = "FILE", env = "RACKMEM_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) tls: ClientTls,
}

impl Proof {
    pub(crate) fn credentials(&self) -> anyhow::Result<Credentials> {
        let tls = self.tls.files().map(|files| TlsFiles { cert: files.cert, key: files.key, ca: files.ca });
        Ok(Credentials { tls, token: self.token_file.as_deref().map(token::read).transpose()? })
    }
}

/// One segment, or a part of one, as the file has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    server: ServerAddress,
    segment: SegmentId,
    token: SegmentToken,
    /// Where the part begins, in bytes.
    #[serde(default)]
    offset: u64,
    size: u64,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        Command::Create(create) => self::create(create),
        Command::List(list) => self::list(list),
        Command::Destroy(destroy) => self::destroy(destroy),
    }
}

fn create(arguments: &Create) -> anyhow::Result<ExitCode> {
    let Create { size, out, memory_server, name, lease, proof } = arguments;
    let page = PAGE_SIZE as u64;
    ensure!(
        size.0 > 0 && size.0.is_multiple_of(page),
        "a segment has whole pages: let the size be a multiple of {page} bytes"
    );
    // The file first: a segment that nobody can open would be lost.
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(out)
        .with_context(|| format!("cannot make the file {}", out.display()))?;
    let made = (|| {
        let segments = Segments::connect(memory_server.clone(), &proof.credentials()?)?;
        let owner = Segments::owner();
        let segment = segments.create(name, size.pages(), owner, Duration::from_secs(*lease))?;
        let (segment, token) = (SegmentId(segment), SegmentToken(owner));
        let entry = Entry { server: memory_server.clone(), segment, token, offset: 0, size: size.0 };
        writeln!(file, "{}", serde_json::to_string_pretty(&[entry])?)?;
        anyhow::Ok(segment)
    })();
    match made {
        Ok(segment) => {
            out::line(format_args!(
                "segment {segment} on {memory_server}: {size}, opened by {}",
                out.display()
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            let _ = std::fs::remove_file(out);
            Err(error)
        }
    }
}

/// A segment as it is listed.
#[derive(Debug, Serialize)]
struct Listed {
    segment: SegmentId,
    name: String,
    size: u64,
    filled: u64,
    connections: u32,
    /// Until it is freed, while nobody has it open.
    lease_left_s: Option<u64>,
}

impl From<SegmentView> for Listed {
    fn from(view: SegmentView) -> Self {
        let bytes = |pages| Bytes::from_pages(pages).0;
        Self {
            segment: SegmentId(view.id),
            name: view.name,
            size: bytes(view.pages),
            filled: bytes(view.filled),
            connections: view.attached,
            lease_left_s: view.lease_left.map(|left| left.as_secs()),
        }
    }
}

fn list(arguments: &List) -> anyhow::Result<ExitCode> {
    let server = Segments::connect(arguments.memory_server.clone(), &arguments.proof.credentials()?)?;
    let listed: Vec<Listed> = server.pool()?.segments.into_iter().map(Listed::from).collect();
    if arguments.json {
        out::json(&listed)?;
        return Ok(ExitCode::SUCCESS);
    }
    if listed.is_empty() {
        out::note(format_args!("there is no segment on {}", arguments.memory_server));
    }
    for Listed { segment, name, size, filled, connections, lease_left_s } in listed {
        let (name, size, filled) = (printable(&name), Bytes(size), Bytes(filled));
        let lease = lease_left_s.map_or_else(
            || format!("open on {connections} connections"),
            |left| format!("freed in {left} s unless somebody opens it"),
        );
        out::line(format_args!("segment {segment} '{name}': {size}, {filled} filled, {lease}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn destroy(arguments: &Destroy) -> anyhow::Result<ExitCode> {
    let credentials = arguments.proof.credentials()?;
    for GivenSegment { server, segment, owner, .. } in read(&arguments.file)? {
        let shown = SegmentId(segment);
        Segments::connect(server.clone(), &credentials)?.destroy(segment, owner)?;
        out::line(format_args!("segment {shown} on {server}: destroyed"))?;
    }
    std::fs::remove_file(&arguments.file)
        .with_context(|| format!("cannot remove {}", arguments.file.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// The segments that `file` names.
pub(crate) fn read(file: &Path) -> anyhow::Result<Vec<GivenSegment>> {
    let mut text = Vec::new();
    std::fs::File::open(file)
        .and_then(|opened| opened.take(FILE_BYTES_MAX).read_to_end(&mut text))
        .with_context(|| format!("cannot read the segments in {}", file.display()))?;
    let entries: Vec<Entry> = serde_json::from_slice(&text).with_context(|| {
        format!("{} does not name segments; 'rackmem segment create --out' writes such files", file.display())
    })?;
    entries.into_iter().map(|entry| given(entry, file)).collect()
}

fn given(entry: Entry, file: &Path) -> anyhow::Result<GivenSegment> {
    let Entry { server, segment, token, offset, size } = entry;
    let page = PAGE_SIZE as u64;
    ensure!(
        size > 0
            && size.is_multiple_of(page)
            && offset.is_multiple_of(page)
            && offset.checked_add(size).is_some(),
        "{}: offset {offset} and size {size} of segment {segment} have to be multiples of {page}",
        file.display()
    );
    let (first, pages) = (offset / page, size / page);
    Ok(GivenSegment { server, segment: segment.0, owner: token.0, first, pages })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_parts_of_segments() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("segments");
        let check = |text: &str| {
            std::fs::write(&file, text).unwrap();
            read(&file).map_err(|error| format!("{error:#}"))
        };
        let line = |size: u64| {
            format!(r#"[{{"server":"a:1","segment":"a7","token":"{:032x}","offset":8192,"size":{size}}}]"#, 7)
        };
        let given = check(&line(16384)).unwrap().pop().unwrap();
        assert_eq!((given.segment, given.first, given.pages, given.owner[15]), (0xa7, 2, 4, 7));
        assert!(check(&line(5)).unwrap_err().contains("multiples of 4096"));
        assert!(check("{}").unwrap_err().contains("rackmem segment create"));
        assert!(read(Path::new("/no/such/file")).is_err());
    }
}
