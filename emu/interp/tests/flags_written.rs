#![allow(unsafe_code)] // the bench has a part that runs code on the CPU under the test
#![allow(clippy::unwrap_used)] // a test that unwraps fails with the line
//! The index says truly which status flags an instruction writes: no handler changes another, on random operands.
//!
//! Not responsible for: what they are written to (`host_integer`, `host_float`).

mod bench;

use bench::{Bench, Ended, Guest, Random};
use gemel_interp::isa;
use gemel_x86::CpuModel;
use iced_x86::{Code, FlowControl, Mnemonic};
use std::collections::BTreeSet;

/// Forms that leave the machine of this bench: stack, system and string instructions, and state that must be prepared.
fn stays_inside(code: Code) -> bool {
    use Mnemonic::*;
    let form = code.op_code();
    form.mode64()
        && form.cpl3()
        && code.flow_control() == FlowControl::Next
        && !matches!(
            code.mnemonic(),
            Push | Pop
                | Pushfq
                | Popfq
                | Pushf
                | Popf
                | Enter
                | Leave
                | Int1
                | In
                | Out
                | Xlatb
                | Monitor
                | Mwait
                | Hlt
        )
}

#[test]
fn no_handler_changes_a_flag_that_the_index_does_not_list() {
    let mut guest = Guest::of_model(CpuModel::x86_64_v3());
    let mut random = Random(0x5eed_0003);
    let mut seen = BTreeSet::new();
    let mut wrong = BTreeSet::new();
    for code in Code::values().filter(|code| stays_inside(*code)) {
        let mnemonic = code.mnemonic();
        let Some(entry) = isa::entry(mnemonic).or_else(|| isa::floating_index::entry(mnemonic)) else {
            continue;
        };
        for _ in 0..60 {
            let Some(bytes) = bench::instance(code, &mut random) else { break };
            let mut bench = Bench::random(&mut random, false);
            let before = bench.flags;
            if guest.run_or_fault(&bytes, &mut bench) == Ended::Retired {
                seen.insert(format!("{mnemonic:?}"));
                if (before ^ bench.flags) & 0x8d5 & !entry.written != 0 {
                    wrong.insert(format!(
                        "{mnemonic:?}: {:x}",
                        (before ^ bench.flags) & 0x8d5 & !entry.written
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    for mnemonic in
        ["Add", "Shld", "Bextr", "Tzcnt", "Imul", "Div", "Bts", "Ptest", "Fcomi", "Rdrand", "Sahf"]
    {
        assert!(seen.contains(mnemonic), "{mnemonic} was not tried");
    }
    assert!(seen.len() > 500, "only {} mnemonics", seen.len());
}
