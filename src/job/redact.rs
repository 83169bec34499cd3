//! Which values are not shown: the values of keys that sound like secrets. Only this file decides it.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::recorded;

/// Parts of keys that sound like secrets, in lower case and without separators.
const USUAL: &str = "password passwd passphrase pwd secret token apikey accesskey privatekey credential authorization \
                     bearer cookie cardnumber";

/// The text that is shown instead of a value.
const MASK: &str = "[redacted]";

/// The shortest value that is hidden in texts: a shorter one would be found everywhere.
const SHORTEST: usize = 4;

/// Which values are not shown: the values of the usual keys, and of the keys that an application added.
#[derive(Clone, Default)]
pub(crate) struct Redaction(Option<Arc<[String]>>);

impl Redaction {
    pub const USUAL: Redaction = Redaction(None);

    pub fn add(&mut self, words: impl IntoIterator<Item = String>) {
        let before = self.0.iter().flat_map(|words| words.iter().cloned());
        let words = words.into_iter().map(|word| plain(&word)).filter(|word| !word.is_empty());
        let all: Vec<String> = before.chain(words).collect();
        self.0 = (!all.is_empty()).then(|| all.into());
    }

    pub fn is_usual(&self) -> bool {
        self.0.is_none()
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        USUAL.split(' ').chain(self.0.iter().flat_map(|words| words.iter().map(String::as_str)))
    }

    /// Whether anything in the text sounds like a secret.
    fn hears(&self, text: &str) -> bool {
        let text = plain(text);
        self.words().any(|word| text.contains(word))
    }

    /// A JSON text as it may be shown: the same text if there is nothing to hide. A text that is not JSON has no keys:
    /// it is hidden as a whole if anything in it sounds like a secret.
    pub fn json<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if text.len() <= 2 {
            return text.into();
        }
        match serde_json::from_str::<Value>(text) {
            Ok(mut value) => {
                let mut hidden = Vec::new();
                if self.hide(&mut value, &mut hidden) { value.to_string().into() } else { text.into() }
            }
            Err(_) if self.hears(text) => MASK.into(),
            Err(_) => text.into(),
        }
    }

    /// A text about a job, without the values that are hidden in these JSON texts of the job.
    pub fn text<'t>(&self, text: &'t str, of: &[&str]) -> Cow<'t, str> {
        let mut hidden = Vec::new();
        for json in of {
            if let Ok(mut value) = serde_json::from_str::<Value>(json) {
                self.hide(&mut value, &mut hidden);
            }
        }
        // Longer values first: a value may contain a shorter one.
        hidden.sort_unstable_by_key(|value: &String| std::cmp::Reverse(value.len()));
        let mut text = Cow::Borrowed(text);
        for value in &hidden {
            let quoted = Value::from(value.as_str()).to_string();
            for form in [value.as_str(), &quoted[1..quoted.len() - 1]] {
                if text.contains(form) {
                    text = text.replace(form, MASK).into();
                }
            }
        }
        text
    }

    pub fn map(&self, map: &Map<String, Value>) -> Map<String, Value> {
        let mut map = map.clone();
        self.hide_entries(&mut map, &mut Vec::new());
        map
    }

    /// Replaces values by the mask and collects them; returns whether there were any.
    fn hide(&self, value: &mut Value, hidden: &mut Vec<String>) -> bool {
        match value {
            Value::Object(map) => self.hide_entries(map, hidden),
            Value::Array(values) => values.iter_mut().fold(false, |any, value| self.hide(value, hidden) | any),
            _ => false,
        }
    }

    fn hide_entries(&self, map: &mut Map<String, Value>, hidden: &mut Vec<String>) -> bool {
        let mut any = false;
        let recorded = map.get("recorded") == Some(&Value::Bool(true));
        for (key, value) in map.iter_mut() {
            let hide = match value {
                Value::Null => false,
                // A recorded value is encoded. If it cannot be decoded, it is not shown.
                Value::String(encoded) if recorded && key == "return" => match recorded::decode::<Value>(encoded) {
                    Ok(mut decoded) => self.hide(&mut decoded, hidden),
                    Err(_) => true,
                },
                _ => self.hears(key),
            };
            if hide {
                gather(value, hidden);
                *value = MASK.into();
                any = true;
            } else {
                any |= self.hide(value, hidden);
            }
        }
        any
    }
}

