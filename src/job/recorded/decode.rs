//! A term becomes a value.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{decompress, inflate_flags};
use serde::de::{DeserializeOwned, Visitor};

use super::serde_impl::{Elements, Key};
use super::{BASE64, MAX_DEPTH, MAX_ELEMENTS, VERSION, tag, too_deep, too_many};
use crate::error::{Error, Result};

/// The largest term a compressed one may unfold to, in bytes.
pub(super) const MAX_INFLATED: usize = 64_000_000;
/// What deflate makes of one byte at best.
const MAX_DEFLATE_RATIO: usize = 1032;

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
        (ended, read, _) => Err(refused(format!("zlib gives up after {read} bytes of its stream ({ended:?})"))),
    }
}

/// Why a term cannot be read as the type asked for. Where: [`Reader::term`] tells.
#[derive(Debug)]
pub(super) struct Fault(String);

impl Fault {
    pub fn new(message: impl Into<String>) -> Self {
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
pub(super) struct Reader<'de> {
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
    pub fn arity<const N: usize>(&mut self, least_size: usize) -> Result<usize, Fault> {
        let arity = self.len::<N>()?;
        if arity > self.rest.len() / least_size {
            return Err(Fault::new(format!("{arity} elements are due, {} bytes remain", self.rest.len())));
        }
        if arity > MAX_ELEMENTS.saturating_sub(self.elements) {
            return Err(Fault::new(too_many()));
        }
        Ok(arity)
    }

    pub fn tag(&mut self) -> Result<u8, Fault> {
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

    pub fn is_nil(&self) -> bool {
        let nils: [&[u8]; 4] = [b"s\x03nil", b"w\x03nil", b"d\x00\x03nil", b"v\x00\x03nil"];
        !self.untagged && nils.iter().any(|nil| self.rest.starts_with(nil))
    }

    fn binary(&mut self) -> Result<&'de [u8], Fault> {
        let len = self.len::<4>()?;
        self.take(len)
    }

    /// The text of a binary or an atom; `None` for a term that is neither.
    pub fn text(&mut self, tag: u8) -> Result<Option<Cow<'de, str>>, Fault> {
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

    pub fn key(&mut self) -> Result<Key<'de>, Fault> {
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

    pub fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
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
    pub fn visit<V: Visitor<'de>>(&mut self, tag: u8, visitor: V) -> Result<V::Value, Fault> {
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

pub(super) fn visit_text<'de, V: Visitor<'de>>(text: Cow<'de, str>, visitor: V) -> Result<V::Value, Fault> {
    match text {
        Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
        Cow::Owned(text) => visitor.visit_string(text),
    }
}
