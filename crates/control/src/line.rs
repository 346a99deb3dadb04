//! The protocol: one JSON object per line, a request up, answers down.
//!
//! Nothing here trusts the other side: a line has a length limit, and what cannot be read becomes a sentence.

use std::io::{self, BufRead, Read, Write};

use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};

use crate::Lending;

/// Longest request: what is lent in a thousand segments, at some 150 bytes each. All others are below 100 bytes.
pub const REQUEST_BYTES_MAX: usize = 256 << 10;

/// Longest answer: the statistics of a target with a thousand memory servers and long warnings are below it.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What can be asked of a pager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    Stats,
    LimitSet { limit: Bytes },
    Detach,
    Watch { address: u64 },
    Lend { lending: Lending },
}

/// One line down: a watch gives many, everything else exactly one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer<T> {
    Ok(T),
    Error(String),
}

/// What a reader met.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Text(Vec<u8>),
    TooLong,
    End,
}

/// Reads one line of at most `limit` bytes. A last line without its newline is cut off, hence the end.
pub(crate) fn read_line(from: &mut impl BufRead, limit: usize) -> io::Result<Line> {
    let mut text = Vec::new();
    from.take(limit as u64 + 1).read_until(b'\n', &mut text)?;
    Ok(match text.pop() {
        Some(b'\n') => Line::Text(text),
        Some(_) if text.len() >= limit => Line::TooLong,
        _ => Line::End,
    })
}

/// Writes one line in one call, so that lines of several writers never mix.
pub(crate) fn write_line(to: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    to.write_all(&text)
}

/// Reads a request; the error is the sentence that goes back.
pub(crate) fn parse(text: &[u8]) -> Result<Request, String> {
    let value: serde_json::Value =
        serde_json::from_slice(text).map_err(|error| format!("the request is not JSON: {error}"))?;
    serde_json::from_value(value).map_err(|error| format!("the request is not understood: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LentSegment;
    use proptest::prelude::*;

    #[test]
    fn reads_whole_lines_up_to_the_limit() {
        let mut from: &[u8] = b"abcd\n\nabcde\n";
        assert_eq!(read_line(&mut from, 4).unwrap(), Line::Text(b"abcd".to_vec()));
        assert_eq!(read_line(&mut from, 4).unwrap(), Line::Text(Vec::new()));
        assert_eq!(read_line(&mut from, 4).unwrap(), Line::TooLong);
        assert_eq!(read_line(&mut &b"abc"[..], 4).unwrap(), Line::End);
        assert_eq!(read_line(&mut &b""[..], 4).unwrap(), Line::End);
    }

    #[test]
    fn requests_have_one_spelling() {
        let check = |request: Request, text: &str| {
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
            assert_eq!(parse(text.as_bytes()), Ok(request));
        };
        check(Request::Stats, r#"{"ask":"stats"}"#);
        check(Request::LimitSet { limit: Bytes(4096) }, r#"{"ask":"limit_set","limit":4096}"#);
        check(Request::Detach, r#"{"ask":"detach"}"#);
        check(Request::Watch { address: 140_000 }, r#"{"ask":"watch","address":140000}"#);
        let server: rackmem_types::ServerAddress = "a:1".parse().unwrap();
        let segment = LentSegment { server: server.clone(), segment: 7, token: [1; 16], first: 0, pages: 9 };
        let lending = Lending { servers: vec![server], segments: vec![segment], far_max: None };
        check(
            Request::Lend { lending },
            r#"{"ask":"lend","lending":{"servers":["a:1"],"segments":[{"server":"a:1","segment":7,"token":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"first":0,"pages":9}],"far_max":null}}"#,
        );
    }

    #[test]
    fn says_what_it_does_not_understand() {
        assert!(parse(b"hello").unwrap_err().starts_with("the request is not JSON"));
        for text in [r#"{"ask":"dance"}"#, r#"{"ask":"limit_set"}"#, r#"{"ask":"watch","address":-1}"#, "[]"]
        {
            assert!(
                parse(text.as_bytes()).unwrap_err().starts_with("the request is not understood"),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&text);
            let _ = read_line(&mut text.as_slice(), 64).unwrap();
        }
    }
}
