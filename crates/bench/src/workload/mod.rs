//! The programs whose memory is far. They know nothing of rackmem: each runs natively, under `rackmem run`, and with its
//! memory in swap, and says on its last line of output, as JSON, what it saw.
//!
//! A driver leads them by lines on their standard input (`go`, `end`) and reads `ready` from their output.

pub(crate) mod content;
pub(crate) mod first_touch;
pub(crate) mod spin;
pub(crate) mod touch;

use std::io::{BufRead, Write};

use anyhow::{Result, bail};
use serde::Serialize;

/// Says `ready` and waits for the driver's next line. An ended driver is an error: nobody would read the result.
pub(crate) fn rendezvous() -> Result<()> {
    println!("ready");
    std::io::stdout().flush()?;
    let mut line = String::new();
    if std::io::stdin().lock().read_line(&mut line)? == 0 {
        bail!("the driver went away");
    }
    Ok(())
}

pub(crate) fn report(result: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(result)?);
    Ok(())
}
