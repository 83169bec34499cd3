//! The README shows what is there.

const README: &str = include_str!("../README.md");

#[test]
fn the_program_it_shows_is_the_example_that_runs() {
    let hello = include_str!("../examples/hello.rs");
    assert!(README.contains(hello), "README.md shows examples/hello.rs as it is");
    assert!(hello.lines().count() <= 25, "in 25 lines");
}

#[test]
fn its_two_commands_are_there_to_the_letter() {
    for command in ["cargo run --release --example checksum", "cargo test"] {
        assert!(README.lines().any(|line| line == command), "{command}");
    }
}
