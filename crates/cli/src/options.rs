//! The options that `run` and `attach` share, and their way to the pager process, which is a command line again.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use rackmem_pager::LIMIT_MIN;
use rackmem_types::{Bytes, PAGE_SIZE, ServerAddress};

use crate::spawn::option;

/// The largest extent that can be asked for: all the slots of a target are 16 TiB, and striping needs several extents.
const EXTENT_MAX: Bytes = Bytes(1 << 40);

#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Far memory")]
pub(crate) struct FarOptions {
    /// A memory server: HOST:PORT, unix:PATH or shm:PATH; repeat it to stripe over several
    #[arg(
        long = "memory-server",
        value_name = "ADDRESS",
        required_unless_present = "segments",
        env = "RACKMEM_MEMORY_SERVER",
        value_delimiter = ','
    )]
    pub(crate) memory_servers: Vec<ServerAddress>,

    /// File that names segments made for this program (`rackmem segment create`); they are used before others are reserved
    #[arg(long, value_name = "FILE")]
    pub(crate) segments: Option<PathBuf>,

    /// Local limit: how much of the program's memory may be in this machine's RAM, for example 256MiB
    #[arg(long, value_name = "SIZE", value_parser = parse_limit)]
    pub(crate) local: Bytes,

    /// Use at most this much far memory (default: as much as the memory servers give)
    #[arg(long, value_name = "SIZE", value_parser = parse_whole_pages)]
    pub(crate) far_max: Option<Bytes>,

    /// File with the token that the memory servers know
    #[arg(long, value_name = "FILE", env = "RACKMEM_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// Certificate to show to the memory servers, PEM
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_ca"])]
    pub(crate) tls_cert: Option<PathBuf>,

    /// Private key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Certificates of the authority that signs the memory servers' certificates, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_ca: Option<PathBuf>,

    /// Write the trace of faults and evictions to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,

    /// Give a memory server up when it cannot be reached for so long
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) lost_after: u64,

    /// How long the memory servers keep the pages when this machine goes silent
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub(crate) lease: u64,

    /// Unit in which far memory is reserved and striped
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_extent)]
    pub(crate) extent: Bytes,

    /// Do without a kernel feature even where it is there
    #[arg(long, value_name = "FEATURE", hide = true, value_parser = ["move", "poison"])]
    pub(crate) without: Vec<String>,
}

impl FarOptions {
    /// The same options for a process with another working directory.
    pub(crate) fn absolute(mut self) -> anyhow::Result<Self> {
        self.memory_servers =
            self.memory_servers.into_iter().map(absolute_server).collect::<anyhow::Result<_>>()?;
        let files = [
            &mut self.segments,
            &mut self.token_file,
            &mut self.tls_cert,
            &mut self.tls_key,
            &mut self.tls_ca,
            &mut self.trace,
        ];
        for path in files.into_iter().flatten() {
            *path = absolute(path)?;
        }
        Ok(self)
    }

    /// The command line that parses to these options.
    pub(crate) fn to_arguments(&self) -> Vec<OsString> {
        let mut line = Vec::new();
        let mut push = |name: &str, value: OsString| line.push(option(name, &value));
        for address in &self.memory_servers {
            push("--memory-server", address.to_string().into());
        }
        push("--local", self.local.0.to_string().into());
        if let Some(far_max) = self.far_max {
            push("--far-max", far_max.0.to_string().into());
        }
        let files = [
            ("--segments", &self.segments),
            ("--token-file", &self.token_file),
            ("--tls-cert", &self.tls_cert),
            ("--tls-key", &self.tls_key),
            ("--tls-ca", &self.tls_ca),
            ("--trace", &self.trace),
        ];
        for (name, file) in files {
            if let Some(file) = file {
                push(name, file.into());
            }
        }
        push("--lost-after", self.lost_after.to_string().into());
        push("--lease", self.lease.to_string().into());
        push("--extent", self.extent.0.to_string().into());
        for feature in &self.without {
            push("--without", feature.into());
        }
        line
    }
}

