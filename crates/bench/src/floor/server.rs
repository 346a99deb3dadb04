//! The server of the floor: eight bytes with the number of a page in, the page out.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use anyhow::{Result, ensure};
use rackmem_types::{Bytes, PAGE_SIZE};

use crate::process::loopback;
use crate::random::mix;

/// What to serve.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Args {
    /// TCP port to listen on.
    #[arg(long)]
    port: u16,
    /// Memory with the pages.
    #[arg(long, default_value = "256MiB")]
    size: Bytes,
}

/// The first word of page `page`.
pub(crate) fn content(page: u64) -> u64 {
    mix(page)
}

/// Serves one connection after the other, for ever.
pub(crate) fn run(args: Args) -> Result<()> {
    let mut pool = vec![[1u8; PAGE_SIZE]; args.size.pages() as usize];
    for (number, page) in pool.iter_mut().enumerate() {
        page[..8].copy_from_slice(&content(number as u64).to_le_bytes());
    }
    let listener = TcpListener::bind(loopback(args.port))?;
    loop {
        serve(listener.accept()?.0, &pool)?;
    }
}

fn serve(mut client: TcpStream, pool: &[[u8; PAGE_SIZE]]) -> Result<()> {
    client.set_nodelay(true)?;
    let mut number = [0; 8];
    loop {
        match client.read_exact(&mut number) {
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return Ok(());
            }
            result => result?,
        }
        let number = u64::from_le_bytes(number) as usize;
        ensure!(number < pool.len(), "there is no page {number}");
        client.write_all(&pool[number])?;
    }
}
