//! Reads Rust sources as far as the checks need it: without comments, without strings, without tests.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

/// One file. `code` and `bare` have the length and the lines of `text`, so that an offset means the same in all three.
pub struct Source {
    /// Relative to the folder that was read, with `/`.
    pub path: String,
    pub text: String,
    /// Without comments.
    pub code: String,
    /// Without comments and without what stands in strings and characters.
    pub bare: String,
    /// The offset at which each line begins.
    lines: Vec<usize>,
}

/// A name or one character of punctuation; `::` is one token.
#[derive(Clone, Debug)]
pub struct Token {
    pub range: Range<usize>,
    pub text: String,
}

impl Token {
    pub fn is_name(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let (code, bare) = masked(text);
        let begins = text.match_indices('\n').map(|(at, _)| at + 1);
        let lines = [0].into_iter().chain(begins).collect();
        Source { path: path.to_owned(), text: text.to_owned(), code, bare, lines }
    }

    /// The number of the line that holds this offset, from 1.
    pub fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|begin| *begin <= at)
    }

    pub fn tokens(&self) -> Vec<Token> {
        tokens(&self.bare)
    }

    /// Blanks what a range holds in `code` and `bare`.
    fn blank(&mut self, range: Range<usize>) {
        for text in [&mut self.code, &mut self.bare] {
            let blanks: String = text[range.clone()].bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }).collect();
            text.replace_range(range.clone(), &blanks);
        }
    }
}

/// Every file with this ending in a folder and below it, in order of its path.
pub fn read_folder(root: &Path, ending: &str) -> Vec<(String, String)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == ending) {
                let name = path.strip_prefix(root).unwrap().display().to_string().replace('\\', "/");
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    found.into_iter().collect()
}

/// The sources of a library without what only its tests see: items under `#[cfg(test)]` or
/// `#[cfg(all(test, ...))]`, and the files of such modules.
pub fn without_tests(files: &[(String, String)]) -> Vec<Source> {
    let mut sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
    let mut test_modules = Vec::new();
    for source in &mut sources {
        for (range, module) in test_items(&source.tokens()) {
            test_modules.extend(module.map(|name| format!("{}{name}", children(&source.path))));
            source.blank(range);
        }
    }
    let of_tests = |path: &str| {
        test_modules
            .iter()
            .any(|module| path.strip_prefix(module.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/')))
    };
    sources.retain(|source| !of_tests(&source.path));
    sources
}

/// Where the files of a file's modules lie: `a/mod.rs` and `a.rs` have them in `a/`.
fn children(path: &str) -> String {
    match path.strip_suffix("mod.rs").or_else(|| path.strip_suffix("lib.rs")) {
        Some(folder) => folder.to_owned(),
        None => format!("{}/", path.strip_suffix(".rs").unwrap_or(path)),
    }
}

/// The items under `#[cfg(test)]`, and the name of a module that stands in a file of its own.
fn test_items(tokens: &[Token]) -> Vec<(Range<usize>, Option<String>)> {
    let mut items = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let begins = texts(tokens, at);
        if !["# [ cfg ( test ) ]", "# [ cfg ( all ( test ,"].iter().any(|of_test| begins.starts_with(of_test)) {
            at += 1;
            continue;
        }
        let begin = at;
        while tokens.get(at).is_some_and(|token| token.text == "#") {
            at = closing(tokens, at + 1) + 1;
        }
        let first = at;
        if !begins_item(&tokens[at..]) {
            // A field, a variant or an arm.
            at = end_of_part(tokens, at);
            items.push((tokens[begin].range.start..tokens[at].range.start, None));
            continue;
        }
        while tokens.get(at).is_some_and(|token| token.text != ";" && token.text != "{") {
            at = if matches!(tokens[at].text.as_str(), "(" | "[") { closing(tokens, at) + 1 } else { at + 1 };
        }
        let of_file = tokens.get(at).is_some_and(|token| token.text == ";");
        let module = tokens[first..at].iter().position(|token| token.text == "mod");
        let module = module.filter(|_| of_file).map(|n| tokens[first + n + 1].text.clone());
        let end = if of_file { at } else { closing(tokens, at) };
        items.push((tokens[begin].range.start..tokens[end.min(tokens.len() - 1)].range.end, module));
        at = end + 1;
    }
    items
}

fn begins_item(tokens: &[Token]) -> bool {
    const ITEMS: [&str; 14] = [
        "mod",
        "use",
        "fn",
        "struct",
        "enum",
        "union",
        "trait",
        "impl",
        "const",
        "static",
        "type",
        "macro_rules",
        "let",
        "extern",
    ];
    let mut at = 0;
    while tokens.get(at).is_some_and(|token| matches!(token.text.as_str(), "pub" | "unsafe" | "async")) {
        at = if tokens.get(at + 1).is_some_and(|next| next.text == "(") { closing(tokens, at + 1) } else { at } + 1;
    }
    tokens.get(at).is_some_and(|token| ITEMS.contains(&token.text.as_str()))
}

/// Where the next comma stands, or the bracket that closes what this is a part of.
fn end_of_part(tokens: &[Token], mut at: usize) -> usize {
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "," | ";" | ")" | "]" | "}" => return at,
            "(" | "[" | "{" => at = closing(tokens, at) + 1,
            _ => at += 1,
        }
    }
    tokens.len() - 1
}

/// The next tokens as text.
fn texts(tokens: &[Token], at: usize) -> String {
    tokens[at..].iter().take(9).map(|token| token.text.as_str()).collect::<Vec<_>>().join(" ")
}

/// Where the bracket that opens at `at` is closed; the last token if it never is.
pub fn closing(tokens: &[Token], at: usize) -> usize {
    let mut depth = 0_usize;
    for (n, token) in tokens.iter().enumerate().skip(at) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return n;
        }
    }
    tokens.len().saturating_sub(1)
}

