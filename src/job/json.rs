use std::borrow::Cow;
use std::{fmt, mem};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Redaction;
use crate::{Error, Result};

/// A JSON text, kept as it is stored and read only when somebody asks.
///
/// That makes a job cheap to carry, lets a worker's arguments be decoded straight into their type, and lets a
/// damaged row be shown as it is.
///
/// ```
/// use kiln::Json;
/// use serde_json::json;
///
/// let args = Json::from(json!({ "to": "a@b.c", "n": 2 }));
///
/// assert_eq!(args.to_string(), r#"{"n":2,"to":"a@b.c"}"#);
/// assert_eq!(args.get("n"), Some(json!(2)));
/// assert_eq!(args, json!({ "n": 2, "to": "a@b.c" }));
/// ```
///
/// [`Display`](fmt::Display) gives the text as it is. `Debug` is for logs and leaves out what sounds like a secret, see
/// [`KilnBuilder::redact`](crate::KilnBuilder::redact).
#[derive(Clone)]
pub struct Json {
    text: Cow<'static, str>,
    redaction: Redaction,
}

impl Json {
    pub(crate) const EMPTY: Json = Json { text: Cow::Borrowed("{}"), redaction: Redaction::USUAL };

    pub(crate) fn is_empty(&self) -> bool {
        self.text == "{}"
    }

    /// Takes a text as it is, JSON or not.
    pub(crate) fn raw(text: impl Into<Cow<'static, str>>) -> Self {
        Self { text: text.into(), redaction: Redaction::USUAL }
    }

    /// Takes the text out, which is to be [put back](Self::put_back).
    pub(crate) fn take(&mut self) -> String {
        mem::take(&mut self.text).into_owned()
    }

    pub(crate) fn put_back(&mut self, text: String) {
        self.text = text.into();
    }

    /// Sets what is left out where it is shown.
    pub(crate) fn redact(&mut self, redaction: &Redaction) {
        self.redaction = redaction.clone();
    }

    pub(crate) fn redaction(&self) -> &Redaction {
        &self.redaction
    }

    /// The text as it may be shown to anybody.
    pub(crate) fn shown(&self) -> Cow<'_, str> {
        self.redaction.json(&self.text)
    }

    /// Encodes an object for `field`; what encodes to null is the empty object.
    pub(crate) fn object<T: Serialize + ?Sized>(field: &'static str, value: &T) -> Result<Self> {
        let text = serde_json::to_string(value)
            .map_err(|error| Error::invalid(field, format!("{field} cannot be written as JSON")).because(error))?;
        match text.as_bytes() {
            b"null" | b"{}" => Ok(Self::EMPTY),
            [b'{', ..] => Ok(Self::raw(text)),
            // The value itself may be what nobody is to see.
            [first, ..] => {
                let kind = match first {
                    b'"' => "a string",
                    b'[' => "an array",
                    b't' | b'f' => "a boolean",
                    _ => "a number",
                };
                Err(Error::invalid(field, format!("{field} must be a JSON object (a struct or a map), got {kind}")))
            }
            [] => Ok(Self::EMPTY),
        }
    }

    /// The text as it is stored.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Decodes the text. A worker without arguments may ask for `()`, which reads the empty object.
    ///
    /// # Errors
    ///
    /// [`is_malformed`](Error::is_malformed) when the text is no JSON or no `T`; the message says where.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        match serde_json::from_str(&self.text) {
            Ok(value) => Ok(value),
            // serde reads `()` and unit structs from null alone, and an object is what is stored for them.
            Err(error) if self.is_empty() => serde_json::from_str("null").map_err(|_| error),
            Err(error) => Err(error),
        }
        .map_err(|error| Error::malformed("not the JSON that was expected").because(error))
    }

    /// One value of the object; `None` where it has none, or is no object.
    pub fn get(&self, key: &str) -> Option<Value> {
        if self.is_empty() { None } else { self.map().remove(key) }
    }

    /// The whole as a [`Value`]; `Null` where the text is no JSON.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// The object's entries; none where the text is no object.
    pub(crate) fn map(&self) -> Map<String, Value> {
        match self.value() {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

impl From<Map<String, Value>> for Json {
    fn from(map: Map<String, Value>) -> Self {
        Value::Object(map).into()
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self::raw(value.to_string())
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Json) -> bool {
        self.text == other.text
    }
}

impl Eq for Json {}

impl PartialEq<Value> for Json {
    fn eq(&self, other: &Value) -> bool {
        self.value() == *other
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Serialize for Json {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}
