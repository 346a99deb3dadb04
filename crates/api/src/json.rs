//! JSON texts as trees, out of which values are read as the OpenAPI documents describe them: an array is no object, and of an
//! enumeration's kinds one is named. serde's own reader of a text takes the first, and calls a violation of the second bad JSON.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{self, Deserialize, DeserializeOwned, Error as _, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Number};

use crate::problem::{Problem, ProblemType};

/// Reads a value. A text that is no JSON is malformed; one that says something else than a `T` is invalid.
pub(crate) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    let tree: Json = serde_json::from_slice(text)
        .map_err(|error| Problem::new(ProblemType::Malformed, format!("the body is not JSON: {error}")))?;
    serde_path_to_error::deserialize(tree).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." { String::new() } else { format!("'{path}': ") };
        Problem::new(ProblemType::Invalid, format!("{place}{}", error.into_inner()))
    })
}

/// What a text says. Names that come twice are kept, so that whoever reads an object can refuse them.
#[derive(Debug)]
enum Json {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    Array(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl Json {
    fn unexpected(&self) -> Unexpected<'_> {
        match self {
            Self::Null => Unexpected::Unit,
            Self::Bool(value) => Unexpected::Bool(*value),
            Self::Number(value) => match (value.as_u64(), value.as_i64()) {
                (Some(value), _) => Unexpected::Unsigned(value),
                (None, Some(value)) => Unexpected::Signed(value),
                (None, None) => Unexpected::Float(value.as_f64().unwrap_or_default()),
            },
            Self::Text(value) => Unexpected::Str(value),
            Self::Array(_) => Unexpected::Seq,
            Self::Object(_) => Unexpected::Map,
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Json, E> {
        Number::from_f64(value).map(Json::Number).ok_or_else(|| E::custom("the number is too large"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(value) = seq.next_element()? {
            array.push(value);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(entry) = map.next_entry()? {
            object.push(entry);
        }
        Ok(Json::Object(object))
    }
}

impl<'de> de::Deserializer<'de> for Json {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Number(value) => value.deserialize_any(visitor),
            Self::Text(value) => visitor.visit_string(value),
            Self::Array(array) => {
                let mut items = SeqDeserializer::new(array.into_iter());
                let value = visitor.visit_seq(&mut items)?;
                items.end().map(|()| value)
            }
            Self::Object(object) => {
                let mut entries = MapDeserializer::new(object.into_iter());
                let value = visitor.visit_map(&mut entries)?;
                entries.end().map(|()| value)
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if let Self::Null = self { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Object(_) => self.deserialize_any(visitor),
            other => Err(Error::invalid_type(other.unexpected(), &"an object")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        kinds: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self {
            Self::Text(kind) => visitor.visit_enum(kind.into_deserializer()),
            Self::Object(object) if object.len() == 1 => {
                let entries = MapDeserializer::new(object.into_iter());
                visitor.visit_enum(MapAccessDeserializer::new(entries))
            }
            Self::Object(object) => {
                let given: Vec<&str> = object.iter().map(|(name, _)| name.as_str()).collect();
                Err(Error::custom(format!(
                    "expected exactly one of '{}', and not {}",
                    kinds.join("', '"),
                    if given.is_empty() { "none".to_owned() } else { format!("'{}'", given.join("' and '")) }
                )))
            }
            other => Err(Error::invalid_type(other.unexpected(), &"a string or an object")),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Error> for Json {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Serialize;
    use serde_json::Value;

    #[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Thing {
        name: String,
        size: Option<u64>,
        kind: Kind,
        #[serde(default)]
        parts: Vec<Thing>,
        pair: (i8, f64),
    }

    #[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Plain,
        Named(String),
        Sized { size: i64 },
    }

    fn thing() -> impl Strategy<Value = Thing> {
        let kind = prop_oneof![
            Just(Kind::Plain),
            any::<String>().prop_map(Kind::Named),
            any::<i64>().prop_map(|size| Kind::Sized { size }),
        ];
        let pair = (any::<i8>(), -1e9..1e9);
        let leaf = (any::<String>(), any::<Option<u64>>(), kind, pair)
            .prop_map(|(name, size, kind, pair)| Thing { name, size, kind, parts: Vec::new(), pair });
        leaf.prop_recursive(3, 12, 4, |inner| {
            (inner.clone(), prop::collection::vec(inner, 0..4))
                .prop_map(|(thing, parts)| Thing { parts, ..thing })
        })
    }

    proptest! {
        /// What is as documented is read as serde's own reader does.
        #[test]
        fn what_was_written_is_read(thing in thing()) {
            let text = serde_json::to_vec(&thing).unwrap();
            let plain: Thing = serde_json::from_slice(&text).unwrap();
            prop_assert_eq!(read::<Thing>(&text).unwrap(), plain);
            let value: Value = serde_json::from_slice(&text).unwrap();
            prop_assert_eq!(read::<Value>(&text).unwrap(), value);
        }

        #[test]
        fn a_strangers_bytes_do_no_harm(text in prop::collection::vec(any::<u8>(), 0..64)) {
            let is_json = serde_json::from_slice::<Value>(&text).is_ok();
            let refused = read::<Thing>(&text).unwrap_err();
            prop_assert_eq!(refused.kind == ProblemType::Invalid, is_json);
        }
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        for (text, status, words) in [
            (r#"["a"]"#, 422, "invalid type: sequence, expected an object"),
            (r#"{"parts":[["a"]]}"#, 422, "'parts[0]': invalid type: sequence, expected an object"),
            (
                r#"{"kind":{"plain":null,"named":"a"}}"#,
                422,
                "'kind': expected exactly one of 'plain', 'named', 'sized', and not 'plain' and 'named'",
            ),
            (r#"{"kind":{}}"#, 422, "and not none"),
            (r#"{"kind":{"named":1}}"#, 422, "'kind.named': invalid type: integer `1`, expected a string"),
            (r#"{"kind":{"sized":[1]}}"#, 422, "'kind.sized': invalid type: sequence"),
            (r#"{"kind":1}"#, 422, "'kind': invalid type: integer `1`, expected a string or an object"),
            (r#"{"kind":"other"}"#, 422, "'kind': unknown variant `other`"),
            (r#"{"name":"a","name":"b"}"#, 422, "duplicate field `name`"),
            (r#"{"name":null}"#, 422, "'name': invalid type: null, expected a string"),
            (r#"{"size":-1}"#, 422, "'size'"),
            (r#"{"pair":[1,2,3]}"#, 422, "'pair'"),
            (r#"{"pair":[1]}"#, 422, "'pair'"),
            ("null", 422, "null"),
            (r#"{"name":"a",}"#, 400, "line 1 column 13"),
            ("{} {}", 400, "trailing characters"),
            ("", 400, "EOF"),
        ] {
            let problem = read::<Thing>(text.as_bytes()).unwrap_err();
            assert_eq!((problem.status, problem.detail.contains(words)), (status, true), "{text}: {problem}");
        }
        let deep = "[".repeat(1000) + &"]".repeat(1000);
        assert_eq!(read::<Value>(deep.as_bytes()).unwrap_err().status, 400);
    }
}
