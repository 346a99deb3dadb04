//! One option of QEMU's command line, `kind,key=value,…`. A comma in a value is written twice, which is the whole of
//! QEMU's quoting. Pure.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// An option as it grows.
#[derive(Clone, Debug)]
pub(crate) struct Opt(Vec<u8>);

impl Opt {
    /// Begins with a bare word: the kind of device, object or back end.
    pub(crate) fn new(kind: &str) -> Self {
        Self(kind.as_bytes().to_vec())
    }

    /// Begins with a key.
    pub(crate) fn keyed(key: &str, value: impl Display) -> Self {
        Self(Vec::new()).set(key, value)
    }

    /// Adds `key=value`.
    pub(crate) fn set(self, key: &str, value: impl Display) -> Self {
        self.path(key, value.to_string())
    }

    /// Adds `key=value` if there is a value.
    pub(crate) fn set_some(self, key: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.set(key, value),
            None => self,
        }
    }

    /// Adds `key=value` if it applies.
    pub(crate) fn set_if(self, applies: bool, key: &str, value: impl Display) -> Self {
        self.set_some(key, applies.then_some(value))
    }

    /// Adds `key=path`, whatever bytes the path has.
    pub(crate) fn path(mut self, key: &str, path: impl AsRef<OsStr>) -> Self {
        if !self.0.is_empty() {
            self.0.push(b',');
        }
        self.0.extend_from_slice(key.as_bytes());
        self.0.push(b'=');
        for byte in path.as_ref().as_bytes() {
            if *byte == b',' {
                self.0.push(b',');
            }
            self.0.push(*byte);
        }
        self
    }

    /// As an argument.
    pub(crate) fn finish(self) -> OsString {
        OsString::from_vec(self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Splits as QEMU does.
    fn split(option: &str) -> Vec<String> {
        let mut fields = vec![String::new()];
        let mut characters = option.chars().peekable();
        while let Some(character) = characters.next() {
            let doubled = character == ',' && characters.next_if_eq(&',').is_some();
            match fields.last_mut() {
                Some(field) if character != ',' || doubled => field.push(character),
                _ => fields.push(String::new()),
            }
        }
        fields
    }

    proptest! {
        #[test]
        fn no_value_adds_a_key_of_its_own(path in "[a-z,=/ ]{1,40}") {
            let option = Opt::new("socket").path("path", &path).set("server", "on").finish();
            let expect = ["socket".to_owned(), format!("path={path}"), "server=on".to_owned()];
            prop_assert_eq!(split(&option.into_string().unwrap()), expect);
        }
    }
}
