//! Values recorded by finished jobs, in the form Oban stores them: base64 of an Erlang external term.
//!
//! A value is written in its JSON shape, as `serde_json` would: a struct is a map, `None` is nil, a float that is not
//! finite is nil too. It is read straight from the bytes of the term into the type asked for, so that a damaged or
//! hostile value costs no more memory than its own size and that of the result.

use std::borrow::Cow;
use std::fmt;
use std::io;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD_INDIFFERENT};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{decompress, inflate_flags};
use serde::de::value::CowStrDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IgnoredAny, IntoDeserializer};
use serde::de::{MapAccess, SeqAccess, VariantAccess, Visitor};
use serde::{Deserialize, Serialize, forward_to_deserialize_any};
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};

use crate::error::{Error, Result};

/// The longest text a recorded value may become, in bytes, unless the worker says otherwise.
pub(crate) const DEFAULT_LIMIT: usize = 64_000_000;

/// A list in a list is two levels. Each level takes stack, in here and in whoever drops the value.
const MAX_DEPTH: usize = 128;
/// Values and keys, all levels together. An element of one byte can take 32 bytes once decoded.
const MAX_ELEMENTS: usize = 1_000_000;
/// The largest term a compressed one may unfold to, in bytes.
const MAX_INFLATED: usize = 64_000_000;
/// What deflate makes of one byte at best.
const MAX_DEFLATE_RATIO: usize = 1032;

/// Unpadded; padding is tolerated, as other writers may leave it.
const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, NO_PAD_INDIFFERENT);

const VERSION: u8 = 131;

/// The first byte of a term, named as in Erlang's external term format.
mod tag {
    pub(super) const NEW_FLOAT: u8 = b'F';
    pub(super) const COMPRESSED: u8 = b'P';
    pub(super) const SMALL_INTEGER: u8 = b'a';
    pub(super) const INTEGER: u8 = b'b';
    pub(super) const FLOAT: u8 = b'c';
    pub(super) const ATOM: u8 = b'd';
    pub(super) const SMALL_TUPLE: u8 = b'h';
    pub(super) const LARGE_TUPLE: u8 = b'i';
    pub(super) const NIL: u8 = b'j';
    pub(super) const STRING: u8 = b'k';
    pub(super) const LIST: u8 = b'l';
    pub(super) const BINARY: u8 = b'm';
    pub(super) const SMALL_BIG: u8 = b'n';
    pub(super) const LARGE_BIG: u8 = b'o';
    pub(super) const SMALL_ATOM: u8 = b's';
    pub(super) const MAP: u8 = b't';
    pub(super) const ATOM_UTF8: u8 = b'v';
    pub(super) const SMALL_ATOM_UTF8: u8 = b'w';
}

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

fn too_deep() -> String {
    format!("it nests deeper than {MAX_DEPTH} levels")
}

fn too_many() -> String {
    format!("it has more than {MAX_ELEMENTS} elements")
}

/// A term being written: counted in full, so that an error can name its size, but kept only up to the limit.
struct Term {
    bytes: Vec<u8>,
    len: usize,
    limit: usize,
}

