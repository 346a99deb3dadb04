//! One line from QEMU's monitor, read without trust. Pure.

use serde_json::Value;

/// The longest line that is read. The longest that QEMU says is its schema, some 300 KiB in version 10; a list of a
/// thousand devices is far below this too.
pub(crate) const LINE_BYTES_MAX: usize = 16 << 20;

/// A line.
#[derive(Debug, PartialEq)]
pub(crate) enum Message {
    /// The first line of a conversation.
    Greeting { version: [u64; 3], package: String },
    /// A command was carried out.
    Return { id: u64, value: Value },
    /// A command was refused. QEMU answers a line that it could not read without an id.
    Error { id: Option<u64>, class: String, reason: String },
    /// Something happened.
    Event { name: String, data: Value },
    /// An answer to somebody else, or something that only a later QEMU says.
    Other,
}

impl Message {
    /// Reads a line; the reason if it is no QMP at all.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, String> {
        let Value::Object(mut fields) = serde_json::from_slice(line).map_err(|error| error.to_string())?
        else {
            return Err("a line is no JSON object".to_owned());
        };
        let id = fields.get("id").and_then(Value::as_u64);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if let Some(greeting) = fields.get("QMP") {
            let version = &greeting["version"];
            let part = |name: &str| version["qemu"][name].as_u64().unwrap_or(0);
            return Ok(Self::Greeting {
                version: [part("major"), part("minor"), part("micro")],
                package: text(&version["package"]),
            });
        }
        if let Some(name) = fields.get("event").and_then(Value::as_str) {
            let name = name.to_owned();
            return Ok(Self::Event { name, data: fields.remove("data").unwrap_or(Value::Null) });
        }
        if let Some(error) = fields.get("error") {
            return Ok(Self::Error { id, class: text(&error["class"]), reason: text(&error["desc"]) });
        }
        match (id, fields.remove("return")) {
            (Some(id), Some(value)) => Ok(Self::Return { id, value }),
            _ => Ok(Self::Other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parse(line: &str) -> Message {
        Message::parse(line.as_bytes()).unwrap()
    }

    #[test]
    fn each_kind_of_line_is_known_and_unknown_fields_are_left() {
        assert_eq!(
            parse(
                r#"{"QMP":{"version":{"qemu":{"micro":22,"minor":2,"major":7,"nano":1},"package":"D"},"capabilities":["oob"]},"x":1}"#
            ),
            Message::Greeting { version: [7, 2, 22], package: "D".to_owned() }
        );
        assert_eq!(
            parse(r#"{"return":{"a":1},"id":7,"x":[]}"#),
            Message::Return { id: 7, value: json!({ "a": 1 }) }
        );
        assert_eq!(
            parse(r#"{"id":8,"error":{"class":"GenericError","desc":"no","x":1}}"#),
            Message::Error { id: Some(8), class: "GenericError".to_owned(), reason: "no".to_owned() }
        );
        assert_eq!(
            parse(r#"{"timestamp":{"seconds":1,"microseconds":2},"event":"STOP"}"#),
            Message::Event { name: "STOP".to_owned(), data: Value::Null }
        );
        assert_eq!(parse(r#"{"return":{},"id":"of another client"}"#), Message::Other);
        assert_eq!(parse("{}"), Message::Other);
    }

    #[test]
    fn what_is_no_qmp_is_refused() {
        for line in ["", "[]", "7", "{", "\u{0}", "HTTP/1.1 400 Bad Request"] {
            assert!(Message::parse(line.as_bytes()).is_err(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::parse(&line);
        }

        #[test]
        fn no_object_makes_it_panic(
            key in prop::sample::select(vec!["QMP", "return", "error", "event", "id", "data"]),
            other in prop::sample::select(vec!["QMP", "return", "error", "event", "id", "data"]),
            value in prop::sample::select(vec![json!(null), json!(-1), json!("x"), json!([1]), json!({ "class": 1 })]),
        ) {
            let _ = Message::parse(json!({ key: value, other: 5 }).to_string().as_bytes());
        }
    }
}
