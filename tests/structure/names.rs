//! Which file defines a name, and which file uses it.
//!
//! A path over `crate::`, `super::` or `self::`, or one that begins with a module the file knows, is followed through
//! `use` lines and re-exports to the file that defines the name. `mod` and `pub use` lines draw no arrow, unless the
//! file itself uses the name that it re-exports.

mod proof;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::source::{Source, Token, closing};

/// `from` uses a name that `to` defines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrow {
    pub from: String,
    pub to: String,
    pub name: String,
    pub line: usize,
}

/// What was read of a crate.
pub struct Names {
    pub files: Vec<String>,
    /// Sorted, each name of a file once.
    pub arrows: Vec<Arrow>,
    /// Files that hold nothing but `mod` and `use` lines.
    pub faces: BTreeSet<String>,
    /// Paths that lead nowhere: the reader has to learn what it does not understand.
    pub unknown: Vec<String>,
}

type Path = Vec<String>;

#[derive(Default)]
struct Module {
    file: String,
    children: BTreeSet<String>,
    /// With the file of each: an exported macro is an item of the root.
    items: BTreeMap<String, String>,
    /// The name in this module, and the path that it stands for.
    imports: Vec<(String, Path)>,
    globs: Vec<Path>,
}

/// A path as it stands in a file.
struct Reference {
    module: Path,
    path: Path,
    line: usize,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Inline,
    Use,
    /// Under this name.
    ReExport(String),
    Glob,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Module(Path),
    /// An item of this file.
    Item(String),
    External,
}

#[derive(Default)]
struct Reader {
    modules: BTreeMap<Path, Module>,
    references: BTreeMap<String, Vec<Reference>>,
    /// The names that stand in a file outside of `use` lines.
    words: BTreeMap<String, HashSet<String>>,
}

pub fn read(sources: &[Source]) -> Names {
    let mut reader = Reader::default();
    for source in sources {
        reader.read(source);
    }
    let mut names = Names { files: Vec::new(), arrows: Vec::new(), faces: BTreeSet::new(), unknown: Vec::new() };
    for source in sources {
        names.files.push(source.path.clone());
        if reader.words[&source.path].is_empty() {
            names.faces.insert(source.path.clone());
        }
        reader.draw(source, &mut names);
    }
    names.arrows.sort();
    names.arrows.dedup_by(|a, b| (&a.from, &a.to, &a.name) == (&b.from, &b.to, &b.name));
    names
}

/// The module that a file is.
fn module_of(file: &str) -> Path {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let stem = stem.strip_suffix("/mod").unwrap_or(stem);
    if stem == "lib" { Vec::new() } else { stem.split('/').map(str::to_owned).collect() }
}

fn joined(path: &[String], name: &str) -> Path {
    path.iter().cloned().chain([name.to_owned()]).collect()
}

/// What the walk through a file stands in.
struct Walk<'a> {
    file: &'a str,
    tokens: &'a [Token],
    module: Path,
    /// For each open brace, whether it is that of a module, and whether items in it are the module's.
    open: Vec<(bool, bool)>,
}

impl Reader {
    fn read(&mut self, source: &Source) {
        let tokens = source.tokens();
        let module = module_of(&source.path);
        self.module(&module, &source.path);
        self.words.insert(source.path.clone(), HashSet::new());
        let mut walk = Walk { file: &source.path, tokens: &tokens, module, open: Vec::new() };
        let mut at = 0;
        while at < tokens.len() {
            at = self.step(&mut walk, source, at);
        }
    }

    fn module(&mut self, path: &[String], file: &str) -> &mut Module {
        let module = self.modules.entry(path.to_vec()).or_default();
        module.file = file.to_owned();
        module
    }

    /// Reads what begins at this token; says where the next begins.
    fn step(&mut self, walk: &mut Walk<'_>, source: &Source, at: usize) -> usize {
        let tokens = walk.tokens;
        let text = |n: usize| tokens.get(n).map_or("", |token| token.text.as_str());
        match text(at) {
            "#" => return closing(tokens, at + 1 + usize::from(text(at + 1) == "!")) + 1,
            "mod" if matches!(text(at + 2), "{" | ";") => {
                self.module(&walk.module, walk.file).children.insert(text(at + 1).to_owned());
                if text(at + 2) == "{" {
                    walk.module.push(text(at + 1).to_owned());
                    walk.open.push((true, true));
                    self.module(&walk.module, walk.file);
                }
                return at + 3;
            }
            "use" if text(at + 1) != "<" => return self.import(walk, source, at),
            // A visibility says nothing of what the file needs.
            "pub" => return if text(at + 1) == "(" { closing(tokens, at + 1) + 1 } else { at + 1 },
            "{" => {
                let inherits = walk.open.last().is_none_or(|open| open.1);
                let locals = at >= 2 && text(at - 2) == "thread_local" && text(at - 1) == "!";
                walk.open.push((false, locals && inherits));
            }
            "}" => {
                let of_module = walk.open.pop().is_some_and(|(module, _)| module);
                walk.module.truncate(walk.module.len() - usize::from(of_module));
            }
            _ if tokens[at].is_name() => return self.name(walk, source, at),
            _ => {}
        }
        at + 1
    }