fn gather(value: &Value, hidden: &mut Vec<String>) {
    let text = match value {
        Value::Object(map) => return map.values().for_each(|value| gather(value, hidden)),
        Value::Array(values) => return values.iter().for_each(|value| gather(value, hidden)),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(_) | Value::Null => return,
    };
    if text.chars().count() >= SHORTEST {
        hidden.push(text);
    }
}

/// `Api-Key`, `api_key` and `apiKey` are one word.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '_' | '-' | ' ' | '.')).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual(text: &str) -> String {
        Redaction::USUAL.json(text).into_owned()
    }

    #[test]
    fn values_of_secret_keys_are_hidden_at_any_depth() {
        for (text, shown) in [
            (r#"{"password":"hunter2"}"#, r#"{"password":"[redacted]"}"#),
            (r#"{"smtp":[{"Api-Key":"abc","host":"h"}]}"#, r#"{"smtp":[{"Api-Key":"[redacted]","host":"h"}]}"#),
            (r#"{"userPassWord":{"old":1,"new":2}}"#, r#"{"userPassWord":"[redacted]"}"#),
            (r#"{"tokens":[1,2],"n":3}"#, r#"{"n":3,"tokens":"[redacted]"}"#),
            (r#"{"secret":null}"#, r#"{"secret":null}"#),
            (r#"[{"secret":true}]"#, r#"[{"secret":"[redacted]"}]"#),
        ] {
            assert_eq!(usual(text), shown);
        }
    }

    #[test]
    fn a_text_without_secrets_is_shown_as_it_is() {
        for text in ["{}", "", "{ \"b\": 1e0, \"a\": [1,  2] }", "half a", "{\"password\" ", "\u{fffd}"] {
            if text.contains("password") {
                assert_eq!(usual(text), MASK, "it has no keys to go by");
            } else {
                assert_eq!(usual(text), text);
            }
        }
    }

    #[test]
    fn an_application_adds_words_of_its_own() {
        let mut redaction = Redaction::default();
        redaction.add(["IBAN".to_owned(), "  ".to_owned()]);
        redaction.add(["birth_day".to_owned()]);
        let text = r#"{"birthDay":"today","iban":"DE1","name":"n","token":"t"}"#;
        let shown = r#"{"birthDay":"[redacted]","iban":"[redacted]","name":"n","token":"[redacted]"}"#;
        assert_eq!(redaction.json(text), shown);
    }

    #[test]
    fn a_recorded_value_is_hidden_where_it_holds_a_secret() {
        let meta = |value: &Value| {
            let encoded = recorded::encode(value, 1000).unwrap();
            serde_json::json!({ "recorded": true, "return": encoded }).to_string()
        };
        let open = meta(&serde_json::json!({ "n": 1 }));
        assert_eq!(usual(&open), open);
        let secret = meta(&serde_json::json!([{ "token": "hunter2" }]));
        assert_eq!(usual(&secret), r#"{"recorded":true,"return":"[redacted]"}"#);
        assert_eq!(usual(r#"{"recorded":true,"return":"??"}"#), r#"{"recorded":true,"return":"[redacted]"}"#);
        assert_eq!(usual(r#"{"return":"??"}"#), r#"{"return":"??"}"#);
    }

    #[test]
    fn what_is_hidden_is_hidden_in_texts_as_well() {
        let text =
            |text| Redaction::USUAL.text(text, &[r#"{"password":"a\"bc","token":12345,"pwd":"abc","x":"open"}"#]);
        assert_eq!(text("no a\"bc and no a\\\"bc here"), "no [redacted] and no [redacted] here");
        assert_eq!(text("12345, open"), "[redacted], open");
        assert_eq!(text("abc is too short"), "abc is too short");
    }
}