impl Term {
    fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), len: 0, limit }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.len = self.len.saturating_add(bytes.len());
        if self.len <= self.limit {
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn head(&mut self, tag: u8, len: usize) {
        self.put(&[tag]);
        self.put(&(len as u32).to_be_bytes());
    }

    fn value(&mut self, value: &Value) -> Result<()> {
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

    fn integer(&mut self, integer: i128) {
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

/// Reads a stored text back, as the type it was recorded from or any other of the same shape.
pub(crate) fn decode<T: DeserializeOwned>(encoded: &str) -> Result<T> {
    let bytes =
        BASE64.decode(encoded).map_err(|error| Error::malformed(format!("recorded value is not base64: {error}")))?;
    match bytes.as_slice() {
        [VERSION, tag::COMPRESSED, packed @ ..] => read(&inflate(packed)?, 0, "inflated byte"),
        [VERSION, ..] => read(&bytes, 1, "byte"),
        [other, ..] => Err(Error::malformed(format!(
            "recorded value is of version {other} at byte 0, only version {VERSION} is known"
        ))),
        [] => Err(Error::malformed("recorded value is empty, a term starts with its version at byte 0")),
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8], start: usize, unit: &str) -> Result<T> {
    let mut reader = Reader::new(bytes, start);
    let outcome = T::deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    outcome.map_err(|Fault(message)| {
        Error::malformed(format!("recorded value cannot be read at {unit} {}: {message}", reader.term))
    })
}

/// Unfolds a compressed term: four bytes of size, then a zlib stream of exactly that size.
fn inflate(packed: &[u8]) -> Result<Vec<u8>> {
    let refused = |what| Error::malformed(format!("recorded value cannot be inflated at byte 1: {what}"));
    let Some((size, stream)) = packed.split_first_chunk() else {
        return Err(refused("its size is cut short".to_owned()));
    };
    let size = u32::from_be_bytes(*size) as usize;
    let most = stream.len().saturating_mul(MAX_DEFLATE_RATIO).min(MAX_INFLATED);
    if size > most {
        return Err(refused(format!("it declares {size} bytes, {most} are possible")));
    }
    let mut term = vec![0; size];
    let flags = inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER | inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    match decompress(&mut Box::default(), stream, &mut term, 0, flags) {
        (TINFLStatus::Done, read, written) if read == stream.len() && written == size => Ok(term),
        (TINFLStatus::Done, read, written) => {
            let rest = stream.len() - read;
            Err(refused(format!("it declares {size} bytes, inflates to {written}, and {rest} bytes follow")))
        }
        (TINFLStatus::HasMoreOutput, ..) => Err(refused(format!("it inflates to more than its declared {size} bytes"))),
        (status, read, _) => Err(refused(format!("zlib gives up after {read} bytes of its stream ({status:?})"))),
    }
}

/// Why a term cannot be read as the type asked for. Where: [`Reader::term`] tells.
#[derive(Debug)]
struct Fault(String);

impl Fault {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl serde::de::Error for Fault {
    fn custom<M: fmt::Display>(message: M) -> Self {
        // Serde quotes the whole text it did not expect, which may be megabytes.
        Self(message.to_string().chars().take(500).collect())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

/// The bytes of a term, read from front to back.
struct Reader<'de> {
    rest: &'de [u8],
    total: usize,
    /// Where the term read last begins.
    term: usize,
    depth: usize,
    elements: usize,
    /// Within a STRING_EXT, whose elements are small integers without their tags.
    untagged: bool,
}

impl<'de> Reader<'de> {
    fn new(bytes: &'de [u8], start: usize) -> Self {
        Self { rest: &bytes[start..], total: bytes.len(), term: start, depth: 0, elements: 0, untagged: false }
    }

    fn end(&mut self) -> Result<(), Fault> {
        self.term = self.total - self.rest.len();
        match self.rest.len() {
            0 => Ok(()),
            left => Err(Fault::new(format!("{left} bytes follow the term"))),
        }
    }

    fn take(&mut self, len: usize) -> Result<&'de [u8], Fault> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(Fault::new(format!("{len} bytes are due, {} remain", self.rest.len())));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        Ok(self.take(N)?.try_into().expect("BUG: as many bytes as were asked for"))
    }

    /// A length of `N` bytes.
    fn len<const N: usize>(&mut self) -> Result<usize, Fault> {
        Ok(self.array::<N>()?.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)))
    }

    /// A number of elements, in `N` bytes, which must be plausible before anyone makes room for them.
    fn arity<const N: usize>(&mut self, least_size: usize) -> Result<usize, Fault> {
        let arity = self.len::<N>()?;
        if arity > self.rest.len() / least_size {
            return Err(Fault::new(format!("{arity} elements are due, {} bytes remain", self.rest.len())));
        }
        if arity > MAX_ELEMENTS.saturating_sub(self.elements) {
            return Err(Fault::new(too_many()));
        }
        Ok(arity)
    }

    fn tag(&mut self) -> Result<u8, Fault> {
        self.term = self.total - self.rest.len();
        self.elements += 1;
        if self.elements > MAX_ELEMENTS {
            return Err(Fault::new(too_many()));
        }
        if self.untagged {
            return Ok(tag::SMALL_INTEGER);
        }
        Ok(self.array::<1>()?[0])
    }

    fn is_nil(&self) -> bool {
        let nils: [&[u8]; 4] = [b"s\x03nil", b"w\x03nil", b"d\x00\x03nil", b"v\x00\x03nil"];
        !self.untagged && nils.iter().any(|nil| self.rest.starts_with(nil))
    }

    fn binary(&mut self) -> Result<&'de [u8], Fault> {
        let len = self.len::<4>()?;
        self.take(len)
    }

    /// The text of a binary or an atom; `None` for a term that is neither.
    fn text(&mut self, tag: u8) -> Result<Option<Cow<'de, str>>, Fault> {
        let (bytes, latin1) = match tag {
            tag::BINARY => (self.binary()?, false),
            tag::ATOM | tag::ATOM_UTF8 => {
                let len = self.len::<2>()?;
                (self.take(len)?, tag == tag::ATOM)
            }
            tag::SMALL_ATOM | tag::SMALL_ATOM_UTF8 => {
                let len = self.len::<1>()?;
                (self.take(len)?, tag == tag::SMALL_ATOM)
            }
            _ => return Ok(None),
        };
        match std::str::from_utf8(bytes) {
            _ if latin1 && !bytes.is_ascii() => Ok(Some(bytes.iter().copied().map(char::from).collect())),
            Ok(text) => Ok(Some(Cow::Borrowed(text))),
            Err(error) => Err(Fault::new(format!("a text is not UTF-8 ({error})"))),
        }
    }

    /// The sign and the magnitude of an integer; `None` for a term that is none.
    fn integer(&mut self, tag: u8) -> Result<Option<(bool, u128)>, Fault> {
        let len = match tag {
            tag::SMALL_INTEGER => return Ok(Some((false, self.array::<1>()?[0].into()))),
            tag::INTEGER => {
                let integer = i32::from_be_bytes(self.array()?);
                return Ok(Some((integer < 0, integer.unsigned_abs().into())));
            }
            tag::SMALL_BIG => self.len::<1>()?,
            tag::LARGE_BIG => self.len::<4>()?,
            _ => return Ok(None),
        };
        let negative = self.array::<1>()?[0] != 0;
        let digits = self.take(len)?;
        if digits.iter().skip(16).any(|digit| *digit != 0) {
            return Err(Fault::new(format!("an integer of {len} bytes is beyond 128 bits")));
        }
        let magnitude = digits.iter().take(16).rfold(0, |magnitude, digit| magnitude << 8 | u128::from(*digit));
        Ok(Some((negative, magnitude)))
    }

    /// A float as text: 31 bytes, filled up with zeros.
    fn float_text(&mut self) -> Result<f64, Fault> {
        let text = self.array::<31>()?;
        let digits = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let float = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        float.ok_or_else(|| Fault::new(format!("\"{}\" is no float", digits.escape_ascii())))
    }

    fn key(&mut self) -> Result<Key<'de>, Fault> {
        let tag = self.tag()?;
        if let Some(text) = self.text(tag)? {
            return Ok(Key(text));
        }
        match self.integer(tag)? {
            Some((true, magnitude)) => Ok(Key(format!("-{magnitude}").into())),
            Some((false, magnitude)) => Ok(Key(magnitude.to_string().into())),
            None => Err(Fault::new(format!("tag {tag} is no key of a map, which is a binary, an atom or an integer"))),
        }
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Fault::new(too_deep()));
        }
        let outcome = read(self);
        self.depth -= 1;
        outcome
    }

    fn sequence<V: Visitor<'de>>(&mut self, arity: usize, visitor: V) -> Result<V::Value, Fault> {
        self.nested(|reader| {
            let mut elements = Elements { reader, left: arity };
            let value = visitor.visit_seq(&mut elements)?;
            elements.end(value)
        })
    }

    fn list<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Fault> {
        let arity = self.arity::<4>(1)?;
        let value = self.sequence(arity, visitor)?;
        match self.array()? {
            [tag::NIL] => Ok(value),
            [other] => Err(Fault::new(format!("a list ends in tag {other}, only proper lists are known"))),
        }
    }

    fn charlist<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Fault> {
        let arity = self.arity::<2>(1)?;
        self.untagged = true;
        let outcome = self.sequence(arity, visitor);
        self.untagged = false;
        outcome
    }

    fn map<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Fault> {
        let arity = self.arity::<4>(2)?;
        self.nested(|reader| {
            let mut elements = Elements { reader, left: arity };
            let value = visitor.visit_map(&mut elements)?;
            elements.end(value)
        })
    }

    /// Reads the term whose tag was just taken, as what it is by itself.
    fn visit<V: Visitor<'de>>(&mut self, tag: u8, visitor: V) -> Result<V::Value, Fault> {
        if let Some((negative, magnitude)) = self.integer(tag)? {
            return visit_integer(negative, magnitude, visitor);
        }
        if let Some(text) = self.text(tag)? {
            return match &*text {
                "nil" if tag != tag::BINARY => visitor.visit_unit(),
                "true" if tag != tag::BINARY => visitor.visit_bool(true),
                "false" if tag != tag::BINARY => visitor.visit_bool(false),
                _ => visit_text(text, visitor),
            };
        }
        match tag {
            tag::NEW_FLOAT => visitor.visit_f64(f64::from_be_bytes(self.array()?)),
            tag::FLOAT => visitor.visit_f64(self.float_text()?),
            tag::NIL => self.sequence(0, visitor),
            tag::LIST => self.list(visitor),
            tag::STRING => self.charlist(visitor),
            tag::SMALL_TUPLE => {
                let arity = self.arity::<1>(1)?;
                self.sequence(arity, visitor)
            }
            tag::LARGE_TUPLE => {
                let arity = self.arity::<4>(1)?;
                self.sequence(arity, visitor)
            }
            tag::MAP => self.map(visitor),
            tag::COMPRESSED => Err(Fault::new("a compressed term within another term")),
            unknown => Err(Fault::new(format!("tag {unknown} is unknown"))),
        }
    }
}

