//! What memory servers say of themselves when they are greeted: that they are there, and how much they can still lend.
//!
//! It reads a greeting and hangs up. It reserves nothing, and says nothing of servers behind TLS but whether they listen.

use std::time::Duration;

use rackmem_api::Problem;
use rackmem_api::problem::ProblemType;
use rackmem_types::{Bytes, ServerAddress};
use rackmem_wire::{Answer, Request, VERSION};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// A server in the same data centre greets in well under a millisecond; a busy machine may take a second.
const GREETING_MAX: Duration = Duration::from_secs(2);

/// A greeting is about 70 bytes.
const GREETING_BYTES_MAX: usize = 4096;

/// What a memory server can still lend; `None` if it only speaks TLS.
pub(crate) async fn free(address: &ServerAddress) -> Result<Option<Bytes>, Problem> {
    let greeted = timeout(GREETING_MAX, async {
        match address {
            ServerAddress::Tcp { host, port } => {
                greet(TcpStream::connect((host.as_str(), *port)).await?).await
            }
            ServerAddress::Unix(path) | ServerAddress::Shm(path) => {
                greet(UnixStream::connect(path).await?).await
            }
        }
    });
    let unreachable = |reason: String| {
        let detail = format!(
            "the memory server {address} cannot be reached ({reason}): start it, or name another one"
        );
        Problem::new(ProblemType::Unavailable, detail).retry_after(5)
    };
    match greeted.await {
        Ok(Ok(free)) => Ok(free),
        Ok(Err(error)) => Err(unreachable(error.to_string())),
        Err(_) => Err(unreachable(format!("no answer within {} s", GREETING_MAX.as_secs()))),
    }
}

/// What all of `addresses` can still lend together; `None` if one of them does not tell.
pub(crate) async fn free_in_all(addresses: &[ServerAddress]) -> Result<Option<Bytes>, Problem> {
    let mut sum = 0u64;
    for address in addresses {
        let Some(free) = free(address).await? else { return Ok(None) };
        sum = sum.saturating_add(free.0);
    }
    Ok(Some(Bytes(sum)))
}

async fn greet<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> std::io::Result<Option<Bytes>> {
    let mut hello = Vec::new();
    // Nothing is proved on this connection, so nobody has to be unable to guess the nonce.
    Request::Hello { version_min: VERSION, version_max: VERSION, nonce: [0; 16] }.encode(1, &mut hello);
    stream.write_all(&hello).await?;
    let mut answer = Vec::new();
    while answer.len() < GREETING_BYTES_MAX && stream.read_buf(&mut answer).await? > 0 {
        match Answer::parse(&answer) {
            Ok(None) => {}
            Ok(Some((_, Answer::Welcome(welcome), _))) => {
                return Ok(Some(Bytes::from_pages(welcome.pages_free)));
            }
            Ok(Some((_, Answer::Error { text, .. }, _))) => {
                return Err(std::io::Error::other(text.to_owned()));
            }
            Ok(Some(_)) | Err(_) => break,
        }
    }
    // It listens, but answers a TLS alert or nothing at all to words in the clear.
    Ok(None)
}
