//! Recorded values: whatever is stored is decoded or refused, and what was encoded comes back.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use kiln::testing::{decode_recorded, encode_recorded};
use serde_json::Value;

/// The data is a term, with or without its base64; or else JSON.
pub fn run(data: &[u8]) {
    let _ = String::from_utf8(data.to_vec()).map(|text| decode_recorded(&text).is_ok());
    if let Ok(value) = decode_recorded(&STANDARD_NO_PAD.encode(data)) {
        comes_back(&value);
    }
    if let Ok(value) = serde_json::from_slice::<Value>(data) {
        comes_back(&value);
    }
}

/// What can be encoded at all is read as the very same.
fn comes_back(value: &Value) {
    if let Ok(encoded) = encode_recorded(value) {
        let decoded =
            decode_recorded(&encoded).unwrap_or_else(|error| panic!("{value} was encoded, and then: {error}"));
        assert_eq!(decoded, *value, "encoded as {encoded}");
    }
}
