//! Reading server-sent events. The parser is pure: bytes in, the data of events out.

use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use serde::de::DeserializeOwned;

use super::chain;
use crate::error::ApiError;
use crate::problem::Problem;

/// Longest event that is read: far above the largest operation.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// Puts events together from pieces of the stream. Only `data` counts; our events have their number in it.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    data: Vec<u8>,
    /// The last byte was CR, so that an LF right behind it ends nothing.
    after_cr: bool,
}

impl Parser {
    /// Takes in a piece, and gives the data of each event that ended in it; `None` when an event is too long.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Option<Vec<Vec<u8>>> {
        let mut events = Vec::new();
        for &byte in piece {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                _ => self.line.push(byte),
            }
            if self.line.len() + self.data.len() > EVENT_BYTES_MAX {
                return None;
            }
        }
        Some(events)
    }

    fn end_line(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let mut data = std::mem::take(&mut self.data);
            data.pop();
            return (!data.is_empty()).then_some(data);
        }
        if let Some(value) = line.strip_prefix(b"data:") {
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
            self.data.push(b'\n');
        }
        None
    }
}

/// The values in an event stream. A problem in the place of a value ends it with that problem.
pub(super) fn values<T: DeserializeOwned + Send + 'static>(
    pieces: impl Stream<Item = reqwest::Result<impl AsRef<[u8]> + Send>> + Send + 'static,
    endpoint: String,
) -> BoxStream<'static, Result<T, ApiError>> {
    let mut parser = Parser::default();
    let results = pieces.flat_map(move |piece| {
        let garbled = |reason: String| ApiError::Garbled { endpoint: endpoint.clone(), reason };
        let results: Vec<Result<T, ApiError>> = match piece {
            Err(error) => {
                vec![Err(ApiError::Unreachable { endpoint: endpoint.clone(), reason: chain(&error) })]
            }
            Ok(piece) => match parser.feed(piece.as_ref()) {
                None => vec![Err(garbled(format!("an event is longer than {EVENT_BYTES_MAX} bytes")))],
                Some(events) => events
                    .iter()
                    .map(|data| value(data).unwrap_or_else(|reason| Err(garbled(reason))))
                    .collect(),
            },
        };
        stream::iter(results)
    });
    // The first error is the last thing to be told.
    results
        .scan(false, |ended, result| {
            let over = std::mem::replace(ended, result.is_err());
            std::future::ready((!over).then_some(result))
        })
        .boxed()
}

fn value<T: DeserializeOwned>(data: &[u8]) -> Result<Result<T, ApiError>, String> {
    match serde_json::from_slice(data) {
        Ok(value) => Ok(Ok(value)),
        Err(error) => match serde_json::from_slice::<Problem>(data) {
            Ok(problem) => Ok(Err(ApiError::Problem(problem))),
            Err(_) => Err(error.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(pieces: &[&[u8]]) -> Vec<String> {
        let mut parser = Parser::default();
        let events = pieces.iter().flat_map(|piece| parser.feed(piece).unwrap());
        events.map(|data| String::from_utf8(data).unwrap()).collect()
    }

    #[test]
    fn events_are_read_whatever_the_line_ends_are() {
        let text = "data: a\n\n:alive\n\nid: 7\ndata:b\ndata: c\n\ndata: d";
        for text in [text.to_owned(), text.replace('\n', "\r\n"), text.replace('\n', "\r")] {
            assert_eq!(read(&[text.as_bytes()]), ["a", "b\nc"], "{text:?}");
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = Parser::default();
        assert_eq!(parser.feed(&vec![b'x'; EVENT_BYTES_MAX + 1]), None);
    }

    #[tokio::test]
    async fn a_problem_ends_the_stream() {
        let problem = Problem::not_found("machine", "x");
        let text = format!("data: 1\n\ndata: {}\n\ndata: 2\n\n", serde_json::to_string(&problem).unwrap());
        let pieces = stream::iter([Ok(text)]);
        let values: Vec<Result<u32, _>> = values(pieces, "there".to_owned()).collect().await;
        assert!(
            matches!(&values[..], [Ok(1), Err(ApiError::Problem(told))] if *told == problem),
            "{values:?}"
        );
    }

    proptest! {
        #[test]
        fn pieces_may_be_cut_anywhere(cuts in prop::collection::vec(0usize..60, 0..6)) {
            let text = b"id: 1\r\ndata: one\r\n\r\ndata: two\ndata: three\n\n: x\r\rdata: four\r\r";
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
            prop_assert_eq!(read(&pieces), ["one", "two\nthree", "four"]);
        }
    }
}
