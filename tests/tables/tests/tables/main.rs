//! Segmentation, interrupts, far transfers, task switches, paging, debug registers: what the manuals' operation sections say, on small
//! guests put together by hand. Each case asks the interpreter, and a hardware KVM where there is one: a table that silicon contradicts is wrong.
//!
//! Not responsible for: integer results and floats (`tests/isa`), whole guests (`tests/system`).
//!
//! `GEMEL_TABLES_OPINION=1` asks whatever KVM there is and tells what it says; an emulator's answer is an opinion, and fails nothing.
#![allow(clippy::unwrap_used)] // tests

mod board;
mod case;
mod debug;
mod decimal;
mod exits;
mod float_error;
mod long;
mod paging;
mod protected;
mod real;
mod registers;
mod silicon;
mod task;
mod v86;

use case::{Asked, Case, ask};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::process::ExitCode;

/// What silicon can be asked.
const TABLES: &[(&str, &[Case])] = &[
    ("debug", debug::CASES),
    ("decimal", decimal::CASES),
    ("long", long::CASES),
    ("paging", paging::CASES),
    ("protected", protected::CASES),
    ("real", real::CASES),
    ("registers", registers::CASES),
    ("task", task::CASES),
    ("v86", v86::CASES),
];

/// What only an engine of ours has: counts, and the wires of a PC's board.
const OURS: &[(&str, &[Case])] = &[("exits", exits::CASES), ("float_error", float_error::CASES)];

/// Asks one case.
type Run = fn(&'static str, fn()) -> Result<Completion, Failed>;

fn trials(whom: &'static str, tables: &[(&str, &'static [Case])], run: Run) -> Vec<Trial> {
    let cases = tables.iter().flat_map(|(table, cases)| cases.iter().map(move |case| (*table, *case)));
    cases
        .map(|(table, (name, case))| {
            Trial::ignorable_test(format!("{whom}::{table}::{name}"), move || run(name, case))
        })
        .collect()
}

fn main() -> ExitCode {
    let interpreted = |_, case: fn()| {
        ask(Asked::Interpreter, case);
        Ok(Completion::Completed)
    };
    let mut all = trials("interpreter", TABLES, interpreted);
    all.extend(trials("interpreter", OURS, interpreted));
    all.extend(trials("silicon", TABLES, silicon::judge));
    let conclusion = libtest_mimic::run(&Arguments::from_args(), all);
    silicon::summary();
    conclusion.exit_code()
}
