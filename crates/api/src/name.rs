//! Names that users and controllers give.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Longest name: what fits as a label of DNS, as QEMU's process name and with a suffix as the name of a socket.
const NAME_BYTES_MAX: usize = 63;

/// The text cannot be a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' cannot be a name: write 1 to {NAME_BYTES_MAX} of the characters a-z, 0-9, '-', '_' and '.', \
     a letter or a digit first"
)]
pub struct NameError(String);

fn check(text: &str) -> Result<(), NameError> {
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let all = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
    if first && all && text.len() <= NAME_BYTES_MAX {
        Ok(())
    } else {
        // A name that is too long is not repeated in full.
        Err(NameError(text.chars().take(NAME_BYTES_MAX + 1).collect()))
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(into = "String", try_from = "String")]
        #[schema(value_type = String, pattern = "^[a-z0-9][a-z0-9._-]{0,62}$", example = "web1")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                check(text).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                check(&text).map(|()| Self(text))
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name! {
    /// Name of a virtual machine on its brick.
    VmName
}

name! {
    /// Name of memory that several bricks share.
    GroupName
}

name! {
    /// Name of a physical attachment on its brick; whoever attaches chooses it.
    AttachmentId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_every_layer_below_can_carry() {
        for good in ["web1", "0", "a.b_c-d", &"x".repeat(63)] {
            assert_eq!(good.parse::<VmName>().unwrap().to_string(), good);
        }
        for bad in ["", "-a", ".a", "Web", "a b", "a/b", "ä", "..", &"x".repeat(64)] {
            assert!(bad.parse::<VmName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn json_is_checked_too() {
        assert!(serde_json::from_str::<AttachmentId>("\"../x\"").is_err());
        assert_eq!(serde_json::to_string(&"m1".parse::<AttachmentId>().unwrap()).unwrap(), "\"m1\"");
    }
}
