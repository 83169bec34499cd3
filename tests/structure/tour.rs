//! The reading tour of `ARCHITECTURE.md`: a table under the line `<!-- tour -->`, with a row for each stop:
//!
//! `| n | file | function | what happens |`
//!
//! The file is relative to `src/`; the function is `Type::name`, or `name` alone for one outside of any `impl`. The body
//! of a stop's function names the function of the next stop. Where data is handed on instead, the cell of the function
//! says by what: `` `Type::name` -> `Inbox` ``. Both functions name that type or field, or are functions of that type.

use std::collections::BTreeSet;

use crate::functions::{Function, functions};
use crate::source::Source;

#[derive(Debug, PartialEq, Eq)]
pub struct Stop {
    pub file: String,
    pub function: String,
    /// What carries the data to the next stop, if that is not a call.
    pub hands_on: Option<String>,
}

pub struct Limits {
    pub least_stops: usize,
    pub most_files: usize,
    pub most_lines: usize,
}

/// How many rows the table has that follows this line.
pub fn rows(page: &str, mark: &str) -> usize {
    let after = page.split_once(mark).map_or("", |(_, after)| after);
    let lines = after.lines().skip_while(|line| !line.starts_with('|'));
    lines.take_while(|line| line.starts_with('|')).count().saturating_sub(2)
}

/// The rows of the table; an error says which row cannot be read.
pub fn stops(page: &str) -> Result<Vec<Stop>, String> {
    let (_, after) = page.split_once("<!-- tour -->").ok_or("there is no line `<!-- tour -->`")?;
    let lines = after.lines().map(str::trim).skip_while(|line| !line.starts_with('|'));
    let rows = lines.take_while(|line| line.starts_with('|')).skip(2);
    let mut stops = Vec::new();
    for (n, row) in rows.enumerate() {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let &[number, file, function, _] = cells.as_slice() else {
            return Err(format!("this row has not four cells: {row}"));
        };
        if number != (n + 1).to_string() {
            return Err(format!("this row is not number {}: {row}", n + 1));
        }
        let name = |cell: &str| cell.trim().trim_matches('`').to_owned();
        let (function, hands_on) = match function.split_once("->") {
            Some((function, by)) => (name(function), Some(name(by))),
            None => (name(function), None),
        };
        stops.push(Stop { file: name(file), function, hands_on });
    }
    Ok(stops)
}

/// What is wrong with the tour.
pub fn wrong(stops: &[Stop], sources: &[Source], limits: &Limits) -> Vec<String> {
    let mut wrong = Vec::new();
    let files: BTreeSet<&str> = stops.iter().map(|stop| stop.file.as_str()).collect();
    if stops.len() < limits.least_stops {
        wrong.push(format!("the tour has {} stops, {} at least", stops.len(), limits.least_stops));
    }
    if files.len() > limits.most_files {
        wrong.push(format!("the tour has {} files, {} at most", files.len(), limits.most_files));
    }
    let mut found = Vec::new();
    for (n, stop) in stops.iter().enumerate() {
        match find(stop, sources) {
            Ok(function) => found.push(Some(function)),
            Err(why) => {
                wrong.push(format!("stop {}: {why}", n + 1));
                found.push(None);
            }
        }
    }
    let lines = lines(found.iter().flatten());
    if lines > limits.most_lines {
        wrong.push(format!("the functions of the tour have {lines} lines, {} at most", limits.most_lines));
    }
    for (n, pair) in found.windows(2).enumerate() {
        if let [Some(here), Some(next)] = pair {
            wrong.extend(unlinked(&stops[n], here, next).map(|why| format!("stop {}: {why}", n + 1)));
        }
    }
    wrong
}

/// How many lines the functions have together.
fn lines<'a>(found: impl Iterator<Item = &'a (&'a Source, Function)>) -> usize {
    let mut seen = BTreeSet::new();
    let first = found.filter(|(source, function)| seen.insert((&source.path, function.first_line)));
    first.map(|(_, function)| function.lines()).sum()
}

/// The tour in numbers.
pub fn size(stops: &[Stop], sources: &[Source]) -> String {
    let found: Vec<_> = stops.iter().filter_map(|stop| find(stop, sources).ok()).collect();
    let files: BTreeSet<&str> = stops.iter().map(|stop| stop.file.as_str()).collect();
    format!("the reading tour has {} stops in {} files, {} lines", stops.len(), files.len(), lines(found.iter()))
}

fn find<'a>(stop: &Stop, sources: &'a [Source]) -> Result<(&'a Source, Function), String> {
    let source = sources.iter().find(|source| source.path == stop.file);
    let source = source.ok_or_else(|| format!("there is no file src/{}", stop.file))?;
    let mut found = functions(source);
    found.retain(|function| function.full_name() == stop.function);
    match found.len() {
        1 => Ok((source, found.remove(0))),
        n => Err(format!("src/{} has {n} functions {}, not one", stop.file, stop.function)),
    }
}