    /// A name outside of `use` lines: an item, a path, or neither.
    fn name(&mut self, walk: &Walk<'_>, source: &Source, at: usize) -> usize {
        let tokens = walk.tokens;
        let text = |n: usize| tokens.get(n).map_or("", |token| token.text.as_str());
        self.words.get_mut(walk.file).unwrap().insert(text(at).to_owned());
        let item = match text(at) {
            "struct" | "enum" | "trait" | "type" | "fn" | "union" => text(at + 1),
            "const" | "static" if text(at + 1) == "mut" => text(at + 2),
            "const" | "static" if !matches!(text(at + 1), "fn" | "unsafe" | "extern" | "async") => text(at + 1),
            "macro_rules" if text(at + 1) == "!" => text(at + 2),
            _ => "",
        };
        if walk.open.last().is_none_or(|open| open.1) && item.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            let exported = text(at) == "macro_rules" && at > 0 && text(at - 1) == "]" && is_exported(&tokens[..at]);
            let module = if exported { &[] } else { walk.module.as_slice() };
            let module = self.modules.entry(module.to_vec()).or_default();
            module.items.insert(item.to_owned(), walk.file.to_owned());
        }
        // `..crate::X` begins a path, `x.y` does not.
        let before = |n: usize| at.checked_sub(n).map_or("", text);
        let is_first = before(1) != "::" && (before(1) != "." || before(2) == ".");
        if !is_first || text(at + 1) != "::" {
            return at + 1;
        }
        let mut path = vec![text(at).to_owned()];
        let mut end = at + 1;
        while text(end) == "::" && tokens.get(end + 1).is_some_and(Token::is_name) {
            path.push(text(end + 1).to_owned());
            end += 2;
        }
        self.refer(walk, path, source.line(tokens[at].range.start), Kind::Inline);
        end
    }

    fn refer(&mut self, walk: &Walk<'_>, path: Path, line: usize, kind: Kind) {
        let module = walk.module.clone();
        self.references.entry(walk.file.to_owned()).or_default().push(Reference { module, path, line, kind });
    }

    /// `use a::{b, c as d, e::*};`
    fn import(&mut self, walk: &Walk<'_>, source: &Source, at: usize) -> usize {
        let tokens = walk.tokens;
        let public = (0..at).rev().find(|n| matches!(tokens[*n].text.as_str(), ";" | "{" | "}" | "]" | "pub"));
        let public = public.is_some_and(|n| tokens[n].text == "pub");
        let end = (at..tokens.len()).find(|n| tokens[*n].text == ";").unwrap_or(tokens.len());
        let mut imported = Vec::new();
        tree(&tokens[at + 1..end], &[], &mut imported);
        let line = source.line(tokens[at].range.start);
        for (path, name) in imported {
            let kind = match &name {
                None => Kind::Glob,
                Some(name) if public => Kind::ReExport(name.clone()),
                Some(_) => Kind::Use,
            };
            let module = self.module(&walk.module, walk.file);
            match name {
                None => module.globs.push(path.clone()),
                Some(name) => module.imports.push((name, path.clone())),
            }
            self.refer(walk, path, line, kind);
        }
        end + 1
    }

    /// What a name of a module may be.
    fn look_up(&self, module: &[String], name: &str, seen: &mut HashSet<(Path, String)>) -> Vec<Target> {
        let Some(read) = self.modules.get(module) else { return Vec::new() };
        if !seen.insert((module.to_vec(), name.to_owned())) {
            return Vec::new();
        }
        let mut found = Vec::new();
        if read.children.contains(name) && self.modules.contains_key(&joined(module, name)) {
            found.push(Target::Module(joined(module, name)));
        }
        if let Some(file) = read.items.get(name) {
            found.push(Target::Item(file.clone()));
        }
        for (_, path) in read.imports.iter().filter(|(imported, _)| imported == name) {
            found.extend(self.resolve(module, path, seen));
        }
        for glob in read.globs.iter().filter(|_| found.is_empty()).collect::<Vec<_>>() {
            for target in self.resolve(module, glob, &mut seen.clone()) {
                if let Target::Module(globbed) = target {
                    found.extend(self.look_up(&globbed, name, seen));
                }
            }
        }
        found
    }

    /// Where a path leads to; nothing if the reader cannot tell.
    fn resolve(&self, module: &[String], path: &[String], seen: &mut HashSet<(Path, String)>) -> Vec<Target> {
        let mut rest = path;
        let mut found = match path[0].as_str() {
            "crate" => vec![Target::Module(Vec::new())],
            "self" => vec![Target::Module(module.to_vec())],
            "super" => vec![Target::Module(module[..module.len().saturating_sub(1)].to_vec())],
            first => {
                let found = self.look_up(module, first, seen);
                if found.is_empty() { vec![Target::External] } else { found }
            }
        };
        rest = &rest[1..];
        for name in rest {
            let next = found.into_iter().flat_map(|target| match target {
                Target::Module(module) if name == "super" => {
                    vec![Target::Module(module[..module.len().saturating_sub(1)].to_vec())]
                }
                Target::Module(module) => self.look_up(&module, name, &mut seen.clone()),
                other => vec![other],
            });
            found = next.collect();
        }
        found
    }

    fn begins_with_module(&self, module: &[String], path: &[String]) -> bool {
        let first = self.look_up(module, &path[0], &mut HashSet::new());
        first.iter().any(|target| matches!(target, Target::Module(_)))
    }

    fn draw(&self, source: &Source, names: &mut Names) {
        let words = &self.words[&source.path];
        for reference in self.references.get(&source.path).into_iter().flatten() {
            let Reference { module, path, line, kind } = reference;
            let anchored = matches!(path[0].as_str(), "crate" | "self" | "super");
            let targets = self.resolve(module, path, &mut HashSet::new());
            let shown = path.join("::");
            if targets.is_empty() && (anchored || *kind != Kind::Inline) {
                names.unknown.push(format!("{}:{line}: {shown} is not found", source.path));
            }
            if matches!(kind, Kind::ReExport(name) if !words.contains(name)) {
                continue;
            }
            // `Type::name`: the type was imported by a line that counts already.
            if *kind == Kind::Inline && !anchored && !self.begins_with_module(module, path) {
                continue;
            }
            for target in targets {
                let mut draw = |to: &str, name: &str| {
                    if to != source.path {
                        let (from, to, name) = (source.path.clone(), to.to_owned(), name.to_owned());
                        names.arrows.push(Arrow { from, to, name, line: *line });
                    }
                };
                match target {
                    Target::Item(file) => draw(&file, &shown),
                    Target::Module(module) if *kind == Kind::Glob => {
                        for word in words {
                            for target in self.look_up(&module, word, &mut HashSet::new()) {
                                if let Target::Item(file) = target {
                                    draw(&file, &format!("{shown}::{word}"));
                                }
                            }
                        }
                    }
                    Target::Module(module) => {
                        let module = &self.modules[&module];
                        if !module.items.is_empty() {
                            draw(&module.file, &shown);
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Whether the attributes right before say that a macro is exported.
fn is_exported(before: &[Token]) -> bool {
    let attributes = before.iter().rev().take_while(|token| !matches!(token.text.as_str(), ";" | "}"));
    attributes.into_iter().any(|token| token.text == "macro_export")
}

/// The paths of a `use` line, each with its name in the module; none for `*`.
fn tree(tokens: &[Token], before: &[String], found: &mut Vec<(Path, Option<String>)>) {
    let mut path = before.to_vec();
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "{" => {
                let close = closing(tokens, at);
                for part in parts(&tokens[at + 1..close]) {
                    tree(part, &path, found);
                }
                return;
            }
            "*" => return found.push((path, None)),
            "as" => {
                let name = tokens[at + 1].text.clone();
                return found.push((path, Some(name)));
            }
            // `a::{self}` is `a`.
            "self" if !path.is_empty() => {}
            name if tokens[at].is_name() => path.push(name.to_owned()),
            _ => {}
        }
        at += 1;
    }
    if let Some(name) = path.last().cloned() {
        found.push((path, Some(name)));
    }
}

/// What stands between the commas that are in no braces.
fn parts(tokens: &[Token]) -> Vec<&[Token]> {
    let mut parts = Vec::new();
    let (mut begin, mut at) = (0, 0);
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "{" => at = closing(tokens, at),
            "," => {
                parts.push(&tokens[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    parts.push(&tokens[begin..]);
    parts.retain(|part| !part.is_empty());
    parts
}
