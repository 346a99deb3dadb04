//! The start of a trace: what was traced, and when.

use crate::TraceError;

/// The version of the format that is written and read here.
pub const VERSION: u16 = 1;

/// The longest command line that a header keeps, in bytes; enough to recognise a program, and no way to make a reader
/// take up memory.
pub const COMMAND_BYTES_MAX: usize = 4096;

pub(crate) const MAGIC: [u8; 8] = *b"RMTRACE\0";

/// Bytes before the command: magic, version, length of the command, page size, start time.
pub(crate) const FIXED_BYTES: usize = 24;

/// What a trace is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes in a page; a power of two from 4,096 to 2²⁵.
    pub page_size: u32,
    /// When the trace began, in microseconds since 1970-01-01 00:00 UTC.
    pub started_us: u64,
    /// The target's command line. Longer ones are cut when they are written.
    pub command: String,
}

impl Header {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, TraceError> {
        page_size_check(self.page_size).map_err(TraceError::Refused)?;
        let command = &self.command[..self.command.floor_char_boundary(COMMAND_BYTES_MAX)];
        let mut bytes = Vec::with_capacity(FIXED_BYTES + command.len());
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        // At most COMMAND_BYTES_MAX.
        bytes.extend((command.len() as u16).to_le_bytes());
        bytes.extend(self.page_size.to_le_bytes());
        bytes.extend(self.started_us.to_le_bytes());
        bytes.extend(command.as_bytes());
        Ok(bytes)
    }

    /// Checks the fixed part; answers the header without its command, and the command's length.
    pub(crate) fn decode(fixed: &[u8; FIXED_BYTES]) -> Result<(Self, usize), TraceError> {
        let damaged = |what| TraceError::Damaged { offset: 0, what };
        if fixed[..8] != MAGIC {
            return Err(TraceError::NotATrace);
        }
        let word = |at: usize| u16::from_le_bytes([fixed[at], fixed[at + 1]]);
        if word(8) != VERSION {
            return Err(TraceError::Version { found: word(8), known: VERSION });
        }
        let length = usize::from(word(10));
        if length > COMMAND_BYTES_MAX {
            return Err(damaged("its command line is longer than 4096 bytes"));
        }
        let page_size = u32::from_le_bytes([fixed[12], fixed[13], fixed[14], fixed[15]]);
        page_size_check(page_size).map_err(damaged)?;
        let started_us = fixed[16..].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        Ok((Self { page_size, started_us, command: String::new() }, length))
    }
}

fn page_size_check(page_size: u32) -> Result<(), &'static str> {
    let fine = page_size.is_power_of_two() && (1 << 12..=1 << 25).contains(&page_size);
    fine.then_some(()).ok_or("the page size is not a power of two from 4 KiB to 32 MiB")
}
