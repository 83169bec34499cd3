//! Functions: where they begin and end, whose they are, and which are tables.

use std::ops::Range;

use crate::source::{Source, Token, closing};

pub struct Function {
    pub name: String,
    /// The type of the `impl`, or the trait, that it stands in.
    pub of: Option<String>,
    /// From `fn` to the closing brace.
    pub first_line: usize,
    pub last_line: usize,
    /// Offsets, from `fn` to the closing brace.
    pub whole: Range<usize>,
    /// Offsets of what stands between the braces.
    pub body: Range<usize>,
    /// Whether the body is one `match` without a statement in its arms.
    pub is_table: bool,
}

impl Function {
    pub fn lines(&self) -> usize {
        self.last_line - self.first_line + 1
    }

    /// `Type::name`, or the name alone.
    pub fn full_name(&self) -> String {
        self.of.as_ref().map_or(self.name.clone(), |of| format!("{of}::{}", self.name))
    }
}

/// All functions with a body, those within functions included.
pub fn functions(source: &Source) -> Vec<Function> {
    let tokens = source.tokens();
    let owners = owners(&tokens);
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        let is_function = tokens[at].text == "fn" && tokens.get(at + 1).is_some_and(Token::is_name);
        let Some(open) = is_function.then(|| body(&tokens, at)).flatten() else { continue };
        let close = closing(&tokens, open);
        let of = owners.iter().filter(|(range, _)| range.contains(&at)).min_by_key(|(range, _)| range.len());
        found.push(Function {
            name: tokens[at + 1].text.clone(),
            of: of.map(|(_, name)| name.clone()),
            first_line: source.line(tokens[at].range.start),
            last_line: source.line(tokens[close].range.start),
            whole: tokens[at].range.start..tokens[close].range.end,
            body: tokens[open].range.end..tokens[close].range.start,
            is_table: is_table(&tokens[open + 1..close]),
        });
    }
    found
}

/// Where the body of the function opens; `None` if it has none.
fn body(tokens: &[Token], function: usize) -> Option<usize> {
    let mut at = function;
    loop {
        match tokens.get(at)?.text.as_str() {
            "{" => return Some(at),
            ";" => return None,
            "(" | "[" => at = closing(tokens, at) + 1,
            _ => at += 1,
        }
    }
}

/// The blocks of `impl` and `trait`, and the last name of the type.
fn owners(tokens: &[Token]) -> Vec<(Range<usize>, String)> {
    let mut owners = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        // `impl` in a type has something before it that takes a type.
        let begins_item =
            at == 0 || matches!(tokens[at - 1].text.as_str(), "}" | ";" | "]" | "{" | "pub" | ")" | "unsafe");
        if !begins_item || !matches!(token.text.as_str(), "impl" | "trait") {
            continue;
        }
        let Some(open) = body(tokens, at) else { continue };
        owners.extend(owner(&tokens[at + 1..open]).map(|name| (open..closing(tokens, open), name)));
    }
    owners
}

/// The name of the type in `<T> Trait<X> for path::Type<T> where ...`.
fn owner(head: &[Token]) -> Option<String> {
    let mut depth = 0_i32;
    let mut name = None;
    for (at, token) in head.iter().enumerate() {
        match token.text.as_str() {
            "<" => depth += 1,
            ">" if at == 0 || head[at - 1].text != "-" => depth -= 1,
            "where" | ":" if depth == 0 => break,
            "for" if depth == 0 => name = None,
            "dyn" | "mut" => {}
            text if depth == 0 && token.is_name() => name = Some(text.to_owned()),
            _ => {}
        }
    }
    name
}

fn is_table(body: &[Token]) -> bool {
    if body.first().is_none_or(|token| token.text != "match") {
        return false;
    }
    let Some(open) = self::body(body, 0) else { return false };
    let statement = |at: &usize| {
        // `[x; n]` is no statement.
        let opener = (open..*at).rev().find(|n| body[*n].text == "[" && closing(body, *n) > *at);
        body[*at].text == ";" && opener.is_none()
    };
    closing(body, open) == body.len() - 1 && !(open..body.len()).any(|at| statement(&at))
}

/// The functions that are longer than they may be, each with the file and its lines.
pub fn too_long(sources: &[Source], most: usize) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for function in functions(source).iter().filter(|function| function.lines() > most && !function.is_table) {
            let (name, lines) = (function.full_name(), function.lines());
            found.push(format!("{}:{}: {name} has {lines} lines, {most} at most", source.path, function.first_line));
        }
    }
    found
}

#[test]
fn functions_are_found_with_their_types_and_lines() {
    let text = "impl<T: Into<X>> fmt::Display for path::Kiln<'_, T> where T: Y {\n fn fmt(&self, f: &mut [u8; 2]) -> impl Fn() {\n\
                { fn inner() {} }\n}\n}\ntrait Op: Send { fn run(&self); fn plain(&self) -> bool { true } }\nfn free(f: fn(u8)) {}";
    let source = Source::new("a.rs", text);
    let found: Vec<(String, usize)> = functions(&source).iter().map(|f| (f.full_name(), f.lines())).collect();
    let expected = [("Kiln::fmt", 3), ("Kiln::inner", 1), ("Op::plain", 1), ("free", 1)];
    assert_eq!(found, expected.map(|(name, lines)| (name.to_owned(), lines)));
    assert_eq!(&source.text[functions(&source)[2].body.clone()], " true ");
}

#[test]
fn a_long_function_is_found_unless_it_is_a_table() {
    let lines = |n: usize, line: &str| format!("{line}\n").repeat(n);
    let long = format!("fn long() {{\n{}}}\n", lines(59, "work();"));
    let fits = format!("fn fits() {{\n{}}}\n", lines(58, "work();"));
    let table = format!("fn table(x: u8) -> X {{\nmatch x {{\n{}}}\n}}\n", lines(90, "1 => [0; 3],"));
    let acts = format!("fn acts(x: u8) {{\nmatch x {{\n{}}}\n}}\n", lines(90, "1 => { work(); }"));
    let more = format!("fn more(x: u8) -> X {{\nmatch x {{\n{}}}.after()\n}}\n", lines(90, "1 => 2,"));
    let quoted = format!("const TEXT: &str = \"{long}\";\n/* {long} */");
    let found = too_long(&[Source::new("a.rs", &[long, fits, table, acts, more, quoted].concat())], 60);
    let names: Vec<&str> = found.iter().map(|found| found.split(' ').nth(1).unwrap()).collect();
    assert_eq!(names, ["long", "acts", "more"], "{found:#?}");
    assert_eq!(found[0], "a.rs:1: long has 61 lines, 60 at most");
}
