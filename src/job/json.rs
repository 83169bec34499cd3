use std::borrow::Cow;
use std::{fmt, mem};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::redact::Redaction;
use crate::error::{Error, Result};

/// A JSON text, kept as it is stored and parsed only when it is used.
///
/// So a job is cheap to pass on, a worker's arguments are decoded straight into their type, and a damaged row can be
/// shown as it is.
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
/// [`Display`](fmt::Display) gives the text as it is. `Debug` is for logs and leaves out values that sound like
/// secrets, see [`KilnBuilder::redact`](crate::KilnBuilder::redact).
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

    /// Takes the text out. The caller [puts it back](Self::put_back).
    pub(crate) fn take(&mut self) -> String {
        mem::take(&mut self.text).into_owned()
    }

    pub(crate) fn put_back(&mut self, text: String) {
        self.text = text.into();
    }

    /// Sets which values are left out when it is shown.
    pub(crate) fn redact(&mut self, redaction: &Redaction) {
        self.redaction = redaction.clone();
    }

    pub(crate) fn redaction(&self) -> &Redaction {
        &self.redaction
    }

    /// The text without the values that are left out.
    pub(crate) fn shown(&self) -> Cow<'_, str> {
        self.redaction.json(&self.text)
    }

    /// Encodes an object for `field`. A value that encodes to null is the empty object.
    pub(crate) fn object<T: Serialize + ?Sized>(field: &'static str, value: &T) -> Result<Self> {
        let text = serde_json::to_string(value)
            .map_err(|error| Error::invalid(field, format!("{field} cannot be written as JSON")).because(error))?;
        match text.as_bytes() {
            b"null" | b"{}" => Ok(Self::EMPTY),
            [b'{', ..] => Ok(Self::raw(text)),
            // The error must not show the value, which may be a secret.
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
    /// [`is_malformed`](Error::is_malformed) if the text is not JSON or not a `T`. The message says where.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        match serde_json::from_str(&self.text) {
            Ok(value) => Ok(value),
            // An object is stored for `()` and unit structs, but serde reads them from null only.
            Err(error) if self.is_empty() => serde_json::from_str("null").map_err(|_| error),
            Err(error) => Err(error),
        }
        .map_err(|error| Error::malformed("not the JSON that was expected").because(error))
    }

    /// The value of one key; `None` if there is none, or the text is not an object.
    pub fn get(&self, key: &str) -> Option<Value> {
        if self.is_empty() { None } else { self.map().remove(key) }
    }

    /// The whole as a [`Value`]; `Null` if the text is not JSON.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// The entries of the object; none if the text is not an object.
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
