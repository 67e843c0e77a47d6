#![allow(clippy::unwrap_used)] // a test that unwraps fails with the line
//! `gemel` as a user meets it: complaints, exit codes, figures, with guests of a few instructions.
//!
//! Not responsible for: whole operating systems (`tests/system`).

mod accel;
mod bad_input;
mod check;
mod checker;
mod compare;
mod coprocessor;
mod endings;
mod figures;
mod operations;
mod pair;
mod standby;
mod trust;

use gemel_log::{Entry, Item, LogReader, LogWriter};
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Says what a test leaves out, and why.
fn skipped(why: &str) {
    // What macros print is shown of tests that fail only.
    std::io::stderr().write_all(format!("skipped: {why}\n").as_bytes()).unwrap();
}

/// Runs `gemel` in a folder.
fn gemel(folder: &Path, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gemel"))
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// A multiboot kernel that runs `code` in 32-bit protected mode.
fn kernel(code: &[u8]) -> Vec<u8> {
    const MAGIC: u32 = 0x1bad_b002;
    const ADDRESSES: u32 = 1 << 16;
    const START: u32 = 0x10_0000;
    let sum = 0u32.wrapping_sub(MAGIC).wrapping_sub(ADDRESSES);
    let end = START + 32 + code.len() as u32;
    let words = [MAGIC, ADDRESSES, sum, START, START, end, end, START + 32];
    let mut file: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    file.extend_from_slice(code);
    file
}

/// jmp $
const SPIN: &[u8] = &[0xeb, 0xfe];

/// A guest that spins, recorded for 5,500 instructions.
fn record_spin(folder: &Path) {
    std::fs::write(folder.join("kernel"), kernel(SPIN)).unwrap();
    let made = gemel(
        folder,
        "record -o run.gml --kernel kernel --serial null --clock free --epoch 1000 --stop-after 5500 -m 8",
    );
    assert!(made.status.success(), "{made:?}");
}

/// Runs with `--json` and gives the exit code and the figures.
fn figures(folder: &Path, arguments: &str) -> (Option<i32>, Value) {
    let output = gemel(folder, &format!("{arguments} --json"));
    let figures = serde_json::from_slice(&output.stdout);
    (output.status.code(), figures.unwrap_or_else(|e| panic!("{arguments}: {e}: {output:?}")))
}

/// Writes a log anew, with other entries in the place of each.
fn edit(folder: &Path, from: &str, to: &str, mut change: impl FnMut(&mut Entry) -> Vec<Entry>) {
    let mut reader = LogReader::new(File::open(folder.join(from)).unwrap()).unwrap();
    let mut writer = LogWriter::new(File::create(folder.join(to)).unwrap(), reader.header()).unwrap();
    while let Item::Entry(mut entry) = reader.next_item().unwrap() {
        change(&mut entry).iter().for_each(|entry| writer.append(entry).unwrap());
    }
}
