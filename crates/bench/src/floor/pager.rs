//! The pager of the floor. Its userfaultfd is its standard input; that of the program is the only other one.

use std::io::{Read, Write, stdin};
use std::net::TcpStream;
use std::os::fd::AsFd;

use anyhow::{Result, bail};
use rackmem_types::{PAGE_SIZE, PageData};
use rackmem_uapi::uffd::{self, Event};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::process::loopback;

/// Where the program's memory is, and where the pages are.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Args {
    /// TCP port of the server.
    #[arg(long)]
    port: u16,
    /// Address of the first page in the program.
    #[arg(long)]
    base: u64,
}

/// Runs until the program is gone.
pub(crate) fn run(args: Args) -> Result<()> {
    let mut server = TcpStream::connect(loopback(args.port))?;
    server.set_nodelay(true)?;
    let stdin = stdin();
    let faults = stdin.as_fd();
    let mut page: PageData = [0; PAGE_SIZE];
    let mut events = Vec::with_capacity(uffd::MESSAGES_MAX);
    loop {
        poll(&mut [PollFd::new(&faults, PollFlags::IN)], None)?;
        uffd::read(faults, &mut events)?;
        for event in events.drain(..) {
            let Event::Fault { address, .. } = event else {
                bail!("an event that nobody asked for: {event:?}")
            };
            let start = address & !(PAGE_SIZE as u64 - 1);
            let number = (start - args.base) / PAGE_SIZE as u64;
            server.write_all(&number.to_le_bytes())?;
            server.read_exact(&mut page)?;
            match uffd::copy(faults, start, page.as_ptr() as u64, PAGE_SIZE as u64).error {
                Some(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => return Ok(()),
                Some(error) => return Err(error.into()),
                None => {}
            }
        }
    }
}
