//! The guide says what is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Name and text of each file in a folder, and below it, whose name ends so.
fn files(folder: &str, end: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            found.extend(files(&format!("{folder}/{name}"), end));
        } else if let Some(name) = name.strip_suffix(end) {
            found.push((name.to_owned(), fs::read_to_string(&path).unwrap()));
        }
    }
    found.sort();
    found
}

fn pages() -> Vec<(String, String)> {
    let pages = files("src/guide", ".md");
    assert!(pages.len() >= 15, "the pages are where they are looked for");
    pages
}

/// What stands between these two, wherever they stand in a line.
fn between<'a>(text: &'a str, start: &str, end: &str) -> Vec<&'a str> {
    let starts = text.match_indices(start).map(|(at, _)| &text[at + start.len()..]);
    starts.filter_map(|rest| rest.split_once(end)).map(|(name, _)| name).filter(|name| !name.contains('\n')).collect()
}

#[test]
fn every_page_says_first_and_in_a_sentence_what_it_is_for() {
    for (name, text) in pages() {
        let first = text.split("\n\n").next().unwrap().replace('\n', " ");
        assert!(first.starts_with("For ") && first.ends_with('.'), "{name} begins with {first:?}");
        assert_eq!(first.matches(". ").count(), 0, "{name}: in one sentence");
    }
}

#[test]
fn every_page_is_in_the_module_in_its_table_on_the_front_page_and_in_the_readme() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let (module, front, readme) = (read("src/guide/mod.rs"), read("src/lib.rs"), read("README.md"));
    for (name, _) in pages() {
        assert!(module.contains(&format!("include_str!(\"{name}.md\")]\n")), "{name} is in the module");
        assert!(module.contains(&format!("[{name}]")), "{name} is in the table of the module");
        assert!(front.contains(&format!("(guide::{name})")), "{name} is on the front page");
        assert!(readme.contains(&format!("(src/guide/{name}.md)")), "{name} is in the README");
    }
}

#[test]
fn every_example_is_named_in_the_guide_and_every_one_that_is_named_is_there() {
    let there: BTreeSet<String> = files("examples", ".rs").into_iter().map(|(name, _)| name).collect();
    let pages = pages();
    let named = |example: &&String| pages.iter().any(|(_, text)| text.contains(&format!("`{example}`")));
    let unnamed: Vec<&String> = there.iter().filter(|example| !named(example)).collect();
    assert!(unnamed.is_empty(), "no page names {unnamed:?}");
    for (page, text) in &pages {
        for named in between(text, "xample `", "`").into_iter().chain(between(text, "--example ", "`")) {
            assert!(there.contains(named), "{page} names {named}, which is not among {there:?}");
        }
    }
}

#[test]
fn every_line_of_what_happens_when_is_shown_by_a_test() {
    let (_, text) = pages().into_iter().find(|(name, _)| name == "reliability").unwrap();
    let tests = files("tests", ".rs").into_iter().chain(files("src", ".rs"));
    let tests: String = tests.map(|(_, text)| text).collect();
    let (told, rest) = text.split_once("# Not promised").unwrap();
    let notes: BTreeSet<&str> = rest.lines().filter_map(|line| line.strip_prefix("[^")?.split(']').next()).collect();
    let mut used: BTreeSet<&str> = between(rest, " [^", "]").into_iter().collect();
    let rows =
        told.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| when") && !line.contains("---"));
    for row in rows {
        let cited = between(row, "[^", "]");
        assert!(!cited.is_empty(), "no test is named for: {row}");
        used.extend(cited);
    }
    assert!(used.len() > 30 && used == notes, "notes without a line: {:?}", notes.difference(&used));
    for note in rest.lines().filter(|line| line.starts_with("[^")) {
        let name = between(note, "`", "`")[0];
        assert!(tests.contains(&format!("fn {name}()")), "no test is called {name}");
    }
}
