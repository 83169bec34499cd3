//! The bytes of a term, and what can be read from them one after the other.

use std::borrow::Cow;
use std::cell::Cell;

use serde::de::Error as _;
use serde::de::value::Error as Fault;

use super::term::{MAX_DEPTH, MAX_ELEMENTS, tag, too_deep, too_many};

/// The bytes of a term, read from front to back. Readers that nest share one place in the bytes.
pub(super) struct Reader<'de> {
    rest: Cell<&'de [u8]>,
    total: usize,
    /// Where the last term that was read begins.
    pub term: Cell<usize>,
    depth: Cell<usize>,
    elements: Cell<usize>,
    /// Whether the reader is within a STRING_EXT. Its elements are small integers without tags.
    untagged: Cell<bool>,
}

impl<'de> Reader<'de> {
    pub fn new(bytes: &'de [u8], start: usize) -> Self {
        let (rest, term) = (Cell::new(&bytes[start..]), Cell::new(start));
        let (depth, elements, untagged) = (Cell::default(), Cell::default(), Cell::default());
        Self { rest, total: bytes.len(), term, depth, elements, untagged }
    }

    fn begin(&self) -> &'de [u8] {
        let rest = self.rest.get();
        self.term.set(self.total - rest.len());
        rest
    }

    pub fn end(&self) -> Result<(), Fault> {
        match self.begin().len() {
            0 => Ok(()),
            left => Err(Fault::custom(format!("{left} bytes follow the term"))),
        }
    }

    fn take(&self, len: usize) -> Result<&'de [u8], Fault> {
        let rest = self.rest.get();
        let Some((taken, rest)) = rest.split_at_checked(len) else {
            return Err(Fault::custom(format!("{len} bytes are due, {} remain", rest.len())));
        };
        self.rest.set(rest);
        Ok(taken)
    }

    pub fn array<const N: usize>(&self) -> Result<[u8; N], Fault> {
        Ok(self.take(N)?.try_into().expect("BUG: as many bytes as were asked for"))
    }

    /// A length of `N` bytes.
    fn len<const N: usize>(&self) -> Result<usize, Fault> {
        Ok(self.array::<N>()?.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)))
    }

    /// A number of elements, in `N` bytes. It is checked before memory is allocated for the elements.
    pub fn arity<const N: usize>(&self, least_size: usize) -> Result<usize, Fault> {
        let (arity, remain) = (self.len::<N>()?, self.rest.get().len());
        if arity > remain / least_size {
            return Err(Fault::custom(format!("{arity} elements are due, {remain} bytes remain")));
        }
        if arity > MAX_ELEMENTS.saturating_sub(self.elements.get()) {
            return Err(Fault::custom(too_many()));
        }
        Ok(arity)
    }

    pub fn tag(&self) -> Result<u8, Fault> {
        self.begin();
        self.elements.update(|elements| elements + 1);
        if self.elements.get() > MAX_ELEMENTS {
            return Err(Fault::custom(too_many()));
        }
        if self.untagged.get() { Ok(tag::SMALL_INTEGER) } else { Ok(self.array::<1>()?[0]) }
    }

    /// Whether the next term is nil: an atom, in any of its four forms.
    pub fn is_nil(&self) -> bool {
        let nils: [&[u8]; 4] = [b"s\x03nil", b"w\x03nil", b"d\x00\x03nil", b"v\x00\x03nil"];
        !self.untagged.get() && nils.iter().any(|nil| self.rest.get().starts_with(nil))
    }

    /// The text of a binary or an atom; `None` for any other term.
    pub fn text(&self, tag: u8) -> Result<Option<Cow<'de, str>>, Fault> {
        let bytes = match tag {
            tag::BINARY => self.take(self.len::<4>()?)?,
            tag::ATOM | tag::ATOM_UTF8 => self.take(self.len::<2>()?)?,
            tag::SMALL_ATOM | tag::SMALL_ATOM_UTF8 => self.take(self.len::<1>()?)?,
            _ => return Ok(None),
        };
        match std::str::from_utf8(bytes) {
            // The older atoms are Latin-1.
            _ if matches!(tag, tag::ATOM | tag::SMALL_ATOM) && !bytes.is_ascii() => {
                Ok(Some(bytes.iter().copied().map(char::from).collect()))
            }
            Ok(text) => Ok(Some(Cow::Borrowed(text))),
            Err(error) => Err(Fault::custom(format!("a text is not UTF-8 ({error})"))),
        }
    }

    /// The sign and the magnitude of an integer; `None` for any other term.
    pub fn integer(&self, tag: u8) -> Result<Option<(bool, u128)>, Fault> {
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
        // The lowest digit comes first.
        if digits.iter().skip(16).any(|digit| *digit != 0) {
            return Err(Fault::custom(format!("an integer of {len} bytes is beyond 128 bits")));
        }
        let magnitude = digits.iter().take(16).rfold(0, |magnitude, digit| magnitude << 8 | u128::from(*digit));
        Ok(Some((negative, magnitude)))
    }

    /// A float of the old form: text in 31 bytes.
    pub fn float_text(&self) -> Result<f64, Fault> {
        let text = self.array::<31>()?;
        let digits = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let float = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        float.ok_or_else(|| Fault::custom(format!("\"{}\" is no float", digits.escape_ascii())))
    }

    /// The key of a map, as text.
    pub fn key(&self) -> Result<Cow<'de, str>, Fault> {
        let tag = self.tag()?;
        if let Some(text) = self.text(tag)? {
            return Ok(text);
        }
        match self.integer(tag)? {
            Some((true, magnitude)) => Ok(format!("-{magnitude}").into()),
            Some((false, magnitude)) => Ok(magnitude.to_string().into()),
            None => {
                Err(Fault::custom(format!("tag {tag} is no key of a map, which is a binary, an atom or an integer")))
            }
        }
    }

    /// Reads what lies one level deeper. `untagged` says whether it has no tags.
    pub fn nested<T>(&self, untagged: bool, read: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        if self.depth.get() == MAX_DEPTH {
            return Err(Fault::custom(too_deep()));
        }
        self.depth.update(|depth| depth + 1);
        self.untagged.set(untagged);
        let outcome = read();
        self.untagged.set(false);
        self.depth.update(|depth| depth - 1);
        outcome
    }
}
