//! The reader of names, on small sources.

use super::*;

fn arrows(files: &[(&str, &str)]) -> Vec<String> {
    let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
    let names = read(&sources);
    assert_eq!(names.unknown, Vec::<String>::new());
    names.arrows.iter().map(|arrow| format!("{} -> {}: {}", arrow.from, arrow.to, arrow.name)).collect()
}

const LIB: (&str, &str) = ("lib.rs", "mod error; mod job; mod store; pub use error::{Error, Result as Answer};");
const ERROR: (&str, &str) = ("error.rs", "pub struct Error; pub type Result = (); pub fn failed() {}");
const JOB: (&str, &str) =
    ("job/mod.rs", "mod state; mod ack; pub use ack::Ack; pub(crate) use self::state::{State as Where, *};");
const STATE: (&str, &str) =
    ("job/state.rs", "pub enum State { A } pub const ALL: [State; 1] = [State::A]; macro_rules! table { () => {} }");

#[test]
fn a_name_is_followed_to_the_file_that_defines_it() {
    let ack = (
        "job/ack.rs",
        "use super::Where; use crate::{Error, job::{self as j, state::{self, ALL}}};\n\
        pub struct Ack(Where); fn f() -> crate::Answer { use std::fmt; j::ALL; Self::x(); fmt::x() }",
    );
    let store = (
        "store.rs",
        "use crate::job;\nfn f(x: job::Ack) { let y: crate::job::Where = job::state::State::A; crate::error::failed() }",
    );
    let found = arrows(&[LIB, ERROR, JOB, STATE, ack, store]);
    let expected = [
        "job/ack.rs -> error.rs: crate::Answer",
        "job/ack.rs -> error.rs: crate::Error",
        "job/ack.rs -> job/state.rs: crate::job::state",
        "job/ack.rs -> job/state.rs: crate::job::state::ALL",
        "job/ack.rs -> job/state.rs: j::ALL",
        "job/ack.rs -> job/state.rs: super::Where",
        "store.rs -> error.rs: crate::error::failed",
        "store.rs -> job/ack.rs: job::Ack",
        "store.rs -> job/state.rs: crate::job::Where",
        "store.rs -> job/state.rs: job::state::State::A",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_name_that_mod_rs_defines_is_an_arrow_to_mod_rs() {
    let found = arrows(&[
        ("lib.rs", "mod a;"),
        ("a/mod.rs", "mod b; use b::B; pub struct A(B);"),
        ("a/b.rs", "pub struct B(super::A);"),
    ]);
    assert_eq!(found, ["a/b.rs -> a/mod.rs: super::A", "a/mod.rs -> a/b.rs: b::B"]);
}

#[test]
fn a_re_export_counts_only_where_it_is_used() {
    let face = ("a/mod.rs", "mod b; pub use b::B; pub(super) use b::C;");
    let b = ("a/b.rs", "pub struct B; pub struct C;");
    assert_eq!(arrows(&[("lib.rs", "mod a;"), face, b]), Vec::<String>::new());
    let user = ("a/mod.rs", "mod b; pub use b::B; pub use b::C; fn f(_: C) {}");
    assert_eq!(arrows(&[("lib.rs", "mod a;"), user, b]), ["a/mod.rs -> a/b.rs: b::C"]);
}

#[test]
fn globs_modules_within_a_file_and_thread_locals_are_understood() {
    let found = arrows(&[
        ("lib.rs", "mod a; mod b;"),
        (
            "a.rs",
            "pub fn one() {} pub fn two() {} thread_local! { pub static X: u8 = 1; } pub mod linux { use super::*; pub fn three() { super::one() } }",
        ),
        ("b.rs", "use crate::a::*; fn f() { two(); super::a::X; crate::a::linux::three() }"),
    ]);
    let expected = ["crate::a::linux::three", "crate::a::two", "super::a::X"];
    let expected = expected.map(|name| format!("b.rs -> a.rs: {name}"));
    assert_eq!(found, expected);
}

#[test]
fn an_exported_macro_is_an_item_of_the_root() {
    let a = (
        "a.rs",
        "fn f() {}\n#[doc(hidden)]\n#[macro_export]\nmacro_rules! one { () => {} }\nmacro_rules! two { () => {} }",
    );
    let b = ("b.rs", "macro_rules! b { () => { $crate::one!() } } fn f() { crate::one!() }");
    assert_eq!(arrows(&[("lib.rs", "mod a; mod b;"), a, b]), ["b.rs -> a.rs: crate::one"]);
}

#[test]
fn comments_strings_and_visibilities_draw_nothing() {
    let b =
        ("b.rs", "//! [crate::a::one]\npub(in crate::a) fn f() -> &'static str { \"crate::a::one\" } // crate::a::one");
    assert_eq!(arrows(&[("lib.rs", "mod a; mod b;"), ("a.rs", "pub fn one() {}"), b]), Vec::<String>::new());
}

#[test]
fn a_path_that_leads_nowhere_is_reported() {
    let files = [("lib.rs", "mod a;"), ("a.rs", "use crate::gone::X;\nfn f() { super::lost() }")];
    let names = read(&files.map(|(path, text)| Source::new(path, text)));
    assert_eq!(names.unknown, ["a.rs:1: crate::gone::X is not found", "a.rs:2: super::lost is not found"]);
}

#[test]
fn a_face_has_nothing_but_mod_and_use_lines() {
    let files = [("lib.rs", "#![forbid(unsafe_code)]\n//! Words.\nmod a; pub use a::X;"), ("a.rs", "pub struct X;")];
    let names = read(&files.map(|(path, text)| Source::new(path, text)));
    assert_eq!(names.faces.into_iter().collect::<Vec<_>>(), ["lib.rs"]);
}

#[test]
fn a_parents_parent_and_a_path_after_two_dots_are_followed() {
    let files = [
        ("lib.rs", "mod a; mod b;"),
        ("a/mod.rs", "mod c;"),
        ("a/c.rs", "use super::super::b::X; fn f(x: X) -> X { X { y: 1, ..crate::b::NONE } }"),
        ("b.rs", "pub struct X { y: u8 } pub const NONE: X = X { y: 0 };"),
    ];
    assert_eq!(arrows(&files), ["a/c.rs -> b.rs: crate::b::NONE", "a/c.rs -> b.rs: super::super::b::X"]);
}
