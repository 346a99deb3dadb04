//! Variable-length integers: seven bits a byte, lowest first, the top bit set on all but the last (LEB128), in the one
//! shortest form; signed ones as zigzag.

/// The longest encoding of a 64-bit number.
pub(crate) const BYTES_MAX: usize = 10;

/// Appends `value` to `out`.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// What a decoder says after each byte.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fed {
    More,
    Done(u64),
    Wrong(&'static str),
}

/// Decodes byte by byte.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    value: u64,
    bytes: usize,
}

impl Decoder {
    pub(crate) fn feed(&mut self, byte: u8) -> Fed {
        let shift = 7 * self.bytes;
        self.bytes += 1;
        if self.bytes == BYTES_MAX && byte > 1 {
            return Fed::Wrong("a number is larger than 64 bits");
        }
        self.value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 != 0 {
            return Fed::More;
        }
        if byte == 0 && self.bytes > 1 {
            return Fed::Wrong("a number is not in its shortest form");
        }
        Fed::Done(self.value)
    }
}

/// Maps small numbers of either sign to small unsigned ones.
pub(crate) fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

/// The inverse of [`zigzag`].
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(bytes: &[u8]) -> Fed {
        let mut decoder = Decoder::default();
        bytes.iter().map(|byte| decoder.feed(*byte)).find(|fed| *fed != Fed::More).unwrap_or(Fed::More)
    }

    proptest! {
        #[test]
        fn numbers_survive_a_round_trip(value: u64, shift in 0u32..64, signed: i64) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            prop_assert!(bytes.len() <= BYTES_MAX);
            prop_assert_eq!(decode(&bytes), Fed::Done(value));
            prop_assert_eq!(unzigzag(zigzag(signed)), signed);
        }
    }

    #[test]
    fn refuses_padding_and_overflow() {
        assert!(matches!(decode(&[0x80, 0]), Fed::Wrong(_)));
        assert!(matches!(decode(&[0xff; 10]), Fed::Wrong(_)));
        assert!(matches!(decode(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), Fed::Wrong(_)));
        assert_eq!(decode(&[0x80]), Fed::More);
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), Fed::Done(u64::MAX));
    }
}
