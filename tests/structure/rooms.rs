//! The rooms: which folder stands on which floor, and in which order the files of a folder build on each other.

use std::collections::{BTreeMap, BTreeSet};

use crate::names::{Arrow, Names};

/// The part of a file's path that stands in a folder: a file without its ending, or a folder below. `mod.rs`, and a file
/// `folder.rs` beside the folder, is `mod`.
pub fn entry<'a>(file: &'a str, folder: &str) -> Option<&'a str> {
    let stem = file.strip_suffix(".rs")?;
    if folder.is_empty() {
        return stem.split('/').next();
    }
    if stem == folder {
        return Some("mod");
    }
    stem.strip_prefix(folder)?.strip_prefix('/')?.split('/').next()
}

/// Every folder that holds files, `src` itself left out.
pub fn folders(files: &[String]) -> BTreeSet<String> {
    let mut folders = BTreeSet::new();
    for file in files {
        let mut path = file.as_str();
        while let Some((folder, _)) = path.rsplit_once('/') {
            folders.insert(folder.to_owned());
            path = folder;
        }
    }
    folders
}

/// The arrows between different entries of a folder.
fn within<'a>(names: &'a Names, folder: &str) -> Vec<(&'a str, &'a str, &'a Arrow)> {
    let ends = names.arrows.iter().filter_map(|arrow| {
        let (from, to) = (entry(&arrow.from, folder)?, entry(&arrow.to, folder)?);
        (from != to && from != "lib").then_some((from, to, arrow))
    });
    ends.collect()
}

fn show(arrow: &Arrow) -> String {
    format!("{}:{} uses {} of {}", arrow.from, arrow.line, arrow.name, arrow.to)
}

/// Arrows from a room to a higher floor, and rooms without a floor.
pub fn upward(names: &Names, floors: &[&[&str]]) -> Vec<String> {
    let floor = |room: &str| floors.iter().position(|rooms| rooms.contains(&room));
    let mut found = Vec::new();
    let rooms: BTreeSet<&str> =
        names.files.iter().filter_map(|file| entry(file, "")).filter(|room| *room != "lib").collect();
    found.extend(rooms.iter().filter(|room| floor(room).is_none()).map(|room| format!("{room} has no floor")));
    let listed = floors.iter().flat_map(|rooms| rooms.iter());
    found.extend(listed.filter(|room| !rooms.contains(*room)).map(|room| format!("{room} has a floor and no files")));
    for (from, to, arrow) in within(names, "") {
        if let (Some(here), Some(there)) = (floor(from), floor(to))
            && there > here
        {
            found.push(format!("{}, from floor {} up to floor {}", show(arrow), here + 1, there + 1));
        }
    }
    found
}

/// Arrows that a folder's list forbids: a file uses only those before it. `mod` is the last, unless it is listed.
pub fn against_order(names: &Names, folder: &str, list: &[&str]) -> Vec<String> {
    let place =
        |entry: &str| list.iter().position(|listed| *listed == entry).or((entry == "mod").then_some(list.len()));
    let mut found = Vec::new();
    let entries: BTreeSet<&str> = names.files.iter().filter_map(|file| entry(file, folder)).collect();
    let missing: Vec<&str> = entries.iter().copied().filter(|entry| place(entry).is_none()).collect();
    if !missing.is_empty() {
        found.push(format!("{folder}/: {missing:?} are not in the list; {}", suggested(names, folder)));
    }
    let gone = list.iter().filter(|listed| !entries.contains(*listed));
    found.extend(gone.map(|listed| format!("{folder}/{listed} is in the list and has no file")));
    for (from, to, arrow) in within(names, folder) {
        if place(from).zip(place(to)).is_some_and(|(from, to)| to > from) {
            found.push(format!("{}, which comes later in the list of {folder}/", show(arrow)));
        }
    }
    found
}

/// Folders that have a list and no files.
pub fn unused_lists<'a>(names: &Names, listed: impl Iterator<Item = &'a str>) -> Vec<String> {
    let folders = folders(&names.files);
    listed
        .filter(|folder| !folders.contains(*folder))
        .map(|folder| format!("{folder}/ has a list and no files"))
        .collect()
}

/// Arrows between rooms that are allowed by their floors and forbidden all the same.
pub fn forbidden(names: &Names, pairs: &[(&str, &str)]) -> Vec<String> {
    let all = within(names, "").into_iter();
    all.filter(|(from, to, _)| pairs.contains(&(*from, *to))).map(|(_, _, arrow)| show(arrow)).collect()
}

/// The entries of a folder that reach themselves, circle by circle, with the arrows between them.
pub fn circles(names: &Names, folder: &str) -> Vec<String> {
    let arrows = within(names, folder);
    let reach = reach(&arrows);
    let mut circles = BTreeSet::new();
    for (entry, reached) in reach.iter().filter(|(entry, reached)| reached.contains(*entry)) {
        let circle: BTreeSet<&str> = reached
            .iter()
            .filter(|other| reach.get(*other).is_some_and(|back| back.contains(entry)))
            .copied()
            .collect();
        circles.insert(circle);
    }
    let shown = circles.iter().map(|circle| {
        let mut pairs: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for (_, _, arrow) in arrows.iter().filter(|(from, to, _)| circle.contains(from) && circle.contains(to)) {
            pairs.entry((&arrow.from, &arrow.to)).or_default().push(&arrow.name);
        }
        let pairs = pairs.iter().map(|((from, to), names)| format!("\n      {from} -> {to}: {}", names.join(", ")));
        let entries: Vec<&str> = circle.iter().copied().collect();
        let folder = if folder.is_empty() { "src" } else { folder };
        format!("{folder}/: a circle of {}: {}{}", entries.len(), entries.join(", "), pairs.collect::<String>())
    });
    shown.collect()
}

