//! Why a memory server cannot be used, as sentences for its user, each with a way out. The system's own words are in the
//! sentence, as its `reason`; they are not the source of the error, or who prints the chain would say them twice.

use std::io;
use std::path::PathBuf;

use rackmem_types::ServerAddress;

/// A memory server cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are named in the sentences")]
pub enum FarError {
    /// The configuration names no server.
    #[error("no memory server was given; name at least one with --memory-server HOST:PORT")]
    NoServers,
    /// The name does not resolve.
    #[error("the host name in '{address}' is unknown ({reason}); check its spelling, or use an IP address")]
    UnknownHost { address: ServerAddress, reason: io::Error },
    /// Nobody listens.
    #[error(
        "no memory server listens on '{address}' ({reason}); start one there with `rackmem memory-server`, or check the address"
    )]
    Refused { address: ServerAddress, reason: io::Error },
    /// No answer in time.
    #[error(
        "the memory server '{address}' did not answer within {seconds:.1} s; check that it runs and that no firewall is in between"
    )]
    Timeout { address: ServerAddress, seconds: f64 },
    /// The connection ended.
    #[error(
        "the connection to '{address}' was closed early; if that server demands TLS or does not expect it, give the same --tls options on both sides ({reason})"
    )]
    Closed { address: ServerAddress, reason: io::Error },
    /// It wants a token and none was given.
    #[error(
        "the memory server '{address}' demands a token; give the token file that it was started with (--token-file)"
    )]
    TokenNeeded { address: ServerAddress },
    /// The token is wrong.
    #[error(
        "the memory server '{address}' does not accept the token; both sides must be started with the same --token-file"
    )]
    WrongToken { address: ServerAddress },
    /// It does not accept our certificate.
    #[error(
        "the memory server '{address}' does not accept our certificate ({reason}); use one that is signed by the authority in its --tls-ca"
    )]
    CertificateRefused { address: ServerAddress, reason: String },
    /// We do not trust its certificate.
    #[error(
        "the certificate of the memory server '{address}' is not trusted ({reason}); check --tls-ca and that the certificate names this host"
    )]
    ServerNotTrusted { address: ServerAddress, reason: String },
    /// A TLS file cannot be used.
    #[error("the TLS file {} cannot be used: {reason}", path.display())]
    TlsFile { path: PathBuf, reason: String },
    /// It speaks another version.
    #[error(
        "the memory server '{address}' speaks version {theirs} of the page protocol and this program version {ours}; install the same rackmem on both sides"
    )]
    Version { address: ServerAddress, theirs: u64, ours: u16 },
    /// It speaks something else.
    #[error(
        "what listens on '{address}' is not a rackmem memory server, or it expects TLS ({reason}); check the port and the --tls options"
    )]
    NotAServer { address: ServerAddress, reason: String },
    /// It cannot reserve what is asked.
    #[error(
        "the memory server '{address}' is full: {free_pages} pages are free; start it with a larger --size or name another server"
    )]
    Full { address: ServerAddress, free_pages: u64 },
    /// A segment that was given is not there.
    #[error(
        "the memory server '{address}' has no segment {segment:016x}: it was freed, or the server was restarted; have another one made"
    )]
    NoSegment { address: ServerAddress, segment: u64 },
    /// A segment is somebody else's.
    #[error(
        "segment {segment:016x} on the memory server '{address}' belongs to somebody else: the token does not open it"
    )]
    NotOwner { address: ServerAddress, segment: u64 },
    /// A segment that was given is smaller than the part of it that is to be used.
    #[error(
        "segment {segment:016x} on the memory server '{address}' ends at page {pages}, and pages up to {end} were given"
    )]
    SegmentTooSmall { address: ServerAddress, segment: u64, pages: u64, end: u64 },
    /// Pages may lie on what is to go.
    #[error(
        "segment {segment:016x} on the memory server '{address}' is in use: its pages have to come home before it can go or change"
    )]
    InUse { address: ServerAddress, segment: u64 },
    /// The connection broke while shared memory was written.
    #[error(
        "the connection to '{address}' broke while shared memory was written there, and others have written since: it is open whether this was written; read it and decide"
    )]
    Unsure { address: ServerAddress },
    /// It was restarted.
    #[error("the memory server '{address}' was restarted and has lost what it held; start the program again")]
    Restarted { address: ServerAddress },
    /// It is lost.
    #[error("the memory server '{address}' is lost: {reason}")]
    Lost { address: ServerAddress, reason: String },
    /// It refused with words of its own.
    #[error("the memory server '{address}' refused: {text}")]
    Server { address: ServerAddress, text: String },
    /// The kernel refused something.
    #[error("the memory server '{address}' cannot be reached: {reason}")]
    Io { address: ServerAddress, reason: io::Error },
}
