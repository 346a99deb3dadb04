//! Segments of memory servers, as attachments name them: an id, and the secret that opens it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Bytes of a token.
const TOKEN_BYTES: usize = 16;

/// Identity of a segment on its memory server; 16 hexadecimal digits in JSON, where not every reader keeps 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(into = "String", try_from = "String")]
#[schema(value_type = String, pattern = "^[0-9a-f]{1,16}$", example = "00000000000000a7")]
pub struct SegmentId(pub u64);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for SegmentId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = if digits { u64::from_str_radix(text, 16).ok() } else { None };
        number.map(Self).ok_or_else(|| {
            format!("'{text}' is not a segment: write up to 16 hexadecimal digits in small letters")
        })
    }
}

impl From<SegmentId> for String {
    fn from(segment: SegmentId) -> Self {
        segment.to_string()
    }
}

impl TryFrom<String> for SegmentId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// The secret that opens a segment, drawn by whoever made it; 32 hexadecimal digits in JSON.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(into = "String", try_from = "String")]
#[schema(value_type = String, pattern = "^[0-9a-f]{32}$", example = "000102030405060708090a0b0c0d0e0f")]
pub struct SegmentToken(pub [u8; TOKEN_BYTES]);

impl fmt::Debug for SegmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SegmentToken(..)")
    }
}

impl FromStr for SegmentToken {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = u128::from_str_radix(text, 16).ok().filter(|_| digits && text.len() == 2 * TOKEN_BYTES);
        let number = number.ok_or("a segment's token has 32 hexadecimal digits in small letters")?;
        Ok(Self(number.to_be_bytes()))
    }
}

impl From<SegmentToken> for String {
    fn from(token: SegmentToken) -> Self {
        format!("{:032x}", u128::from_be_bytes(token.0))
    }
}

impl TryFrom<String> for SegmentToken {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_survive_json() {
        let json = serde_json::to_string(&SegmentId(u64::MAX)).unwrap();
        assert_eq!(json, "\"ffffffffffffffff\"");
        assert_eq!(serde_json::from_str::<SegmentId>(&json).unwrap(), SegmentId(u64::MAX));
        for bad in ["", "+1", "0x1", "FF", "10000000000000000"] {
            assert!(bad.parse::<SegmentId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tokens_survive_json_and_are_not_logged() {
        let token = SegmentToken(std::array::from_fn(|i| i as u8));
        let json = serde_json::to_string(&token).unwrap();
        assert_eq!(json, "\"000102030405060708090a0b0c0d0e0f\"");
        assert_eq!(serde_json::from_str::<SegmentToken>(&json).unwrap(), token);
        assert_eq!(format!("{token:?}"), "SegmentToken(..)");
        for bad in ["", "00", "+00102030405060708090a0b0c0d0e0f", "000102030405060708090A0B0C0D0E0F"] {
            assert!(bad.parse::<SegmentToken>().is_err(), "{bad}");
        }
    }
}
