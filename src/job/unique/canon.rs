//! JSON objects in one form: entries by their keys, without blanks, numbers as they are read.

use std::borrow::Cow;
use std::fmt::Write;

use serde_json::Value;

use crate::job::Json;

/// Writes the object, or only these keys of it where there are any. What is no object is an empty one.
pub(super) fn write(json: &Json, keys: &[String], text: &mut String) {
    let begun = text.len();
    if Scan::new(json.as_str()).whole(keys, text).is_some() {
        return;
    }
    text.truncate(begun);
    let mut map = json.map();
    if !keys.is_empty() {
        map.retain(|key, _| keys.contains(key));
    }
    write_value(&Value::Object(map), text);
}

/// As JSON has it.
pub(super) fn write_word(word: &str, text: &mut String) {
    if word.bytes().all(is_plain) {
        text.push('"');
        text.push_str(word);
        text.push('"');
    } else {
        let _ = write!(text, "{}", Value::from(word));
    }
}

/// A key must not depend on whether another crate made serde_json keep the order of entries.
fn write_value(value: &Value, text: &mut String) {
    let between = |text: &mut String, first: bool| {
        if !first {
            text.push(',')
        }
    };
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            text.push('{');
            for (n, (key, value)) in entries.into_iter().enumerate() {
                between(text, n == 0);
                write_word(key, text);
                text.push(':');
                write_value(value, text);
            }
            text.push('}');
        }
        Value::Array(list) => {
            text.push('[');
            for (n, value) in list.iter().enumerate() {
                between(text, n == 0);
                write_value(value, text);
            }
            text.push(']');
        }
        Value::String(word) => write_word(word, text),
        other => drop(write!(text, "{other}")),
    }
}

/// Whether it stands for itself within a string.
fn is_plain(byte: u8) -> bool {
    byte >= b' ' && byte != b'"' && byte != b'\\'
}

/// So many objects and lists within each other are read here.
const DEPTH: u32 = 16;

/// More digits may be more than a number holds.
const DIGITS: usize = 18;

