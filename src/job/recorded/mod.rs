//! Values recorded by finished jobs, in the form Oban stores them: base64 of an Erlang external term.
//!
//! A value is written in its JSON shape, as `serde_json` would: a struct is a map, `None` is nil, a float that is not
//! finite is nil too. A value is read straight from the bytes of the term into the requested type, so that a damaged or
//! hostile value takes no more memory than its own size and the size of the result.

mod decode;
mod encode;
mod reader;
mod term;
#[cfg(test)]
mod tests;

pub(crate) use decode::decode;
pub(crate) use encode::encode;
pub(crate) use term::DEFAULT_LIMIT;
