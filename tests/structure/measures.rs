//! How much there is, which calls may end a thread, and which words are not ours.

use crate::source::Source;

/// Lines that are neither blank nor comments.
pub fn code_lines(source: &Source) -> usize {
    source.code.lines().filter(|line| !line.trim().is_empty()).count()
}

/// The files that are longer than they may be.
pub fn long_files(files: &[(String, String)], most: usize) -> Vec<String> {
    let lengths = files.iter().map(|(path, text)| (path, text.lines().count()));
    lengths
        .filter(|(_, lines)| *lines > most)
        .map(|(path, lines)| format!("{path} has {lines} lines, {most} at most"))
        .collect()
}

/// Calls of `unwrap`, and of `expect` without a text that begins with `BUG: `.
pub fn unproven(source: &Source) -> Vec<String> {
    let tokens = source.tokens();
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let called = at > 0 && matches!(tokens[at - 1].text.as_str(), "." | "::");
        let said = || {
            tokens.get(at + 1).is_some_and(|open| {
                open.text == "(" && source.code[open.range.end..].trim_start().starts_with("\"BUG: ")
            })
        };
        let wrong = match token.text.as_str() {
            "unwrap" | "unwrap_err" => called,
            "expect" | "expect_err" => called && !said(),
            _ => false,
        };
        if wrong {
            found.push(place(source, token.range.start));
        }
    }
    found
}

fn place(source: &Source, at: usize) -> String {
    let line = source.line(at);
    let text = source.text.lines().nth(line - 1).unwrap_or_default();
    format!("{}:{line}: {}", source.path, text.trim())
}

/// Names in code that stand for what a room may not know, such as `rusqlite` or `thread`.
pub fn names_in(source: &Source, names: &[&str]) -> Vec<String> {
    let tokens = source.tokens().into_iter();
    tokens.filter(|token| names.contains(&token.text.as_str())).map(|token| place(source, token.range.start)).collect()
}

/// Lines whose text holds one of these, wherever it stands.
pub fn texts_in(path: &str, text: &str, wrong: &[&str], theirs: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let is_theirs = theirs.iter().any(|theirs| line.contains(theirs));
        if let Some(word) = wrong.iter().find(|word| line.contains(**word)).filter(|_| !is_theirs) {
            found.push(format!("{path}:{}: {word:?} in: {}", n + 1, line.trim()));
        }
    }
    found
}

/// Words that are not ours, in comments and in names: `LaneState`, `the_lane` and `lanes` all say `lane`.
pub fn words_in(source: &Source, wrong: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (n, line) in without_strings(source).lines().enumerate() {
        for name in line.split(|c: char| !c.is_alphanumeric() && c != '_') {
            let word = parts(name).into_iter().find(|part| is_one_of(part, wrong));
            if let Some(word) = word {
                let text = source.text.lines().nth(n).unwrap_or_default();
                found.push(format!("{}:{}: {word:?} in: {}", source.path, n + 1, text.trim()));
                break;
            }
        }
    }
    found
}

/// Names in code with one of these words: `Told`, `is_told`.
pub fn names_with(source: &Source, words: &[&str]) -> Vec<String> {
    let tokens = source.tokens().into_iter();
    let named = tokens.filter(|token| parts(&token.text).iter().any(|part| is_one_of(part, words)));
    named.map(|token| place(source, token.range.start)).collect()
}

/// The text with its comments, and without what stands in strings.
fn without_strings(source: &Source) -> String {
    let bytes = source.text.bytes().zip(source.code.bytes().zip(source.bare.bytes()));
    let kept: Vec<u8> = bytes.map(|(text, (code, bare))| if code == bare { text } else { b' ' }).collect();
    String::from_utf8_lossy(&kept).into_owned()
}

/// The words of a name, in small letters.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut before = '_';
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && before.is_lowercase()) {
            parts.push(String::new());
        }
        if c != '_' {
            parts.last_mut().unwrap().extend(c.to_lowercase());
        }
        before = c;
    }
    parts
}

fn is_one_of(part: &str, words: &[&str]) -> bool {
    words.contains(&part) || part.strip_suffix('s').is_some_and(|part| words.contains(&part))
}

#[test]
fn lines_of_code_are_neither_blank_nor_comments() {
    let text = "//! Head.\n\nfn f() {\n    // why\n    /* and\n       how */ g(\"\n//x\n\"); // end\n}\n";
    // `//x` stands in a string.
    assert_eq!(code_lines(&Source::new("a.rs", text)), 5);
    let files = [("a.rs".to_owned(), "x\n".repeat(3)), ("b.rs".to_owned(), "x\n".repeat(2))];
    assert_eq!(long_files(&files, 2), ["a.rs has 3 lines, 2 at most"]);
}

#[test]
fn calls_that_may_end_a_thread_are_found() {
    let text = "fn f() { a.unwrap();\nb.expect(\"BUG: never\");\nc\n.expect(\n\"BUG: never\");\nd.expect(\"maybe\");\ne.map(Option::unwrap);\n\
                f.unwrap_or(1); // g.unwrap()\n}\n#[expect(clippy::x)]\nh.expect(BUG);";
    let found = unproven(&Source::new("a.rs", text));
    let lines: Vec<&str> = found.iter().map(|found| found.split(':').nth(1).unwrap()).collect();
    assert_eq!(lines, ["1", "6", "7", "11"], "{found:#?}");
}

#[test]
fn words_are_found_in_names_and_comments_and_not_in_strings() {
    let text = "struct LaneState;\n// Who told it: two houses.\nlet x = \"the house\";\nlet snapshot = SHOT_AT;\nlet foretold = 1;\nstruct Warehouse;";
    let found = words_in(&Source::new("a.rs", text), &["lane", "told", "house", "shot"]);
    let expected = [
        "a.rs:1: \"lane\" in: struct LaneState;",
        "a.rs:2: \"told\" in: // Who told it: two houses.",
        "a.rs:4: \"shot\" in: let snapshot = SHOT_AT;",
    ];
    assert_eq!(found, expected);
    let found = names_with(&Source::new("a.rs", "// told\nfn f(is_told: Told) { \"told\" }"), &["told"]);
    assert_eq!(found.len(), 2, "{found:?}");
    let found = texts_in("a.rs", "status\nExitStatus status\nok", &["status"], &["ExitStatus"]);
    assert_eq!(found, ["a.rs:1: \"status\" in: status"]);
    let found =
        names_in(&Source::new("a.rs", "use rusqlite::X; // thread\nlet s = \"thread\";"), &["rusqlite", "thread"]);
    assert_eq!(found, ["a.rs:1: use rusqlite::X; // thread"]);
}
