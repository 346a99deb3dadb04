//! Memory servers: what they say of themselves when they are greeted.

use std::time::Duration;

use rackmem_api::Problem;
use rackmem_api::problem::ProblemType;
use rackmem_types::ServerAddress;
use rackmem_wire::{Answer, Request, VERSION};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::Seen;

/// A server in the same rack greets in well under a millisecond; a busy machine may take a second.
const GREETING_MAX: Duration = Duration::from_secs(2);

/// A greeting is about 70 bytes.
const GREETING_BYTES_MAX: usize = 4096;

/// Addresses of memory servers that are only numbers: nothing is there to be greeted.
const SIMULATED: &str = "sim:";

/// Greets the memory server at `address`.
pub(super) async fn greet(address: &str) -> Result<Seen, Problem> {
    if address.starts_with(SIMULATED) {
        return Ok(Seen::Pool { epoch: None, pages: None });
    }
    let server: ServerAddress = address.parse().map_err(|error: rackmem_types::ParseServerError| {
        Problem::new(ProblemType::Invalid, error.to_string())
    })?;
    let greeted = timeout(GREETING_MAX, async {
        match &server {
            ServerAddress::Tcp { host, port } => {
                exchange(TcpStream::connect((host.as_str(), *port)).await?).await
            }
            ServerAddress::Unix(path) | ServerAddress::Shm(path) => {
                exchange(UnixStream::connect(path).await?).await
            }
        }
    });
    let reason = match greeted.await {
        Ok(Ok(seen)) => return Ok(seen),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", GREETING_MAX.as_secs()),
    };
    let detail =
        format!("the memory server {server} cannot be reached ({reason}): start it, or drain its brick");
    Err(Problem::new(ProblemType::Unavailable, detail).retry_after(5))
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> std::io::Result<Seen> {
    let mut hello = Vec::new();
    // Nothing is proved on this connection, so nobody has to be unable to guess the nonce.
    Request::Hello { version_min: VERSION, version_max: VERSION, nonce: [0; 16] }.encode(1, &mut hello);
    stream.write_all(&hello).await?;
    let mut answer = Vec::new();
    while answer.len() < GREETING_BYTES_MAX && stream.read_buf(&mut answer).await? > 0 {
        match Answer::parse(&answer) {
            Ok(None) => {}
            Ok(Some((_, Answer::Welcome(welcome), _))) => {
                return Ok(Seen::Pool { epoch: Some(welcome.epoch), pages: Some(welcome.pages_total) });
            }
            Ok(Some((_, Answer::Error { text, .. }, _))) => {
                return Err(std::io::Error::other(text.to_owned()));
            }
            Ok(Some(_)) | Err(_) => break,
        }
    }
    // It listens, but answers words in the clear with a TLS alert or nothing.
    Ok(Seen::Pool { epoch: None, pages: None })
}
