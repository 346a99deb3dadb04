//! The smallest memory server: `serve SIZE PLACE…`, for example `serve 1GiB 127.0.0.1:7070`. Runs until it is killed.

use std::error::Error;

use rackmem_memory_server::{ServerConfig, Shutdown, run};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let size = arguments.next().ok_or("usage: serve SIZE PLACE…")?.parse()?;
    let listen = arguments.map(|place| place.parse()).collect::<Result<_, _>>()?;
    run(&ServerConfig::new(size, listen), &Shutdown::new()?)?;
    Ok(())
}
