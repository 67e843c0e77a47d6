#![allow(unsafe_code)] // the bench has a part that runs code on the CPU under the test
#![allow(clippy::unwrap_used)] // a test that unwraps fails with the line
//! The index says truly which status flags an instruction writes: no handler changes another, on random operands. And the
//! table of undefined results is what the handlers do: none has a rule of its own.
//!
//! Not responsible for: what silicon does (`host_integer`, `host_float`, and `tests/isa`, which also measures the table).

mod bench;

use bench::{Bench, Ended, Guest, Random};
use gemel_interp::isa;
use gemel_interp::isa::undefined::{self, Element};
use gemel_x86::CpuModel;
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};
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

/// A register's value among RAX, RCX, RDX.
fn value(general: &[u64; 3], r: Register) -> u64 {
    let whole = general[r.full_register().number()];
    let high = matches!(r, Register::AH | Register::CH | Register::DH);
    (if high { whole >> 8 } else { whole }) & u64::MAX >> (64 - 8 * r.size())
}

/// An execution as the table sees it; `None` for those with a memory operand.
fn execution(i: &Instruction, before: &Bench, after: &Bench) -> Option<undefined::Case> {
    if (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory) {
        return None;
    }
    let operand = |n: u32| match i.op_kind(n) {
        OpKind::Register => value(&before.general, i.op_register(n)),
        _ => i.immediate(n),
    };
    let destination = i.op0_register();
    let width = destination.size() as u32 * 8;
    let last = operand(i.op_count() - 1);
    Some(undefined::Case {
        width,
        a: value(&before.general, destination),
        b: if i.op_count() > 1 { operand(1) } else { last },
        count: last as u32 & if width == 64 { 63 } else { 31 },
        before: before.flags & 0x8d5,
        result: value(&after.general, destination),
        after: after.flags,
    })
}

#[test]
fn handlers_do_what_the_table_of_undefined_results_says() {
    let mut guest = Guest::of_model(CpuModel::x86_64_v3());
    let mut random = Random(0x5eed_0004);
    // Decimal arithmetic is not there in 64-bit mode; `system` has it.
    let decimal = ["Daa", "Das", "Aaa", "Aas", "Aam", "Aad"];
    for entry in undefined::TABLE {
        for mnemonic in entry.mnemonics {
            let mut cases = 0;
            let codes: Vec<_> =
                Code::values().filter(|c| c.mnemonic() == *mnemonic && stays_inside(*c)).collect();
            for code in codes.iter().cycle().take(3000) {
                let Some(bytes) = bench::instance(*code, &mut random) else { continue };
                let before = Bench::random(&mut random, false);
                let mut after = before.clone();
                if guest.run_or_fault(&bytes, &mut after) != Ended::Retired {
                    continue;
                }
                let i = Decoder::new(64, &bytes, DecoderOptions::NONE).decode();
                let Some(case) = execution(&i, &before, &after).filter(|case| (entry.applies)(case)) else {
                    continue;
                };
                let left = match entry.element {
                    Element::Flags(flags) => case.after & flags,
                    Element::Destination => case.result,
                };
                assert_eq!(left, entry.predict(&case), "{bytes:02x?} {case:x?} {}", entry.when);
                cases += 1;
            }
            assert!(
                cases > 10 || decimal.contains(&format!("{mnemonic:?}").as_str()),
                "{mnemonic:?} {}: {cases}",
                entry.when
            );
        }
    }
}
