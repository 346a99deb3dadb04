//! What can be wrong with received bytes, and the codes by which a server says no.

/// The bytes are not a frame of this protocol. The stream cannot be trusted after any of these: close it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The first bytes are not the magic.
    #[error("the peer does not speak the rackmem page protocol (its first bytes are {0:#010x})")]
    Magic(u32),
    /// The operation does not exist, or does not travel in this direction.
    #[error("unknown operation {0:#04x}")]
    Op(u8),
    /// The frame is larger than its operation allows.
    #[error("a frame of operation {op:#04x} says it has {len} bytes, the limit is {max}")]
    TooLong {
        /// The operation.
        op: u8,
        /// The payload length that the header claims.
        len: u32,
        /// The longest payload allowed.
        max: usize,
    },
    /// The length does not fit what the frame says it contains.
    #[error("a frame of operation {op:#04x} with {count} records cannot have {len} bytes")]
    Length {
        /// The operation.
        op: u8,
        /// Records that the header claims.
        count: u16,
        /// The payload length that the header claims.
        len: u32,
    },
    /// The check sum over header and records does not match.
    #[error("a frame of operation {0:#04x} was damaged on its way")]
    Check(u8),
    /// A field has a value that it cannot have.
    #[error("a frame of operation {op:#04x} has an impossible {field}")]
    Field {
        /// The operation.
        op: u8,
        /// The field.
        field: &'static str,
    },
}

/// Why a server refuses a request. The ERROR frame carries the code, a number and a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum ErrorCode {
    /// No common protocol version; the number is the server's version.
    Version = 1,
    /// The server wants AUTH (or HELLO) first.
    AuthRequired = 2,
    /// The token is wrong.
    AuthFailed = 3,
    /// The frame cannot be understood; the server closes the connection.
    Malformed = 4,
    /// No such segment here: never created, freed after its lease, or lost in a restart.
    NoSegment = 5,
    /// The owner token is not the one that the segment was created with.
    NotOwner = 6,
    /// The capacity cannot be reserved; the number is the free pages.
    Full = 7,
    /// A limit of the server was hit; the number is the limit.
    Limit = 8,
    /// The server is shutting down.
    Draining = 9,
    /// SEGMENT_MAP works on Unix sockets only.
    NotLocal = 10,
    /// The server was restarted since the segment was created; the number is its epoch now.
    Epoch = 11,
    /// The kernel refused the server something; the sentence says what.
    Internal = 12,
}

impl ErrorCode {
    /// All codes.
    pub const ALL: [Self; 12] = [
        Self::Version,
        Self::AuthRequired,
        Self::AuthFailed,
        Self::Malformed,
        Self::NoSegment,
        Self::NotOwner,
        Self::Full,
        Self::Limit,
        Self::Draining,
        Self::NotLocal,
        Self::Epoch,
        Self::Internal,
    ];

    /// The code with this number.
    pub fn from_wire(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|code| *code as u16 == number)
    }

    /// The code as a word, for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::AuthRequired => "auth_required",
            Self::AuthFailed => "auth_failed",
            Self::Malformed => "malformed",
            Self::NoSegment => "no_segment",
            Self::NotOwner => "not_owner",
            Self::Full => "full",
            Self::Limit => "limit",
            Self::Draining => "draining",
            Self::NotLocal => "not_local",
            Self::Epoch => "epoch",
            Self::Internal => "internal",
        }
    }
}
