//! From the stored text to a value: serde's view of the bytes of a term.

use std::iter::{RepeatN, repeat_n};

use base64::Engine;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{decompress, inflate_flags};
use serde::de::value::{CowStrDeserializer, Error as Fault, MapAccessDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IgnoredAny, IntoDeserializer, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use super::reader::Reader;
use super::term::{BASE64, VERSION, tag};
use crate::error::{Error, Result};

/// How many bytes a compressed term may have once it is inflated.
pub(super) const MAX_INFLATED: usize = 64_000_000;
/// To how many bytes deflate expands one byte at most.
const MAX_DEFLATE_RATIO: usize = 1032;

/// Reads a stored text as the type that was recorded, or as another type of the same shape.
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
    let reader = Reader::new(bytes, start);
    let outcome = T::deserialize(&reader).and_then(|value| reader.end().map(|()| value));
    outcome.map_err(|fault| {
        // Serde quotes the whole text it did not expect, which may be megabytes.
        let message: String = fault.to_string().chars().take(500).collect();
        Error::malformed(format!("recorded value cannot be read at {unit} {}: {message}", reader.term.get()))
    })
}

/// Inflates a compressed term: four bytes of size, then a zlib stream of exactly that size.
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

impl<'de> Reader<'de> {
    fn sequence<V: Visitor<'de>>(&self, arity: usize, untagged: bool, visitor: V) -> Result<V::Value, Fault> {
        self.nested(untagged, || SeqDeserializer::new(repeat_n(self, arity)).deserialize_any(visitor))
    }

    /// Reads a list of at least one element. Only an improper list does not end in nil.
    fn list<V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, Fault> {
        let value = self.sequence(self.arity::<4>(1)?, false, visitor)?;
        match self.array()? {
            [tag::NIL] => Ok(value),
            [other] => Err(Fault::custom(format!("a list ends in tag {other}, only proper lists are known"))),
        }
    }

    /// The entries of a map. Each key is read when serde asks for it, and its value after that.
    fn entries(&self, arity: usize) -> Entries<'_, 'de> {
        MapDeserializer::new(repeat_n((Key(self), self), arity))
    }

    /// Reads the term whose tag was just read.
    fn visit<V: Visitor<'de>>(&self, tag: u8, visitor: V) -> Result<V::Value, Fault> {
        if let Some((negative, magnitude)) = self.integer(tag)? {
            return visit_integer(negative, magnitude, visitor);
        }
        if let Some(text) = self.text(tag)? {
            return match &*text {
                "nil" if tag != tag::BINARY => visitor.visit_unit(),
                "true" if tag != tag::BINARY => visitor.visit_bool(true),
                "false" if tag != tag::BINARY => visitor.visit_bool(false),
                _ => CowStrDeserializer::new(text).deserialize_any(visitor),
            };
        }
        match tag {
            tag::NEW_FLOAT => visitor.visit_f64(f64::from_be_bytes(self.array()?)),
            tag::FLOAT => visitor.visit_f64(self.float_text()?),
            tag::NIL => self.sequence(0, false, visitor),
            tag::LIST => self.list(visitor),
            tag::STRING => self.sequence(self.arity::<2>(1)?, true, visitor),
            tag::SMALL_TUPLE => self.sequence(self.arity::<1>(1)?, false, visitor),
            tag::LARGE_TUPLE => self.sequence(self.arity::<4>(1)?, false, visitor),
            tag::MAP => {
                let arity = self.arity::<4>(2)?;
                self.nested(false, || self.entries(arity).deserialize_any(visitor))
            }
            tag::COMPRESSED => Err(Fault::custom("a compressed term within another term")),
            unknown => Err(Fault::custom(format!("tag {unknown} is unknown"))),
        }
    }
}

type Entries<'r, 'de> = MapDeserializer<'de, RepeatN<(Key<'r, 'de>, &'r Reader<'de>)>, Fault>;

fn visit_integer<'de, V: Visitor<'de>>(negative: bool, magnitude: u128, visitor: V) -> Result<V::Value, Fault> {
    match u64::try_from(magnitude) {
        Ok(small) if !negative => return visitor.visit_u64(small),
        Err(_) if !negative => return visitor.visit_u128(magnitude),
        _ => {}
    }
    let integer = 0_i128.checked_sub_unsigned(magnitude);
    let integer = integer.ok_or_else(|| Fault::custom(format!("integer -{magnitude} is beyond 128 bits")))?;
    match i64::try_from(integer) {
        Ok(small) => visitor.visit_i64(small),
        Err(_) => visitor.visit_i128(integer),
    }
}

impl<'de> Deserializer<'de> for &Reader<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.visit(self.tag()?, visitor)
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
            return visitor.visit_enum(CowStrDeserializer::new(text));
        }
        if tag != tag::MAP {
            return Err(Fault::custom(format!("tag {tag} is no enum, which is a text or a map of one entry")));
        }
        match self.arity::<4>(2)? {
            1 => self.nested(false, || visitor.visit_enum(MapAccessDeserializer::new(self.entries(1)))),
            arity => Err(Fault::custom(format!("a map of {arity} entries is no enum, which has one"))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

/// The key of an entry of a map. It may stand for a number or a bool, as in JSON.
#[derive(Clone, Copy)]
struct Key<'r, 'de>(&'r Reader<'de>);

impl<'de> IntoDeserializer<'de, Fault> for &Reader<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> IntoDeserializer<'de, Fault> for Key<'_, 'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! parse_key {
    ($($deserialize:ident $visit:ident),*) => {$(
        fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            let key = self.0.key()?;
            match key.parse() {
                Ok(parsed) => visitor.$visit(parsed),
                Err(_) => CowStrDeserializer::new(key).deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Key<'_, 'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        CowStrDeserializer::new(self.0.key()?).deserialize_any(visitor)
    }

    parse_key! {
        deserialize_bool visit_bool, deserialize_f32 visit_f32, deserialize_f64 visit_f64,
        deserialize_i8 visit_i8, deserialize_i16 visit_i16, deserialize_i32 visit_i32, deserialize_i64 visit_i64,
        deserialize_u8 visit_u8, deserialize_u16 visit_u16, deserialize_u32 visit_u32, deserialize_u64 visit_u64,
        deserialize_i128 visit_i128, deserialize_u128 visit_u128
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
        visitor.visit_enum(CowStrDeserializer::new(self.0.key()?))
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
