//! From a value to the stored text.

use std::io;

use base64::Engine;
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};

use super::term::{BASE64, MAX_DEPTH, MAX_ELEMENTS, VERSION, tag, too_deep, too_many};
use crate::error::{Error, Result};

/// Turns a value into the text that is stored, of at most `limit` bytes.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T, limit: usize) -> Result<String> {
    let refused = |error| Error::invalid("record", "recorded value cannot be encoded").because(error);
    value.serialize(&mut Serializer::with_formatter(io::sink(), Bounds::default())).map_err(refused)?;
    let mut value = serde_json::to_value(value).map_err(refused)?;
    // Another crate may have switched serde_json's `preserve_order` on.
    value.sort_all_objects();

    // The lengths within a term have 32 bits.
    let limit = limit.min(u32::MAX as usize);
    let mut term = Term::new(limit);
    term.put(&[&[VERSION]]);
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
        // The value as a whole is an element as well.
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

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.count()?;
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

    fn put(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.len = self.len.saturating_add(part.len());
            if self.len <= self.limit {
                self.bytes.extend_from_slice(part);
            }
        }
    }

    /// Writes a tag and the length of what follows.
    fn head(&mut self, tag: u8, len: usize) {
        self.put(&[&[tag], &(len as u32).to_be_bytes()]);
    }

    /// Writes a value whose objects are sorted.
    pub fn value(&mut self, value: &Value) -> Result<()> {
        match value {
            Value::Null => self.atom("nil"),
            Value::Bool(value) => self.atom(if *value { "true" } else { "false" }),
            Value::Number(number) => match (number.as_i128(), number.as_f64()) {
                (Some(integer), _) => self.integer(integer),
                (None, Some(float)) => self.put(&[&[tag::NEW_FLOAT], &float.to_be_bytes()]),
                // Another crate may have switched serde_json's `arbitrary_precision` on.
                (None, None) => return Err(Error::invalid("record", format!("number {number} is out of range"))),
            },
            Value::String(text) => self.binary(text),
            Value::Array(list) if list.is_empty() => self.put(&[&[tag::NIL]]),
            Value::Array(list) => {
                self.head(tag::LIST, list.len());
                list.iter().try_for_each(|element| self.value(element))?;
                self.put(&[&[tag::NIL]]);
            }
            Value::Object(map) => {
                self.head(tag::MAP, map.len());
                for (key, value) in map {
                    self.binary(key);
                    self.value(value)?;
                }
            }
        }
        Ok(())
    }

    fn atom(&mut self, name: &str) {
        self.put(&[&[tag::SMALL_ATOM, name.len() as u8], name.as_bytes()]);
    }

    fn binary(&mut self, text: &str) {
        self.head(tag::BINARY, text.len());
        self.put(&[text.as_bytes()]);
    }

    pub fn integer(&mut self, integer: i128) {
        if let Ok(small) = u8::try_from(integer) {
            self.put(&[&[tag::SMALL_INTEGER, small]]);
        } else if let Ok(medium) = i32::try_from(integer) {
            self.put(&[&[tag::INTEGER], &medium.to_be_bytes()]);
        } else {
            let magnitude = integer.unsigned_abs();
            let len = magnitude.ilog2() / 8 + 1;
            let digits = &magnitude.to_le_bytes()[..len as usize];
            self.put(&[&[tag::SMALL_BIG, len as u8, u8::from(integer < 0)], digits]);
        }
    }
}