/// The same server for a process with another working directory.
pub(crate) fn absolute_server(mut address: ServerAddress) -> anyhow::Result<ServerAddress> {
    if let ServerAddress::Unix(path) | ServerAddress::Shm(path) = &mut address {
        *path = absolute(path)?;
    }
    Ok(address)
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot make the path {} absolute", path.display()))
}

/// A local limit: enough for a program to get on, and no more than the machine has.
pub(crate) fn parse_limit(text: &str) -> Result<Bytes, String> {
    let limit = parse_whole_pages(text)?;
    if limit < LIMIT_MIN {
        return Err(format!(
            "with less than {LIMIT_MIN} a program would do nothing but wait; take a larger limit"
        ));
    }
    let ram = ram();
    if limit > ram {
        return Err(format!(
            "this machine has {ram} of RAM; a larger limit would never send a page away, take a smaller one"
        ));
    }
    Ok(limit)
}

pub(crate) fn parse_whole_pages(text: &str) -> Result<Bytes, String> {
    let size: Bytes = text.parse().map_err(|error: rackmem_types::ParseBytesError| error.to_string())?;
    if size == Bytes(0) {
        return Err("0 is no memory at all; take what the program needs often, for example 256MiB".to_owned());
    }
    if !size.0.is_multiple_of(PAGE_SIZE as u64) {
        return Err(format!("the size must be a multiple of {PAGE_SIZE} bytes, for example 256MiB"));
    }
    Ok(size)
}

fn parse_extent(text: &str) -> Result<Bytes, String> {
    let extent = parse_whole_pages(text)?;
    if extent > EXTENT_MAX { Err(format!("an extent can be {EXTENT_MAX} at most")) } else { Ok(extent) }
}

/// RAM of this machine.
pub(crate) fn ram() -> Bytes {
    let info = rustix::system::sysinfo();
    Bytes(info.totalram as u64 * u64::from(info.mem_unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        far: FarOptions,
    }

    fn parse<I: IntoIterator<Item = OsString>>(line: I) -> FarOptions {
        Line::try_parse_from(["test".into()].into_iter().chain(line)).unwrap().far
    }

    #[test]
    fn options_survive_the_way_to_the_pager() {
        let check = |line: &str| {
            let options = parse(line.split(' ').map(OsString::from));
            assert_eq!(parse(options.to_arguments()), options, "{line}");
            options
        };
        check("--segments s --local 8MiB");
        let options = check("--memory-server a:1 --local 8MiB");
        assert_eq!((options.lost_after, options.lease, options.extent), (5, 60, Bytes(64 << 20)));
        check(
            "--memory-server [::1]:1 --memory-server unix:/s --local 8MiB --segments s --far-max 1GiB --token-file t --tls-cert -c \
             --tls-key k --tls-ca a --trace=-t --lost-after 9 --lease 7 --extent 4MiB --without move --without poison"
                .replace("--tls-cert -c", "--tls-cert=-c")
                .as_str(),
        );
    }

    #[test]
    fn paths_are_made_absolute() {
        let here = std::env::current_dir().unwrap();
        let options = parse(["--memory-server=unix:s", "--local=8MiB", "--trace=t"].map(OsString::from));
        let options = options.absolute().unwrap();
        assert_eq!(options.memory_servers, [ServerAddress::Unix(here.join("s"))]);
        assert_eq!(options.trace, Some(here.join("t")));
    }

    #[test]
    fn a_limit_is_between_nothing_and_the_machine() {
        assert_eq!(parse_limit("4MiB"), Ok(Bytes(4 << 20)));
        assert!(parse_limit("4092KiB").unwrap_err().contains("less than 4MiB"));
        assert!(parse_limit("0").unwrap_err().contains("no memory at all"));
        assert!(parse_limit("1000").unwrap_err().contains("multiple of 4096"));
        assert!(parse_limit(&(ram().0 + 4096).to_string()).unwrap_err().contains("this machine has"));
    }
}
