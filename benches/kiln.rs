//! How fast kiln is, against what SQLite allows: `cargo bench`, `cargo bench -- W1 W4`, `cargo bench -- --full`.
//!
//! Each row runs kiln and `raw` (hand-written statements for the same work, see raw.rs) in turns on fresh files of the
//! same disk, at equal synchronous settings, and judges the median of the ratios of the turns.

mod figures;
mod machine;
mod measure;
mod ours;
mod raw;
mod workloads;

use std::process::ExitCode;

use measure::Bench;

const USAGE: &str = "\
usage: cargo bench -- [ROW ...] [--quick | --full] [--rounds N] [--plain]

  ROW         W1 to W11, or checksum (default: all)
  --quick     all rows within 3 minutes (default)
  --full      longer runs, and more of them
  --rounds N  how many turns each side takes
  --plain     kiln alone, for compare.sh: a line for each of its figures, with tabs between the figure's name, its median,
              its unit, and the difference from which on two of them are told apart (0: any; -: not judged)
  --count ROW N
              does the work of W1, W3, W4, W5, W4-one (limit 1), W11-unique, W11-recorded, raw-W1, raw-W4 or raw-W4-one for
              N jobs and says nothing: for instructions.sh

KILN_BENCH_DIR is the folder for the files; it must not be a tmpfs. --features tracing adds a line to W11.
";

fn main() -> ExitCode {
    if workloads::child() {
        return ExitCode::SUCCESS;
    }
    let mut rows = Vec::new();
    let (mut full, mut plain, mut rounds) = (false, false, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            // Given by cargo.
            "--bench" | "--quick" => {}
            "--full" => full = true,
            "--plain" => plain = true,
            "--rounds" => match args.next().and_then(|number| number.parse().ok()).filter(|number| *number > 0) {
                Some(number) => rounds = Some(number),
                None => return misused("--rounds takes a number from 1 on"),
            },
            "--count" => match (args.next(), args.next().and_then(|number| number.parse().ok())) {
                (Some(row), Some(jobs)) => return workloads::count(&row, jobs),
                _ => return misused("--count takes a row and a number of jobs"),
            },
            "-h" | "--help" => {
                print!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            row => match workloads::ALL.iter().find(|(name, _)| name.eq_ignore_ascii_case(row)) {
                Some((name, _)) => rows.push(*name),
                None => return misused(&format!("unknown row or option {row:?}")),
            },
        }
    }
    let mut bench = Bench::new(full, plain, rounds);
    if !plain {
        machine::describe(bench.folder());
        bench.head();
    }
    for (name, run) in workloads::ALL {
        if rows.is_empty() || rows.contains(name) {
            run(&mut bench);
        }
    }
    if !plain {
        bench.foot();
    }
    ExitCode::SUCCESS
}

fn misused(why: &str) -> ExitCode {
    eprintln!("{why}\n\n{USAGE}");
    ExitCode::from(2)
}
