//! `rackmem watch`: prints each read and write access to one page of a target.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use rackmem_control::{Access, Client};

/// Print each access to one page of a process that has far memory
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The process
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pid: u32,
    /// An address in the page: 0x… or decimal
    #[arg(value_parser = parse_address)]
    pub(crate) address: u64,
    /// One JSON object per access
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let accesses = Client::open(arguments.pid)?.watch(arguments.address)?;
    let mut out = io::stdout().lock();
    for access in accesses {
        let access = access?;
        let line = if arguments.json { serde_json::to_string(&access)? } else { line(&access) };
        writeln!(out, "{line}")?;
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn line(access: &Access) -> String {
    let Access { at_us, thread, address, write } = *access;
    let kind = if write { "write" } else { "read" };
    let (seconds, rest) = (at_us / 1_000_000, at_us % 1_000_000);
    format!("{seconds:>6}.{rest:06}  thread {thread:<8} {kind:<5}  {address:#x}")
}

pub(crate) fn parse_address(text: &str) -> Result<u64, String> {
    let address = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    address
        .map_err(|_| format!("'{text}' is not an address: write it as 0x7f0012345000 or as a decimal number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hexadecimal_or_decimal() {
        assert_eq!(parse_address("0x7f00"), Ok(0x7f00));
        assert_eq!(parse_address("4096"), Ok(4096));
        for text in ["", "0x", "7f00", "-1", "0x1ffffffffffffffff"] {
            assert!(parse_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_line_says_when_who_what_where() {
        let access = Access { at_us: 1_000_042, thread: 77, address: 0x7f00_1238, write: true };
        assert_eq!(line(&access), "     1.000042  thread 77       write  0x7f001238");
    }
}
