//! Values recorded by finished jobs, in the form Oban stores them: base64 of an Erlang external term.
//!
//! A value is written in its JSON shape, as `serde_json` would: a struct is a map, `None` is nil, a float that is not
//! finite is nil too. It is read straight from the bytes of the term into the type asked for, so that a damaged or
//! hostile value costs no more memory than its own size and that of the result.

mod decode;
mod encode;
mod serde_impl;
#[cfg(test)]
mod tests;

use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD_INDIFFERENT};

pub(crate) use decode::decode;
pub(crate) use encode::encode;

/// The longest text a recorded value may become, in bytes, unless the worker says otherwise.
pub(crate) const DEFAULT_LIMIT: usize = 64_000_000;

/// A list in a list is two levels. Each level takes stack, in here and in whoever drops the value.
const MAX_DEPTH: usize = 128;
/// Values and keys, all levels together. An element of one byte can take 32 bytes once decoded.
const MAX_ELEMENTS: usize = 1_000_000;
/// Unpadded; padding is tolerated, as other writers may leave it.
const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, NO_PAD_INDIFFERENT);

const VERSION: u8 = 131;

/// The first byte of a term, named as in Erlang's external term format.
mod tag {
    pub const NEW_FLOAT: u8 = b'F';
    pub const COMPRESSED: u8 = b'P';
    pub const SMALL_INTEGER: u8 = b'a';
    pub const INTEGER: u8 = b'b';
    pub const FLOAT: u8 = b'c';
    pub const ATOM: u8 = b'd';
    pub const SMALL_TUPLE: u8 = b'h';
    pub const LARGE_TUPLE: u8 = b'i';
    pub const NIL: u8 = b'j';
    pub const STRING: u8 = b'k';
    pub const LIST: u8 = b'l';
    pub const BINARY: u8 = b'm';
    pub const SMALL_BIG: u8 = b'n';
    pub const LARGE_BIG: u8 = b'o';
    pub const SMALL_ATOM: u8 = b's';
    pub const MAP: u8 = b't';
    pub const ATOM_UTF8: u8 = b'v';
    pub const SMALL_ATOM_UTF8: u8 = b'w';
}

fn too_deep() -> String {
    format!("it nests deeper than {MAX_DEPTH} levels")
}

fn too_many() -> String {
    format!("it has more than {MAX_ELEMENTS} elements")
}
