//! Whether one more operation may wait. Pure.

/// One in so many places is for those of whom nothing waits yet, so that nobody can take all of them.
const KEPT: usize = 4;

/// Why an operation may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// All places are taken.
    All,
    /// What is left is for others.
    Yours,
}

/// Judges one more operation where so many of `places` are taken, `own` of them by whoever asks.
pub(crate) fn room(places: usize, taken: usize, own: usize) -> Result<(), Full> {
    if taken >= places {
        return Err(Full::All);
    }
    if own > 0 && taken >= places - places / KEPT {
        return Err(Full::Yours);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_quarter_is_for_those_of_whom_nothing_waits() {
        assert_eq!(room(16_384, 10_000, 10_000), Ok(()), "a burst of ten thousand");
        assert_eq!(room(16_384, 12_287, 12_287), Ok(()));
        assert_eq!(room(16_384, 12_288, 12_288), Err(Full::Yours));
        assert_eq!(room(16_384, 12_288, 0), Ok(()));
        assert_eq!(room(16_384, 16_383, 0), Ok(()));
        assert_eq!(room(16_384, 16_384, 0), Err(Full::All));
    }

    #[test]
    fn a_small_queue_is_everybodys() {
        assert_eq!(room(0, 0, 0), Err(Full::All));
        assert_eq!(room(2, 1, 1), Ok(()));
    }
}