fn tokens(bare: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = bare.char_indices().peekable();
    while let Some((start, c)) = rest.next() {
        let mut end = start + c.len_utf8();
        if c.is_alphanumeric() || c == '_' {
            while let Some((at, c)) = rest.next_if(|(_, c)| c.is_alphanumeric() || *c == '_') {
                end = at + c.len_utf8();
            }
        } else if c.is_whitespace() {
            continue;
        } else if c == ':' && rest.next_if(|(_, c)| *c == ':').is_some() {
            end += 1;
        }
        tokens.push(Token { range: start..end, text: bare[start..end].to_owned() });
    }
    tokens
}

/// The text without comments, and without strings as well.
fn masked(text: &str) -> (String, String) {
    let (mut code, mut bare) = (text.as_bytes().to_vec(), text.as_bytes().to_vec());
    let blank = |bytes: &mut [u8]| bytes.iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
    let mut at = 0;
    while at < text.len() {
        let end = match span(text, at) {
            Span::Comment(end) => {
                blank(&mut code[at..end]);
                blank(&mut bare[at..end]);
                end
            }
            Span::Text(end) => {
                blank(&mut bare[at..end]);
                end
            }
            Span::Code(end) => end,
        };
        at = end;
    }
    let text = |bytes| String::from_utf8(bytes).expect("whole characters were replaced by blanks");
    (text(code), text(bare))
}

enum Span {
    Comment(usize),
    /// A string or a character.
    Text(usize),
    /// A name or one character.
    Code(usize),
}

/// What begins at this byte, and where it ends.
fn span(text: &str, at: usize) -> Span {
    let rest = &text[at..];
    if rest.starts_with("//") {
        return Span::Comment(at + rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Span::Comment(at + block_comment(rest));
    }
    if let Some(length) = string(rest).or_else(|| character(rest)) {
        return Span::Text(at + length);
    }
    let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let first = rest.chars().next().map_or(1, char::len_utf8);
    Span::Code(at + word.max(first))
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of the string that begins here, with its prefix.
fn string(rest: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|prefix| {
        let after = rest.strip_prefix(prefix).unwrap_or("x");
        let hashes = if prefix.ends_with('r') { after.trim_start_matches('#') } else { after };
        hashes.starts_with('"')
    })?;
    let body = &rest[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = body.find('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let length = body[hashes + 1..].find(&end).map_or(rest.len(), |end| end + hashes + 1 + hashes + 1);
        return Some((prefix.len() + length).min(rest.len()));
    }
    Some(prefix.len() + quoted(body, '"'))
}

/// The length of a character such as `'a'`, `'\''` or `b'x'`; a lifetime is none.
fn character(rest: &str) -> Option<usize> {
    let prefix = usize::from(rest.starts_with("b'"));
    let body = &rest[prefix..];
    let mut chars = body.strip_prefix('\'')?.chars();
    let first = chars.next()?;
    (first == '\\' || chars.next() == Some('\'')).then(|| prefix + quoted(body, '\''))
}

/// The length of what begins with this quote, to the quote that ends it.
fn quoted(body: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in body.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    body.len()
}

#[test]
fn comments_and_strings_are_told_from_code() {
    let text = r####"let a = "x // \" y"; // house
let b = r#"fn no() {}"#; /* fn /* nested */ no */ let c = '"'; let d = b'\''; fn f<'a>(x: &'a str) {}
let multi = "one
two"; let ünï = 'ü'; let r = 1;"####;
    let source = Source::new("a.rs", text);
    assert!(source.code.contains("x // ") && !source.code.contains("house") && !source.code.contains("nested"));
    assert!(source.code.contains("fn no() {}") && !source.bare.contains("fn no"));
    assert!(source.bare.contains("fn f<'a>(x: &'a str) {}") && !source.bare.contains("two"));
    assert_eq!((source.bare.len(), source.bare.lines().count()), (text.len(), 4));
    let last = source.tokens().into_iter().rfind(|token| token.text == "r").unwrap();
    assert_eq!((source.line(last.range.start), source.line(0)), (4, 1));
}

#[test]
fn tests_are_left_out() {
    let files = [
        (
            "lib.rs",
            "mod a; mod b;\n#[cfg(test)]\nfn only_tests() {}\nfn kept() {}\n#[cfg(all(test, unix))]\nmod unix { fn gone() {} }",
        ),
        (
            "a.rs",
            "fn kept() {}\n#[cfg(test)]\n#[rustfmt::skip]\nmod tests { fn gone() { let x = [1; 2]; } }\nfn after() {}",
        ),
        ("a/tests.rs", "fn a_file_that_is_not_of_tests() {}"),
        ("b/mod.rs", "#[cfg(test)]\nmod tests;\nmod testing;"),
        ("b/tests.rs", "fn gone() {}"),
        ("b/tests/more.rs", "fn gone() {}"),
        (
            "b/testing.rs",
            "struct S { #[cfg(test)] gone: u8, kept: u8 }\nfn kept() {}\n#[cfg(test)]\npub(crate) fn gone<A, B>() {}",
        ),
    ];
    let files = files.map(|(path, text)| (path.to_owned(), text.to_owned()));
    let sources = without_tests(&files);
    let paths: Vec<&str> = sources.iter().map(|source| source.path.as_str()).collect();
    assert_eq!(paths, ["lib.rs", "a.rs", "a/tests.rs", "b/mod.rs", "b/testing.rs"]);
    let all: String = sources.iter().map(|source| source.bare.as_str()).collect();
    assert!(!all.contains("gone") && !all.contains("only_tests"), "{all}");
    assert!(all.contains("after") && all.contains("testing") && all.contains("kept"));
}