/// Why this stop does not lead to the next.
fn unlinked(stop: &Stop, here: &(&Source, Function), next: &(&Source, Function)) -> Option<String> {
    let (source, function) = here;
    let (next_source, next_function) = next;
    let Some(by) = &stop.hands_on else {
        let body = &source.bare[function.body.clone()];
        let named = says(body, &next_function.name);
        return (!named).then(|| format!("the body of {} does not name {}", function.full_name(), next_function.name));
    };
    let names = |source: &Source, function: &Function| {
        says(&source.bare[function.whole.clone()], by) || function.of.as_ref() == Some(by)
    };
    if !names(source, function) {
        return Some(format!("{} does not name {by}, by which it hands on", function.full_name()));
    }
    let why = || format!("{by} is handed on, and {} does not name it", next_function.full_name());
    (!names(next_source, next_function)).then(why)
}

fn says(text: &str, name: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
}

#[cfg(test)]
mod proof {
    use super::*;

    const PAGE: &str = "# Tour\n<!-- tour -->\n\nWords.\n\n| n | file | function | what happens |\n| --- | --- | --- | --- |\n\
        | 1 | `kiln.rs` | `Kiln::enqueue` | stores it |\n| 2 | `turn.rs` | `turn` -> `Inbox` | claims it |\n\
        | 3 | `inbox.rs` | `Inbox::next` | takes it |\n\nMore.\n| 4 | no | row | |\n";
    const LIMITS: Limits = Limits { least_stops: 3, most_files: 3, most_lines: 6 };

    fn sources() -> Vec<Source> {
        let files = [
            ("kiln.rs", "impl Kiln {\nfn enqueue(&self) {\n    turn(1)\n}\n}\nfn enqueue() {}"),
            ("turn.rs", "fn turn(inbox: &Inbox) {\n}"),
            ("inbox.rs", "impl Inbox { fn next(&self) {} }"),
        ];
        files.map(|(path, text)| Source::new(path, text)).into()
    }

    fn checked(page: &str, limits: &Limits) -> Vec<String> {
        wrong(&stops(page).unwrap(), &sources(), limits)
    }

    #[test]
    fn a_tour_that_leads_through_is_accepted() {
        assert_eq!(
            stops(PAGE).unwrap()[1],
            Stop { file: "turn.rs".into(), function: "turn".into(), hands_on: Some("Inbox".into()) }
        );
        assert_eq!(checked(PAGE, &LIMITS), Vec::<String>::new());
    }

    #[test]
    fn a_tour_that_is_too_short_or_too_long_is_refused() {
        let tight = Limits { least_stops: 4, most_files: 2, most_lines: 5 };
        let expected = [
            "the tour has 3 stops, 4 at least",
            "the tour has 3 files, 2 at most",
            "the functions of the tour have 6 lines, 5 at most",
        ];
        assert_eq!(checked(PAGE, &tight), expected);
    }

    #[test]
    fn a_stop_that_is_not_there_is_refused() {
        let gone = PAGE
            .replace("inbox.rs", "gone.rs")
            .replace("`turn`", "`turn_back`")
            .replace("Kiln::enqueue", "Other::enqueue");
        let expected = [
            "stop 1: src/kiln.rs has 0 functions Other::enqueue, not one",
            "stop 2: src/turn.rs has 0 functions turn_back, not one",
            "stop 3: there is no file src/gone.rs",
        ];
        assert_eq!(checked(&gone, &LIMITS), expected);
    }

    #[test]
    fn a_stop_that_does_not_lead_to_the_next_is_refused() {
        let called = PAGE.replace(" -> `Inbox`", "");
        assert_eq!(checked(&called, &LIMITS), ["stop 2: the body of turn does not name next"]);
        let other = PAGE.replace("-> `Inbox`", "-> `Outbox`");
        assert_eq!(checked(&other, &LIMITS), ["stop 2: turn does not name Outbox, by which it hands on"]);
        let early = PAGE.replace("`Kiln::enqueue`", "`Kiln::enqueue` -> `turn`");
        assert_eq!(checked(&early, &LIMITS), Vec::<String>::new());
        let lost = PAGE.replace("-> `Inbox`", "-> `inbox`");
        assert_eq!(checked(&lost, &LIMITS), ["stop 2: inbox is handed on, and Inbox::next does not name it"]);
    }

    #[test]
    fn rows_are_counted() {
        assert_eq!((rows(PAGE, "<!-- tour -->"), rows(PAGE, "<!-- gone -->")), (3, 0));
    }

    #[test]
    fn a_table_that_cannot_be_read_is_refused() {
        assert!(stops("no table").unwrap_err().contains("<!-- tour -->"));
        assert!(stops(&PAGE.replace("| 2 |", "| 5 |")).unwrap_err().contains("not number 2"));
        assert!(stops(&PAGE.replace("| stores it |", "|")).unwrap_err().contains("four cells"));
    }
}