/// Reads what nearly all arguments are made of, without building a tree of it: `None` for anything else, such as blanks,
/// escapes, fractions, and what is no JSON.
struct Scan<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Scan<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    fn whole(mut self, keys: &[String], into: &mut String) -> Option<()> {
        self.object(keys, DEPTH, into)?;
        (self.at == self.text.len()).then_some(())
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn while_is(&mut self, is: impl Fn(u8) -> bool) -> &'t str {
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().position(|byte| !is(*byte)).unwrap_or(rest.len());
        let found = &self.text[self.at..self.at + length];
        self.at += length;
        found
    }

    fn object(&mut self, keys: &[String], depth: u32, into: &mut String) -> Option<()> {
        let mut entries: Vec<(&str, Cow<'t, str>)> = Vec::new();
        self.take(b'{')?;
        while self.take(b'}').is_none() {
            if !entries.is_empty() {
                self.take(b',')?;
            }
            let key = self.word()?;
            self.take(b':')?;
            entries.push((key, self.value(depth)?));
        }
        entries.sort_unstable_by_key(|(key, _)| *key);
        // Which of two of the same name counts is not for here to say.
        if entries.windows(2).any(|two| two[0].0 == two[1].0) {
            return None;
        }
        into.push('{');
        let begun = into.len();
        for (key, value) in entries {
            if !keys.is_empty() && !keys.iter().any(|wanted| wanted == key) {
                continue;
            }
            if into.len() > begun {
                into.push(',');
            }
            into.push('"');
            into.push_str(key);
            into.push_str("\":");
            into.push_str(&value);
        }
        into.push('}');
        Some(())
    }

    fn value(&mut self, depth: u32) -> Option<Cow<'t, str>> {
        let begun = self.at;
        match self.peek()? {
            b'"' => _ = self.word()?,
            b'-' | b'0'..=b'9' => self.number()?,
            b't' | b'f' | b'n' => {
                let word = self.while_is(|byte| byte.is_ascii_lowercase());
                matches!(word, "true" | "false" | "null").then_some(())?;
            }
            b'{' => {
                let mut inner = String::new();
                self.object(&[], depth.checked_sub(1)?, &mut inner)?;
                return Some(inner.into());
            }
            b'[' => {
                let mut inner = String::from('[');
                self.at += 1;
                while self.take(b']').is_none() {
                    if inner.len() > 1 {
                        self.take(b',')?;
                        inner.push(',');
                    }
                    inner.push_str(&self.value(depth.checked_sub(1)?)?);
                }
                inner.push(']');
                return Some(inner.into());
            }
            _ => return None,
        }
        Some(self.text[begun..self.at].into())
    }

    /// What stands between the quotes.
    fn word(&mut self) -> Option<&'t str> {
        self.take(b'"')?;
        let word = self.while_is(is_plain);
        self.take(b'"')?;
        Some(word)
    }

    fn number(&mut self) -> Option<()> {
        let minus = self.take(b'-').is_some();
        let digits = self.while_is(|byte| byte.is_ascii_digit());
        let one_way = match digits.as_bytes() {
            [b'0'] => !minus,
            [b'1'..=b'9', ..] => digits.len() <= DIGITS,
            _ => false,
        };
        (one_way && !matches!(self.peek(), Some(b'.' | b'e' | b'E'))).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn slowly(json: &Json, keys: &[String]) -> String {
        let mut map = json.map();
        map.retain(|key, _| keys.is_empty() || keys.contains(key));
        let mut text = String::new();
        write_value(&Value::Object(map), &mut text);
        text
    }

    fn quickly(json: &Json, keys: &[String]) -> Option<String> {
        let mut text = String::new();
        Scan::new(json.as_str()).whole(keys, &mut text).map(|()| text)
    }

    fn drawn(dice: &mut fastrand::Rng, depth: u32) -> Value {
        let words = ["", "a", "b", "é世", "with \"quotes\"", "line\nbreak", "\u{7f}", "/"];
        let word = |dice: &mut fastrand::Rng| words[dice.usize(..words.len())];
        match dice.u32(..if depth == 0 { 7 } else { 9 }) {
            0 => Value::Null,
            1 => dice.bool().into(),
            2 => dice.i64(-20..20).into(),
            3 => dice.i64(..).into(),
            4 => dice.u64(..).into(),
            5 => json!(f64::from(dice.i32(..)) / 8.0),
            6 => word(dice).into(),
            7 => (0..dice.usize(..4)).map(|_| drawn(dice, depth - 1)).collect::<Vec<Value>>().into(),
            _ => {
                (0..dice.usize(..4)).map(|_| (word(dice).into(), drawn(dice, depth - 1))).collect::<Map<_, _>>().into()
            }
        }
    }

    #[test]
    fn what_is_read_quickly_is_what_a_tree_of_it_would_give() {
        let mut dice = fastrand::Rng::with_seed(5);
        let keys = [vec![], vec!["a".to_owned()], vec!["b".to_owned(), "".to_owned()]];
        let mut quick = 0;
        for n in 0..20_000 {
            let map: Map<String, Value> =
                (0..dice.usize(..4)).map(|n| (["a", "b", "é", ""][n].into(), drawn(&mut dice, 3))).collect();
            let json = Json::from(Value::Object(map));
            let keys = &keys[n % keys.len()];
            if let Some(text) = quickly(&json, keys) {
                assert_eq!(text, slowly(&json, keys), "{}", json.as_str());
                quick += 1;
            }
        }
        assert!(quick > 5_000, "{quick}");
    }

    #[test]
    fn entries_of_any_order_come_out_in_one() {
        let json = Json::raw(r#"{"to":"x","n":-12,"deep":{"z":[1,{"y":null,"b":true}],"a":{}},"none":[]}"#);
        let expected = r#"{"deep":{"a":{},"z":[1,{"b":true,"y":null}]},"n":-12,"none":[],"to":"x"}"#;
        assert_eq!(quickly(&json, &[]).as_deref(), Some(expected));
        assert_eq!(slowly(&json, &[]), expected);
        assert_eq!(quickly(&json, &["n".into(), "to".into(), "x".into()]).as_deref(), Some(r#"{"n":-12,"to":"x"}"#));
    }

    #[test]
    fn what_may_be_written_in_more_than_one_way_is_left_to_the_tree() {
        for text in [
            r#"{ "a":1}"#,
            r#"{"a":1.0}"#,
            r#"{"a":1e2}"#,
            r#"{"a":-0}"#,
            r#"{"a":01}"#,
            r#"{"a":12345678901234567890}"#,
            r#"{"a":"\u0041"}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"a":1}x"#,
            r#"{"a":1,}"#,
            r#"{"a":tru}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":[,1]}"#,
            r#"{,"a":1}"#,
            r#"{"a":1"#,
            r#"{"a"}"#,
            "[]",
            "",
        ] {
            assert_eq!(quickly(&Json::raw(text), &[]), None, "{text}");
        }
        let deep = |levels: usize| Json::raw(format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels)));
        assert!(quickly(&deep(17), &[]).is_some());
        assert_eq!(quickly(&deep(18), &[]), None);
        let mut text = String::from("x");
        write(&Json::raw(r#"{ "b":2.50, "a":[ 1 ], "b":"\u0041"}"#), &[], &mut text);
        assert_eq!(text, r#"x{"a":[1],"b":"A"}"#);
    }
}