/// What each entry uses, over any number of arrows.
fn reach<'a>(arrows: &[(&'a str, &'a str, &Arrow)]) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut reach: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (from, to, _) in arrows {
        reach.entry(from).or_default().insert(to);
    }
    loop {
        let mut grown = false;
        for entry in reach.keys().copied().collect::<Vec<_>>() {
            let more: BTreeSet<&str> = reach[entry].iter().filter_map(|to| reach.get(to)).flatten().copied().collect();
            let reached = reach.get_mut(entry).unwrap();
            let before = reached.len();
            reached.extend(more);
            grown |= reached.len() > before;
        }
        if !grown {
            return reach;
        }
    }
}

/// An order in which a folder's list would hold; those that stand in a circle come last.
pub fn suggested(names: &Names, folder: &str) -> String {
    let arrows = within(names, folder);
    let mut left: BTreeSet<&str> = names.files.iter().filter_map(|file| entry(file, folder)).collect();
    left.remove("mod");
    let mut order = Vec::new();
    loop {
        let waits = |entry: &str| arrows.iter().any(|(from, to, _)| *from == entry && left.contains(to));
        let Some(next) = left.iter().copied().find(|entry| !waits(entry)) else { break };
        left.remove(next);
        order.push(next);
    }
    let rest: Vec<&str> = left.into_iter().collect();
    let circle = if rest.is_empty() { String::new() } else { format!(", then in no order {rest:?}") };
    format!("this order holds: {order:?}{circle}")
}

#[cfg(test)]
mod proof {
    use super::*;

    fn names(files: &[&str], arrows: &[(&str, &str)]) -> Names {
        let arrow = |(from, to): &(&str, &str)| Arrow {
            from: (*from).to_owned(),
            to: (*to).to_owned(),
            name: "X".into(),
            line: 3,
        };
        Names {
            files: files.iter().map(|file| (*file).to_owned()).collect(),
            arrows: arrows.iter().map(arrow).collect(),
            faces: BTreeSet::new(),
            unknown: Vec::new(),
        }
    }

    #[test]
    fn an_arrow_to_a_higher_floor_is_found() {
        let found = names(
            &["lib.rs", "error.rs", "job/mod.rs", "job/a.rs", "store.rs"],
            &[("job/a.rs", "error.rs"), ("job/a.rs", "store.rs"), ("job/a.rs", "job/mod.rs"), ("lib.rs", "store.rs")],
        );
        let floors: [&[&str]; 3] = [&["error"], &["job"], &["store"]];
        assert_eq!(upward(&found, &floors), ["job/a.rs:3 uses X of store.rs, from floor 2 up to floor 3"]);
        let floors: [&[&str]; 2] = [&["error", "job"], &["house"]];
        assert_eq!(upward(&found, &floors), ["store has no floor", "house has a floor and no files"]);
        assert_eq!(forbidden(&found, &[("job", "store"), ("store", "job")]), ["job/a.rs:3 uses X of store.rs"]);
    }

    #[test]
    fn an_arrow_against_the_list_of_a_folder_is_found() {
        let files = ["job/mod.rs", "job/a.rs", "job/b.rs", "job/cron/mod.rs", "job/cron/c.rs", "other.rs"];
        let found = names(
            &files,
            &[
                ("job/b.rs", "job/cron/c.rs"),
                ("job/a.rs", "job/mod.rs"),
                ("job/b.rs", "other.rs"),
                ("job/cron/c.rs", "job/a.rs"),
            ],
        );
        let shown = against_order(&found, "job", &["a", "b", "cron"]);
        let expected = [
            "job/b.rs:3 uses X of job/cron/c.rs, which comes later in the list of job/",
            "job/a.rs:3 uses X of job/mod.rs, which comes later in the list of job/",
        ];
        assert_eq!(shown, expected);
        let shown = against_order(&found, "job", &["mod", "a", "b", "gone"]);
        let expected = [
            "job/: [\"cron\"] are not in the list; this order holds: [\"a\", \"cron\", \"b\"]",
            "job/gone is in the list and has no file",
        ];
        assert_eq!(shown, expected);
        assert_eq!(unused_lists(&found, ["job", "lost"].into_iter()), ["lost/ has a list and no files"]);
        assert_eq!(folders(&found.files).into_iter().collect::<Vec<_>>(), ["job", "job/cron"]);
    }

    #[test]
    fn a_circle_is_found_and_what_leads_to_it_is_not() {
        let found = names(
            &["a.rs", "b.rs", "c/x.rs", "d.rs"],
            &[("a.rs", "b.rs"), ("b.rs", "c/x.rs"), ("c/x.rs", "b.rs"), ("d.rs", "a.rs")],
        );
        let shown = circles(&found, "");
        assert_eq!(shown.len(), 1);
        assert!(shown[0].starts_with("src/: a circle of 2: b, c\n      b.rs -> c/x.rs: X\n"), "{}", shown[0]);
        assert_eq!(circles(&names(&["a.rs", "b.rs"], &[("a.rs", "b.rs")]), ""), Vec::<String>::new());
    }
}