fn visit_integer<'de, V: Visitor<'de>>(negative: bool, magnitude: u128, visitor: V) -> Result<V::Value, Fault> {
    if !negative {
        return match u64::try_from(magnitude) {
            Ok(integer) => visitor.visit_u64(integer),
            Err(_) => visitor.visit_u128(magnitude),
        };
    }
    match 0_i128.checked_sub_unsigned(magnitude) {
        Some(integer) => match i64::try_from(integer) {
            Ok(integer) => visitor.visit_i64(integer),
            Err(_) => visitor.visit_i128(integer),
        },
        None => Err(Fault::new(format!("integer -{magnitude} is beyond 128 bits"))),
    }
}

fn visit_text<'de, V: Visitor<'de>>(text: Cow<'de, str>, visitor: V) -> Result<V::Value, Fault> {
    match text {
        Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
        Cow::Owned(text) => visitor.visit_string(text),
    }
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let tag = self.tag()?;
        self.visit(tag, visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.is_nil() {
            IgnoredAny::deserialize(self)?;
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let tag = self.tag()?;
        if let Some(text) = self.text(tag)? {
            return visitor.visit_enum(variant(text));
        }
        if tag != tag::MAP {
            return Err(Fault::new(format!("tag {tag} is no enum, which is a text or a map of one entry")));
        }
        match self.arity::<4>(2)? {
            1 => self.nested(|reader| visitor.visit_enum(Variant(reader))),
            arity => Err(Fault::new(format!("a map of {arity} entries is no enum, which has one"))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

/// What remains of a list, a tuple or a map.
struct Elements<'r, 'de> {
    reader: &'r mut Reader<'de>,
    left: usize,
}

impl Elements<'_, '_> {
    fn end<T>(self, value: T) -> Result<T, Fault> {
        match self.left {
            0 => Ok(value),
            left => Err(Fault::new(format!("{left} more elements follow than expected"))),
        }
    }

    fn advance(&mut self) -> bool {
        let more = self.left > 0;
        self.left -= usize::from(more);
        more
    }
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        self.advance().then(|| seed.deserialize(&mut *self.reader)).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> MapAccess<'de> for Elements<'_, 'de> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        self.advance().then(|| seed.deserialize(self.reader.key()?)).transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        seed.deserialize(&mut *self.reader)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// A variant that is more than its name: a map of the name to its content.
struct Variant<'r, 'de>(&'r mut Reader<'de>);

impl<'de> EnumAccess<'de> for Variant<'_, 'de> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Fault> {
        let name = seed.deserialize(self.0.key()?)?;
        Ok((name, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Deserialize::deserialize(self.0)
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Fault> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.0.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.0.deserialize_any(visitor)
    }
}

/// The key of a map: a text, which also stands for whatever JSON turns into text to make a key of it.
struct Key<'de>(Cow<'de, str>);

fn variant(name: Cow<'_, str>) -> CowStrDeserializer<'_, Fault> {
    name.into_deserializer()
}

macro_rules! parse_key {
    ($($deserialize:ident $visit:ident)*) => {$(
        fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            match self.0.parse() {
                Ok(parsed) => visitor.$visit(parsed),
                Err(_) => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Key<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visit_text(self.0, visitor)
    }

    parse_key! {
        deserialize_bool visit_bool
        deserialize_i8 visit_i8
        deserialize_i16 visit_i16
        deserialize_i32 visit_i32
        deserialize_i64 visit_i64
        deserialize_i128 visit_i128
        deserialize_u8 visit_u8
        deserialize_u16 visit_u16
        deserialize_u32 visit_u32
        deserialize_u64 visit_u64
        deserialize_u128 visit_u128
        deserialize_f32 visit_f32
        deserialize_f64 visit_f64
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_enum(variant(self.0))
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::fmt::Debug;
    use std::time::{Duration, Instant};

    use fastrand::Rng;
    use miniz_oxide::deflate::compress_to_vec_zlib;
    use serde::{Deserialize, Serialize};
    use serde_json::{Value, json};

    use super::*;

    fn text(term: &[u8]) -> String {
        BASE64.encode([&[VERSION], term].concat())
    }

    fn term(value: &(impl Serialize + ?Sized)) -> Vec<u8> {
        BASE64.decode(encode(value, DEFAULT_LIMIT).unwrap()).unwrap()[1..].to_vec()
    }

    fn read_term<T: DeserializeOwned>(term: &[u8]) -> Result<T> {
        decode(&text(term))
    }

    fn refusal<T: DeserializeOwned + Debug>(term: &[u8]) -> String {
        let error = read_term::<T>(term).unwrap_err();
        assert!(error.is_malformed());
        error.to_string()
    }

    fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
        let read: T = decode(&encode(&value, DEFAULT_LIMIT).unwrap()).unwrap();
        assert_eq!(read, value);
    }

    fn compressed(size: usize, stream: &[u8]) -> Vec<u8> {
        [&[tag::COMPRESSED], &(size as u32).to_be_bytes()[..], stream].concat()
    }

    fn compress(term: &[u8]) -> Vec<u8> {
        compressed(term.len(), &compress_to_vec_zlib(term, 6))
    }

    fn nested_lists(levels: usize) -> Value {
        (1..levels).fold(json!([]), |inner, _| json!([inner]))
    }

    /// `levels` lists, each but the innermost of one element.
    fn nested_list_term(levels: usize) -> Vec<u8> {
        let mut term = b"l\0\0\0\x01".repeat(levels - 1);
        term.extend(b"j".repeat(levels));
        term
    }

    fn rich() -> Value {
        json!({
            "none": null, "yes": true, "no": false, "small": 200, "medium": -70_000, "big": u64::MAX, "low": i64::MIN,
            "float": -0.5, "text": "Grüße 🚀", "empty": [[], {}, ""], "deep": [[{"a": [1, {"b": [2]}]}]],
        })
    }

    #[test]
    fn each_value_has_its_term() {
        assert_eq!(encode(&json!(null), DEFAULT_LIMIT).unwrap(), "g3MDbmls");
        assert_eq!(term(&json!([null, true, false])), b"l\0\0\0\x03s\x03nils\x04trues\x05falsej");
        assert_eq!(term(&json!([0, 255])), b"l\0\0\0\x02a\0a\xffj");
        assert_eq!(term(&json!([-1, 256, i32::MIN])), b"l\0\0\0\x03b\xff\xff\xff\xffb\0\0\x01\0b\x80\0\0\0j");
        assert_eq!(term(&2_147_483_648_i64), b"n\x04\0\0\0\0\x80");
        assert_eq!(term(&-4_294_967_297_i64), b"n\x05\x01\x01\0\0\0\x01");
        assert_eq!(term(&i64::MIN), b"n\x08\x01\0\0\0\0\0\0\0\x80");
        assert_eq!(term(&u64::MAX), b"n\x08\0\xff\xff\xff\xff\xff\xff\xff\xff");
        assert_eq!(term(&-0.0), b"F\x80\0\0\0\0\0\0\0");
        assert_eq!(term("é"), b"m\0\0\0\x02\xc3\xa9");
        assert_eq!(term(&json!([[], {}])), b"l\0\0\0\x02jt\0\0\0\0j");
    }

    #[test]
    fn the_keys_of_a_map_are_sorted() {
        #[derive(Serialize)]
        struct Unsorted {
            b: u8,
            a: u8,
        }
        assert_eq!(term(&Unsorted { b: 1, a: 2 }), b"t\0\0\0\x02m\0\0\0\x01aa\x02m\0\0\0\x01ba\x01");
    }

    #[test]
    fn a_value_over_the_limit_is_refused_with_both_sizes() {
        let value = "x".repeat(54);
        let error = encode(&value, 64).unwrap_err();

        assert_eq!(error.field(), Some("record"));
        assert_eq!(
            error.to_string(),
            "recorded value is 80 bytes, exceeds the limit of 64 bytes; record less or raise the limit"
        );
        assert_eq!(encode(&value, 80).unwrap().len(), 80);
        assert!(encode(&value, 79).is_err());
        assert!(encode(&(), 0).is_err());
    }

    #[test]
    fn what_is_beyond_the_limit_is_counted_but_not_kept() {
        let mut term = Term::new(1000);
        term.value(&json!(vec!["x".repeat(100); 1000])).unwrap();
        assert_eq!(term.len, 105_006);
        assert!(term.bytes.len() <= 1000);
    }

    #[test]
    fn a_value_that_is_no_json_is_refused() {
        let by_list = HashMap::from([(vec![1], 2)]);
        for error in [encode(&by_list, DEFAULT_LIMIT).unwrap_err(), encode(&u128::MAX, DEFAULT_LIMIT).unwrap_err()] {
            assert_eq!(error.field(), Some("record"), "{error}");
        }
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    enum Shape {
        Unit,
        Newtype(u32),
        Nothing(()),
        Tuple(i8, Option<String>),
        Struct { name: String, inner: Option<Box<Shape>> },
        List(Vec<Shape>),
    }

    #[derive(Serialize, Deserialize, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
    enum Side {
        Left,
        Right,
    }

    #[derive(Serialize, Deserialize, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
    struct Id(i64);

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Marker;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(tag = "kind")]
    enum Tagged {
        On { since: u64 },
        Off,
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Report {
        id: Id,
        marker: Marker,
        ratio: f32,
        letter: char,
        pair: (u8, String),
        by_number: HashMap<u32, Vec<i64>>,
        by_id: BTreeMap<Id, BTreeMap<i8, bool>>,
        by_side: BTreeMap<Side, Option<f64>>,
        by_flag: BTreeMap<bool, char>,
        shapes: Vec<Shape>,
        tagged: Vec<Tagged>,
        #[serde(flatten)]
        rest: BTreeMap<String, Value>,
    }

    #[test]
    fn a_derived_type_reads_back_as_it_was() {
        let inner = Some(Box::new(Shape::Tuple(i8::MIN, None)));
        round_trip(Report {
            id: Id(-7),
            marker: Marker,
            ratio: 0.1,
            letter: '🚀',
            pair: (255, "nil".to_owned()),
            by_number: HashMap::from([(0, vec![]), (u32::MAX, vec![i64::MIN, i64::MAX])]),
            by_id: BTreeMap::from([(Id(-1), BTreeMap::from([(-128, true)])), (Id(10), BTreeMap::new())]),
            by_side: BTreeMap::from([(Side::Left, None), (Side::Right, Some(1.0))]),
            by_flag: BTreeMap::from([(true, 't'), (false, '"')]),
            shapes: vec![
                Shape::Unit,
                Shape::Newtype(u32::MAX),
                Shape::Nothing(()),
                Shape::Tuple(-1, Some(String::new())),
                Shape::Struct { name: "é\n".to_owned(), inner },
                Shape::List(vec![Shape::Unit, Shape::List(vec![])]),
            ],
            tagged: vec![Tagged::On { since: u64::MAX }, Tagged::Off],
            rest: BTreeMap::from([("more".to_owned(), rich())]),
        });
    }

    #[test]
    fn scalars_read_back_as_they_were() {
        round_trip([i64::MIN, i64::from(i32::MIN) - 1, -1, 0, 256, i64::from(i32::MAX) + 1, i64::MAX]);
        round_trip([0, 255, 256, u64::from(u32::MAX), 1 << 63, u64::MAX]);
        round_trip([f64::MIN, f64::MAX, f64::MIN_POSITIVE, 5e-324, 0.1, 1e300, 1.0]);
        round_trip([f32::MIN, f32::MAX, f32::MIN_POSITIVE, 0.1, 1.0]);
        round_trip([Some(Some(1)), None]);
        round_trip(("true".to_owned(), "nil".to_owned(), 'x', (), true));

        let zero: f64 = decode(&encode(&-0.0, DEFAULT_LIMIT).unwrap()).unwrap();
        assert!(zero.is_sign_negative());
    }

    #[test]
    fn an_integer_is_read_where_a_float_is_asked_for() {
        assert_eq!(read_term::<f64>(b"a\x01").unwrap(), 1.0);
        assert_eq!(read_term::<Vec<f32>>(b"k\0\x02\x01\x02").unwrap(), [1.0, 2.0]);
        assert!(read_term::<u8>(b"F\x3f\xf0\0\0\0\0\0\0").is_err());
    }

    #[test]
    fn atoms_are_read_in_all_four_forms() {
        let forms: [&[u8]; 4] = [b"s\x03", b"w\x03", b"d\0\x03", b"v\0\x03"];
        for head in forms {
            assert_eq!(read_term::<Value>(&[head, b"nil"].concat()).unwrap(), json!(null));
            assert_eq!(read_term::<Option<u8>>(&[head, b"nil"].concat()).unwrap(), None);
            assert_eq!(read_term::<String>(&[head, b"abc"].concat()).unwrap(), "abc");
        }
        assert!(read_term::<bool>(b"w\x04true").unwrap());
        assert_eq!(read_term::<Side>(b"w\x04Left").unwrap(), Side::Left);
        assert_eq!(read_term::<String>(b"s\x01\xe9").unwrap(), "é", "the old atoms are Latin-1");
        assert_eq!(read_term::<String>(b"w\x02\xc3\xa9").unwrap(), "é");
    }

    #[test]
    fn foreign_forms_of_lists_are_sequences() {
        assert_eq!(read_term::<Value>(b"k\0\x03abc").unwrap(), json!([97, 98, 99]));
        assert_eq!(read_term::<Vec<Option<Id>>>(b"k\0\x02s\x03").unwrap(), [Some(Id(115)), Some(Id(3))]);
        assert_eq!(read_term::<(String, u8)>(b"h\x02w\x02oka\x01").unwrap(), ("ok".to_owned(), 1));
        assert_eq!(read_term::<Value>(b"i\0\0\0\x01h\0").unwrap(), json!([[]]));
        assert!(
            refusal::<Value>(b"l\0\0\0\x01a\x01a\x02").ends_with("a list ends in tag 97, only proper lists are known")
        );
    }

    #[test]
    fn foreign_numbers_are_read() {
        let float = [b"c1.50000000000000000000e+00".as_slice(), &[0; 5]].concat();
        assert_eq!(read_term::<f64>(&float).unwrap(), 1.5);
        assert_eq!(read_term::<u8>(b"o\0\0\0\x02\0\x07\0").unwrap(), 7);
        assert_eq!(read_term::<Value>(b"n\0\0").unwrap(), json!(0));
        assert_eq!(read_term::<i64>(b"n\x01\x01\x07").unwrap(), -7);

        let widest = [b"n\x10\0".as_slice(), &[0xff; 16]].concat();
        assert_eq!(read_term::<u128>(&widest).unwrap(), u128::MAX);
        let lowest = [b"n\x10\x01".as_slice(), &i128::MIN.to_le_bytes()].concat();
        assert_eq!(read_term::<i128>(&lowest).unwrap(), i128::MIN);

        assert!(refusal::<Value>(&widest).contains("number"));
        assert!(refusal::<i128>(&[b"n\x10\x01".as_slice(), &[0xff; 16]].concat()).ends_with("is beyond 128 bits"));
        assert!(refusal::<u128>(&[b"n\x11\0".as_slice(), &[1; 17]].concat()).ends_with("17 bytes is beyond 128 bits"));
        assert!(refusal::<f64>(&[b'c'; 32]).contains("is no float"));
    }

    #[test]
    fn the_key_of_a_map_is_a_binary_an_atom_or_an_integer() {
        let map = b"t\0\0\0\x03w\x02oka\x01m\0\0\0\x01ka\x02n\x01\x01\x05a\x03";
        assert_eq!(read_term::<Value>(map).unwrap(), json!({"ok": 1, "k": 2, "-5": 3}));
        assert_eq!(read_term::<HashMap<i32, u8>>(b"t\0\0\0\x01b\xff\xff\xff\xffa\x01").unwrap()[&-1], 1);
        assert!(refusal::<Value>(b"t\0\0\0\x01ja\x01").contains("tag 106 is no key of a map"));
        assert!(refusal::<HashMap<u8, u8>>(b"t\0\0\0\x01m\0\0\0\x01xa\x01").contains("invalid type: string \"x\""));
    }

    #[test]
    fn a_text_must_be_utf8() {
        assert!(refusal::<String>(b"m\0\0\0\x02a\xff").contains("a text is not UTF-8"));
        assert!(refusal::<Value>(b"w\x01\xe9").contains("a text is not UTF-8"));
        assert!(refusal::<Value>(b"t\0\0\0\x01m\0\0\0\x01\xffj").contains("a text is not UTF-8"));
    }

    #[test]
    fn padding_is_tolerated() {
        assert_eq!(decode::<u8>("g2EB").unwrap(), 1);
        assert!(decode::<Vec<u8>>("g2o=").unwrap().is_empty());
        assert!(decode::<Vec<u8>>("g2o").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_term_at_all_is_an_error() {
        for encoded in ["", "=", "g", "g2E", "g2EB\n", "g2 EB", "g2EB====", "gw", "gmEB", "\0", "🚀"] {
            let error = decode::<Value>(encoded).unwrap_err();
            assert!(error.is_malformed(), "{encoded:?}: {error}");
        }
        let error = decode::<Value>("gmEB").unwrap_err();
        assert_eq!(error.to_string(), "recorded value is of version 130 at byte 0, only version 131 is known");
    }

    #[test]
    fn an_error_says_what_was_found_and_where() {
        assert_eq!(refusal::<Value>(b"\x01"), "recorded value cannot be read at byte 1: tag 1 is unknown");
        assert_eq!(
            refusal::<Value>(b"l\0\0\0\x01m\0\0\0\x09ab"),
            "recorded value cannot be read at byte 6: 9 bytes are due, 2 remain"
        );
        assert_eq!(refusal::<Value>(b"a\x01jj"), "recorded value cannot be read at byte 3: 2 bytes follow the term");
        assert_eq!(
            refusal::<Vec<bool>>(b"l\0\0\0\x02s\x04truea\x01j"),
            "recorded value cannot be read at byte 12: invalid type: integer `1`, expected a boolean"
        );
    }

    #[test]
    fn an_error_does_not_repeat_megabytes() {
        assert!(refusal::<u8>(&term(&"é".repeat(1_000_000))).len() < 1200);
    }

    #[test]
    fn a_list_longer_than_asked_for_is_an_error() {
        assert!(refusal::<(u8, u8)>(b"h\x03a\x01a\x02a\x03").contains("1 more elements follow than expected"));
        assert!(refusal::<(u8, u8)>(b"h\x01a\x01").contains("invalid length 1"));
        assert!(refusal::<Shape>(b"t\0\0\0\x02m\0\0\0\x04Unitjm\0\0\0\x04Unitj").contains("is no enum, which has one"));
    }

    #[test]
    fn a_truncated_term_is_an_error_at_every_cut() {
        for whole in [term(&rich()), compress(&term(&rich()))] {
            assert_eq!(read_term::<Value>(&whole).unwrap(), rich());
            for cut in 0..whole.len() {
                assert!(read_term::<Value>(&whole[..cut]).unwrap_err().is_malformed(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_huge_declared_length_is_refused_at_once() {
        for tag in [tag::LIST, tag::LARGE_TUPLE, tag::MAP, tag::BINARY, tag::LARGE_BIG, tag::COMPRESSED] {
            let hostile = [&[tag], [0xff; 5].as_slice()].concat();
            let started = Instant::now();
            refusal::<Value>(&hostile);
            refusal::<Vec<[u64; 32]>>(&hostile);
            refusal::<Shape>(&hostile);
            assert!(started.elapsed() < Duration::from_secs(1), "tag {tag}");
        }
    }

    #[test]
    fn nesting_is_read_up_to_the_limit() {
        let deepest = nested_lists(MAX_DEPTH);
        assert_eq!(term(&deepest), nested_list_term(MAX_DEPTH));
        round_trip(deepest);

        let message = format!("it nests deeper than {MAX_DEPTH} levels");
        let error = encode(&nested_lists(MAX_DEPTH + 1), DEFAULT_LIMIT).unwrap_err();
        assert_eq!(error.to_string(), format!("recorded value cannot be encoded: {message}"));
        assert!(refusal::<Value>(&nested_list_term(MAX_DEPTH + 1)).ends_with(&message));
        assert!(refusal::<IgnoredAny>(&nested_list_term(1_000_000)).ends_with(&message));
        assert!(refusal::<Value>(&b"h\x01".repeat(1_000_000)).ends_with(&message));
        assert!(refusal::<Shape>(&b"t\0\0\0\x01m\0\0\0\x04List".repeat(1_000_000)).contains("invalid type: map"));
        assert!(refusal::<Value>(&b"t\0\0\0\x01m\0\0\0\x01a".repeat(1_000_000)).ends_with(&message));
    }

    #[test]
    fn nesting_in_a_recursive_type_is_refused_on_a_small_stack() {
        #[derive(Serialize, Deserialize, Default, Debug)]
        struct Link {
            next: Option<Box<Link>>,
        }
        let work = || {
            let mut chain = Link::default();
            (0..5_000).for_each(|_| chain = Link { next: Some(Box::new(std::mem::take(&mut chain))) });
            assert!(encode(&chain, DEFAULT_LIMIT).is_err());
            assert!(refusal::<Link>(&b"t\0\0\0\x01m\0\0\0\x04next".repeat(100_000)).contains("deeper than 128"));
            assert!(refusal::<Value>(&nested_list_term(100_000)).contains("deeper than 128"));
        };
        std::thread::Builder::new().stack_size(1 << 20).spawn(work).unwrap().join().unwrap();
    }

    #[test]
    fn more_elements_than_are_allowed_are_refused() {
        let message = format!("it has more than {MAX_ELEMENTS} elements");
        let error = encode(&vec![(); MAX_ELEMENTS], usize::MAX).unwrap_err();
        assert_eq!(error.to_string(), format!("recorded value cannot be encoded: {message}"));

        let wide = [b"l".as_slice(), &(MAX_ELEMENTS as u32).to_be_bytes(), &b"j".repeat(MAX_ELEMENTS + 1)].concat();
        assert!(refusal::<Value>(&wide).ends_with(&message), "announced in one list");

        let lists = MAX_ELEMENTS / 65_536 + 1;
        let list = [b"k\xff\xff".as_slice(), &[7; 65_535]].concat();
        let many = [b"l".as_slice(), &(lists as u32).to_be_bytes(), &list.repeat(lists), b"j"].concat();
        assert!(refusal::<IgnoredAny>(&many).ends_with(&message), "in many lists together");
    }

    #[test]
    fn a_compressed_term_is_read() {
        for value in [json!("x".repeat(1_000_000)), json!([]), rich()] {
            assert_eq!(read_term::<Value>(&compress(&term(&value))).unwrap(), value);
        }
    }

    #[test]
    fn a_compressed_term_must_be_what_it_declares() {
        let plain = term(&rich());
        let stream = compress_to_vec_zlib(&plain, 6);
        let mut damaged = stream.clone();
        *damaged.last_mut().unwrap() ^= 1;
        let longer = compress_to_vec_zlib(&[plain.as_slice(), b"j"].concat(), 6);
        for (hostile, message) in [
            (compressed(plain.len() - 1, &stream), "more than its declared"),
            (compressed(plain.len() + 1, &stream), "and 0 bytes follow"),
            (compressed(plain.len(), &[stream.as_slice(), b"j"].concat()), "and 1 bytes follow"),
            (compressed(plain.len(), &damaged), "Adler32Mismatch"),
            (compressed(plain.len() + 1, &longer), "at inflated byte"),
            (compressed(0, &compress_to_vec_zlib(b"", 6)), "at inflated byte 0"),
            (compressed(1, b"no zlib"), "zlib gives up"),
            (b"P\0\0".to_vec(), "its size is cut short"),
        ] {
            let error = refusal::<Value>(&hostile);
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn a_compressed_term_within_a_term_is_refused() {
        let inner = compress(&term(&rich()));
        let listed = [b"h\x01".as_slice(), &inner].concat();
        for hostile in [compress(&inner), compress(&listed), listed] {
            assert!(refusal::<Value>(&hostile).ends_with("a compressed term within another term"));
        }
    }

    #[test]
    fn a_compressed_bomb_is_refused_fast() {
        let stream = compress_to_vec_zlib(&vec![0; 100_000_000], 1);
        for declared in [10, 100_000, MAX_INFLATED + 1, 100_000_000, u32::MAX as usize] {
            let bomb = compressed(declared, &stream);
            let started = Instant::now();
            refusal::<Value>(&bomb);
            assert!(started.elapsed() < Duration::from_secs(1), "declared as {declared}");
        }
        let tiny = compressed(MAX_INFLATED, &stream[..100]);
        assert!(refusal::<Value>(&tiny).ends_with("it declares 64000000 bytes, 103200 are possible"));
    }

    fn random_text(rng: &mut Rng) -> String {
        let letters = ['a', 'b', '_', '"', '\\', '\n', '\0', 'é', '中', '🚀'];
        (0..rng.usize(..8)).map(|_| letters[rng.usize(..letters.len())]).collect()
    }

    fn random_tree(rng: &mut Rng, depth: usize) -> Value {
        match rng.u8(..if depth > 0 { 10 } else { 8 }) {
            0 => json!(null),
            1 => json!(rng.bool()),
            2 => json!(rng.u8(..)),
            3 => json!(rng.i64(..) >> rng.u8(..64)),
            4 => json!(rng.u64(..)),
            5 => json!(f64::from_bits(rng.u64(..))),
            6 => json!(rng.f64()),
            7 => json!(random_text(rng)),
            8 => (0..rng.usize(..5)).map(|_| random_tree(rng, depth - 1)).collect(),
            _ => (0..rng.usize(..5)).map(|_| (random_text(rng), random_tree(rng, depth - 1))).collect(),
        }
    }

    #[test]
    fn random_trees_read_back_as_they_were() {
        let seed = fastrand::u64(..);
        let mut rng = Rng::with_seed(seed);
        for round in 0..1000 {
            let tree = random_tree(&mut rng, 5);
            let read: Value = decode(&encode(&tree, DEFAULT_LIMIT).unwrap()).unwrap();
            // As text too, since -0.0 equals 0.0.
            assert_eq!(read.to_string(), tree.to_string(), "seed {seed}, round {round}");
            assert_eq!(read, tree, "seed {seed}, round {round}");
        }
    }

    #[test]
    fn random_damage_is_an_error_or_another_value_but_no_panic() {
        let seed = fastrand::u64(..);
        let mut rng = Rng::with_seed(seed);
        let tree = random_tree(&mut rng, 5);
        println!("seed {seed}");
        for whole in [term(&rich()), compress(&term(&rich())), term(&json!([tree])), term(&Shape::Tuple(1, None))] {
            for _ in 0..2000 {
                let mut damaged = whole.clone();
                for _ in 0..rng.usize(1..4) {
                    let at = rng.usize(..damaged.len());
                    damaged[at] = if rng.bool() { damaged[at] ^ 1 << rng.u8(..8) } else { rng.u8(..) };
                }
                let outcomes = [
                    read_term::<Value>(&damaged).err(),
                    read_term::<Report>(&damaged).err(),
                    read_term::<Vec<Shape>>(&damaged).err(),
                ];
                assert!(outcomes.iter().flatten().all(Error::is_malformed));
            }
        }
    }
}
