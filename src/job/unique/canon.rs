//! JSON objects in one form: entries by their keys, without blanks, numbers as they are read.

use std::fmt::Write;

use serde_json::Value;

use crate::job::Json;

/// Writes the object, or only these keys of it where there are any. What is no object is an empty one.
pub(super) fn write(json: &Json, keys: &[String], text: &mut String) {
    let mut map = json.map();
    if !keys.is_empty() {
        map.retain(|key, _| keys.contains(key));
    }
    write_value(&Value::Object(map), text);
}

/// As JSON has it.
pub(super) fn write_word(word: &str, text: &mut String) {
    let _ = write!(text, "{}", Value::from(word));
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
        other => drop(write!(text, "{other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_the_same_is_written_in_one_form() {
        let written = |json: &str, keys: &[&str]| {
            let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
            let mut text = String::from("x");
            write(&Json::raw(json.to_owned()), &keys, &mut text);
            text
        };
        let json = r#"{"to":"x","n":-12,"deep":{"z":[1,{"y":null,"b":true}],"a":{}},"none":[]}"#;
        let expected = r#"x{"deep":{"a":{},"z":[1,{"b":true,"y":null}]},"n":-12,"none":[],"to":"x"}"#;
        assert_eq!(written(json, &[]), expected);
        assert_eq!(written(&expected[1..], &[]), expected, "it is its own form");
        assert_eq!(written(json, &["n", "to", "x"]), r#"x{"n":-12,"to":"x"}"#);
        assert_eq!(written(r#"{ "b":2.50, "a":[ 1 ], "b":"\u0041"}"#, &[]), r#"x{"a":[1],"b":"A"}"#);
        assert_eq!(written("[1]", &[]), "x{}", "what is no object is an empty one");
    }
}
