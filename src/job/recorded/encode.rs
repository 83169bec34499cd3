//! A value becomes a term.

use std::io;

use base64::Engine;
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};

use super::{BASE64, MAX_DEPTH, MAX_ELEMENTS, VERSION, tag, too_deep, too_many};
use crate::error::{Error, Result};

/// Turns a value into the text that is stored, of at most `limit` bytes.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T, limit: usize) -> Result<String> {
    let refused = |error| Error::invalid("record", "recorded value cannot be encoded").because(error);
    value.serialize(&mut Serializer::with_formatter(io::sink(), Bounds::default())).map_err(refused)?;
    let value = serde_json::to_value(value).map_err(refused)?;

    // The lengths within a term have 32 bits: what does not fit them must be over the limit.
    let limit = limit.min(u32::MAX as usize);
    let mut term = Term::new(limit);
    term.put(&[VERSION]);
    term.value(&value)?;

    let text_len = base64::encoded_len(term.len, false).unwrap_or(usize::MAX);
    if text_len > limit {
        let message = format!("recorded value is {text_len} bytes, exceeds the limit of {limit} bytes");
        return Err(Error::invalid("record", message + "; record less or raise the limit"));
    }
    Ok(BASE64.encode(&term.bytes))
}

/// Refuses a value that is too deep or has too many elements, before a tree is built of it: a dry run of its JSON.
#[derive(Default)]
struct Bounds {
    depth: usize,
    elements: usize,
}

impl Bounds {
    fn enter(&mut self) -> io::Result<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(io::Error::other(too_deep())) } else { Ok(()) }
    }

    fn leave(&mut self) -> io::Result<()> {
        self.depth -= 1;
        Ok(())
    }

    fn count(&mut self) -> io::Result<()> {
        self.elements += 1;
        // The value as a whole is an element that no list or map announces.
        if self.elements >= MAX_ELEMENTS { Err(io::Error::other(too_many())) } else { Ok(()) }
    }
}

impl Formatter for Bounds {
    fn begin_array<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.enter()
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, _: &mut W, _: bool) -> io::Result<()> {
        self.count()
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.leave()
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.enter()
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, _: &mut W, _: bool) -> io::Result<()> {
        self.count()
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.count()
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.leave()
    }
}

/// A term being written: counted in full, so that an error can name its size, but kept only up to the limit.
pub(super) struct Term {
    pub bytes: Vec<u8>,
    pub len: usize,
    limit: usize,
}

impl Term {
    pub fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), len: 0, limit }
    }

    pub fn put(&mut self, bytes: &[u8]) {
        self.len = self.len.saturating_add(bytes.len());
        if self.len <= self.limit {
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn head(&mut self, tag: u8, len: usize) {
        self.put(&[tag]);
        self.put(&(len as u32).to_be_bytes());
    }

    pub fn value(&mut self, value: &Value) -> Result<()> {
        match value {
            Value::Null => self.atom("nil"),
            Value::Bool(true) => self.atom("true"),
            Value::Bool(false) => self.atom("false"),
            Value::Number(number) => match (number.as_i128(), number.as_f64()) {
                (Some(integer), _) => self.integer(integer),
                (None, Some(float)) => self.float(float),
                (None, None) => return Err(Error::invalid("record", format!("number {number} is out of range"))),
            },
            Value::String(text) => self.binary(text),
            Value::Array(list) if list.is_empty() => self.put(&[tag::NIL]),
            Value::Array(list) => {
                self.head(tag::LIST, list.len());
                list.iter().try_for_each(|element| self.value(element))?;
                self.put(&[tag::NIL]);
            }
            Value::Object(map) => {
                self.head(tag::MAP, map.len());
                // Another crate may have switched serde_json's `preserve_order` on.
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_unstable_by_key(|(key, _)| *key);
                for (key, value) in entries {
                    self.binary(key);
                    self.value(value)?;
                }
            }
        }
        Ok(())
    }

    fn atom(&mut self, name: &str) {
        self.put(&[tag::SMALL_ATOM, name.len() as u8]);
        self.put(name.as_bytes());
    }

    fn binary(&mut self, text: &str) {
        self.head(tag::BINARY, text.len());
        self.put(text.as_bytes());
    }

    fn float(&mut self, float: f64) {
        self.put(&[tag::NEW_FLOAT]);
        self.put(&float.to_be_bytes());
    }

    pub fn integer(&mut self, integer: i128) {
        if let Ok(small) = u8::try_from(integer) {
            self.put(&[tag::SMALL_INTEGER, small]);
        } else if let Ok(medium) = i32::try_from(integer) {
            self.put(&[tag::INTEGER]);
            self.put(&medium.to_be_bytes());
        } else {
            let magnitude = integer.unsigned_abs();
            let len = magnitude.ilog2() / 8 + 1;
            self.put(&[tag::SMALL_BIG, len as u8, u8::from(integer < 0)]);
            self.put(&magnitude.to_le_bytes()[..len as usize]);
        }
    }
}
