//! The form of a term, and how large it may be.

use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD_INDIFFERENT};

/// How many bytes the text of a recorded value may have, unless the worker gives another limit.
pub(crate) const DEFAULT_LIMIT: usize = 64_000_000;

/// How deep a value may nest. A list in a list is two levels. Each level takes stack, also when the value is dropped.
pub(super) const MAX_DEPTH: usize = 128;
/// How many values and keys a value may have, all levels together. An element of one byte can take 32 bytes once
/// decoded.
pub(super) const MAX_ELEMENTS: usize = 1_000_000;
/// Base64 without padding. Padding of other writers is tolerated.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, NO_PAD_INDIFFERENT);

pub(super) const VERSION: u8 = 131;

/// The first byte of a term, named as in Erlang's external term format.
pub(super) mod tag {
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

pub(super) fn too_deep() -> String {
    format!("it nests deeper than {MAX_DEPTH} levels")
}

pub(super) fn too_many() -> String {
    format!("it has more than {MAX_ELEMENTS} elements")
}
